"""The studio on the embedded model: what a program that imports sfumato meets."""

import math
import warnings

import numpy as np
import pytest
import torch

import sfumato
from sfumato import checkpoint
from sfumato.checkpoint.source import embedded
from sfumato.errors import NumericsError, SfumatoWarning, UsageError

FAST = {"steps": 2, "width": 128, "height": 128, "seed": 3}
pytestmark = pytest.mark.filterwarnings("ignore::sfumato.errors.SfumatoWarning")


@pytest.fixture(scope="module")
def studio():
    return sfumato.load(device="cpu", dtype="float32")


def test_a_picture_carries_the_request_that_draws_it_again(studio):
    image = studio.generate("a red apple, 3d render", **FAST)
    again = studio.generate(image.request)
    assert image.size == (128, 128)
    assert image.differs(again) is None
    assert image.request.steps == 2
    assert None not in (image.request.guidance, image.request.sampler, image.request.spacing)


def test_a_red_apple_is_red_on_white(studio):
    pixels = studio.generate("a red apple, 3d render", seed=7).pixels.astype(int)
    corner = pixels[:24, :24].reshape(-1, 3).mean(0)
    middle = pixels[108:148, 108:148].reshape(-1, 3).mean(0)
    assert corner.min() > 245
    assert middle[0] > middle[1] + 60
    assert middle[0] > middle[2] + 60


def test_each_picture_of_a_batch_equals_itself_drawn_alone(studio):
    batch = studio.generate_batch("a blue cat, flat emoji", count=3, **FAST)
    assert [image.request.seed for image in batch] == [3, 4, 5]
    for image in batch:
        assert image.request.count == 1
        assert image.differs(studio.generate(image.request)) is None
    assert batch[0].differs(batch[1])


def test_the_negative_prompt_and_the_guidance_change_the_picture(studio):
    plain = studio.generate("a car, flat emoji", **FAST)
    assert plain.differs(studio.generate("a car, flat emoji", negative="red", **FAST))
    assert plain.differs(studio.generate("a car, flat emoji", guidance=7, **FAST))


def test_guidance_one_is_the_prompt_alone_whatever_the_negative_prompt(studio):
    one = studio.generate("a car, flat emoji", guidance=1, **FAST)
    assert one.differs(studio.generate("a car, flat emoji", guidance=1, negative="red", **FAST)) is None


def test_guidance_outside_its_interval_is_the_prompt_alone(studio):
    one = studio.generate("a car, flat emoji", guidance=1, **FAST)
    never = studio.generate("a car, flat emoji", guidance=9, guidance_interval=(1e-6, 1e-5), **FAST)
    assert one.differs(never) is None


def test_the_stream_counts_every_evaluation_and_ends_with_the_picture(studio):
    steps = list(studio.stream("a star, flat emoji", sampler="heun", **{**FAST, "steps": 3}))
    assert [step.index for step in steps] == list(range(1, steps[-1].total + 1))
    assert [step.image is not None for step in steps] == [False] * (len(steps) - 1) + [True]
    assert steps[0].sigma == math.inf
    whole = studio.generate("a star, flat emoji", sampler="heun", **{**FAST, "steps": 3})
    assert whole.differs(steps[-1].image) is None


def test_previews_approach_the_picture(studio):
    steps = list(studio.stream("a red apple, 3d render", steps=6, seed=7))
    last = steps[-1].image.pixels.astype(float)
    for decoder in ("full", "tiny"):
        shown = [step.preview(decoder=decoder).pixels for step in (steps[0], steps[3], steps[-1])]
        apart = [np.abs(pixels - last).mean() for pixels in shown]
        assert apart[0] > apart[1] > apart[2]
    quick = steps[-1].preview(quick=True)
    small = last.reshape(32, 8, 32, 8, 3).mean((1, 3))
    assert quick.size == (32, 32)
    assert np.corrcoef(quick.pixels.ravel(), small.ravel())[0, 1] > 0.9


def test_closing_the_stream_leaves_the_studio_ready(studio):
    stream = studio.stream("a star, flat emoji", **{**FAST, "steps": 5})
    next(stream)
    stream.close()
    assert studio.generate("a star, flat emoji", **FAST).size == (128, 128)


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp-2m-sde", "euler-a"])
def test_the_same_seed_gives_the_same_picture_also_with_random_samplers(studio, sampler):
    first = studio.generate("a moon, flat emoji", sampler=sampler, **FAST)
    assert first.differs(studio.generate("a moon, flat emoji", sampler=sampler, **FAST)) is None
    assert first.differs(studio.generate("a moon, flat emoji", sampler=sampler, **{**FAST, "seed": 4}))


