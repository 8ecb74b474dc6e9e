"""The records that other programs write as JSON: SwarmUI, Fooocus, InvokeAI, NovelAI and others."""

import ast
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from sfumato.foreign.a1111 import without_tags
from sfumato.foreign.settings import Translation, json_object, listed
from sfumato.prompt.language import escape

Settings = Mapping[str, Any]

_IDLE = """
version app_version app_id model_hash hash date created metadata_version generation_mode rand_device user
aspectratio nopreviews imageformat images swarm_version generation_time original_prompt wildcardseed
automaticvae output_format output_quality block_nsfw show_only_filtered_image stream_image_progress
num_outputs session_id vram_usage_level metadata_output_format output_lossless created_by id mode profile v2
base_model_hash metadata_scheme full_prompt full_negative_prompt prompt_expansion performance adm_guidance
n_samples batch_size software request_type signed_hash qualityToggle ucPreset params_version sharpness
legacy legacy_v3_extend add_original_image deliberate_euler_ancestral_bug prefer_brownian seed_mode
controlnet_strength uncond_scale cfg_sched_eligibility explike_fine_detail minimize_sigma_inf
v4_prompt v4_negative_prompt reference_information_extracted_multiple extra_passthrough_testing
lora_unet_weights lora_clip_weights hires_fix_used
"""
_INVOKEAI_IDLE = """
image positive_style_prompt negative_style_prompt type threshold perlin postprocessing
canvas_v2_metadata ref_images regions
"""
_NOVELAI = re.compile(r"(-?\d*\.?\d+)::|::|[{}\[\]]|(?:(?!-?\d*\.?\d+::|::)[^{}\[\]])+", re.DOTALL)
_NOVELAI_PAIRS = {"}": "{", "]": "[", "::": "::"}


def swarmui(record: Settings) -> Translation:
    """`sui_image_params` of SwarmUI."""
    inner = record["sui_image_params"]
    settings = dict(inner) if isinstance(inner, Mapping) else {}
    translation = Translation("SwarmUI", "comfy")
    translation.adapters_of(settings.pop("loras", None), settings.pop("loraweights", None))
    layer = settings.pop("clipstopatlayer", None)
    if layer is not None:
        settings["clipskip"] = abs(int(layer)) if re.fullmatch(r"-?\d+", str(layer)) else layer
    translation.take_all(settings, idle=_IDLE)
    for name in ("prompt", "negative"):
        text = without_tags(translation.fields.get(name, ""), translation)
        for tag in re.findall(r"<\w+(?:[\[:][^<>]*)?>", text):
            translation.notes.append(f"{tag} of the prompt")
        translation.take(name, re.sub(r"<\w+(?:[\[:][^<>]*)?>", "", text))
    return translation


def fooocus(record: Settings) -> Translation:
    """The `fooocus` scheme, and the settings that older versions logged."""
    settings = dict(record)
    translation = Translation("RuinedFooocus" if record.get("software") == "RuinedFooocus" else "Fooocus")
    loras = settings.pop("loras", None)
    for key in [key for key in settings if re.fullmatch(r"(?i)lora[ _](combined[ _])?\d+", key)]:
        name, _, weight = str(settings.pop(key)).rpartition(" : ")
        if not loras and name:
            translation.adapter(name, weight)
    translation.take("loras", loras)
    styles = settings.pop("styles", settings.pop("Styles", None))
    full = [settings.get(key) for key in ("full_prompt", "full_negative_prompt")]
    translation.take_all(settings, {"Fooocus V2 Expansion": ""}, _IDLE)
    for name, text in zip(("prompt", "negative"), full, strict=True):
        if text:
            translation.take(name, text)
    if isinstance(styles, str):
        with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            styles = ast.literal_eval(styles[:10_000])
    if styles and not full[0]:
        translation.notes.append(
            f"styles {', '.join(map(str, styles)) if isinstance(styles, list) else styles}"
        )
    return translation


def novelai(record: Settings) -> Translation:
    """The `Comment` of NovelAI; its braces and brackets are weights of 1.05 and 1/1.05 each."""
    settings = dict(record)
    translation = Translation("NovelAI", "sfumato")
    captions = [(settings.get(key) or {}) for key in ("v4_prompt", "v4_negative_prompt")]
    for name, caption in zip(("prompt", "uc"), captions, strict=True):
        inner = caption.get("caption") if isinstance(caption, Mapping) else None
        if isinstance(inner, Mapping):
            settings.setdefault(name, inner.get("base_caption"))
            for each in listed(inner.get("char_captions")):
                if isinstance(each, Mapping) and each.get("char_caption"):
                    translation.notes.append(f"character: {each['char_caption']}")
    for key in ("sm", "sm_dyn"):
        if settings.pop(key, False):
            translation.notes.append(f"SMEA ({key})")
    translation.take_all(settings, {"source": "", "stop_on": ""}, _IDLE)
    for name in ("prompt", "negative"):
        if name in translation.fields:
            translation.fields[name] = _novelai_weights(translation.fields[name])
    return translation


