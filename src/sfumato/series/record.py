"""How several pictures in one file were drawn: all of their records, each as what it has of its own.

| file | where, as JSON |
|---|---|
| PNG | text chunk `sfumato-set` |
| WebP | XMP property `sfumato:set` |
| GIF | comment |
| MP4 | metadata `comment` |
"""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import PIL.Image
from PIL import PngImagePlugin
from pydantic import BaseModel, ConfigDict

from sfumato import metadata, pictures
from sfumato.errors import PictureError, UsageError
from sfumato.metadata import Record

KEYWORD = "sfumato-set"


class SetRecord(BaseModel):
    """The records of the pictures in one file: of a grid, or the frames of an interpolation."""

    model_config = ConfigDict(frozen=True, extra="forbid", ignored_types=(cached_property,))

    kind: Literal["grid", "interpolation"]
    axes: dict[str, tuple[str, ...]] = {}
    """What a grid's columns, rows and pages are: a field and its values for each, in that order."""
    first: Record
    others: tuple[dict[str, Any], ...]
    """What of their records differs from the first, requests by field."""

    @classmethod
    def of(cls, records: Sequence[Record], *, embed: bool = True, **facts: Any) -> Self:
        """From those of the pictures; `embed`: with what they began from, if it is small."""
        held = [record.for_file("PNG", embed) for record in records]
        first, *others = (record.model_dump(mode="json") for record in held)
        return cls(first=held[0], others=tuple(_changes(first, other) for other in others), **facts)

    @cached_property
    def records(self) -> tuple[Record, ...]:
        """That of every picture, in their order."""
        first = self.first.model_dump(mode="json")
        merged = (
            {**first, **other, "request": {**first["request"], **other.get("request", {})}}
            for other in self.others
        )
        return (self.first, *(Record.model_validate_json(json.dumps(each)) for each in merged))

    @property
    def text(self) -> str:
        """All of it as JSON in ASCII."""
        return json.dumps(self.model_dump(mode="json", exclude_defaults=False), separators=(",", ":"))

    def held(self, kind: str) -> dict[str, Any]:
        """What Pillow is to save with a picture of the format `kind`; nothing where a JPEG cannot hold it."""
        if kind == "PNG":
            info = PngImagePlugin.PngInfo()
            info.add_text(KEYWORD, self.text)
            return {"pnginfo": info}
        if kind == "GIF":
            return {"comment": self.text.encode("ascii")}
        packet = metadata.packet("set", self.text)
        return {} if kind == "JPEG" and len(packet) > metadata.MAX_JPEG_RECORD else {"xmp": packet}


def _changes(first: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The entries of `other` that `first` has not; of the request its entries."""
    changed = {name: value for name, value in other.items() if value != first.get(name)}
    if "request" in changed:
        own = first["request"]
        changed["request"] = {name: value for name, value in other["request"].items() if value != own[name]}
    return changed


def read(path: str | Path) -> SetRecord:
    """The records in a file of several pictures. Raises `PictureError` where there are none."""
    found = find(path)
    if found is None:
        raise PictureError(f"no record of several pictures in {path}")
    return found


def find(path: str | Path) -> SetRecord | None:
    """The same, `None` for a picture of its own. Raises `PictureError` for what is no picture and no MP4.

    Raises `UsageError` for an MP4 where PyAV is not installed.
    """
    if Path(path).suffix.lower() == ".mp4":
        return _of_text(_mp4_comment(path), path)
    with pictures.opened(path, animated=True) as picture:
        return record_of(picture, path)


def record_of(picture: PIL.Image.Image, path: str | Path) -> SetRecord | None:
    """The same of a picture that Pillow has opened from `path`."""
    texts = pictures.texts(picture)
    text = texts.get(KEYWORD) or metadata.xmp_property(texts, "set") or texts.get("comment", "")
    return _of_text(text, path)


def _of_text(text: str, path: str | Path) -> SetRecord | None:
    return metadata.validated(SetRecord, text, path) if text.startswith('{"kind":') else None


def _mp4_comment(path: str | Path) -> str:
    av = video_library()
    try:
        with av.open(str(path)) as container:
            return str(container.metadata.get("comment", ""))
    except av.FFmpegError as error:
        raise PictureError(f"cannot read {path}: {error.strerror or error}") from None


def video_library() -> Any:
    """PyAV. Raises `UsageError` where it is not installed."""
    try:
        import av
    except ImportError:
        raise UsageError("MP4 needs PyAV: pip install 'sfumato[video]', or write .webp or .gif") from None
    return av
