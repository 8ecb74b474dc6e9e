"""Pictures of other programs: recognised as what they are, and their settings as fields of our request."""

import gzip
import json
import struct
import tracemalloc
import zlib

import numpy as np
import PIL.Image
import pytest
from pictures import drawn
from PIL import ExifTags, PngImagePlugin
from sd_parsers import ParserManager

from sfumato import foreign, metadata, pictures
from sfumato.errors import PictureError
from sfumato.image import Image
from sfumato.metadata import a1111_line

A1111 = """a (red:1.2) apple, <lora:ink:0.8>
on a table
Negative prompt: blurry,
dark
Steps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 1234567890, Size: 512x768, Model hash: 0123456789, \
Model: dreamy, VAE: fine.pt, Denoising strength: 0.5, Clip skip: 2, ADetailer model: face.pt, \
ADetailer prompt: "a face, smiling: much", Hires upscale: 2, Hires steps: 10, TI hashes: "soft: 0123", \
Lora hashes: "ink: 4567", Version: v1.10.1
Template: a {red|green} apple"""

GRAPH = {
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "seed": ["40", 0],
            "steps": 25,
            "cfg": 6.5,
            "sampler_name": "dpmpp_2m",
            "scheduler": "karras",
            "denoise": 1.0,
            "model": ["11", 0],
            "positive": ["20", 0],
            "negative": ["7", 0],
            "latent_image": ["5", 0],
        },
    },
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd\\dreamy.safetensors"}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 640, "height": 384, "batch_size": 1}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": ["41", 0], "clip": ["12", 0]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "blurry", "clip": ["12", 0]}},
    "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "x"}},
    "10": {
        "class_type": "LoraLoader",
        "inputs": {
            "lora_name": "ink.safetensors",
            "strength_model": 0.7,
            "strength_clip": 0.4,
            "model": ["4", 0],
            "clip": ["4", 1],
        },
    },
    "11": {"class_type": "FreeU", "inputs": {"b1": 1.1, "model": ["10", 0]}, "is_changed": [float("nan")]},
    "12": {"class_type": "CLIPSetLastLayer", "inputs": {"stop_at_clip_layer": -2, "clip": ["10", 1]}},
    "20": {"class_type": "Reroute", "inputs": {"": ["6", 0]}},
    "40": {"class_type": "PrimitiveInt", "inputs": {"value": 77}},
    "41": {
        "class_type": "StringConcatenate",
        "inputs": {"string_a": "a cat", "string_b": ["42", 0], "delimiter": ", "},
    },
    "42": {"class_type": "Text Multiline", "inputs": {"text": "on a (mat:1.2)"}},
}


def saved(path, texts, **options):
    """A picture with PNG texts; those that are bytes become iTXt."""
    info = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        info.add_itxt(key, text, **options) if options else info.add_text(key, text)
    PIL.Image.new("RGB", (8, 8)).save(path, pnginfo=info)
    return path


def fields(record):
    return record.request.model_dump(exclude_defaults=True, exclude={"templates"})


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_chunk(path, kind, content, *, late=False):
    """A picture with one more chunk, before its pixels or behind them."""
    PIL.Image.new("RGB", (8, 8)).save(path)
    raw = path.read_bytes()
    at = raw.index(b"IEND") - 4 if late else raw.index(b"IDAT") - 4
    path.write_bytes(raw[:at] + chunk(kind, content) + raw[at:])
    return path


def test_an_a1111_record_is_taken_over_and_the_rest_is_named(tmp_path):
    record = foreign.read(saved(tmp_path / "a.png", {"parameters": A1111}))
    assert record.program == "A1111"
    assert fields(record) == {
        "prompt": "a (red:1.2) apple, \non a table",
        "negative": "blurry,\ndark",
        "steps": 20,
        "sampler": "dpmpp-2m",
        "spacing": "karras",
        "guidance": 7.0,
        "seed": 1234567890,
        "width": 1024,
        "height": 1536,
        "upscale": 2.0,
        "upscale_strength": 0.5,
        "upscale_steps": 20,
        "clip_skip": 1,
        "dialect": "a1111",
        "adapters": ({"name": "ink", "weight": 0.8},),
    }
    assert (record.model, record.embeddings) == ("dreamy", ("soft",))
    assert record.left_out == (
        "VAE fine.pt",
        "ADetailer model: face.pt, ADetailer prompt: a face, smiling: much",
    )


