"""Motion modules learn from moved icons, within a denoiser that stays as it is."""

from pathlib import Path

import diffusers
import pytest
import torch
from making import changed, made
from PIL import Image

from sfumato import checkpoint, weights
from sfumato.checkpoint.motion import load_motion
from sfumato.diffusion.predict import prediction_named
from sfumato.edit.motion import MOTIONS
from sfumato.errors import CheckpointError, UsageError
from sfumato.train.context import StepContext
from sfumato.train.loop import train
from sfumato.train.objectives import task
from sfumato.train.objectives.motion import MotionTraining, moving_icons

CPU = torch.device("cpu")


@pytest.fixture
def recipe(tiny_data, tiny_base, tmp_path):
    return made(
        "motion", folder=str(tiny_data), base=str(tiny_base), run=str(tmp_path / "run"), steps=3,
        batch_size=2, warmup_steps=1, ema_decays=(0.5,), precision="float32", learning_rate=1e-2, log_every=1,
        timestep_shift=3.0, heads=2, max_frames=8, frames=4, resolution=32, clips=9, tests=2,
        prompts=("a red square bouncing", "a blue square spinning"),
    )  # fmt: skip


def batch_of(found, step=0):
    return found.batches(StepContext(step, 0, 1, torch.Generator().manual_seed(5 + step)), 2)


def test_it_begins_with_every_frame_as_the_denoiser_draws_it_alone(tiny_base):
    unet = checkpoint.load(tiny_base, dtype=torch.float32).unet
    x, states, t = torch.randn(2, 4, 3, 8, 8), torch.randn(2, 5, 256), torch.tensor([10.0, 900.0])
    with torch.no_grad():
        alone = torch.stack([unet(x[:, :, frame], t, states) for frame in range(3)], dim=2)
        MotionTraining(heads=2).network(unet).attach(unet)
        assert torch.allclose(unet(x, t, states), alone, atol=1e-5)


def test_the_loss_is_the_denoisers_over_all_frames_at_one_level(recipe, tiny_base):
    found = task(recipe, CPU)
    for weight in found.net.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    batch = batch_of(found)
    assert batch.x0.shape == (2, 4, 4, 8, 8)
    loss, _ = found.loss(batch, torch.Generator().manual_seed(6))
    base = checkpoint.load(tiny_base, dtype=torch.float32)
    found.net.attach(base.unet)
    generator, path = torch.Generator().manual_seed(6), base.path()
    u = (torch.rand(2, generator=generator) + torch.arange(2)) / 2
    times = (3 * u / (1 + 2 * u) * (path.last - path.first + 1)).long() + path.first
    eps = torch.randn(batch.x0.shape, generator=generator)
    prediction = prediction_named(base.prediction)
    for row, t in enumerate(times.tolist()):
        level, x0, e = path.level(t), batch.x0[row : row + 1], eps[row : row + 1]
        a, s = torch.tensor(level.a), torch.tensor(level.s)
        answer = base.unet(level.noisy(x0, e), torch.tensor([float(t)]), batch.states[row : row + 1])
        known = ((answer - prediction.target(x0, e, a, s)) ** 2).mean()
        assert torch.allclose(loss[row], known, rtol=1e-3), row


def test_clips_are_encoded_once_and_read_from_their_files_after(recipe, tiny_base):
    first = batch_of(task(recipe, CPU))
    files = sorted(Path(recipe.run, "clips").iterdir())
    written = [file.stat().st_mtime_ns for file in files]
    again = batch_of(task(recipe, CPU))
    assert torch.equal(first.x0, again.x0)
    assert [file.stat().st_mtime_ns for file in sorted(Path(recipe.run, "clips").iterdir())] == written
    base = checkpoint.load(tiny_base, dtype=torch.float32)
    clips = moving_icons(recipe, base, held_out=False, count=9)
    row = int(files[0].stem)
    known = base.vae.scale(base.vae.encode(clips.load(row)).mean).transpose(0, 1)
    assert any(torch.allclose(known, each, atol=5e-3) for each in first.x0)


def test_the_clips_of_a_recipe_show_every_motion_equally_often_and_no_held_out_icon(recipe, tiny_base):
    base = checkpoint.load(tiny_base)
    clips = moving_icons(recipe, base, held_out=False, count=18)
    assert sorted(clip.motion for clip in clips.clips) == sorted([*MOTIONS, *MOTIONS])
    for clip, captions in zip(clips.clips, clips.captions, strict=True):
        label = clips.icons.rows[clip.row].label
        assert label.endswith("square")
        assert all(label in text and any(verb in text for verb in MOTIONS[clip.motion]) for text in captions)
    held = moving_icons(recipe, base, held_out=True, count=4)
    assert {held.icons.rows[clip.row].label.split()[0] for clip in held.clips} == {"thing"}
    assert clips.load(0).shape == (4, 3, 32, 32)


def test_a_run_leaves_the_denoiser_and_gives_modules_that_diffusers_reads(recipe, tiny_base):
    found = task(recipe, CPU)
    outcome = train(found, recipe, CPU)
    assert outcome.done
    result = recipe.objective.result(recipe)
    theirs = diffusers.MotionAdapter.from_pretrained(result)
    own = found.net.state_dict()
    assert set(theirs.state_dict()) == set(own)
    assert any(
        weight.any() for name, weight in theirs.state_dict().items() if name.endswith("proj_out.weight")
    )
    assert Image.open(f"{recipe.run}/samples/last.webp").size == (4 * 32, 2 * 32)
    base = checkpoint.load(tiny_base)
    ours = load_motion(str(result))
    assert ours.schedule(base.schedule) is base.schedule
    assert set(ours.network.state_dict()) == set(own)
    assert recipe.objective.usage(recipe)[-2:] == ["--motion", str(result)]


def test_another_run_begins_with_the_modules_that_this_one_left(recipe, tmp_path):
    train(task(recipe, CPU), recipe, CPU)
    result = str(recipe.objective.result(recipe))
    again = task(changed(recipe, run=str(tmp_path / "again"), begin_from=result), CPU).net
    kept = weights.read(f"{result}/diffusion_pytorch_model.safetensors")
    assert all(torch.equal(tensor.half(), kept[name]) for name, tensor in again.state_dict().items())
    with pytest.raises(CheckpointError, match="has shape"):
        task(changed(recipe, begin_from=result, max_frames=16), CPU)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"frames": 64}, "data.frames is 64: must be at most max_frames = 32"),
        ({"motions": ("hop",)}, "motions"),
        ({"start": "scratch"}, "start is 'scratch': must be 'base'"),
    ],
)
def test_keys_that_make_no_sense_are_refused(keys, message):
    with pytest.raises(UsageError, match=message):
        made("motion", folder="-", run="-", **keys)
