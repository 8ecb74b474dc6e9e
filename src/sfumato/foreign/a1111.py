"""The generation parameters of AUTOMATIC1111's web UI, of its relatives, and of whoever writes as they do."""

import json
import math
import re
from contextlib import suppress
from typing import Any

from sfumato.errors import UsageError
from sfumato.foreign.settings import Translation, number
from sfumato.prompt.language import adapters

_SETTINGS = re.compile(r"^Steps: \d+", re.MULTILINE)
_NEGATIVE = re.compile(r"^Negative prompt:", re.MULTILINE)
_KEY = re.compile(r"\s*([A-Za-z][^:,\n]*):\s*")
_TAG = re.compile(r"<(\w+):([^<>]+)>")
_VERSIONS = {
    "f": "Forge",
    "neo": "Forge",
    "fooocus": "Fooocus",
    "comfyui": "ComfyUI",
    "sfumato": "Sfumato, its A1111 line",
}
_AUTOMATIC = {
    "dpmpp-2m": "karras",
    "dpmpp-sde": "karras",
    "dpmpp-2s-a": "karras",
    "dpm2": "karras",
    "dpm2-a": "karras",
    "dpmpp-2m-sde": "exponential",
    "dpmpp-3m-sde": "exponential",
    "ddim": "leading",
    "pndm": "leading",
    "unipc": "leading",
}
"""The schedules that the web UI chooses for samplers; for others, and before it had a choice, its own."""
_ENLARGING = re.compile(r"(lanczos|latent|embedded)\b", re.IGNORECASE)
"""Upscalers of the web UI, or of ours, that are here; its several kinds of "Latent" are one."""
_SECOND_PASS = ("Hires upscale", "Hires resize", "Hires steps", "Hires upscaler", "Denoising strength")
_IDLE = """
version modelhash vaehash vaeencoder vaedecoder tihashes lorahashes hashes user rng ensd batchsize batchpos
createddate civitairesources civitaimetadata template negativetemplate app backend pipeline parser operations
padconds downcastalphascumprod diffusioninlowbits fullquality modeltype emphasis sha256
"""


def is_parameters(text: str) -> bool:
    """Whether a text has the line of settings that such a record ends with, or a negative prompt."""
    return bool(_SETTINGS.search(text) or _NEGATIVE.search(text))


def translate(text: str) -> Translation:
    """The `parameters` text of a picture: prompt, negative prompt, and a line of settings."""
    start = max((match.start() for match in _SETTINGS.finditer(text)), default=len(text))
    prompt, _, negative = _split(text[:start])
    settings = _pairs(text[start:].partition("\n")[0])
    translation = Translation(_program(settings))
    for resource in _resources(settings.get("Civitai resources")):
        if resource.get("type") == "checkpoint":
            translation.take("model", resource.get("modelName"))
        elif resource.get("type") in adapters.KINDS:
            translation.take(
                "loras", {"name": resource.get("modelName"), "weight": resource.get("weight", 1)}
            )
    translation.take_all(_without_second_pass(settings), {"Schedule type": "", "Size": "size"}, _IDLE)
    _take_second_pass(settings, translation)
    sampler = translation.fields.get("sampler")
    chosen = str(settings.get("Schedule type", "Automatic"))
    if chosen != "Automatic":
        translation.take("spacing", chosen)
    elif sampler and "spacing" not in translation.fields:
        older = "Schedule type" not in settings and sampler not in ("ddim", "pndm", "unipc")
        translation.fields["spacing"] = "linspace" if older else _AUTOMATIC.get(sampler, "linspace")
    translation.embeddings = re.findall(r"([^,:]+): \w+", str(settings.get("TI hashes", "")))
    translation.embeddings = [name.strip() for name in translation.embeddings]
    translation.take("prompt", without_tags(prompt, translation))
    translation.take("negative", negative.strip())
    return translation


def without_tags(prompt: str, translation: Translation) -> str:
    """A prompt without its <lora:name:weight> and the like, which become the translation's adapters."""

    def taken(tag: re.Match[str]) -> str:
        if tag[1] in adapters.KINDS:
            try:
                call = adapters.call(tag[2], text_first=True)
            except UsageError as error:
                translation.notes.append(str(error))
            else:
                translation.adapter(call.name, call.weight, call.text_weight)
        elif tag[1] == "hypernet":
            translation.notes.append(f"hypernetwork {tag[2]}")
        else:
            return tag[0]
        return ""

    return _TAG.sub(taken, prompt)


def _has_second_pass(settings: dict[str, Any]) -> bool:
    return bool({"Hires upscale", "Hires resize"} & settings.keys())


def _without_second_pass(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings but for those of a second pass, if there is one."""
    if not _has_second_pass(settings):
        return settings
    return {key: value for key, value in settings.items() if key not in _SECOND_PASS}


def _take_second_pass(settings: dict[str, Any], translation: Translation) -> None:
    """The "hires fix". The web UI's size is that of its first pass, and ours that of the picture; its steps
    are those that are taken, and ours are counted at strength 1.
    """
    if not _has_second_pass(settings):
        return
    fields = translation.fields
    first = [int(fields.get(side, 0)) for side in ("width", "height")]
    large = [int(side) for side in re.findall(r"\d{1,9}", str(settings.get("Hires resize", "")))]
    scale = number(settings.get("Hires upscale"), 0.0) or 0.0
    if all(first) and not scale and len(large) == 2:
        # a side of 0 follows from the other
        scale = max(side / own for side, own in zip(large, first, strict=True))
    if scale <= 1 or not all(first):
        told = (f"{key}: {settings[key]}" for key in _SECOND_PASS if key in settings)
        translation.notes.append(", ".join(told))
        return
    sides = large if len(large) == 2 and all(large) else [round(side * scale) for side in first]
    fields |= {"upscale": scale, "width": sides[0], "height": sides[1]}
    strength = number(settings.get("Denoising strength"))
    if strength is not None:
        fields["upscale_strength"] = strength
        taken = number(settings.get("Hires steps")) or fields.get("steps")
        if taken and strength > 0:
            fields["upscale_steps"] = math.ceil(round(taken / strength, 6))
    name = str(settings.get("Hires upscaler", ""))
    if known := _ENLARGING.match(name):
        fields["upscaler"] = known[1].lower()
    elif name:
        translation.notes.append(f"Hires upscaler: {name}")


def _split(text: str) -> tuple[str, str, str]:
    mark = _NEGATIVE.search(text)
    return (text, "", "") if mark is None else (text[: mark.start()], mark[0], text[mark.end() :])


def _pairs(line: str) -> dict[str, Any]:
    """The settings of a line; values are as they stand, in quotes, or JSON."""
    found: dict[str, Any] = {}
    decoder, place = json.JSONDecoder(strict=False), 0
    while key := _KEY.match(line, place):
        place = key.end()
        end = line.find(",", place) if "," in line[place:] else len(line)
        value: Any = line[place:end].strip()
        if value[:1] in ('"', "[", "{"):
            with suppress(ValueError, RecursionError):
                value, end = decoder.raw_decode(line, place)
        found[key[1].strip()] = value
        comma = line.find(",", end)
        place = comma + 1 if comma >= 0 else len(line)
    return found


def _resources(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _program(settings: dict[str, Any]) -> str:
    if "Civitai resources" in settings:
        return "Civitai"
    version = re.match(r"[A-Za-z]*", str(settings.get("App", settings.get("Version", ""))))
    name = version[0] if version else ""
    if name == "SD":
        return "SD.Next"
    return _VERSIONS.get(name.lower(), "A1111")
