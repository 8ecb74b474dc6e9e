"""Pairs of pictures for editing by instruction: a picture, what is asked for, and the picture edited.

A folder of them has a `metadata.jsonl` with a row for each pair: `file_name`, `edited_file_name` and
`edit_prompt`, a text or several, as the data sets for InstructPix2Pix have it (Brooks et al. 2023, §3.1).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from sfumato.data.caption_files import JSON_LINES, json_lines
from sfumato.data.crops import Dataset
from sfumato.data.folder import FolderDataset, Picture, in_threads
from sfumato.data.search import look
from sfumato.errors import DataError, PictureError

COLUMNS = {
    "file_name": ("file_name", "original_image_file_name", "input_image_file_name"),
    "edited_file_name": ("edited_file_name", "edited_image_file_name"),
    "edit_prompt": ("edit_prompt", "instruction"),
}
"""What a row holds, under any of these names."""


@dataclass(frozen=True)
class Pair:
    """An edit."""

    source: int
    """The row of the picture before."""
    target: int
    """And of the picture after."""
    instructions: tuple[str, ...]
    """Ways to ask for it."""
    weight: float = 1.0
    """How often it is shown, relative to the others."""
    kind: str = ""
    """What is changed, a key of `sfumato.data.instructions.PHRASINGS`, where that is known."""
    what: str = ""
    """Into what."""


@dataclass(frozen=True, eq=False)
class PairedPictures:
    """Pictures, each once, and the edits from one to another."""

    pictures: Dataset
    pairs: tuple[Pair, ...]


def folder_pairs(folder: Path, progress: Callable[[int, int], None] = lambda *_: None) -> PairedPictures:
    """The pairs in `folder`; every picture is decoded once, to know that it is sound.

    `progress(done, total)` counts pictures. Raises `DataError` for a table or a picture that is missing or
    damaged.
    """
    table = folder / JSON_LINES
    if not table.is_file():
        raise DataError(
            f"{folder} holds no pairs: {JSON_LINES} is missing, with {', '.join(COLUMNS)} in every row"
        )
    numbers: dict[str, int] = {}
    pairs = []
    for where, row in json_lines(table):
        said = {column: _value(row, column, where) for column in COLUMNS}
        prompt = said.pop("edit_prompt")
        texts = (prompt,) if isinstance(prompt, str) else tuple(prompt)
        if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
            raise DataError(f"{where}: edit_prompt must be a text that is not empty, or a list of such")
        if not all(isinstance(name, str) and _is_inside(name) for name in said.values()):
            raise DataError(f"{where}: {' and '.join(said)} must be paths of pictures in the folder")
        source, target = (numbers.setdefault(name, len(numbers)) for name in said.values())
        pairs.append(Pair(source, target, tuple(text.strip() for text in texts)))
    if not pairs:
        raise DataError(f"{table} has no rows")
    candidates = [_candidate(folder, name) for name in numbers]
    sound = []
    seen = in_threads(lambda one: look(folder, one), candidates)
    for done, (candidate, size) in enumerate(zip(candidates, seen, strict=True), start=1):
        if isinstance(size, PictureError):
            raise DataError(f"{folder}: {size}")
        sound.append(replace(candidate, size=size))
        progress(done, len(candidates))
    return PairedPictures(FolderDataset(folder, tuple(sound)), tuple(pairs))


def _value(row: Mapping[str, Any], column: str, where: str) -> Any:
    found = next((row[name] for name in COLUMNS[column] if row.get(name) is not None), None)
    if found is None:
        raise DataError(f"{where}: {column} is missing; there are only {', '.join(row) or 'no columns'}")
    return found


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts


def _candidate(folder: Path, name: str) -> Picture:
    """A picture that has not been looked at. Raises `DataError` where there is none."""
    try:
        status = (folder / name).stat()
    except OSError as error:
        raise DataError(f"{folder / JSON_LINES} names {name}: {error.strerror}") from error
    return Picture(name, name, 0, status.st_size, status.st_mtime_ns, (0, 0), (), 1.0, False)