@pytest.mark.parametrize(
    ("label", "schedule", "sampler", "spacing"),
    [
        ("Euler a", None, "euler-a", "linspace"),
        ("DPM++ 2M", None, "dpmpp-2m", "linspace"),
        ("DPM++ 2M", "Automatic", "dpmpp-2m", "karras"),
        ("DPM++ 2M SDE", "Automatic", "dpmpp-2m-sde", "exponential"),
        ("DPM++ 2M SDE Exponential", None, "dpmpp-2m-sde", "exponential"),
        ("DPM++ 3M SDE", "SGM Uniform", "dpmpp-3m-sde", "trailing"),
        ("DDIM", None, "ddim", "leading"),
        ("PLMS", "Automatic", "pndm", "leading"),
        ("Euler", "Simple", "euler", "trailing"),
        ("DPM2 a Karras", None, "dpm2-a", "karras"),
        ("DPM++ 2M SDE Heun", "Karras", "dpmpp-2m-sde", "karras"),
        ("Restart", "Karras", None, "karras"),
    ],
)
def test_samplers_and_schedules_of_a1111_are_ours_by_their_names(label, schedule, sampler, spacing, tmp_path):
    kind = f", Schedule type: {schedule}" if schedule else ""
    text = f"a cat\nSteps: 9, Sampler: {label}{kind}, CFG scale: 7, Seed: 3"
    request = foreign.read(saved(tmp_path / "a.png", {"parameters": text})).request
    assert (request.sampler, request.spacing) == (sampler, spacing)


@pytest.mark.parametrize(
    ("settings", "program"),
    [
        ("Version: f2.0.1v1.10.1-previous-1", "Forge"),
        ("App: SD.Next, Version: 1", "SD.Next"),
        ('Civitai resources: [{"type":"checkpoint","modelName":"a, b"}], Civitai metadata: {}', "Civitai"),
        ("Version: v1.7.0", "A1111"),
    ],
)
def test_relatives_of_a1111_are_told_apart(settings, program, tmp_path):
    text = f"a cat\nSteps: 9, Sampler: Euler, Seed: 3, {settings}"
    record = foreign.read(saved(tmp_path / "a.png", {"parameters": text}))
    assert (record.program, record.request.seed, record.left_out) == (program, 3, ())


def test_the_graph_of_comfyui_is_followed(tmp_path):
    record = foreign.read(saved(tmp_path / "a.png", {"prompt": json.dumps(GRAPH)}))
    assert record.program == "ComfyUI"
    assert fields(record) == {
        "prompt": "a cat, on a (mat:1.2)",
        "negative": "blurry",
        "seed": 77,
        "steps": 25,
        "guidance": 6.5,
        "sampler": "dpmpp-2m",
        "spacing": "karras",
        "width": 640,
        "height": 384,
        "clip_skip": 1,
        "dialect": "comfy",
        "adapters": ({"name": "ink", "weight": 0.7, "text_weight": 0.4},),
    }
    assert record.model == "sd\\dreamy.safetensors"
    assert record.left_out == ("node FreeU, at the model",)


def test_token_merging_of_a1111_and_comfyui_is_taken_over(tmp_path):
    text = "a cat\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 512x512, Token merging ratio: 0.4"
    record = foreign.read(saved(tmp_path / "a.png", {"parameters": f"{text}, Version: v1.9"}))
    assert record.request.token_merging == 0.4
    merged = {"class_type": "TomePatchModel", "inputs": {"ratio": 0.3, "model": ["11", 0]}}
    sampler = {**GRAPH["3"], "inputs": {**GRAPH["3"]["inputs"], "model": ["99", 0]}}
    graph = {**GRAPH, "3": sampler, "99": merged}
    record = foreign.read(saved(tmp_path / "c.png", {"prompt": json.dumps(graph)}))
    assert record.request.token_merging == 0.3