def test_a_missing_seed_is_chosen_and_recorded(studio):
    request = sfumato.Request(prompt="a moon")
    seeds = {studio.resolve(request).seed for _ in range(4)}
    assert len(seeds) == 4


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"width": 100}, "width is 100: must be a multiple of 8 for this model, such as 96 or 104"),
        ({"steps": 0}, "steps is 0"),
        ({"sampler": "dpmp-2m"}, "did you mean 'dpmpp-2m'"),
        ({"count": 2}, "generate_batch"),
        ({"seed": 2**63 - 1, "count": 2}, "last seed"),
        ({"clip_skip": 9}, "clip_skip"),
    ],
)
def test_a_bad_request_says_what_would_be_right(studio, fields, said):
    draw = studio.generate_batch if "seed" in fields else studio.generate
    with pytest.raises(UsageError, match=said):
        draw("a moon", **fields)


def test_a_size_far_from_the_models_own_is_warned_of(studio):
    with pytest.warns(SfumatoWarning, match="far from the 256×256"):
        small = studio.generate("a moon", steps=1, width=64, height=64)
    assert "far from" in small.record.notes[0]
    with pytest.warns(SfumatoWarning, match="drawn in windows of 256×256"):
        studio.generate("a moon", steps=1, width=512, height=128)
    with pytest.warns(SfumatoWarning, match="longer than 2:1"):
        studio.generate("a moon", steps=1, width=512, height=128, multidiffusion=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert studio.generate("a moon", steps=1).record.notes == ()


def test_a_prompt_that_is_too_long_is_warned_of(studio):
    with pytest.warns(SfumatoWarning, match="tokens too long"):
        cut = studio.generate("apple " * 75 + "cat " * 75, dialect="plain", **FAST)
    assert cut.differs(studio.generate("apple " * 75, dialect="plain", **FAST)) is None
    whole = studio.generate("apple " * 75 + "cat " * 75, **FAST)
    assert whole.differs(cut)


@pytest.mark.parametrize("size", [(136, 72), (8, 8), (264, 248)])
def test_any_multiple_of_the_factor_can_be_drawn(studio, size):
    assert studio.generate("a moon", steps=1, width=size[0], height=size[1]).size == size


def test_slices_change_nothing_and_tiles_little(studio):
    frugal = sfumato.load(device="cpu", dtype="float32", slices=4, tile=24)
    whole = studio.generate("a red apple, 3d render", seed=7, steps=4)
    apart = np.abs(whole.pixels.astype(int) - frugal.generate(whole.request).pixels)
    assert apart.mean() < 3
    sliced = sfumato.load(device="cpu", dtype="float32", slices=4)
    assert np.abs(whole.pixels.astype(int) - sliced.generate(whole.request).pixels).max() <= 1


def test_half_precision_draws_nearly_the_same_picture(studio):
    whole = studio.generate("a red apple, 3d render", seed=7, steps=8)
    half = sfumato.load(device="cpu", dtype="bfloat16").generate(whole.request)
    assert half.record.dtype == "bfloat16"
    assert np.abs(whole.pixels.astype(int) - half.pixels).mean() < 4


@pytest.fixture(scope="module")
def int8():
    try:
        return sfumato.load(device="cpu", dtype="float32", quantization="int8")
    except UsageError as error:
        pytest.skip(str(error))


def test_int8_draws_nearly_the_same_picture_and_its_record_says_so(studio, int8):
    whole = studio.generate("a red apple, 3d render", seed=7, steps=8)
    image = int8.generate(whole.request)
    assert (image.record.dtype, image.record.quantization) == ("float32", "int8")
    assert whole.record.quantization is None
    assert 0 < np.abs(whole.pixels.astype(int) - image.pixels).mean() < 4


def test_a_picture_in_int8_is_the_same_alone_and_beside_others(int8):
    several = int8.generate(["a red apple", "a blue car", "a cat"], seed=7, steps=2)
    alone = int8.generate("a blue car", seed=several[1].request.seed, steps=2)
    assert np.abs(several[1].pixels.astype(int) - alone.pixels).max() <= 1


def test_an_adapter_is_put_into_int8_weights_and_taken_out_again(studio, int8):
    before = int8.generate("a red apple", **FAST)
    few = int8.generate("a red apple", fast=True, steps=2, seed=7)
    whole = studio.generate(few.request)
    assert np.abs(whole.pixels.astype(int) - few.pixels).mean() < 4
    assert np.array_equal(int8.generate("a red apple", **FAST).pixels, before.pixels)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"quantization": "int4"}, "did you mean 'int8'"),
        ({"quantization": "int8", "compiled": True}, "quantization and compiled exclude each other"),
        ({"quantization": "int8", "offload": True}, "offload and quantization exclude each other"),
        ({"quantization": "int8", "trainable": True}, "quantization and trainable exclude each other"),
    ],
)
def test_a_quantization_that_cannot_be_is_named(options, said):
    with pytest.raises(UsageError, match=said):
        sfumato.load(device="cpu", **options)


