"""Drawing from pictures by the embedded model, as a user does it: library, record, command."""

import math
from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
import torch

import sfumato
from sfumato.edit.canvas import canvas_of
from sfumato.errors import SfumatoWarning, UsageError
from sfumato.inputs import InputImage
from sfumato.metadata import MAX_INPUTS
from sfumato.studio import editing

SMALL = {"steps": 3, "width": 64, "height": 64, "seed": 3}
pytestmark = pytest.mark.filterwarnings("ignore:.*far from the:sfumato.errors.SfumatoWarning")


@pytest.fixture(scope="module")
def studio():
    return sfumato.load(device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def picture():
    rows, columns = np.indices((64, 64))
    return np.stack([rows * 4, columns * 4, np.full_like(rows, 90)], -1).astype(np.uint8)


@pytest.fixture(scope="module")
def mask():
    mask = np.zeros((64, 64), np.uint8)
    mask[20:44, 12:33] = 255
    return mask


def test_at_strength_0_the_picture_is_its_own_latent_decoded(studio, picture):
    drawn = studio.generate("a lemon", image=picture, strength=0, **SMALL)
    x = torch.from_numpy(picture).permute(2, 0, 1)[None] / 127.5 - 1
    known = studio.decoders.decode(studio.decoders.encode(x))
    bytes_of = ((known[0].clamp(-1, 1) + 1) * 127.5).round().permute(1, 2, 0).numpy()
    assert np.abs(drawn.pixels - bytes_of).max() <= 1


def test_noise_or_nothing_stands_in_the_latent_where_it_is_drawn(studio, picture):
    mask = np.zeros((64, 64), np.uint8)
    mask[:, :32] = 255
    starts = {}
    for fill in ("keep", "noise", "nothing"):
        given = {"image": picture, "mask": mask, "strength": 0.5, "fill": fill, **SMALL}
        (prepared,) = studio.prepare(studio.resolve(sfumato.Request(prompt="a lemon", **given)))
        eps = torch.zeros(studio.model.latent.shape(prepared.request.size))
        begun = editing.begun(
            studio.model, studio.decoders, prepared.canvas, prepared.request, eps, torch.ones_like
        )
        starts[fill] = begun[0].x0
    half = starts["keep"].shape[-1] // 2
    assert (starts["noise"][..., :half] == 1).all()
    assert (starts["nothing"][..., :half] == 0).all()
    for fill in ("noise", "nothing"):
        assert torch.equal(starts[fill][..., half:], starts["keep"][..., half:])


def test_at_strength_1_drawing_begins_with_noise_alone(studio, picture):
    drawn = studio.generate("a lemon", image=picture, strength=1, **SMALL)
    assert drawn.differs(studio.generate("a lemon", **SMALL)) is None


def test_ten_rounds_of_inpainting_leave_every_pixel_outside_the_masks(studio, picture):
    image, touched = picture, np.zeros((64, 64), bool)
    for number in range(10):
        mask = np.zeros((64, 64), np.uint8)
        mask[5 * number : 5 * number + 12, 20:40] = 255
        touched |= mask > 0
        image = studio.generate("a lemon", image=image, mask=mask, **SMALL | {"steps": 2, "seed": number})
    assert np.array_equal(image.pixels[~touched], picture[~touched])
    assert not np.array_equal(image.pixels[touched], picture[touched])


def test_a_part_of_a_large_picture_is_drawn_at_the_models_size_and_the_rest_keeps_its_pixels(studio):
    large = np.random.default_rng(0).integers(0, 256, (300, 500, 3), dtype=np.uint8)
    mask = np.zeros((300, 500), np.uint8)
    mask[100:120, 40:90] = 255
    drawn = studio.generate("a lemon", image=large, mask=mask, crop=10, steps=1, seed=1, fast=True)
    assert drawn.size == (500, 300)
    assert (drawn.request.width, drawn.request.height) == studio.native_size
    assert np.array_equal(drawn.pixels[mask == 0], large[mask == 0])


@pytest.mark.parametrize("budget", [0, math.inf])
def test_drawings_with_and_without_pictures_in_one_engine_are_what_they_are_alone(
    studio, picture, mask, budget, monkeypatch
):
    asked = [
        sfumato.Request(prompt="a lemon", **SMALL),
        sfumato.Request(prompt="a lemon", image=picture, strength=0.7, **SMALL),
        sfumato.Request(prompt="a lemon", image=picture, mask=mask, **SMALL),
        sfumato.Request(prompt="a lemon", image=picture, inversion="ddpm", source="a pear", **SMALL),
        sfumato.Request(prompt="a lemon", image=picture, inversion="ddim", **SMALL),
    ]
    alone = [studio.generate(request) for request in asked]
    monkeypatch.setattr(studio, "budget", budget)
    for one, together in zip(alone, studio.generate(asked), strict=True):
        assert np.abs(one.pixels.astype(int) - together.pixels).max() <= 1


def test_the_same_prompt_with_the_noise_of_every_step_gives_the_picture_back(studio, picture):
    given = {"image": picture, "inversion": "ddpm", "guidance": 1, "strength": 1}
    back = studio.generate("a lemon", source="a lemon", **given, **SMALL)
    latent = studio.generate("a lemon", image=picture, strength=0, **SMALL)
    assert np.abs(back.pixels.astype(int) - latent.pixels).max() <= 1
    other = studio.generate("a lemon", source="a pear", **given, **SMALL)
    assert np.abs(other.pixels.astype(int) - latent.pixels).max() > 5


def test_every_step_of_an_edit_is_counted_and_can_be_previewed(studio, picture, mask):
    for more in ({"mask": mask}, {"strength": 0.5}, {"strength": 0}, {"inversion": "ddpm"}, {"resample": 2}):
        fields = more if "resample" not in more else {"mask": mask, **more}
        steps = list(studio.stream("a lemon", image=picture, **fields, **SMALL))
        assert [step.index for step in steps] == list(range(1, len(steps) + 1)) or len(steps) == 1
        assert {step.total for step in steps} == {steps[-1].index}
        assert steps[0].preview().size == (64, 64)
        assert steps[-1].image is not None


def test_inversion_by_ddpm_refuses_another_sampler(studio, picture):
    with pytest.raises(UsageError, match="sampler is euler: with inversion ddpm it is ddpm"):
        studio.generate("a lemon", image=picture, inversion="ddpm", sampler="euler", **SMALL)


def test_a_saved_picture_holds_what_it_was_drawn_from_and_replays_from_its_file_alone(
    studio, picture, mask, tmp_path
):
    drawn = studio.generate("a lemon", image=picture, mask=mask, feather=3, **SMALL)
    for name in ("drawn.png", "drawn.webp"):
        drawn.save(tmp_path / name)
        read = sfumato.Image.open(tmp_path / name)
        assert np.array_equal(read.request.image.rgba[..., :3], picture)
        assert studio.generate(read.request).differs(drawn) is None


def test_content_that_is_large_or_not_to_be_embedded_stays_out_of_the_record(studio, picture, tmp_path):
    large = np.random.default_rng(0).integers(0, 256, (900, 900, 3), dtype=np.uint8)
    drawn = studio.generate("a lemon", image=large, strength=0, **SMALL)
    with pytest.warns(SfumatoWarning, match="a replay needs the file"):
        drawn.save(tmp_path / "large.png")
    assert sfumato.Image.open(tmp_path / "large.png").request.image.data is None
    small = studio.generate("a lemon", image=picture, strength=0, **SMALL)
    small.save(tmp_path / "bare.png", embed=False)
    assert sfumato.Image.open(tmp_path / "bare.png").request.image.data is None
    small.save(tmp_path / "small.jpg")
    assert sfumato.Image.open(tmp_path / "small.jpg").request.image.data is not None
    assert MAX_INPUTS["JPEG"] < MAX_INPUTS["PNG"]


def test_what_an_edit_is_drawn_over_is_worked_out_once(studio, picture, monkeypatch):
    calls = []
    monkeypatch.setattr(
        "sfumato.studio.drawing.canvas_of", lambda *given: calls.append(1) or canvas_of(*given)
    )
    studio.generate("a lemon", image=picture, strength=0, **SMALL)
    assert len(calls) <= 2


def test_what_only_other_models_read_is_refused(studio, picture):
    with pytest.raises(UsageError, match="image_guidance is 3: embedded is no model that edits"):
        studio.generate("a lemon", image=picture, image_guidance=3, **SMALL)


def test_a_model_with_inputs_of_its_own_has_no_inversion(picture, mask):
    studio = sfumato.load(device="cpu", dtype="float32")
    studio.model.info = replace(studio.model.info, task="inpaint")
    with pytest.raises(UsageError, match="inversion is ddim: embedded, an inpaint model, has none"):
        studio.generate("a lemon", image=picture, mask=mask, inversion="ddim", **SMALL)


def test_a_request_for_many_pictures_works_out_once_what_they_are_drawn_over(studio, picture, monkeypatch):
    made = []
    monkeypatch.setattr(
        "sfumato.studio.drawing.canvas_of", lambda *given: made.append(canvas_of(*given)) or made[-1]
    )
    prepared = studio.prepare("a lemon", image=picture, count=5, **SMALL)
    assert len({id(each.canvas) for each in prepared}) == 1
    assert len(made) == 2


def test_a_drawing_that_begins_with_noise_alone_encodes_no_picture(studio, picture, monkeypatch):
    monkeypatch.setattr(studio.decoders, "encode", None)
    studio.generate("a lemon", image=picture, strength=1, **SMALL)


def test_equal_pictures_are_equal_whatever_was_computed_from_them():
    first, second = (InputImage.of(PIL.Image.new("RGB", (8, 8), "red")) for _ in range(2))
    assert first.rgba.shape == second.rgba.shape == (8, 8, 4)
    assert first == second
    assert len({first, second}) == 1
    assert first != InputImage.of(PIL.Image.new("RGB", (8, 8), "blue"))


def test_a_picture_that_is_too_long_is_told_before_drawing_and_not_drawn_longer_than_a_record_may_say(studio):
    for shape in ((4000, 1), (1, 4000)):
        with pytest.raises(UsageError, match=r"16192 pixels|16192×8 pixels, and at most 4096 a side are"):
            studio.prepare("a lemon", image=np.zeros(shape, np.uint8))
    with pytest.raises(UsageError, match="2048×8192 pixels, and at most 4096 a side"):
        studio.prepare("a lemon", image=np.zeros((400, 100), np.uint8), width=2048)


def test_a_strength_that_is_less_than_one_step_is_told(studio, picture):
    with pytest.warns(
        SfumatoWarning, match="strength 0.2 of 3 steps is less than one: .*take 5 steps or more"
    ):
        studio.generate("a lemon", image=picture, strength=0.2, **SMALL)


def test_the_controls_of_a_trainable_studio_compute_in_its_precision(picture):
    studio = sfumato.load(device="cpu", dtype="bfloat16", trainable=True)
    control = {"model": "edges", "image": picture}
    denoise = studio.denoiser("a red apple", width=64, height=64, guidance=1, controls=[control])
    (net,) = studio.controls.networks()
    assert {parameter.dtype for parameter in net.parameters()} == {torch.bfloat16}
    assert denoise(torch.ones(1, 4, 8, 8), studio.model.path().level(500)).isfinite().all()
