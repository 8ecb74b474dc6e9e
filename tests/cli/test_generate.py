"""`sfumato generate` drawing with the embedded model, in this process."""

import errno
import io
import json
import os
import shutil
import sys

import numpy as np
import PIL.Image
import pytest
import torch
from commandline import SMALL
from safetensors.torch import save_file

from sfumato import checkpoint, devices, metadata, studio, viewer
from sfumato.adapt import attach_new, save_lora
from sfumato.config import TinyVAEConfig
from sfumato.errors import CheckpointError
from sfumato.image import Image
from sfumato.nets.tiny_vae import AutoencoderTiny
from sfumato.studio import Studio

pytestmark = pytest.mark.usefixtures("kept_studios")

WARNED = (
    "warning: 64×64 is far from the 256×256 this model was trained at; shapes may be broken or repeated\n"
)


def feed(monkeypatch, text):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))


def test_the_path_goes_to_stdout_and_the_warning_to_stderr(here, tmp_path):
    assert here("generate", "a red apple", "-o", "apple.png", *SMALL) == (0, "apple.png\n", WARNED)
    image = Image.open(tmp_path / "apple.png")
    assert image.size == (64, 64)
    assert image.as_drawn
    assert image.request.prompt == "a red apple"
    assert image.request.seed == 7


def test_quiet_leaves_nothing_but_the_path(here):
    assert here("generate", "a red apple", "-o", "apple.png", "-q", *SMALL) == (0, "apple.png\n", "")


def test_every_option_reaches_the_record(here, tmp_path):
    line = ("--style", "icon-flat", "--dialect", "a1111", "--templates", "combinatorial")
    line += (
        "--embedding",
        "word.safetensors",
        "--allow-partial",
        "--region",
        "0, 0, 0.5, 1: a cat:2",
        "--lora",
        "look.safetensors:0.8:0.5",
    )
    line += ("--negative", "blurry", "--guidance", "3.5", "--guidance-interval", "0.1", "8.5")
    line += (
        "--guidance-rescale",
        "0.5",
        "--sampler",
        "DPM++ 2M Karras",
        "--clip-skip",
        "1",
        "--dtype",
        "fp32",
        "--decoder",
        "tiny",
        "--tiny",
        "tiny.safetensors",
    )
    model = checkpoint.load("embedded", dtype=torch.float32)
    attach_new(model.unet, rank=2)
    save_lora(tmp_path / "look.safetensors", {"unet": model.unet})
    save_file({"emb_params": torch.zeros(1, 256)}, tmp_path / "word.safetensors")
    save_file(AutoencoderTiny(TinyVAEConfig()).state_dict(), tmp_path / "tiny.safetensors")
    here("generate", "a {red} apple", "-o", "apple.png", *SMALL, *line)
    record = metadata.read(tmp_path / "apple.png")
    assert record.dtype == "float32"
    assert record.adapters.keys() == {"look.safetensors"}
    assert record.request.model_dump(exclude_none=True) == {
        "prompt": "a red apple, flat color icon",
        "negative": "blurry",
        "width": 64,
        "height": 64,
        "steps": 2,
        "guidance": 3.5,
        "guidance_interval": (0.1, 8.5),
        "guidance_rescale": 0.5,
        "cache_interval": 1,
        "token_merging": 0.0,
        "sampler": "dpmpp-2m",
        "spacing": "karras",
        "seed": 7,
        "count": 1,
        "clip_skip": 1,
        "dialect": "a1111",
        "style": (),
        "templates": "off",
        "origin": {"prompt": "a {red} apple", "negative": "blurry", "style": ("icon-flat",)},
        "adapters": ({"name": "look.safetensors", "weight": 0.8, "text_weight": 0.5, "blocks": {}},),
        "embeddings": ("word.safetensors",),
        "allow_partial": True,
        "regions": ({"prompt": "a cat:2", "box": (0.0, 0.0, 0.5, 1.0), "weight": 1.0},),
        "controls": (),
        "elements": (),
        "variation_seed": (),
        "variation_amount": (),
        "upscale": 1.0,
        "multidiffusion": False,
        "overlap": 0.5,
        "fast": False,
        "source": "",
        "transparent": False,
        "sticker": 0,
        "fill": "keep",
        "feather": 0,
        "loop": False,
        "travel": {},
        "decoder": "tiny",
        "tiny": "tiny.safetensors",
        "model": "embedded",
    }