def test_a_processor_that_does_not_multiply_int8_is_named(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "x86_64", "avx2": True})
    with pytest.raises(UsageError, match="int8 needs a CPU with VNNI or AMX"):
        sfumato.load(device="cpu", dtype="float32", quantization="int8")


def test_numbers_that_leave_half_precision_are_drawn_again_in_float32(studio):
    half = sfumato.load(device="cpu", dtype="bfloat16")
    with torch.no_grad():
        half.model.unet.conv_in.bias[0] = math.inf
    with pytest.warns(SfumatoWarning, match="drawing it again in float32"):
        image = half.generate("a moon, flat emoji", **FAST)
    assert image.record.dtype == "float32"
    assert image.differs(studio.generate("a moon, flat emoji", **FAST)) is None


def test_the_memory_of_weights_counts_adapters_what_they_changed_and_the_twin_in_float32():
    drawing = sfumato.load(dtype="bfloat16", device="cpu")
    alone = drawing.weight_bytes
    drawing.load_adapter(embedded() / "fast.safetensors", "fast")
    read = drawing.weight_bytes
    assert read > alone
    drawing.generate("a cup", adapters=["fast"], steps=1, width=64, height=64, seed=1)
    unet = sum(each.numel() * 2 for each in checkpoint.load("embedded").unet.parameters())
    assert alone > unet
    assert read < drawing.weight_bytes <= read + unet
    used = drawing.weight_bytes
    twin = drawing.full_precision
    assert drawing.weight_bytes == used + twin.weight_bytes
    assert twin.weight_bytes > alone


def test_numbers_that_are_not_finite_in_float32_are_a_named_error():
    broken = sfumato.load(device="cpu", dtype="float32")
    with torch.no_grad():
        broken.model.unet.conv_in.bias[0] = math.nan
    with pytest.raises(NumericsError, match="not finite at evaluation 1"):
        broken.generate("a moon", **FAST)


def test_a_broken_decoder_never_gives_a_black_picture():
    broken = sfumato.load(device="cpu", dtype="float32")
    with torch.no_grad():
        broken.model.vae.decoder.conv_in.bias[0] = math.nan
    with pytest.raises(NumericsError, match="decoded picture is not finite"):
        broken.generate("a moon", **FAST)


def test_devices_and_precisions_that_are_not_there_are_named():
    with pytest.raises(UsageError, match="unknown device 'gpu'"):
        sfumato.load(device="gpu")
    with pytest.raises(UsageError, match="did you mean 'bfloat16'"):
        sfumato.load(dtype="bfloat61")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_autocast_around_a_drawing_changes_nothing(dtype):
    studio = sfumato.load(device="cpu", dtype=dtype)
    plain = studio.generate("a moon", **FAST)
    studio = sfumato.load(device="cpu", dtype=dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert plain.differs(studio.generate("a moon", **FAST)) is None


@pytest.mark.parametrize(
    ("fields", "spacing"),
    [({}, "trailing"), ({"sampler": "lcm"}, "lcm"), ({"sampler": "lcm", "spacing": "karras"}, "karras")],
)
def test_distilled_samplers_draw_at_the_times_of_distillation_unless_told_otherwise(studio, fields, spacing):
    assert studio.resolve(sfumato.Request(prompt="a moon", **fields)).spacing == spacing
