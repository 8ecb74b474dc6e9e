"""Pictures as models for others: their settings, from our record or another program's."""

from pathlib import Path
from typing import TYPE_CHECKING

from sfumato.errors import warn
from sfumato.options import DeviceOptions, ModelOptions

if TYPE_CHECKING:
    from sfumato.foreign import ForeignRecord
    from sfumato.studio import Studio


def holds_record(path: Path) -> bool:
    """Whether the file at `path` is a picture with a record of ours. Raises `PictureError`."""
    if path.suffix.lower() in (".json", ".txt"):
        return False
    from sfumato import metadata, pictures

    with pictures.opened(path) as picture:
        return metadata.holds_record(picture)


def foreign_record(path: Path, model: str | None = None) -> "ForeignRecord":
    """The record of another program, with `model` or the one of its name. Raises `PictureError`."""
    from dataclasses import replace

    from sfumato import foreign
    from sfumato.studio import with_model

    record = foreign.read(path)
    if model is None:
        return with_model(record)
    return replace(record, request=record.request.filled(model=model))


def opened(
    path: Path, record: "ForeignRecord", options: ModelOptions, device: DeviceOptions
) -> tuple["Studio", "ForeignRecord"]:
    """A studio for a record, and the record as that draws it; warns of all that is not taken over."""
    from sfumato.studio import fitted, open_studio

    studio = open_studio(options, device)
    record = fitted(record, studio)
    for note in record.left_out:
        warn(f"{path.name}, by {record.program}, not taken over: {note}")
    return studio, record
