"""A ControlNet learns edges beside a denoiser that stays as it is."""

from dataclasses import replace
from random import Random

import diffusers
import numpy as np
import pytest
import torch
from making import made
from PIL import Image

from sfumato import checkpoint
from sfumato.diffusion.predict import prediction_named
from sfumato.train.context import StepContext
from sfumato.train.loop import train
from sfumato.train.objectives import task
from sfumato.train.objectives.controlnet import ControlNetTraining, EdgeData, edges_of

CPU = torch.device("cpu")


@pytest.fixture
def recipe(tiny_data, tiny_base, tmp_path):
    return made(
        "controlnet", folder=str(tiny_data), base=str(tiny_base), run=str(tmp_path / "run"), steps=3,
        batch_size=4, warmup_steps=1, ema_decays=(0.5,), captions_per_picture=1, tints_per_icon=1,
        embedding_channels=(4, 4, 4), attention=False, precision="float32", learning_rate=1e-2, log_every=1,
        timestep_shift=3.0,
    )  # fmt: skip


def test_it_begins_as_the_denoiser_and_adds_nothing(tiny_base):
    unet = checkpoint.load(tiny_base).unet
    net = ControlNetTraining(embedding_channels=(4, 4, 4)).network(unet)
    own, others = net.state_dict(), unet.state_dict()
    shared = [name for name in own if name in others]
    assert len(shared) > 20
    assert all(torch.equal(own[name], others[name]) for name in shared)
    x, states = torch.randn(2, 4, 8, 8), torch.randn(2, 5, 256)
    added = net(x, torch.tensor([10.0, 900.0]), states, torch.rand(2, 3, 32, 32))
    assert [skip.shape for skip in added.skips] == [(2, 16, 8, 8)] * 2 + [(2, 16, 4, 4)] * 2
    assert not any(part.any() for part in (*added.skips, added.mid))


def test_the_loss_is_the_denoisers_with_what_the_edges_add(recipe, tiny_base):
    found = task(recipe, CPU)
    for weight in found.net.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    generator = torch.Generator().manual_seed(5)
    batch = found.batches(StepContext(0, 0, 1, generator), 4)
    assert batch.condition.shape == (4, 3, 32, 32)
    assert set(batch.condition.unique().tolist()) == {0.0, 1.0}
    loss, _ = found.loss(batch, torch.Generator().manual_seed(6))
    base = checkpoint.load(tiny_base, dtype=torch.float32)
    generator, path = torch.Generator().manual_seed(6), base.path()
    u = (torch.rand(4, generator=generator) + torch.arange(4)) / 4
    times = (3 * u / (1 + 2 * u) * (path.last - path.first + 1)).long() + path.first
    eps = torch.randn(batch.x0.shape, generator=generator)
    prediction = prediction_named(base.prediction)
    for row, t in enumerate(times.tolist()):
        level, x0 = path.level(t), batch.x0[row : row + 1]
        x, e = level.noisy(x0, eps[row : row + 1]), eps[row : row + 1]
        a, s = torch.tensor(level.a), torch.tensor(level.s)
        times_of, states = torch.tensor([float(t)]), batch.states[row : row + 1]
        residuals = found.net(x, times_of, states, batch.condition[row : row + 1])
        answer = base.unet.denoise(
            x, base.unet.embed_time(times_of), base.unet.context(states), residuals=residuals
        )
        known = ((answer - prediction.target(x0, e, a, s)) ** 2).mean()
        assert torch.allclose(loss[row], known, rtol=1e-3), row


def test_a_run_leaves_the_denoiser_and_gives_a_controlnet_that_diffusers_reads(recipe, tiny_base):
    outcome = train(task(recipe, CPU), recipe, CPU)
    assert outcome.done
    result = recipe.objective.result(recipe)
    theirs = diffusers.ControlNetModel.from_pretrained(result).eval()
    from sfumato.checkpoint.control import load_control

    ours = load_control(str(result), checkpoint.load(tiny_base).unet.config, dtype=torch.float32).network
    x, states, picture = torch.randn(1, 4, 8, 8), torch.randn(1, 77, 256), torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        skips, mid = theirs(x, 500, states, picture, return_dict=False)
        added = ours(x, torch.tensor([500.0]), states, picture)
    assert added.mid.any()
    for one, other in zip((*added.skips, added.mid), (*skips, mid), strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    grid = Image.open(f"{recipe.run}/samples/last.webp")
    assert grid.size == (8 * 32, 2 * 32)
    assert recipe.objective.usage(recipe)[-2:] == ["--control", f"{result}:canny:picture.png"]


def test_edges_are_where_colours_change_and_as_wide_as_the_recipe_says():
    pictures = torch.ones(1, 3, 32, 32)
    pictures[..., 8:24, 8:24] = -1
    data = EdgeData(folder="-")
    thin = edges_of(data)(pictures, Random(0))[0, 0]
    thick = edges_of(replace(data, line_widths=(5,)))(pictures, Random(0))[0, 0]
    assert not thin[:6].any()
    assert not thin[12:20, 12:20].any()
    assert thin[14].nonzero().flatten().diff().max() > 10
    assert 2 <= thin[14].sum() <= 4
    assert thick[14].sum() >= thin[14].sum() + 8
    assert np.array_equal((thick - thin).min().numpy(), 0)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"prompts": ("a red square",)}, "samples.prompts must be left out"),
        ({"line_widths": (2,)}, r"line_widths are \[2\]: must be odd numbers"),
        ({"start": "scratch"}, "start is 'scratch': must be 'base'"),
    ],
)
def test_keys_that_make_no_sense_are_refused(keys, message):
    from sfumato.errors import UsageError

    with pytest.raises(UsageError, match=message):
        made("controlnet", folder="-", run="-", **keys)
