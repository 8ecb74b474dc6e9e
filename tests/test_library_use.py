"""What a program that imports sfumato tries first: wrong and right arguments, `repr`, `with`, `show`."""

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from pictures import drawn

import sfumato
from sfumato import contact_sheet, devices, viewer
from sfumato.adapt import attach_new, save_lora
from sfumato.errors import OutputError, SfumatoWarning, UsageError
from sfumato.options import DeviceOptions
from sfumato.pictures import opened
from sfumato.prompt.meaning import AdapterWeight
from sfumato.request import Region

SMALL = {"steps": 1, "width": 64, "height": 64, "seed": 7}
pytestmark = pytest.mark.filterwarnings("ignore:64×64")


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    studio = sfumato.load(device="cpu", dtype="float32")
    folder = tmp_path_factory.mktemp("adapters")
    model = sfumato.load(device="cpu", dtype="float32", trainable=True).model
    attach_new(model.unet, rank=2)
    save_lora(folder / "ink.safetensors", {"unet": model.unet})
    studio.load_adapter(folder / "ink.safetensors")
    return studio


@pytest.mark.parametrize(
    ("given", "fields", "said"),
    [
        (None, {}, "prompt is missing"),
        (3, {}, "cannot draw 3: a request is a prompt, a sfumato.Request, or a list of these"),
        (b"a cat", {}, "cannot draw b'a cat'"),
        ({"prompt": "a cat"}, {}, "cannot draw {'prompt': 'a cat'}"),
        (Path("cat"), {}, "cannot draw 'cat'"),
        ([], {}, "there is no request to draw"),
        (["a cat", None], {}, "cannot draw None"),
        ("a cat", {"prompt": "a dog"}, "prompt is given twice"),
        ("a cat", {"steeps": 3}, "unknown field 'steeps'; did you mean 'steps'?"),
        ("a cat", {"size": 64}, "unknown field 'size'; here it is width and height"),
        ("a cat", {"cfg_scale": 7}, "unknown field 'cfg_scale'; here it is guidance"),
        ("a cat", {"seed": -1}, "seed is -1: must be at least 0 .*; for a random seed leave it out"),
        ("a cat", {"guidance": "much"}, "guidance is 'much': must be a valid number"),
        ("a cat", {"width": 100}, "width is 100: must be a multiple of 8"),
    ],
)
@pytest.mark.parametrize("method", ["generate", "generate_batch", "stream", "denoiser", "prepare"])
def test_every_way_to_draw_refuses_alike_and_at_once(studio, method, given, fields, said):
    with pytest.raises(UsageError, match=said):
        getattr(studio, method)(given, **fields)


def test_a_prompt_may_be_a_keyword_a_list_or_empty(studio):
    (first,), second = studio.generate(["a cat"], **SMALL), studio.generate(prompt="a cat", **SMALL)
    assert first.differs(second) is None
    several = studio.generate((f"a {what}" for what in ("cat", "dog")), count=2, **SMALL)
    assert [(one.request.prompt, one.request.seed) for one in several] == [
        ("a cat", 7), ("a cat", 8), ("a dog", 7), ("a dog", 8),
    ]  # fmt: skip
    assert studio.generate("", **SMALL).request.prompt == ""


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: sfumato.Request(), "prompt is missing"),
        (lambda: sfumato.Request("a", "b"), "a request has one prompt; name the other fields"),
        (lambda: sfumato.Request(7), "prompt is 7: must be a valid string"),
        (lambda: sfumato.Request("a", steps=0, width=1), "width is 1: .*; steps is 0: "),
        (lambda: sfumato.Request("a", steeps=1), "did you mean 'steps'"),
        (lambda: sfumato.Request("a").changed(steps=0), "steps is 0"),
        (
            lambda: sfumato.Request("a", adapters=[{"name": "x", "wait": 1}]),
            "adapters.0.wait is 1: no such key",
        ),
        (lambda: sfumato.Request("a", regions=[{"prompt": "b"}]), "regions.0.box is missing"),
        (lambda: Region(prompt="a", box=(0, 0, 0, 1)), "is empty: it must be left < right"),
        (lambda: Region(prompt="a"), "box is missing"),
        (lambda: sfumato.load(None), "source is None: must be a name or a path"),
        (lambda: sfumato.load(7), "source is 7: must be"),
        (lambda: sfumato.load(""), "source is ''"),
        (lambda: sfumato.load(vae=7), "vae is 7"),
        (lambda: sfumato.load(tile="x"), "tile is 'x': must be at least 1, a whole number"),
        (lambda: sfumato.load(dtype=3), "unknown dtype '3'"),
        (lambda: drawn().save(None), "path is None: must be the name of a file"),
        (lambda: drawn().save("a.jpg", quality="best"), "quality is 'best': must be 1 to 100"),
        (lambda: sfumato.Image.open(3), "path is 3"),
    ],
)
def test_a_wrong_argument_is_a_usage_error_in_a_line(make, said):
    with pytest.raises(UsageError, match=said) as refused:
        make()
    assert "\n" not in str(refused.value)


