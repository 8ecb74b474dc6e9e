"""Pictures as models for others: their settings, from our record or another program's."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sfumato.errors import warn

if TYPE_CHECKING:
    from sfumato.foreign import ForeignRecord
    from sfumato.metadata import Record
    from sfumato.request import Request
    from sfumato.series.record import SetRecord
    from sfumato.studio import Studio

OURS = "Sfumato"


def holds_record(path: Path) -> bool:
    """Whether the file at `path` is a picture or a clip with a record of ours. Raises `PictureError`."""
    if path.suffix.lower() in (".json", ".txt"):
        return False
    from sfumato import metadata

    return metadata.holds_record(metadata.texts(path))


def clip(path: Path) -> "Record | None":
    """The record of the clip at `path`, or of one that a single frame is from; `None` for any other file.

    Raises `PictureError`.
    """
    if not holds_record(path):
        return None
    from sfumato import metadata

    found = metadata.read(path)
    return found if found.frame_pixels else None


def several(path: Path) -> "SetRecord | None":
    """The records in a grid or an animation at `path`; `None` for any other file. Raises `PictureError`."""
    if path.suffix.lower() in (".json", ".txt"):
        return None
    from sfumato.series.record import find

    return find(path)


def record(path: Path, model: str | None = None) -> "ForeignRecord":
    """How the picture at `path` was drawn, by whatever program, with `model` or the one it names.

    Raises `PictureError`.
    """
    from sfumato import foreign, metadata

    if holds_record(path):
        found = foreign.ForeignRecord(OURS, metadata.read(path).request)
    else:
        found = foreign.read(path)
    from sfumato.studio import with_model

    return with_model(found) if model is None else replace(found, request=found.request.filled(model=model))


def fitted(path: Path, found: "ForeignRecord", request: "Request", studio: "Studio") -> "ForeignRecord":
    """The record of `path` with `request`, as `studio` draws it; warns of all that is not taken over."""
    if found.program == OURS:
        return replace(found, request=request)
    from sfumato.studio import fitted

    record = fitted(replace(found, request=request), studio)
    for note in record.left_out:
        warn(f"{path.name}, by {record.program}, not taken over: {note}")
    return record
