"""What picture files say about themselves, read back by us and by the real sd-parsers."""

import json

import numpy as np
import PIL.Image
import pytest
from pictures import drawn
from PIL import PngImagePlugin
from sd_parsers import ParserManager

from sfumato import metadata
from sfumato.errors import PictureError
from sfumato.image import Image
from sfumato.metadata import a1111_line, pixel_digest
from sfumato.names import SAMPLERS

PROMPTS = {
    "plain": "a red apple, 3d render",
    "quotes": "a \"red\" apple, 'ripe' \\ <b>&amp;</b> `x`",
    "newlines": "a red apple\n\non a table\r\nin 3d",
    "colons": "time: 10:30, (apple:1.2), size: 3",
    "emoji": "a 🍎 on a 🏳️‍🌈",
    "chinese": "一个红苹果，三维渲染",
    "right to left": "תפוח אדום ‏تفاحة حمراء",
    "accents": "pomme façonnée à l'été, groß",
    "looks like a negative prompt": "a sign saying\nNegative prompt: blurry",
    "looks like settings": "a screen\nSteps: 3, Sampler: x, CFG scale: 1, Seed: 5",
    "control characters": "a\0b\x01c\x7fd\ufffee",
}
PARSED = []
"""Every picture that sd-parsers was given: it knows its last one by `id`, which must not come again."""
SUFFIXES = (".png", ".jpg", ".webp")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS.keys())
def test_a_record_comes_back_as_it_went_in_whatever_the_prompt(prompt, suffix, tmp_path):
    image = drawn(prompt, negative=prompt[::-1])
    path = image.save(tmp_path / f"picture{suffix}")
    assert metadata.read(path) == image.record
    assert Image.open(path).record == image.record


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", ["plain", "quotes", "emoji", "chinese", "right to left", "accents"])
def test_sd_parsers_reads_what_we_write(name, suffix, tmp_path):
    image = drawn(PROMPTS[name], negative='blurry, 模糊: "bad"', seed=2**63 - 1)
    picture = PIL.Image.open(image.save(tmp_path / f"picture{suffix}"))
    PARSED.append(picture)
    read = ParserManager().parse(picture)
    assert read.full_prompt == PROMPTS[name]
    assert read.full_negative_prompt == 'blurry, 模糊: "bad"'
    (sampler,) = read.samplers
    assert sampler.name == "DPM++ 2M"
    assert sampler.parameters == {
        "scheduler": "Karras",
        "cfg_scale": "4.5",
        "seed": str(2**63 - 1),
        "steps": "12",
    }
    assert (sampler.model.name, sampler.model.hash) == ("embedded", "0123456789")
    assert read.metadata["Size"] == "32x24"


def test_the_a1111_line_is_laid_out_as_the_web_ui_does():
    image = drawn("a red apple", negative="blurry", model='odd: "one", two', clip_skip=1, guidance=7)
    assert a1111_line(image.record).split("\n") == [
        "a red apple",
        "Negative prompt: blurry",
        "Steps: 12, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 7, Size: 32x24, "
        'Model hash: 0123456789, Model: "odd: \\"one\\", two", Clip skip: 2, Version: sfumato 0.1.0',
    ]


def test_a_second_pass_is_written_as_the_web_ui_does():
    second = {"upscale": 2, "upscaler": "lanczos", "upscale_strength": 0.5, "upscale_steps": 20}
    line = a1111_line(drawn("a red apple", width=64, height=48, **second).record)
    assert "Size: 32x24, " in line
    assert "Denoising strength: 0.5, Hires upscale: 2, Hires steps: 10, Hires upscaler: Lanczos, " in line
    uneven = a1111_line(drawn("a red apple", width=104, height=56, **{**second, "upscale": 2.9}).record)
    assert "Size: 36x19, " in uneven
    assert "Hires resize: 104x56, " in uneven