def test_wrong_adapters_are_refused_and_names_are_enough(studio):
    for wrong, said in ((3, "cannot use 3"), ("none", "there is no adapter 'none'")):
        with pytest.raises(UsageError, match=said):
            studio.adapt([wrong])
    with pytest.raises(UsageError, match="path is None"):
        studio.load_adapter(None)
    assert sfumato.Request("a", adapters="ink").adapters == (AdapterWeight("ink"),)
    assert sfumato.Request("a", adapters=["ink", AdapterWeight("x", 0.5)]).adapters[0] == AdapterWeight("ink")
    assert studio.generate("a cat", adapters=["ink"], **SMALL).record.adapters.keys() == {"ink"}


def test_the_adapters_that_are_ready_are_listed_counted_and_found(studio):
    assert list(studio.adapters) == ["ink"]
    assert len(studio.adapters) == 1
    assert "ink" in studio.adapters
    assert "none" not in studio.adapters
    studio.adapt(["ink"])
    assert repr(studio.adapters) == "<Adapters: 'ink' (active, 1)>"
    studio.adapt([])


def test_objects_tell_what_a_person_wants_to_know(studio):
    image = studio.generate("a red apple", **SMALL)
    model = "model embedded"
    assert repr(image) == f"<Image 64×64: 'a red apple', seed 7, steps 1, dpmpp-2m, guidance 4.0, {model}>"
    assert repr(studio) == ("<Studio 'embedded': latent-diffusion, 256×256, cpu, float32, adapters: 'ink'>")
    assert repr(studio.model) == "<Model 'embedded': latent-diffusion, 256×256, v prediction>"
    assert repr(studio.adapters["ink"]).startswith("<Adapter 'ink': ")
    assert repr(next(studio.stream("a", **{**SMALL, "steps": 3}))) == "<Step 1 of 3, σ = inf>"
    request = sfumato.Request("a", steps=3, style="icon-flat")
    assert repr(request) == "Request(prompt='a', steps=3, style=('icon-flat',))"
    assert eval(repr(request), {"Request": sfumato.Request}) == request


def test_a_studio_closes_at_the_end_of_with_and_says_so():
    with sfumato.load(device="cpu", dtype="float32") as studio:
        image = studio.generate("a cat", **SMALL)
        stream = studio.stream("a cat", **{**SMALL, "steps": 3})
        step = next(stream)
    assert image.size == (64, 64)
    assert repr(studio) == "<Studio, closed>"
    for use in (lambda: studio.generate("a"), lambda: next(stream), step.preview, lambda: studio.device):
        with pytest.raises(UsageError, match="this studio is closed; load the model again"):
            use()
    studio.close()


def test_a_name_that_a_studio_does_not_have_is_an_attribute_error(studio):
    assert not hasattr(studio, "genrate")


def test_a_picture_is_an_array_to_numpy():
    image = drawn()
    assert np.array_equal(np.asarray(image), image.pixels)
    assert np.array(image, dtype=float).dtype == np.float64


