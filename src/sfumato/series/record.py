"""How several pictures in one file were drawn: all of their records, each as what it has of its own.

| file | where, as JSON |
|---|---|
| PNG, animated or not | text chunk `sfumato-set` |
| WebP, animated or not | XMP property `sfumato:set` |
| GIF | comment |
| MP4, WebM | metadata `comment` |
"""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

from PIL import PngImagePlugin
from pydantic import BaseModel, ConfigDict

from sfumato import metadata
from sfumato.errors import PictureError
from sfumato.formats import VIDEOS
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
        """What is to be saved with a file of the format `kind`, by the names of Pillow's options.

        Of a video it is the metadata `comment`; nothing where a JPEG cannot hold it.
        """
        if kind == "PNG":
            info = PngImagePlugin.PngInfo()
            info.add_text(KEYWORD, self.text)
            return {"pnginfo": info}
        if kind == "GIF":
            return {"comment": self.text.encode("ascii")}
        if kind in VIDEOS:
            return {"comment": self.text}
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
    """The same, `None` for a picture or a clip of its own. Raises `PictureError` for what is neither.

    Raises `UsageError` for a video where PyAV is not installed.
    """
    texts = metadata.texts(path)
    text = texts.get(KEYWORD) or metadata.xmp_property(texts, "set") or texts.get("comment", "")
    return metadata.validated(SetRecord, text, path) if text.startswith('{"kind":') else None