def test_the_first_pass_of_several_is_taken_over(tmp_path):
    second = {**GRAPH["3"]["inputs"], "seed": 5, "denoise": 0.4, "latent_image": ["51", 0]}
    graph = {
        **GRAPH,
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["50", 0]}},
        "50": {"class_type": "KSampler", "inputs": second},
        "51": {"class_type": "LatentUpscale", "inputs": {"samples": ["3", 0], "width": 1280, "height": 768}},
    }
    record = foreign.read(saved(tmp_path / "a.png", {"prompt": json.dumps(graph)}))
    assert (record.request.seed, record.request.width) == (77, 640)
    assert {"node KSampler, after the first pass", "node LatentUpscale, after the first pass"} <= {
        *record.left_out
    }


def test_a_custom_sampler_has_its_settings_in_nodes_of_their_own(tmp_path):
    graph = {
        "1": {
            "class_type": "SamplerCustomAdvanced",
            "inputs": {
                "noise": ["2", 0],
                "guider": ["3", 0],
                "sampler": ["4", 0],
                "sigmas": ["5", 0],
                "latent_image": ["6", 0],
            },
        },
        "2": {"class_type": "RandomNoise", "inputs": {"noise_seed": 2**64 - 1}},
        "3": {
            "class_type": "CFGGuider",
            "inputs": {"cfg": 5, "positive": ["7", 0], "negative": ["8", 0], "model": ["9", 0]},
        },
        "4": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "euler_ancestral"}},
        "5": {"class_type": "KarrasScheduler", "inputs": {"steps": 14, "sigma_max": 14.6, "rho": 7}},
        "6": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 512}},
        "7": {
            "class_type": "CLIPTextEncodeSDXL",
            "inputs": {
                "text_g": "a cat",
                "text_l": "a drawing",
                "width": 1024,
                "height": 1024,
                "clip": ["9", 1],
            },
        },
        "8": {"class_type": "ConditioningZeroOut", "inputs": {"conditioning": ["7", 0]}},
        "9": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "xl.safetensors"}},
        "10": {"class_type": "VAEDecode", "inputs": {"samples": ["1", 0], "vae": ["9", 2]}},
        "11": {"class_type": "PreviewImage", "inputs": {"images": ["10", 0]}},
    }
    record = foreign.read(saved(tmp_path / "a.png", {"prompt": json.dumps(graph)}))
    assert fields(record) == {
        "prompt": "a cat",
        "seed": 2**63 - 1,
        "steps": 14,
        "guidance": 5.0,
        "sampler": "euler-a",
        "spacing": "karras",
        "width": 512,
        "height": 512,
        "dialect": "comfy",
    }
    assert record.model == "xl.safetensors"
    assert any("above 9223372036854775807" in note for note in record.left_out)
    assert "text_l: a drawing" in record.left_out


def test_a_workflow_alone_is_read_by_the_order_of_its_values(tmp_path):
    workflow = {
        "nodes": [
            {
                "id": 1,
                "type": "KSampler",
                "inputs": [
                    {"name": "positive", "link": 1},
                    {"name": "latent_image", "link": 2},
                    {"name": "model", "link": None},
                ],
                "widgets_values": [11, "randomize", 8, 3.5, "uni_pc", "simple", 1],
            },
            {"id": 2, "type": "CLIPTextEncode", "inputs": [], "widgets_values": ["a cat"]},
            {"id": 3, "type": "EmptyLatentImage", "widgets_values": [256, 512, 1]},
            {"id": 4, "type": "SaveImage", "inputs": [{"name": "images", "link": 3}]},
        ],
        "links": [[1, 2, 0, 1, 0, "CONDITIONING"], [2, 3, 0, 1, 1, "LATENT"], [3, 1, 0, 4, 0, "LATENT"]],
    }
    record = foreign.read(saved(tmp_path / "a.png", {"workflow": json.dumps(workflow)}))
    assert fields(record) == {
        "prompt": "a cat",
        "seed": 11,
        "steps": 8,
        "guidance": 3.5,
        "sampler": "unipc",
        "spacing": "trailing",
        "width": 256,
        "height": 512,
        "dialect": "comfy",
    }


