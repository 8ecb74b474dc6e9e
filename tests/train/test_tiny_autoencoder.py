"""The tiny autoencoder: what it learns from, and that a recipe makes one which diffusers reads too."""

import shutil
from dataclasses import replace
from pathlib import Path

import diffusers
import pytest
import torch
from making import changed, made

from sfumato import checkpoint
from sfumato.checkpoint.layout import FAST
from sfumato.config import TinyVAEConfig, VAEConfig
from sfumato.errors import UsageError
from sfumato.nets.tiny_vae import AutoencoderTiny
from sfumato.nets.vae import AutoencoderKL
from sfumato.train.context import StepContext
from sfumato.train.loop import train
from sfumato.train.objectives import task
from sfumato.train.objectives.tiny_autoencoder import TinyAutoencoderLoss, latents, reconstruction_psnr
from sfumato.train.pictures import RandomCrops
from sfumato.train.recipe import MODEL

CPU = torch.device("cpu")
NARROW = {
    "encoder_block_out_channels": [8, 8, 8],
    "decoder_block_out_channels": [8, 8, 8],
    "num_encoder_blocks": [1, 1, 1],
    "num_decoder_blocks": [1, 1, 0],
}


def full(**changes):
    torch.manual_seed(0)
    config = VAEConfig(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        mid_block_add_attention=False,
        **changes,
    )
    return AutoencoderKL(config).requires_grad_(False).eval()


def tiny():
    torch.manual_seed(1)
    narrow = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8)}
    return AutoencoderTiny(TinyVAEConfig(**narrow, num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 0)))


@pytest.fixture
def pictures():
    return torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