def _novelai_weights(text: str) -> str:
    """NovelAI's `{word}`, `[word]` and `1.2::words::` as weights in brackets of the default dialect."""
    parts: list[str] = []
    opened: list[tuple[str, int, float]] = []
    for match in _NOVELAI.finditer(text):
        mark = match[0]
        if match[1] or mark in "{[":
            weight = float(match[1]) if match[1] else {"{": 1.05, "[": 1 / 1.05}[mark]
            opened.append(("::" if match[1] else mark, len(parts), weight))
            parts.append("")
        elif mark in _NOVELAI_PAIRS:
            if opened and opened[-1][0] == _NOVELAI_PAIRS[mark]:
                _, start, weight = opened.pop()
                parts[start] = "("
                parts.append(f":{weight:.4g})")
        else:
            parts.append(escape(mark))
    return "".join(parts)


def invokeai(record: Settings) -> Translation:
    """`invokeai_metadata`, or `sd-metadata` of the versions before 3."""
    image = record.get("image")
    settings = {**record, **image} if isinstance(image, Mapping) else dict(record)
    translation = Translation("InvokeAI", "compel")
    settings["model"] = settings.pop("model_weights", None) or settings.get("model")
    scheduler = settings.pop("scheduler", settings.pop("sampler", None))
    skip = settings.pop("clip_skip", settings.pop("skipped_layers", 0))
    translation.take_all(settings, {"clip_skip": ""}, _IDLE + _INVOKEAI_IDLE)
    translation.take("sampler", scheduler)
    if isinstance(skip, int) and skip:
        translation.take("clip_skip", skip + 1)
    for key in ("canvas_v2_metadata", "ref_images", "regions", "postprocessing"):
        if settings.get(key):
            translation.notes.append(key)
    prompt = translation.fields.get("prompt", "")
    if image is not None or "negative" not in translation.fields:
        translation.take("negative", ", ".join(re.findall(r"\[([^\[\]]*)\]", prompt)))
        translation.fields["prompt"] = re.sub(r"\s*\[[^\[\]]*\]", "", prompt).strip()
    return translation


def dream(text: str) -> Translation:
    """The command line that InvokeAI wrote before it wrote JSON: `"a cat" -s 50 -S 1 -C 7.5 -A k_lms`."""
    match = re.match(r'\s*"(?P<prompt>.*)"(?P<options>[^"]*)$', text, re.DOTALL)
    prompt, options = (match["prompt"], match["options"]) if match else (text, "")
    names = {
        "s": "steps",
        "S": "seed",
        "W": "width",
        "H": "height",
        "C": "cfg_scale",
        "A": "sampler",
        "V": "variations",
    }
    found = re.findall(r"-([A-Za-z])\s*(\S+)", options)
    return invokeai(
        {"image": {"prompt": prompt, **{names.get(key, f"-{key}"): value for key, value in found}}}
    )


def draw_things(record: Settings) -> Translation:
    """The XMP comment of Draw Things."""
    translation = Translation("Draw Things")
    translation.take_all(record, {"c": "prompt", "lora": "loras"}, _IDLE + "shift mask_blur")
    return translation


def easy_diffusion(record: Settings) -> Translation:
    """The settings of Easy Diffusion, in JSON or as texts of their own."""
    settings = {re.sub(r"\W+", "_", key.lower()): value for key, value in record.items()}
    translation = Translation("Easy Diffusion")
    translation.adapters_of(settings.pop("use_lora_model", None), settings.pop("lora_alpha", None))
    if str(settings.pop("clip_skip", "")).lower() == "true":
        translation.take("clip_skip", 2)
    translation.take_all(settings, idle=_IDLE)
    return translation


def spaces(record: Settings) -> Translation:
    """What demos on Hugging Face write: the arguments of a diffusers pipeline."""
    translation = Translation("a Hugging Face space", "plain")
    translation.take_all(record, idle=_IDLE + "add_quality_tags quality_tags")
    return translation


def _fitting(record: Settings) -> Callable[[Settings], Translation] | None:
    """Who writes a record with these keys."""
    keys = record.keys()
    rules: list[tuple[Callable[[Settings], Translation], bool]] = [
        (swarmui, "sui_image_params" in keys),
        (fooocus, bool(keys & {"metadata_scheme", "Fooocus V2 Expansion", "base_model_hash"})),
        (fooocus, record.get("software") == "RuinedFooocus" or {"Performance", "Base Model"} <= keys),
        (fooocus, {"performance", "base_model"} <= keys),
        (draw_things, "c" in keys and bool(keys & {"uc", "scale", "seed"})),
        (novelai, "uc" in keys or ("prompt" in keys and bool(keys & {"noise_schedule", "v4_prompt"}))),
        (invokeai, bool(keys & {"positive_prompt", "app_version"}) or isinstance(record.get("image"), dict)),
        (easy_diffusion, bool(keys & {"use_stable_diffusion_model", "Stable Diffusion model"})),
        (spaces, "prompt" in keys and bool(keys & {"num_inference_steps", "guidance_scale"})),
    ]
    return next((rule for rule, fits in rules if fits), None)


def translate(record: Settings) -> Translation | None:
    """A JSON record of a program that is known by its keys, or with a prompt and settings at least."""
    inner = json_object(record.get("Comment"))
    if inner is not None:
        record = {"prompt": record.get("Description"), **inner}
    fitting = _fitting(record)
    if fitting is not None:
        return fitting(record)
    translation = Translation("another program")
    translation.take_all(record, idle=_IDLE)
    known = translation.fields.keys()
    return translation if "prompt" in known and known & {"seed", "steps", "guidance", "sampler"} else None