COMMON = {"prompt": "a cat", "negative": "dark", "steps": 9, "seed": 3, "guidance": 5.0}
JSON_RECORDS = {
    "SwarmUI": (
        {
            "parameters": {
                "sui_image_params": {
                    "prompt": "a cat <segment:face> <lora:ink:0.5>",
                    "negativeprompt": "dark",
                    "steps": 9,
                    "seed": 3,
                    "cfgscale": 5.0,
                    "sampler": "dpmpp_2m",
                    "scheduler": "karras",
                    "model": "sd/dreamy",
                    "loras": ["lines"],
                    "loraweights": ["0.25"],
                    "swarm_version": "0.9",
                }
            }
        },
        {
            "sampler": "dpmpp-2m",
            "spacing": "karras",
            "dialect": "comfy",
            "adapters": (
                {"name": "lines", "weight": 0.25},
                {"name": "ink", "weight": 0.5},
            ),
        },
        ("<segment:face> of the prompt",),
    ),
    "Fooocus": (
        {
            "fooocus_scheme": "fooocus",
            "parameters": {
                "prompt": "a cat",
                "negative_prompt": "dark",
                "styles": "['Fooocus V2', 'Sharp']",
                "performance": "Speed",
                "steps": 9,
                "resolution": "(1152, 896)",
                "guidance_scale": 5.0,
                "sharpness": 2.0,
                "base_model": "juggernaut",
                "refiner_model": "None",
                "sampler": "dpmpp_2m_sde_gpu",
                "scheduler": "karras",
                "seed": "3",
                "loras": [["ink", 0.1, "0123"]],
                "lora_combined_1": "ink : 0.1",
                "version": "Fooocus v2.5.0",
            },
        },
        {
            "width": 1152,
            "height": 896,
            "sampler": "dpmpp-2m-sde",
            "spacing": "karras",
            "dialect": "a1111",
            "adapters": ({"name": "ink", "weight": 0.1},),
        },
        ("styles Fooocus V2, Sharp",),
    ),
    "NovelAI": (
        {
            "Software": "NovelAI",
            "Description": "a {{cat}}",
            "Comment": {
                "prompt": "a {{cat}}, [mat], 1.5::red::, :)",
                "uc": "dark",
                "steps": 9,
                "seed": 3,
                "scale": 5.0,
                "width": 832,
                "height": 1216,
                "sampler": "k_euler_ancestral",
                "noise_schedule": "native",
                "sm": True,
            },
        },
        {
            "prompt": r"a ((cat:1.05):1.05), (mat:0.9524), (red:1.5), \:\)",
            "width": 832,
            "height": 1216,
            "sampler": "euler-a",
            "spacing": "linspace",
        },
        ("SMEA (sm)",),
    ),
    "InvokeAI": (
        {
            "invokeai_metadata": {
                "app_version": "4.2.0",
                "positive_prompt": "a cat",
                "negative_prompt": "dark",
                "steps": 9,
                "seed": 3,
                "cfg_scale": 5.0,
                "cfg_rescale_multiplier": 0.5,
                "scheduler": "dpmpp_2m_k",
                "width": 512,
                "height": 640,
                "model": {"key": "0", "name": "dreamy", "base": "sd-1"},
                "loras": [{"model": {"name": "ink"}, "weight": 0.75}],
                "hrf_enabled": True,
            }
        },
        {
            "guidance_rescale": 0.5,
            "width": 512,
            "height": 640,
            "sampler": "dpmpp-2m",
            "spacing": "karras",
            "dialect": "compel",
            "adapters": ({"name": "ink", "weight": 0.75},),
        },
        ("hrf_enabled: True",),
    ),
    "Easy Diffusion": (
        {
            "prompt": "a cat",
            "negative_prompt": "dark",
            "num_inference_steps": "9",
            "seed": "3",
            "guidance_scale": "5.0",
            "sampler_name": "euler_a",
            "use_stable_diffusion_model": "sd-v1-5",
        },
        {"sampler": "euler-a", "dialect": "a1111"},
        (),
    ),
    "a Hugging Face space": (
        {
            "metadata": {
                "prompt": "a cat",
                "negative_prompt": "dark",
                "num_inference_steps": 9,
                "seed": 3,
                "guidance_scale": 5,
                "resolution": "1024 x 768",
                "sampler": "Euler a",
                "Model": {"Model": "Some XL", "Model hash": "0123"},
            }
        },
        {"width": 1024, "height": 768, "sampler": "euler-a", "dialect": "plain"},
        (),
    ),
}