def test_several_prompts_and_a_count_give_numbered_pictures_with_seeds_that_count_up(here, tmp_path):
    status, out, _ = here("generate", "an apple", "a cat", "-n", "2", "-o", "a.png", *SMALL)
    assert (status, out.split()) == (0, ["a-1.png", "a-2.png", "a-3.png", "a-4.png"])
    requests = [metadata.read(tmp_path / name).request for name in out.split()]
    assert [(one.prompt, one.seed) for one in requests] == [
        ("an apple", 7),
        ("an apple", 8),
        ("a cat", 7),
        ("a cat", 8),
    ]


@pytest.mark.parametrize("wrong", [b"a (cat", b"a {cat|", b"a __none__"])
def test_of_several_prompts_the_wrong_one_is_told_by_its_number(here, wrong, monkeypatch):
    feed(monkeypatch, b"a cat\n\n" + wrong + b"\na dog\n")
    status, out, err = here("generate", "-", "-o", "new/", *SMALL)
    assert (status, out) == (2, "")
    assert err.startswith("error: prompt 2 of 3: ")
    assert err.count("\n") == 1


def test_prompts_come_from_stdin_one_a_line_and_json_goes_out_one_line_a_picture(here, tmp_path, monkeypatch):
    feed(monkeypatch, "\ufeffa red apple\r\n\n  一只蓝猫 \n".encode())
    status, out, err = here("generate", "-", "--json", "-o", "out/", *SMALL)
    told = [json.loads(line) for line in out.splitlines()]
    assert (status, err) == (0, WARNED)
    assert [one["path"] for one in told] == ["out/a-red-apple-7.png", "out/一只蓝猫-7.png"]
    assert [one["request"]["prompt"] for one in told] == ["a red apple", "一只蓝猫"]
    for one in told:
        record = metadata.read(tmp_path / one["path"]).model_dump(mode="json")
        assert {name: one[name] for name in record} == record
        assert one["seconds"] > 0
        assert (one["seed"], one["width"], one["height"]) == (7, 64, 64)


