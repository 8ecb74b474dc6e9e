"""Pictures of other programs: which one drew them, and their settings as far as they can be drawn here.

| program | where |
|---|---|
| A1111, Forge, SD.Next, Civitai | `parameters`, EXIF UserComment |
| ComfyUI | `prompt` and `workflow`: graphs of nodes |
| InvokeAI | `invokeai_metadata`, `sd-metadata`, `Dream` |
| NovelAI | `Comment`, or the last bits of the alpha channel |
| SwarmUI | `parameters`: JSON with `sui_image_params` |
| Fooocus | `parameters` and `fooocus_scheme`, `Comment` |
| Draw Things | XMP |
| Easy Diffusion | a text for each setting, or JSON |
| demos on Hugging Face | `parameters` or `metadata`: JSON |

Where a picture holds nothing, a file of its name that ends in `.json` or `.txt` is read.
"""

import html
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from sfumato import pictures
from sfumato.errors import PictureError
from sfumato.files import read_file
from sfumato.foreign import a1111, comfyui, json_records
from sfumato.foreign.settings import ForeignRecord, Translation, json_object
from sfumato.png_text import MAX_TEXT, XMP

__all__ = ["ForeignRecord", "read", "record_of"]

_RECORDS = (
    "parameters",
    "UserComment",
    "Comment",
    "comment",
    "metadata",
    "generation_data",
    "ImageDescription",
    "Description",
)
_SIDECARS = (".json", ".txt")
_XMP_COMMENT = re.compile(r"<exif:UserComment>(.*?)</exif:UserComment>", re.DOTALL)
_STEALTH = {b"stealth_pngcomp": True, b"stealth_pnginfo": False}


def read(path: str | Path) -> ForeignRecord:
    """How another program drew the picture at `path`, or what its file of settings says.

    Raises `PictureError` where there is no record that is known.
    """
    path = Path(path)
    if path.suffix.lower() in _SIDECARS:
        found = _of_texts({"parameters": _text_of(path)})
    else:
        with pictures.opened(path) as picture:
            found = record_of(picture)
        if found is None:
            beside = [path.with_suffix(suffix) for suffix in _SIDECARS]
            beside += [path.with_name(path.name + suffix) for suffix in _SIDECARS]
            texts = (_text_of(each) for each in beside if each.is_file())
            found = next((record for text in texts if (record := _of_texts({"parameters": text}))), None)
    if found is None:
        raise PictureError(f"no record of how it was drawn in {path}")
    return found


def record_of(picture: PIL.Image.Image) -> ForeignRecord | None:
    """The record in a picture that `pictures.opened` gave, if it holds one of another program."""
    found = _of_texts(pictures.texts(picture))
    return found or _of_texts(_stealth(picture))


def _of_texts(texts: Mapping[str, str]) -> ForeignRecord | None:
    translation = _translated(texts)
    return None if translation is None else translation.record()


def _translated(texts: Mapping[str, str]) -> Translation | None:
    if "invokeai_metadata" in texts or "sd-metadata" in texts:
        record = json_object(texts.get("invokeai_metadata", texts.get("sd-metadata")))
        if record is not None:
            return json_records.invokeai(record)
    if "Dream" in texts:
        return json_records.dream(texts["Dream"])
    comments = _XMP_COMMENT.findall(texts.get(XMP, texts.get("xmp", "")))
    comments = [html.unescape(re.sub(r"<[^>]*>", "", each)).strip() for each in comments]
    for text in [*(texts[key] for key in _RECORDS if key in texts), *comments]:
        record = json_object(text)
        if record is None and a1111.is_parameters(text):
            return a1111.translate(text)
        if record is not None and (found := _of_json(record, texts)):
            return found
    for key in ("prompt", "workflow", "Model", "Make"):
        record = json_object(re.sub(r"^\w+:(?={)", "", texts.get(key, "")))
        if record is not None and (found := _of_json(record, {})):
            return found
    lone = {key.lower() for key in texts}
    return json_records.easy_diffusion(texts) if {"prompt", "seed"} <= lone else None


def _of_json(record: Mapping[str, Any], texts: Mapping[str, str]) -> Translation | None:
    """What a JSON object says: a graph, one in an object, or settings by their names."""
    if isinstance(record.get("nodes"), list):
        nodes = comfyui.nodes_of_workflow(record)
    else:
        nodes = comfyui.nodes_of(record)
    if nodes:
        return comfyui.translate(nodes)
    for key in ("prompt", "workflow"):
        inner = record.get(key)
        inner = json_object(inner) if isinstance(inner, str) else inner
        if isinstance(inner, dict) and (found := _of_json(inner, {})):
            return found
    if texts.get("Software") == "NovelAI":
        return json_records.novelai({"prompt": texts.get("Description"), **record})
    if "fooocus_scheme" in texts:
        return json_records.fooocus(record)
    return json_records.translate(record)


def _stealth(picture: PIL.Image.Image) -> dict[str, str]:
    """The record that NovelAI and others write into the last bit of the alpha channel, column by column."""
    if "A" not in picture.getbands():
        return {}
    bits = (np.asarray(picture.getchannel("A")).T & 1).reshape(-1)
    head = np.packbits(bits[: 19 * 8]).tobytes()
    packed = _STEALTH.get(head[:15])
    if packed is None:
        return {}
    length = int.from_bytes(head[15:19], "big")
    content = np.packbits(bits[19 * 8 : 19 * 8 + length]).tobytes()
    if packed:
        try:
            content = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(content, MAX_TEXT)
        except zlib.error:
            return {}
    text = content.decode("utf-8", "replace")
    record = json_object(text)
    if record is not None and not record.keys() - {"Title", "Description", "Software", "Source", "Comment"}:
        return {key: value for key, value in record.items() if isinstance(value, str)}
    return {"parameters": text}


def _text_of(path: Path) -> str:
    with pictures.reading(path):
        return read_file(path, MAX_TEXT).decode("utf-8-sig", "replace")