def test_adapters_of_a_request_are_tags_of_the_prompt_in_the_a1111_line():
    adapters = [{"name": "ink"}, {"name": "loras/v1.5.safetensors", "weight": 0.8, "text_weight": -0.5}]
    image = drawn("a red apple", adapters=adapters)
    line, _ = a1111_line(image.record).split("\n")
    assert line == "a red apple <lora:ink:1> <lora:v1.5:-0.5:0.8>"


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_has_a_label_that_is_not_a_class_of_diffusers(sampler):
    line = a1111_line(drawn(sampler=sampler).record)
    label = line.split("Sampler: ")[1].split(",")[0]
    assert label
    assert not label.endswith("Scheduler")


def test_png_text_is_latin_1_where_that_will_do_and_utf_8_where_not_and_our_record_is_ascii(tmp_path):
    def chunks(prompt):
        raw = drawn(prompt).save(tmp_path / "picture.png").read_bytes()
        record = raw[
            (start := raw.index(b"tEXtsfumato")) : start + int.from_bytes(raw[start - 4 : start], "big")
        ]
        assert record.isascii()
        return raw.count(b"tEXt"), raw.count(b"iTXt")

    assert chunks("pomme façonnée") == (2, 0)
    assert chunks("苹果") == (1, 1)


def test_a_picture_of_another_program_is_told_by_its_a1111_line(tmp_path):
    text = PngImagePlugin.PngInfo()
    text.add_text("parameters", "a cat\nSteps: 3, Sampler: Euler")
    path = tmp_path / "other.png"
    PIL.Image.new("RGB", (8, 8)).save(path, pnginfo=text)
    with pytest.raises(
        PictureError, match=r"no Sfumato record in .*other.png; it was drawn by A1111, and `sfumato replay`"
    ):
        metadata.read(path)


def test_a_picture_without_any_record_is_told_so(tmp_path):
    for suffix in SUFFIXES:
        path = tmp_path / f"plain{suffix}"
        PIL.Image.new("RGB", (8, 8)).save(path)
        with pytest.raises(PictureError, match=r"no Sfumato record in .*plain\.\w+$"):
            metadata.read(path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "the whole: Invalid JSON"),
        ("[]", "the whole: must be an object"),
        ("{}", "sfumato: Field required"),
        ('{"request": {"prompt": "a", "steps": 5000}}', "sfumato: Field required"),
        ("[" * 100_000, "the whole: Invalid JSON"),
    ],
)
def test_a_record_that_cannot_be_read_is_an_error_with_its_place(text, told, tmp_path):
    chunk = PngImagePlugin.PngInfo()
    chunk.add_text("sfumato", text)
    path = tmp_path / "hostile.png"
    PIL.Image.new("RGB", (8, 8)).save(path, pnginfo=chunk)
    with pytest.raises(PictureError, match=told):
        metadata.read(path)


def test_a_record_with_values_out_of_range_is_refused(tmp_path):
    record = drawn().record.model_dump(mode="json")
    record["request"]["steps"] = 5000
    chunk = PngImagePlugin.PngInfo()
    chunk.add_text("sfumato", json.dumps(record))
    path = tmp_path / "hostile.png"
    PIL.Image.new("RGB", (8, 8)).save(path, pnginfo=chunk)
    with pytest.raises(PictureError, match=r"request\.steps: must be at most 1000"):
        metadata.read(path)


def test_a_record_larger_than_the_limit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(metadata, "MAX_RECORD", 100)
    path = drawn().save(tmp_path / "picture.png")
    with pytest.raises(PictureError, match="larger than 100 bytes"):
        metadata.read(path)


def test_the_digest_knows_the_shape_and_every_byte():
    pixels = np.zeros((4, 6, 3), dtype=np.uint8)
    other = pixels.copy()
    other[3, 5, 2] = 1
    digests = {pixel_digest(pixels), pixel_digest(pixels.reshape(6, 4, 3)), pixel_digest(other)}
    assert len(digests) == 3
    assert pixel_digest(np.asfortranarray(other)) in digests