def test_show_opens_the_picture_with_its_record_in_the_viewer(monkeypatch):
    shown = []
    monkeypatch.setattr(viewer, "why_none", lambda: None)
    monkeypatch.setattr(viewer.subprocess, "Popen", lambda line, **_: shown.append(line))
    drawn().show()
    ((_, path),) = shown
    assert sfumato.Image.open(path).record == drawn().record


def test_show_without_a_display_or_a_viewer_says_which_is_missing(monkeypatch, tmp_path):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(OutputError, match="cannot show the picture: there is no display"):
        drawn().show()
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OutputError, match="xdg-open is not installed"):
        drawn().show()


def test_an_emulated_dtype_is_warned_of_in_a_program_and_replaced_by_the_command(monkeypatch):
    monkeypatch.setattr(
        devices.torch.cpu, "get_capabilities", lambda: {"architecture": "x86_64", "avx2": True}
    )
    with pytest.warns(SfumatoWarning, match="no instructions for bf16, .* 100 times as long; using float32"):
        assert devices.native(DeviceOptions("cpu", "bf16")).dtype == "float32"
    with pytest.warns(SfumatoWarning, match="no instructions for torch.float16"):
        assert sfumato.load(device="cpu", dtype="float16").dtype == devices.torch.float16


def test_a_processor_with_the_instructions_computes_what_was_asked(monkeypatch):
    has = {"architecture": "x86_64", "avx512_bw": True, "avx512_bf16": True, "avx512_fp16": True}
    monkeypatch.setattr(devices.torch.cpu, "get_capabilities", lambda: has)
    for dtype in ("fp16", "bf16", "float32"):
        assert devices.native(DeviceOptions("cpu", dtype)).dtype == dtype


@pytest.mark.parametrize(
    ("name", "has", "fast"),
    [
        ("AMD EPYC 9R14", ("avx512_bf16",), True),
        ("Intel(R) Xeon(R) Processor", ("avx512_bf16", "amx_bf16"), True),
        ("Intel(R) Xeon(R) Processor", ("avx512_bf16",), False),  # twice as slow as float32
        ("AMD EPYC 7R13", (), False),
    ],
)
def test_a_cpu_draws_in_bfloat16_where_that_is_faster(name, has, fast, monkeypatch):
    monkeypatch.setattr(devices.machine, "processor", lambda: name)
    monkeypatch.setattr(devices.torch.cpu, "get_capabilities", lambda: dict.fromkeys(has, True))
    expected = devices.torch.bfloat16 if fast else devices.torch.float32
    assert devices.pick_dtype(devices.pick_device("cpu")) == expected


COLOURS = ("red", "green", "blue", "black", "yellow", "purple")


def test_a_contact_sheet_may_be_a_grid_with_labels():
    pictures = [PIL.Image.new("RGB", (40, 20), colour) for colour in COLOURS]
    page = contact_sheet.contact_sheet(
        pictures, column_labels=["7", "8", "9"], row_labels=["euler", "heun"], cell=(40, 40), font_size=11
    )
    left, top = page.width - 3 * 40, page.height - 2 * 40
    for place, picture in enumerate(pictures):
        middle = (left + place % 3 * 40 + 20, top + place // 3 * 40 + 20)
        assert page.getpixel(middle) == picture.getpixel((0, 0))
        assert page.getpixel((middle[0], middle[1] - 15)) == (255, 255, 255)
    assert np.asarray(page)[:, :left].min() < 128
    assert np.asarray(page)[:top].min() < 128


def test_a_contact_sheet_of_large_pictures_can_be_read_back(tmp_path):
    large = PIL.Image.new("RGB", (2048, 1536), "red")
    pictures = [contact_sheet.shrunk(large, 9)] * 9
    page = contact_sheet.contact_sheet(pictures, ["a very long prompt, word after word " * 9] * 9)
    page.save(tmp_path / "sheet.png")
    with opened(tmp_path / "sheet.png") as read:
        assert read.size == page.size
    assert pictures[0].width / pictures[0].height == pytest.approx(4 / 3, abs=0.01)
