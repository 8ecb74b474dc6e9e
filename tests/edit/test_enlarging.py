"""Second passes, windows, seamless and upscaled pictures by the embedded model, and their records."""

from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
import torch

import sfumato
from sfumato import weights
from sfumato.diffusion.samplers import sampler_named
from sfumato.diffusion.sampling import SeededNoise, Start, run
from sfumato.errors import CheckpointError, UsageError
from sfumato.nets import upscaler
from sfumato.nets.upscaler import Upscaler, UpscalerConfig, bordered, enlarged
from sfumato.nets.windows import Windows
from sfumato.request import Request
from sfumato.studio import enlarging

pytestmark = pytest.mark.filterwarnings("ignore::sfumato.errors.SfumatoWarning")
SMALL = {"steps": 2, "seed": 3, "upscaler": "lanczos"}


@pytest.fixture(scope="module")
def studio():
    return sfumato.load(device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def picture():
    rows, columns = np.indices((48, 64))
    return np.stack([rows * 5, columns * 4, 90 + 60 * ((rows // 8 + columns // 8) % 2)], -1).astype(np.uint8)


@pytest.mark.parametrize(
    ("fields", "upscale", "multidiffusion", "first"),
    [
        ({}, 1, False, (256, 256)),
        ({"width": 320, "height": 256}, 1, False, (320, 256)),
        ({"width": 512, "height": 512}, 2, True, (256, 256)),
        ({"width": 1024, "height": 512}, 8**0.5, True, (360, 184)),
        ({"width": 1024, "height": 256}, 1, True, (1024, 256)),
        ({"width": 1024, "height": 1024, "multidiffusion": True}, 1, True, (1024, 1024)),
        ({"width": 1024, "height": 1024, "multidiffusion": False}, 4, False, (256, 256)),
        ({"width": 512, "height": 512, "upscale": 1, "multidiffusion": False}, 1, False, (512, 512)),
        ({"upscale": 3}, 3, True, (256, 256)),
        ({"upscale": 2, "width": 768}, 2, True, (384, 256)),
    ],
)
def test_what_is_larger_than_the_model_knows_is_drawn_at_its_size_first(
    studio, fields, upscale, multidiffusion, first
):
    found = studio.resolve(Request("an apple", **fields))
    assert found.upscale == pytest.approx(upscale)
    assert found.multidiffusion is multidiffusion
    assert enlarging.first_size(found, 8) == first
    assert studio.resolve(found) == found


@pytest.mark.parametrize(("strength", "mask", "upscale"), [(0.3, False, 1), (0.8, False, 2), (None, True, 1)])
def test_over_a_picture_only_what_makes_new_shapes_is_drawn_smaller_first(
    studio, picture, strength, mask, upscale
):
    mask = np.full(picture.shape[:2], 255, np.uint8) if mask else None
    found = studio.resolve(
        Request("an apple", image=picture, mask=mask, strength=strength, width=512, height=512)
    )
    assert found.upscale == pytest.approx(upscale)


def test_windows_are_the_models_and_larger_where_shapes_are_given(studio, picture):
    def found(size, **fields):
        request = studio.resolve(Request("an apple", overlap=0.25, seamless="x", **fields))
        return enlarging.windows(request, size, studio.model, 0)

    assert found((1024, 256), width=1024, height=256) == Windows((32, 32), 0.25, "x", 1, 8)
    assert found((2048, 2048), width=2048, height=2048) == Windows((128, 128), 0.25, "x", 1, 8)
    assert found((256, 256), width=2048, height=2048) is None
    assert found((512, 512), width=512, height=512) is None
    over = {"image": picture, "width": 2048, "height": 1024}
    assert found((2048, 1024), **over, strength=0.2) == Windows((128, 128), 0.25, "x", 1, 8)
    assert found((2048, 1024), **over, strength=0.2, multidiffusion=False) is None


def test_a_second_pass_draws_over_the_first_ones_picture(studio):
    size = {"width": 64, "height": 64}
    request = Request("an apple", upscale=2, upscale_strength=0.5, **size, **SMALL | {"steps": 4})
    drawn = studio.generate(request)
    assert drawn.size == (64, 64)
    small = studio.generate("an apple", width=32, height=32, steps=4, seed=3)
    with torch.no_grad():
        pixels = torch.from_numpy(np.array(small.pil.resize((64, 64), PIL.Image.Resampling.LANCZOS)))
        x0 = studio.decoders.encode(pixels.permute(2, 0, 1)[None] / 127.5 - 1)
    full = studio.resolve(request)
    levels = studio.model.levels(full.spacing, 4, (64, 64))
    noise = SeededNoise([3])
    noise(torch.empty(1, 4, 4, 4))
    x = Start(x0, 2).noisy(levels, noise(x0))
    denoise = studio.denoiser("an apple", width=64, height=64, steps=4)
    expected = studio.decoders.decode(run(sampler_named(full.sampler).sample(x, levels[2:], noise), denoise))
    bytes_of = ((expected[0].clamp(-1, 1) + 1) * 127.5).round().permute(1, 2, 0).numpy()
    assert np.abs(drawn.pixels.astype(int) - bytes_of).max() <= 3


def test_a_latent_may_be_enlarged_itself_and_steps_of_both_passes_are_counted(studio):
    request = Request("an apple", width=64, height=48, upscale=2, **SMALL | {"upscaler": "latent"})
    steps = list(studio.stream(request, upscale_steps=5))
    assert [step.index for step in steps] == list(range(1, len(steps) + 1))
    assert {step.total for step in steps} == {len(steps)} == {2 + 3}
    assert [steps[0].preview().size, steps[-2].preview().size, steps[-1].image.size] == [
        (32, 24), (64, 48), (64, 48),
    ]  # fmt: skip


def test_a_second_pass_of_strength_0_is_the_first_picture_enlarged(studio):
    size = {"width": 64, "height": 64}
    drawn = studio.generate("an apple", upscale=2, upscale_strength=0, **size, **SMALL)
    small = studio.generate("an apple", width=32, height=32, steps=2, seed=3)
    large = np.asarray(small.pil.resize((64, 64), PIL.Image.Resampling.LANCZOS)).astype(int)
    assert np.abs(drawn.pixels - large).max() <= 1


@pytest.mark.parametrize(
    "fields",
    [
        {"upscale": 2, "width": 64, "height": 64, "upscale_steps": 4},
        {"seamless": "xy", "width": 64, "height": 64, "upscaler": None},
        {"multidiffusion": True, "width": 288, "height": 64, "steps": 1, "upscaler": None},
    ],
)
def test_a_picture_in_passes_windows_or_without_edges_is_redrawn_from_its_record(studio, fields):
    first = studio.generate("an apple", **SMALL | fields)
    assert studio.generate(first.record.request).differs(first) is None


def test_an_enlarged_picture_is_lanczos_of_it_and_no_more_at_strength_0(studio, picture):
    drawn = studio.upscale(picture, 2, strength=0, upscaler="lanczos")
    large = PIL.Image.fromarray(picture).resize((128, 96), PIL.Image.Resampling.LANCZOS)
    assert np.array_equal(drawn.pixels, np.asarray(large))
    assert studio.generate(drawn.record.request).differs(drawn) is None


def test_a_drawn_picture_is_refined_under_its_own_prompt(studio):
    apple = studio.generate("an apple", width=32, height=32, steps=2, seed=3, sampler="euler")
    large = studio.upscale(apple, 2, strength=0.5, upscaler="lanczos")
    request = large.record.request
    assert (large.size, request.prompt, request.sampler, request.seed) == ((64, 64), "an apple", "euler", 3)
    assert (request.strength, request.upscale, request.multidiffusion) == (0.5, 1, False)
    assert studio.upscale(apple, 2, strength=0.5, upscaler="lanczos").differs(large) is None


def test_sizes_are_rounded_to_what_the_model_draws(studio, picture):
    assert studio.upscale(picture[:45, :50], 1.5, strength=0, upscaler="lanczos").size == (72, 64)


def test_an_upscaler_file_enlarges(studio, picture, tmp_path):
    torch.manual_seed(0)
    net = Upscaler(UpscalerConfig(width=8, blocks=1)).eval().requires_grad_(False)
    upscaler.save(net, tmp_path / "mine.safetensors")
    drawn = studio.upscale(picture, 2, strength=0, upscaler=str(tmp_path / "mine.safetensors"))
    x = torch.from_numpy(picture).permute(2, 0, 1)[None] / 127.5 - 1
    expected = enlarged(upscaler.load(tmp_path / "mine.safetensors"), x)[0].clamp(-1, 1)
    bytes_of = ((expected + 1) * 127.5).round().permute(1, 2, 0).numpy()
    assert np.abs(drawn.pixels - bytes_of).max() <= 1
    again = Request.model_validate(drawn.request.model_dump())
    assert studio.generate(again).record.upscalers == drawn.record.upscalers
    assert set(drawn.record.upscalers) == {str(tmp_path / "mine.safetensors")}


@pytest.mark.parametrize("seamless", ["", "x", "xy"])
def test_an_upscaler_in_tiles_is_that_of_the_whole(seamless):
    torch.manual_seed(0)
    net = Upscaler(UpscalerConfig(width=8, blocks=1)).eval().requires_grad_(False)
    x = torch.rand(1, 3, 19, 30) * 2 - 1
    whole = enlarged(net, x, seamless, tile=64)
    assert torch.allclose(enlarged(net, x, seamless, tile=7), whole, atol=1e-5)
    if seamless:
        assert torch.allclose(enlarged(net, x.roll(5, 3), seamless), whole.roll(10, 3), atol=1e-5)
    assert bordered(x, 3, seamless).shape == (1, 3, 25, 36)


def test_a_seamless_picture_decodes_to_itself_rolled_in_tiles_too(studio):
    torch.manual_seed(0)
    latent = torch.randn(1, 4, 16, 24)
    decoders = studio.decoders
    whole = decoders.decode(latent, seamless="xy")
    assert torch.allclose(
        decoders.decode(latent.roll((2, 5), (2, 3)), seamless="xy"), whole.roll((16, 40), (2, 3)), atol=1e-3
    )
    options = replace(decoders.options, tile=12)
    tiled = type(decoders)(studio.model, studio.device, studio.dtype, options)
    found = tiled.decode(latent, seamless="x")
    edge = (found[..., 0] - found[..., -1]).abs().mean()
    assert edge < 2 * (found[..., 1:] - found[..., :-1]).abs().mean()
    assert found.shape == whole.shape


def test_large_latents_are_decoded_in_tiles_by_themselves(studio):
    assert studio.decoders.tile((1, 4, 128, 128)) is None
    assert studio.decoders.tile((1, 4, 128, 136)) == 128


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"upscale": 1.01}, "upscale is 1.01: of 256×256 that is no smaller picture; 2 would be"),
        ({"upscale_strength": 0.3}, "upscale_strength is given, but nothing is enlarged"),
        ({"upscaler": "lanczos"}, "upscaler is given, but nothing is enlarged"),
        ({"upscaler": "lanzcos"}, "unknown upscaler; .*lanczos"),
        ({"upscale": 1, "upscale_steps": 3}, "upscale_steps is given with upscale 1"),
        ({"upscale": 0.5}, "upscale is 0.5"),
        ({"seamless": "z"}, "seamless is 'z'"),
        ({"overlap": 0.9}, "overlap is 0.9"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(studio, fields, said):
    with pytest.raises(UsageError, match=said):
        studio.resolve(Request("an apple", **{"width": 256, "height": 256, **fields}))


def test_a_mask_and_a_second_pass_exclude_each_other(picture):
    mask = np.full(picture.shape[:2], 255, np.uint8)
    with pytest.raises(UsageError, match="upscale and mask exclude each other"):
        Request("an apple", image=picture, mask=mask, upscale=2)


def test_only_networks_that_enlarge_are_recorded(studio):
    fields = {"width": 64, "height": 64, "steps": 1, "seed": 1}
    assert studio.generate("an apple", **fields).record.upscalers == {}
    drawn = studio.generate("an apple", upscale=2, upscale_strength=0, **fields)
    assert set(drawn.record.upscalers) == {"embedded"}
    drawn = studio.generate("an apple", upscale=2, upscale_strength=0, upscaler="lanczos", **fields)
    assert drawn.record.upscalers == {}


def test_an_upscaler_is_refused_before_anything_is_drawn(studio, tmp_path):
    weights.write(tmp_path / "other.safetensors", {"a": torch.zeros(1)}, {})
    request = Request.build(prompt="an apple", upscale=2, upscaler=str(tmp_path / "other.safetensors"))
    with pytest.raises(CheckpointError, match="is no upscaler"):
        studio.prepare(request)


def test_a_file_that_is_no_upscaler_is_refused(studio, picture, tmp_path):
    weights.write(tmp_path / "other.safetensors", {"a": torch.zeros(1)}, {})
    with pytest.raises(CheckpointError, match="is no upscaler"):
        studio.upscale(picture, 2, upscaler=str(tmp_path / "other.safetensors"))


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_every_family_draws_in_passes_and_windows_and_without_edges(peers, family):
    studio = sfumato.load(peers(family)[1], device="cpu", dtype="float32")
    wide, high = studio.native_size
    size = {"width": 2 * wide, "height": 2 * high, "steps": 2, "seed": 3}
    two = studio.generate("an apple", **size)
    assert (two.record.request.upscale, two.record.request.upscaler) == (2, "lanczos")
    split = studio.generate("an apple", multidiffusion=True, seamless="xy", **size)
    assert two.size == split.size == (2 * wide, 2 * high)
    assert split.differs(studio.generate("an apple", upscale=1, multidiffusion=False, **size))
    assert studio.generate(split.record.request).differs(split) is None


def test_that_windows_repeat_the_prompt_is_said_only_where_shapes_are_made(studio, picture):
    large = {"width": 512, "height": 512, "upscale": 1, "multidiffusion": True, "steps": 2}
    (made,) = studio.prepare("an apple", image=picture, strength=1, **large)
    assert "each of which may repeat what the prompt says" in made.notes[0]
    (kept,) = studio.prepare("an apple", image=picture, strength=0.5, **large)
    assert kept.notes == ()


def test_an_overlap_without_windows_is_said_to_do_nothing(studio):
    (idle,) = studio.prepare("an apple", overlap=0.25)
    assert idle.notes == ("overlap is given, but nothing is drawn in windows: see multidiffusion",)
    (used,) = studio.prepare("an apple", overlap=0.25, multidiffusion=True, width=1024)
    assert not any("overlap" in note for note in used.notes)


def test_a_model_says_how_much_of_an_enlarged_picture_it_draws_anew(studio, picture):
    enlarged = {"image": picture, "upscale": 1, "width": 512, "height": 512, "upscaler": "lanczos"}
    own = {**studio.model.own, "upscale_strength": 0.25}
    assert enlarging.strength_of(replace(studio.model, own=own)) == 0.25
    assert studio.resolve(Request.build(prompt="", **enlarged)).strength == enlarging.strength_of(
        studio.model
    )