def test_a_contact_sheet_shows_every_picture_over_its_seed(here, tmp_path):
    status, out, _ = here("generate", "a red apple", "-n", "5", "-o", "a.png", "--sheet", "-q", *SMALL)
    assert (status, out.split()[-1]) == (0, "a-sheet.png")
    sheet = PIL.Image.open(tmp_path / "a-sheet.png")
    width, height = sheet.size
    assert (width, height // 2) == (3 * 64, 64 + 2 * 14 + 4)
    pixels = np.asarray(sheet)
    for place in range(5):
        left, top = place % 3 * 64, place // 3 * height // 2
        drawn = Image.open(tmp_path / f"a-{place + 1}.png").pixels
        assert np.array_equal(pixels[top : top + 64, left : left + 64], drawn)
        assert pixels[top + 64 : top + 80, left : left + 64].min() < 128, "no caption"
    assert pixels[height // 2 :, 2 * 64 :].min() == 255


def test_open_shows_the_sheet_or_the_picture_where_there_is_a_desktop(here, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(viewer, "show", shown.append)
    monkeypatch.setattr(viewer, "why_none", lambda: None)
    here("generate", "a red apple", "-o", "a.png", "--open", "-q", *SMALL)
    here("generate", "a red apple", "-n", "2", "-o", "b.png", "--open", "--sheet", "-q", *SMALL)
    assert [str(path) for path in shown] == ["a.png", "b-sheet.png"]


def test_open_without_a_display_is_one_line_and_the_picture_is_saved(here, tmp_path, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    status, out, err = here("generate", "a red apple", "-o", "a.png", "--open", *SMALL)
    assert (status, out) == (0, "a.png\n")
    assert "warning: the picture is saved, not shown: there is no display\n" in err


def test_no_clobber_keeps_the_file_that_is_there(here, tmp_path):
    (tmp_path / "a.png").write_bytes(b"mine")
    assert here("generate", "a cat", "-o", "a.png", "--no-clobber", "-q", *SMALL)[1] == "a-2.png\n"
    assert (tmp_path / "a.png").read_bytes() == b"mine"


def test_a_dtype_that_the_processor_emulates_is_replaced_by_the_best_and_said(here, tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "emulated", lambda device, dtype: dtype == torch.float16)
    _, _, err = here("generate", "a cat", "-o", "a.png", "--dtype", "fp16", *SMALL)
    best = str(devices.pick_dtype(torch.device("cpu"))).removeprefix("torch.")
    assert metadata.read(tmp_path / "a.png").dtype == best
    assert f"no instructions for fp16, which would take 100 times as long; using {best}" in err


def test_text_that_is_not_utf_8_is_refused(here, monkeypatch):
    feed(monkeypatch, b"a red apple\n\xff\n")
    assert here("generate", "-")[::2] == (
        2,
        "error: standard input is not UTF-8 text: invalid start byte at byte 12\n",
    )


def test_a_picture_to_stdout_is_a_png_with_its_record(here):
    status, out, _ = here.raw("generate", "a red apple", "-o", "-", "-q", *SMALL)
    assert status == 0
    with PIL.Image.open(io.BytesIO(out)) as picture:
        assert metadata.record_of(picture, "stdout").request.prompt == "a red apple"


def test_previews_show_the_picture_come_out_of_the_haze(here, tmp_path):
    here("generate", "an apple", "-n", "2", "-o", "a.png", "--preview", "seen", *SMALL, "--steps", "3")
    names = sorted(os.listdir(tmp_path / "seen"))
    assert names == [f"{picture}-{step}.png" for picture in (1, 2) for step in (1, 2, 3)]
    final = Image.open(tmp_path / "a-2.png")
    away = [
        np.abs(Image.open(tmp_path / "seen" / f"2-{step}.png").pixels.astype(int) - final.pixels).mean()
        for step in (1, 2, 3)
    ]
    assert away[0] > away[1] > away[2] == 0


def test_a_jpeg_replays_as_identical(here):
    here("generate", "a red apple", "-o", "a.jpg", *SMALL)
    status, out, err = here("replay", "a.jpg")
    assert (status, err) == (0, "")
    assert out.startswith("identical: a.jpg as it was drawn (the file itself is compressed: at most ")


def test_each_picture_of_a_batch_replays_as_identical(here):
    here("generate", "a red apple", "-n", "3", "-o", "a.png", *SMALL)
    for number in (1, 2, 3):
        assert here("replay", f"a-{number}.png") == (0, f"identical: a-{number}.png\n", "")


def test_a_replay_says_what_differs_and_why(here, tmp_path):
    here("generate", "a red apple", "-o", "a.png", "--dtype", "fp32", *SMALL)
    record = metadata.read(tmp_path / "a.png").model_copy(
        update={"torch": "1.0", "device": "cuda:0 NVIDIA H100", "fingerprint": "beef", "pixels": "0" * 64}
    )
    pixels = Image.open(tmp_path / "a.png").pixels.copy()
    pixels[3, 4] = np.where(pixels[3, 4] > 127, pixels[3, 4] - 5, pixels[3, 4] + 5)
    Image(pixels, record).save(tmp_path / "b.png")
    status, out, _ = here("replay", "b.png", "-o", "again.png")
    now = metadata.read(tmp_path / "again.png")
    assert status == 1
    assert out.splitlines() == [
        "differs: b.png: at most 5/255 in 1 of 4096 pixels",
        f"  model weights: beef then, {now.fingerprint} now",
        f"  torch: 1.0 then, {torch.__version__} now",
        "  device: cuda:0 NVIDIA H100 then, cpu now",
        "again.png",
    ]
    told = json.loads(here("replay", "b.png", "--json")[1])
    assert told["identical"] is False
    assert len(told["causes"]) == 3


def test_a_png_that_was_painted_over_differs_though_its_record_replays(here, tmp_path):
    here("generate", "a red apple", "-o", "a.png", *SMALL)
    image = Image.open(tmp_path / "a.png")
    pixels = image.pixels.copy()
    pixels[:8, :8] ^= 1
    Image(pixels, image.record).save(tmp_path / "a.png")
    status, out, _ = here("replay", "a.png")
    assert (status, out) == (
        1,
        "differs: a.png: the file was changed after it was drawn, at most 1/255 in 64 of 4096 pixels\n",
    )


def test_a_replay_names_the_model_it_misses_and_never_downloads_it(here, tmp_path, monkeypatch):
    here("generate", "a red apple", "-o", "a.png", *SMALL)
    image = Image.open(tmp_path / "a.png")
    record = image.record.model_copy(update={"model": "someone/something"})
    Image(image.pixels, record).save(tmp_path / "a.png")
    asked = []

    def missing(model, device):
        asked.append(model)
        raise CheckpointError(f"{model.source} is not in the local cache")

    monkeypatch.setattr(studio, "open_studio", missing)
    status, _, err = here("replay", "a.png")
    assert status == 1
    assert "the model 'someone/something' that drew it cannot be had here" in err
    assert "say where it is with --model" in err
    assert asked[0].local_files_only is True


def test_a_replay_with_the_model_elsewhere_is_identical(here, tmp_path):
    shutil.copytree(checkpoint.embedded(), tmp_path / "moved")
    here("generate", "a red apple", "-o", "a.png", "--model", "moved", *SMALL)
    assert metadata.read(tmp_path / "a.png").model == "moved"
    (tmp_path / "moved").rename(tmp_path / "elsewhere")
    assert here("replay", "a.png", "--model", "elsewhere") == (0, "identical: a.png\n", "")


def test_inspect_shows_the_record_of_a_picture(here, tmp_path):
    here("generate", "a red apple", "-o", "a.png", *SMALL)
    status, out, _ = here("inspect", "a.png")
    assert status == 0
    assert out.startswith("a.png: PNG, 64×64\n")
    assert "prompt             a red apple\n" in out
    told = json.loads(here("inspect", "a.png", "--json")[1])
    assert told["record"] == metadata.read(tmp_path / "a.png").model_dump(mode="json")
    assert told["parameters"].startswith("a red apple\nSteps: 2, Sampler: ")


def test_inspect_shows_weights_of_adapters_and_fingerprints_of_their_files(here, tmp_path):
    here("generate", "a red apple", "-o", "a.png", *SMALL)
    image = Image.open(tmp_path / "a.png")
    request = image.request.changed(adapters=[{"name": "ink", "weight": 0.75}])
    worn = image.record.model_copy(update={"request": request, "adapters": {"ink": "0123456789abcdef"}})
    Image(image.pixels, worn).save(tmp_path / "worn.png")
    _, out, _ = here("inspect", "worn.png")
    assert "'weight': 0.75" in out
    assert "adapter files      {'ink': '0123456789abcdef'}" in out


def test_a_truncated_model_is_one_line_and_no_picture(here, tmp_path):
    folder = tmp_path / "half"
    shutil.copytree(checkpoint.embedded(), folder)
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    status, out, err = here("generate", "a red apple", "-o", "a.png", "--model", folder, *SMALL)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert str(weights) in err
    assert err.count("\n") == 1
    assert os.listdir(tmp_path) == ["half"]
    assert here("inspect", folder)[0] == 2


@pytest.mark.parametrize("option", ["--model", "--lora", "--vae", "--embedding", "--image"])
def test_a_damaged_file_of_any_kind_is_wrong_usage(option, here, tmp_path):
    name = "broken.png" if option == "--image" else "broken.safetensors"
    (tmp_path / name).write_bytes(b"nothing of the kind")
    status, out, err = here("generate", "a red apple", "-o", "a.png", option, name, *SMALL)
    assert (status, out) == (2, "")
    assert "broken" in err
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails_while_a_picture_is_written_leaves_nothing(code, here, tmp_path, monkeypatch):
    def fail(*_arguments):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    status, out, err = here("generate", "a red apple", "-o", "a.png", "-q", *SMALL)
    assert (status, out) == (1, "")
    assert err.startswith("error: cannot write a.png: ")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_pictures_finished_before_a_failure_are_kept(here, tmp_path, monkeypatch):
    synced, real = [], os.fsync

    def fail_later(descriptor):
        synced.append(descriptor)
        if len(synced) > 3:  # a picture syncs its file, then its folder
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fail_later)
    status, out, err = here("generate", "a red apple", "-n", "3", "-o", "a.png", "-q", *SMALL)
    assert status == 1
    assert "a-2.png: no space is left on the device" in err
    assert out == "a-1.png\n"
    assert Image.open(tmp_path / "a-1.png").as_drawn


def test_a_size_the_model_cannot_draw_is_told_with_the_nearest_ones(here):
    status, _, err = here("generate", "x", "-W", "100", "-o", "a.png")
    assert status == 2
    assert err == "error: width is 100: must be a multiple of 8 for this model, such as 96 or 104\n"


def test_a_device_that_is_not_here_is_told(here):
    status, _, err = here("generate", "x", "--device", "cuda:77", "-o", "a.png")
    assert status == 2
    assert "'cuda:77'" in err


def test_what_is_checked_before_drawing_is_what_is_drawn(here, tmp_path, monkeypatch):
    """A template chooses by the seed, which is drawn once."""
    checked, check_fits = [], Studio.check_fits
    monkeypatch.setattr(
        Studio,
        "check_fits",
        lambda studio, picture, path: checked.append(picture.request) or check_fits(studio, picture, path),
    )
    here("generate", "a {red|blue|green} apple", "-n", "2", "-o", "a-{n}.webp", *SMALL[:-2])
    drawn = [metadata.read(tmp_path / f"a-{number}.webp").request for number in (1, 2)]
    assert [(one.prompt, one.seed) for one in drawn] == [(one.prompt, one.seed) for one in checked]