@pytest.mark.parametrize("program", JSON_RECORDS)
def test_a_json_record_is_recognised_and_taken_over(program, tmp_path):
    texts, own, left_out = JSON_RECORDS[program]
    texts = {key: text if isinstance(text, str) else json.dumps(text) for key, text in texts.items()}
    record = foreign.read(saved(tmp_path / "a.png", texts))
    assert record.program == program
    assert fields(record) == {**COMMON, **own}
    assert record.left_out == left_out


def test_draw_things_writes_xmp(tmp_path):
    settings = {"c": "a cat", "uc": "dark", "steps": 9, "seed": 3, "scale": 5, "size": "512x448"}
    told = json.dumps({**settings, "sampler": "DPM++ 2M Karras", "strength": 1}).replace('"', "&quot;")
    inner = f'<rdf:Alt><rdf:li xml:lang="x-default">{told}</rdf:li></rdf:Alt>'
    xmp = f"<x><exif:UserComment>{inner}</exif:UserComment></x>"
    record = foreign.read(saved(tmp_path / "a.png", {"XML:com.adobe.xmp": xmp}, lang="", tkey=""))
    assert record.program == "Draw Things"
    assert fields(record) == {
        **COMMON,
        "width": 512,
        "height": 448,
        "sampler": "dpmpp-2m",
        "spacing": "karras",
        "dialect": "a1111",
    }


A1111_VARIED = "a cat\nSteps: 9, Sampler: Euler, CFG scale: 5, Seed: 3, Size: 64x64{}"
INVOKEAI_VARIED = {"positive_prompt": "a cat", "seed": 3, "app_version": "2"}


@pytest.mark.parametrize(
    ("texts", "seeds", "amounts"),
    [
        (
            {"parameters": A1111_VARIED.format(", Variation seed: 12, Variation seed strength: 0.25")},
            (12,),
            (0.25,),
        ),
        ({"parameters": A1111_VARIED.format(", Variation seed: 12")}, (), ()),
        ({"parameters": A1111_VARIED.format(", Variation seed: 12, Variation seed strength: 7")}, (), ()),
        (
            {"parameters": {"sui_image_params": {"variationseed": 12, "variationseedstrength": 0.25}}},
            (12,),
            (0.25,),
        ),
        (
            {"invokeai_metadata": {**INVOKEAI_VARIED, "variations": [[12, 0.25], [13, 0.5]]}},
            (12, 13),
            (0.25, 0.5),
        ),
        (
            {"invokeai_metadata": {**INVOKEAI_VARIED, "variations": [{"seed": 12, "weight": 0.25}]}},
            (12,),
            (0.25,),
        ),
        ({"invokeai_metadata": {**INVOKEAI_VARIED, "variations": []}}, (), ()),
        ({"Dream": '"a cat" -s 9 -S 3 -W 64 -H 64 -V 12:0.25,13:0.5'}, (12, 13), (0.25, 0.5)),
    ],
)
def test_variation_seeds_of_other_programs_are_taken_over(texts, seeds, amounts, tmp_path):
    texts = {key: text if isinstance(text, str) else json.dumps(text) for key, text in texts.items()}
    request = foreign.read(saved(tmp_path / "a.png", texts)).request
    assert (request.variation_seed, request.variation_amount) == (seeds, amounts)