def context(seed):
    return StepContext(0, 0, 1, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("side", [8, 16, 24])
def test_crops_are_parts_of_the_pictures_that_the_step_alone_determines(pictures, side):
    crops = RandomCrops(lambda context, count: pictures[:count], side)
    found = crops(context(5), 4)
    least = min(side, 16)
    assert found.shape == (4, 3, least, least)
    for part, picture in zip(found, pictures, strict=True):
        windows = picture.unfold(1, least, 1).unfold(2, least, 1).permute(1, 2, 0, 3, 4).flatten(0, 1)
        assert (windows == part).flatten(1).all(1).any()
    assert torch.equal(found, crops(context(5), 4))
    assert side >= 16 or not torch.equal(found, crops(context(6), 4))


def test_the_latents_learned_from_are_those_that_the_unet_knows(pictures):
    vae = full(scaling_factor=0.3)
    expected = vae.scale(vae.encode(pictures).mean)
    assert torch.equal(latents(vae, pictures), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(latents(vae, pictures), expected)


def test_both_halves_learn_and_the_teacher_does_not(pictures):
    teacher, pupil = full(), tiny()
    before = {name: weight.clone() for name, weight in teacher.state_dict().items()}
    optimizer = torch.optim.Adam(pupil.parameters(), lr=1e-2)
    objective, seen = TinyAutoencoderLoss(teacher, pupil), []
    for _ in range(30):
        losses, metrics = objective(pictures, torch.Generator())
        assert losses.shape == (4,)
        losses.mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        seen.append({name: float(value.detach()) for name, value in metrics.items()})
    assert seen[-1]["mse"] < 0.9 * seen[0]["mse"]
    assert seen[-1]["latent"] < 0.9 * seen[0]["latent"]
    assert all(torch.equal(weight, before[name]) for name, weight in teacher.state_dict().items())


def test_a_perfect_pupil_has_no_loss_in_its_latents_and_the_teachers_quality(pictures):
    class Same(torch.nn.Module):
        encode, decode = (lambda self, x: teacher.encode(x)), (lambda self, z: teacher.decode(z))

        def scale(self, z):
            return teacher.scale(z)

        def unscale(self, z):
            return teacher.unscale(z)

    teacher = full(scaling_factor=0.3)
    _, metrics = TinyAutoencoderLoss(teacher, Same())(pictures, torch.Generator())
    assert metrics["latent"] == 0
    figures = reconstruction_psnr(teacher, Same(), pictures)
    assert figures["decoder"] == pytest.approx(figures["both"], abs=1e-3)


@pytest.fixture(scope="module")
def condensed(tiny_data, tiny_base, tmp_path_factory):
    """A trained tiny autoencoder's run, and what came of it."""
    run = tmp_path_factory.mktemp("runs") / "tiny"
    recipe = made(
        "tiny", folder=str(tiny_data), base=str(tiny_base), run=str(run), start="scratch", steps=60,
        batch_size=8, learning_rate=5e-3, warmup_steps=5, decay_steps=30, ema_decays=(0.9,),
        precision="float32", log_every=20, crop_size=24, network=NARROW,
    )  # fmt: skip
    return recipe, train(task(recipe, CPU), recipe, CPU)


def test_a_recipe_makes_a_tiny_autoencoder_that_has_learned(condensed, tmp_path):
    recipe, outcome = condensed
    untrained = changed(recipe, run=str(tmp_path), steps=1, decay_steps=0, learning_rate=1e-9)
    before = train(task(untrained, CPU), untrained, CPU)
    assert outcome.metrics["psnr_held_out_decoder"] > before.metrics["psnr_held_out_decoder"] + 5
    assert (tmp_path / "samples" / "last.webp").is_file()


def test_diffusers_reads_it_and_the_rest_of_the_folder_as_before(condensed, tiny_base):
    recipe, _ = condensed
    folder = Path(recipe.run) / MODEL
    theirs = diffusers.AutoencoderTiny.from_pretrained(folder / "tiny_vae").float()
    ours = checkpoint.load(folder, dtype=torch.float32).tiny
    z = torch.randn(1, 4, 5, 3)
    with torch.no_grad():
        torch.testing.assert_close(ours.decode(z), theirs.decode(z).sample, atol=1e-5, rtol=0)
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(folder)
    assert not hasattr(pipeline, "tiny_vae")
    assert (tiny_base / "model_index.json").read_bytes() == (folder / "model_index.json").read_bytes()


def test_it_goes_on_from_the_base_models_own(condensed, tmp_path):
    recipe, _ = condensed
    further = changed(
        recipe, start="base", network={}, base=f"{recipe.run}/{MODEL}", run=str(tmp_path), steps=1,
        decay_steps=0, learning_rate=1e-9,
    )  # fmt: skip
    train(task(further, CPU), further, CPU)
    before, after = checkpoint.load(further.base).tiny, checkpoint.load(tmp_path / MODEL).tiny
    for name, weight in before.state_dict().items():
        assert torch.equal(after.state_dict()[name], weight)


@pytest.mark.parametrize(("decoder_only", "kept"), [(True, True), (False, False)])
def test_new_latents_leave_nothing_behind_that_knew_the_old_ones(condensed, tmp_path, decoder_only, kept):
    tiny_recipe, _ = condensed
    base = shutil.copytree(f"{tiny_recipe.run}/{MODEL}", tmp_path / "base")
    (base / FAST).write_bytes(b"a LoRA of the UNet")
    recipe = made(
        "autoencoder", folder=tiny_recipe.data.folder, base=str(base), run=str(tmp_path),
        steps=1, batch_size=2, ema_decays=(0.9,), precision="float32", decoder_only=decoder_only,
    )  # fmt: skip
    train(task(recipe, CPU), recipe, CPU)
    model = checkpoint.load(tmp_path / MODEL)
    assert [model.tiny is not None, model.fast is not None] == [kept, kept]


def test_without_a_shape_it_is_made_as_published(condensed, tmp_path):
    recipe, _ = condensed
    wide = task(changed(recipe, network={}, run=str(tmp_path)), CPU).net.config
    assert wide.decoder_block_out_channels == (64, 64, 64)
    assert (wide.num_encoder_blocks, wide.num_decoder_blocks) == ((1, 3, 3), (3, 3, 1))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"start": "base", "network": {}}, "has no tiny autoencoder to go on with; start = 'scratch' makes"),
        ({"network": {**NARROW, "latent_channels": 16}}, "of 16 latent_channels: the base model's needs 4"),
        (
            {
                "network": {
                    "encoder_block_out_channels": [8, 8],
                    "decoder_block_out_channels": [8, 8],
                    "num_encoder_blocks": [1, 1],
                    "num_decoder_blocks": [1, 1],
                }
            },
            "of 2 levels: the base model's needs 3",
        ),
    ],
)
def test_a_tiny_autoencoder_that_cannot_be_is_an_error_that_says_what_would_be_right(
    condensed, changes, said
):
    with pytest.raises(UsageError, match=said):
        task(changed(condensed[0], **changes), CPU)


def test_a_tiny_autoencoder_teaches_no_other(condensed, tmp_path):
    recipe, _ = condensed
    model = checkpoint.load(f"{recipe.run}/{MODEL}")
    checkpoint.save(replace(model, vae=model.tiny), tmp_path / "base")
    with pytest.raises(UsageError, match="a full one teaches it"):
        task(changed(recipe, base=str(tmp_path / "base")), CPU)