@pytest.mark.parametrize(
    ("settings", "size", "fields", "left_out"),
    [
        (
            "Denoising strength: 0.3, Hires upscale: 1.5, Hires steps: 15, Hires upscaler: Latent (nearest)",
            (768, 1152),
            {"upscale": 1.5, "upscaler": "latent", "upscale_strength": 0.3, "upscale_steps": 50},
            (),
        ),
        (
            "Denoising strength: 0.4, Hires resize: 1024x1536, Hires upscaler: Lanczos",
            (1024, 1536),
            {"upscale": 2, "upscaler": "lanczos", "upscale_strength": 0.4, "upscale_steps": 50},
            (),
        ),
        (
            "Denoising strength: 0, Hires upscale: 2, Hires upscaler: R-ESRGAN 4x+",
            (1024, 1536),
            {"upscale": 2, "upscaler": None, "upscale_strength": 0, "upscale_steps": None},
            ("Hires upscaler: R-ESRGAN 4x+",),
        ),
        (
            "Denoising strength: 0.4, Hires upscale: 1, Hires upscaler: Lanczos",
            (512, 768),
            {"upscale": None, "upscaler": None},
            ("Hires upscale: 1, Hires upscaler: Lanczos, Denoising strength: 0.4",),
        ),
        (
            "Denoising strength: 1.4, Hires upscale: 2, Hires upscaler: Lanczos",
            (1024, 1536),
            {"upscale": None, "upscale_strength": None},
            ("upscale_strength is 1.4: must be at most 1 (allowed: 0 to 1)",),
        ),
        ("Denoising strength: 0.4", (512, 768), {"upscale": None}, ("Denoising strength: 0.4",)),
    ],
)
def test_a_second_pass_of_a1111_is_taken_over(settings, size, fields, left_out, tmp_path):
    text = (
        f"a cat\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 512x768, {settings}, Version: v1.9"
    )
    record = foreign.read(saved(tmp_path / "a.png", {"parameters": text}))
    assert record.request.size == size
    assert {name: getattr(record.request, name) for name in fields} == fields
    assert record.left_out == left_out


@pytest.mark.parametrize(
    "fields",
    [
        {"width": 64, "height": 48, "upscale": 2, "upscaler": "lanczos", "upscale_strength": 0.3},
        {"width": 104, "height": 56, "upscale": 2.5, "upscaler": "latent", "upscale_strength": 0.6},
        {"width": 64, "height": 64, "upscale": 4, "upscaler": "embedded", "upscale_strength": 0},
    ],
)
def test_a_second_pass_is_read_back_from_the_line_that_we_write(fields, tmp_path):
    image = drawn("an apple", upscale_steps=20, **fields)
    request = foreign.read(saved(tmp_path / "a.png", {"parameters": a1111_line(image.record)})).request
    assert {name: getattr(request, name) for name in fields} == {**fields, "upscale": request.upscale}
    assert request.upscale == pytest.approx(fields["upscale"], rel=0.02)
    if fields["upscale_strength"]:
        assert request.upscale_steps_taken == image.request.upscale_steps_taken


def test_a_variation_is_read_back_from_the_line_that_we_write(tmp_path):
    line = a1111_line(drawn("an apple", variation_seed=12, variation_amount=0.25).record)
    request = foreign.read(saved(tmp_path / "a.png", {"parameters": line})).request
    assert (request.variation_seed, request.variation_amount) == ((12,), (0.25,))


@pytest.mark.parametrize("key", ["sd-metadata", "Dream"])
def test_old_records_of_invokeai_are_read(key, tmp_path):
    image = {"prompt": "a cat [dark]", "steps": 9, "seed": 3, "cfg_scale": 5, "width": 512, "height": 448}
    text = json.dumps({"model_weights": "sd", "image": {**image, "sampler": "k_euler_a", "type": "txt2img"}})
    if key == "Dream":
        text = '"a cat [dark]" -s 9 -S 3 -W 512 -H 448 -C 5 -A k_euler_a'
    record = foreign.read(saved(tmp_path / "a.png", {key: text}))
    assert record.program == "InvokeAI"
    own = {"width": 512, "height": 448, "sampler": "euler-a", "dialect": "compel"}
    assert fields(record) == {**COMMON, **own}


def test_a_record_in_the_alpha_channel_is_read(tmp_path):
    comment = json.dumps({"prompt": "a cat", "steps": 9, "seed": 3, "uc": "dark", "scale": 5})
    packed = gzip.compress(json.dumps({"Software": "NovelAI", "Comment": comment}).encode())
    content = b"stealth_pngcomp" + (len(packed) * 8).to_bytes(4, "big") + packed
    bits = np.unpackbits(np.frombuffer(content, np.uint8))
    alpha = np.full(64 * 64, 254, np.uint8)
    alpha[: len(bits)] |= bits
    picture = PIL.Image.new("RGBA", (64, 64), "red")
    picture.putalpha(PIL.Image.fromarray(np.ascontiguousarray(alpha.reshape(64, 64).T)))
    picture.save(tmp_path / "a.png")
    record = foreign.read(tmp_path / "a.png")
    assert record.program == "NovelAI"
    assert fields(record) == COMMON


@pytest.mark.parametrize("name", ["a.json", "a.png.json", "a.txt"])
def test_a_file_beside_a_picture_without_a_record_is_read(name, tmp_path):
    PIL.Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / name).write_text(A1111 if name.endswith("txt") else json.dumps(GRAPH), "utf-8")
    assert foreign.read(tmp_path / "a.png").request.steps in (20, 25)
    assert foreign.read(tmp_path / name) == foreign.read(tmp_path / "a.png")


LINE = "a café 池\nSteps: 9, Sampler: Euler, Seed: 3"


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (b"tEXt", b"parameters\0" + LINE.encode()),
        (b"tEXt", b"parameters\0" + LINE.replace("池", "é").encode("latin-1")),
        (b"zTXt", b"parameters\0\0" + zlib.compress(LINE.encode())),
        (b"iTXt", b"parameters\0\0\0\0\0" + LINE.encode()),
        (b"iTXt", b"parameters\0\1\0\0\0" + zlib.compress(LINE.encode())),
    ],
)
def test_every_text_of_a_png_is_read_before_the_pixels_and_behind_them(kind, content, late, tmp_path):
    record = foreign.read(with_chunk(tmp_path / "a.png", kind, content, late=late))
    assert record.request.prompt.startswith("a café")
    assert "Ã" not in record.request.prompt


def test_our_own_record_is_read_behind_the_pixels(tmp_path):
    from pictures import drawn

    image = drawn("a café")
    raw = image.save(tmp_path / "a.png").read_bytes()
    start = raw.index(b"tEXtsfumato") - 4
    stop = start + 12 + int.from_bytes(raw[start : start + 4], "big")
    end = raw.index(b"IEND") - 4
    (tmp_path / "b.png").write_bytes(raw[:start] + raw[stop:end] + raw[start:stop] + raw[end:])
    again = Image.open(tmp_path / "b.png")
    assert again.record == image.record
    assert again.as_drawn


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
@pytest.mark.parametrize("encoding", ["utf-16-be", "utf-16-le", "utf-8"])
def test_user_comments_of_exif_are_read_in_every_encoding(encoding, suffix, tmp_path):
    block = PIL.Image.Exif()
    block[int(ExifTags.IFD.Exif)] = {37510: b"UNICODE\0" + LINE.encode(encoding)}
    path = tmp_path / f"other{suffix}"
    PIL.Image.new("RGB", (8, 8)).save(path, exif=block.tobytes())
    assert foreign.read(path).request.prompt == "a café 池"


def test_comfyui_writes_into_other_tags_of_a_webp(tmp_path):
    block = PIL.Image.Exif()
    block[0x0110] = "prompt:" + json.dumps(GRAPH)
    PIL.Image.new("RGB", (8, 8)).save(tmp_path / "a.webp", exif=block.tobytes())
    assert foreign.read(tmp_path / "a.webp").request.prompt == "a cat, on a (mat:1.2)"


def test_a_text_longer_than_is_read_is_passed_over_and_the_pixels_are_not_lost(tmp_path):
    packed = b"parameters\0\0" + zlib.compress(bytes(64 << 20))
    path = with_chunk(tmp_path / "a.png", b"zTXt", packed)
    with pictures.opened(path) as picture:
        assert pictures.texts(picture) == {"parameters": ""}
        assert picture.convert("RGB").size == (8, 8)


@pytest.mark.parametrize("key", ["prompt", "parameters", "sfumato"])
def test_a_short_text_that_would_be_long_in_memory_is_not_parsed(key, tmp_path):
    text = '{"1":[' + "{}," * (1 << 20) + "1]}"
    tracemalloc.start()
    with pytest.raises(PictureError):
        Image.open(saved(tmp_path / "a.png", {key: text}))
    taken = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert taken < 64 << 20


@pytest.mark.parametrize(
    "texts",
    [
        {"parameters": "a cat"},
        {"parameters": "{" * 100_000},
        {"parameters": "[1]"},
        {"prompt": '{"1": {"class_type": 3}}'},
        {"Software": "Paint"},
        {"Comment": "made by hand", "prompt": "a cat"},
    ],
)
def test_texts_that_are_no_record_are_told_so(texts, tmp_path):
    path = saved(tmp_path / "a.png", texts)
    with pytest.raises(PictureError, match=r"no record of how it was drawn in .*a\.png"):
        foreign.read(path)


def test_links_in_a_circle_end(tmp_path):
    graph = {
        "1": {
            "class_type": "KSampler",
            "inputs": {"seed": ["2", 0], "positive": ["2", 0], "model": ["2", 0]},
        },
        "2": {"class_type": "Reroute", "inputs": {"a": ["3", 0], "conditioning": ["2", 0]}},
        "3": {"class_type": "Text Concat", "inputs": {"x": ["2", 0], "clip": ["3", 0], "text": ["3", 0]}},
    }
    assert foreign.read(saved(tmp_path / "a.png", {"prompt": json.dumps(graph)})).request.prompt == ""


ODD = [None, True, -1, float("nan"), 1e308, 2**70, "", "x", "\ud800", [], {}, [1, 2], ["3", 0], {"a": 1}]


def changed(value, rng):
    """`value` with some of its parts replaced by what nobody writes."""
    if rng.random() < 0.1:
        return ODD[rng.integers(len(ODD))]
    if isinstance(value, dict):
        return {key: changed(each, rng) for key, each in value.items()}
    return [changed(each, rng) for each in value] if isinstance(value, list) else value


def test_records_that_nobody_writes_are_read_or_not_but_never_crash():
    rng = np.random.default_rng(5)
    whole = [{"prompt": GRAPH}, *(texts for texts, _, _ in JSON_RECORDS.values())]
    read = 0
    for attempt in range(400):
        texts = {key: changed(text, rng) for key, text in whole[attempt % len(whole)].items()}
        texts = {key: text if isinstance(text, str) else json.dumps(text) for key, text in texts.items()}
        read += foreign._of_texts(texts) is not None
        line = list(A1111)
        for place in rng.integers(0, len(line), 9):
            line[place] = '"[]{}:,<>\n\0'[rng.integers(11)]
        foreign._of_texts({"parameters": "".join(line)})
    assert read > 100


def test_values_out_of_range_are_left_out_and_the_rest_is_taken(tmp_path):
    text = "a cat\nSteps: 5000, Sampler: Euler, CFG scale: 900, Seed: -1, Size: 99999x64"
    record = foreign.read(saved(tmp_path / "a.png", {"parameters": text}))
    assert (record.request.steps, record.request.guidance, record.request.seed) == (None, None, None)
    assert (record.request.width, record.request.height) == (None, 64)
    assert [note.split(" ")[0] for note in record.left_out] == ["steps", "guidance", "width"]


def test_a_picture_of_another_program_is_named_where_ours_was_expected(tmp_path):
    path = saved(tmp_path / "a.png", {"prompt": json.dumps(GRAPH)})
    with pytest.raises(PictureError, match=r"no Sfumato record in .*; it was drawn by ComfyUI, and `sfumato"):
        metadata.read(path)


@pytest.mark.parametrize("name", ["A1111", "ComfyUI"])
def test_the_real_sd_parsers_finds_the_same_prompt_and_settings(name, tmp_path):
    links = [
        [0, int(value[0]), value[1], int(node), 0, key.upper()]
        for node, content in GRAPH.items()
        for key, value in content["inputs"].items()
        if isinstance(value, list)
    ]
    graph = {"prompt": json.dumps(GRAPH), "workflow": json.dumps({"links": links})}
    texts = {"A1111": {"parameters": A1111}, "ComfyUI": graph}[name]
    path = saved(tmp_path / "a.png", texts)
    picture = PIL.Image.open(path)
    theirs = ParserManager().parse(picture)
    ours = foreign.read(path).request
    (sampler,) = theirs.samplers
    assert str(sampler.parameters["steps"]) == str(ours.steps)
    assert float(sampler.parameters["cfg_scale"]) == ours.guidance
    assert theirs.full_negative_prompt.split() == ours.negative.split()
