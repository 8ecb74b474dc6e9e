"""What the files of a folder say of its pictures: captions, and how often each picture is shown.

| where | whose layout |
|---|---|
| `metadata.jsonl`, `metadata.csv` | ImageFolder of Hugging Face: a row for each `file_name` |
| a `.json` of `{picture: {"caption": …, "tags": …}}` | kohya's `meta_cap.json`, `meta_lat.json`, … |
| `NAME.txt`, `NAME.caption`, `NAME.json` | a file beside each picture `NAME.png`, also as `NAME.png.txt` |
| a folder `20_sks dog` | kohya's repeats and class: shown 20 times, "sks dog" where nothing else is said |

They are asked in this order; each of captions and weight is the first that is said.
"""

import codecs
import csv
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from sfumato.errors import DataError, PictureError, SfumatoError
from sfumato.files import parse_json, read_json, read_lines

JSON_LINES, CSV = "metadata.jsonl", "metadata.csv"
MASK_COLUMN = "mask_file_name"
CAPTION_SUFFIXES = (".txt", ".caption", ".json")
"""Of a picture's own caption file."""
CAPTION_KEYS = ("text", "caption", "prompt")
"""Of a row, or of a JSON file beside a picture."""
LOOKED_FOR = (
    "captions are looked for in metadata.jsonl and metadata.csv (file_name, and text, caption or prompt), "
    "in kohya's meta_cap.json and meta_lat.json, "
    "in a .txt, .caption or .json of each picture's name, and in the names of folders such as '20_sks dog'"
)
MOST_WORDS = 1 << 20
"""Bytes that are read of a picture's own caption file."""
MOST_TABLE = 256 << 20
"""Bytes that are read of kohya's metadata."""
_REPEATS = re.compile(r"(\d{1,3})_(.+)")


@dataclass(frozen=True)
class Words:
    """What is said of one picture."""

    captions: tuple[str, ...] = ()
    weight: float | None = None
    """`None`: nothing is said of it."""

    def __or__(self, other: "Words") -> "Words":
        """With what only `other` says."""
        weight = other.weight if self.weight is None else self.weight
        return Words(self.captions or other.captions, weight)


@dataclass
class Tables:
    """What the tables of a folder say, by the paths in the folder of the pictures that they name."""

    words: dict[str, Words] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    """What is named and is not there, each in one line."""
    companions: dict[str, str] = field(default_factory=dict)
    """Pictures that a row names besides its own, as `mask_file_name` does; of a mask its own, else ""."""


def tables(folder: Path, files: Collection[str], pictures: Collection[str]) -> Tables:
    """What `metadata.jsonl`, `metadata.csv` and kohya's metadata among `files` say of `pictures`.

    Raises `DataError` where one of the first two is damaged.
    """
    found, own = Tables(), {str(PurePosixPath(name).with_suffix("")) for name in pictures}
    for name in files:
        path = PurePosixPath(name)
        if path.name in (JSON_LINES, CSV):
            rows = json_lines if path.name == JSON_LINES else _csv_rows
            _add_rows(found, path, rows(folder / name), files)
        elif path.suffix.lower() == ".json" and str(path.with_suffix("")) not in own:
            try:
                content = read_json(folder / name, MOST_TABLE)
            except SfumatoError as error:
                if path.name.startswith("meta"):
                    found.missing.append(str(error))
                continue
            _add_kohya(found, path, content, pictures)
    return found


def kohya_metadata(file: Path, folder: Path, pictures: Collection[str]) -> Tables:
    """What the metadata `file` of kohya's, wherever it lies, says of `pictures` in `folder`.

    Raises `DataError` where it cannot be read, or says nothing of pictures.
    """
    try:
        rows = read_json(file, MOST_TABLE)
    except SfumatoError as error:
        raise DataError(str(error)) from error
    if not rows or not all(isinstance(row, dict) for row in rows.values()):
        raise DataError(f'{file} is no metadata of kohya\'s: it must have {{picture: {{"caption": …}}}}')
    found, inside = Tables(), folder.resolve()
    paths = {named: Path(named) for named in rows}
    within = {
        path.relative_to(inside).as_posix() if path.is_relative_to(inside) else named: rows[named]
        for named, path in paths.items()
    }
    _add_kohya(found, PurePosixPath(file.name), within, pictures)
    return found


def _add_rows(
    found: Tables, path: PurePosixPath, rows: Iterator[tuple[str, dict[str, Any]]], files: Collection[str]
) -> None:
    several: dict[str, Words] = {}
    for where, row in rows:
        if not isinstance(row.get("file_name"), str):
            raise DataError(f"{where}: file_name must say which picture is meant{_instead(row)}")
        name, words = _joined(path, row["file_name"]), words_in(row, where)
        before = several.get(name, Words())
        several[name] = Words(before.captions + words.captions, words.weight) | before
        for column, value in row.items():
            if column.endswith("_file_name") and isinstance(value, str):
                found.companions[_joined(path, value)] = name if column == MASK_COLUMN else ""
    for name, words in several.items():
        found.words[name] = words | found.words.get(name, Words())
        if name not in files:
            found.missing.append(f"{name} is named in {path.name}, but is not there")


def _instead(row: Mapping[str, Any]) -> str:
    return f"; there are only {', '.join(row)}" if row and "file_name" not in row else ""


def _joined(path: PurePosixPath, name: str) -> str:
    """The path in the folder of what a table at `path` calls `name`."""
    return os.path.normpath(path.parent / name.replace("\\", "/"))


def json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each row of a table of JSON lines is, and what it says. Raises `DataError`."""
    try:
        for number, line in enumerate(read_lines(path), start=1):
            if content := line.removeprefix(codecs.BOM_UTF8).strip():
                where = f"{path}, line {number}"
                yield where, json_object(content, where)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


def _csv_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        lines = (
            line.decode("utf-8-sig" if not number else "utf-8")
            for number, line in enumerate(read_lines(path))
        )
        for row in (rows := csv.DictReader(lines)):
            yield f"{path}, line {rows.line_num}", {name: text for name, text in row.items() if name and text}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def _add_kohya(
    found: Tables, path: PurePosixPath, rows: Mapping[str, Any], pictures: Collection[str]
) -> None:
    """Add what a JSON file says of pictures, if it does: `{picture: {"caption": …}}` or `{picture: caption}`.

    Kohya names a picture by its path, on whatever machine that was, or by its name without suffix.
    """
    told = all(isinstance(row, dict | str) for row in rows.values())
    is_kohya = told and any(
        not isinstance(row, str) and row.keys() & {"caption", "tags"} for row in rows.values()
    )
    called: dict[str, list[str]] = {}
    for name in pictures if told else ():
        own = PurePosixPath(name)
        if own.is_relative_to(path.parent):
            for short in {name, own.name, own.stem}:
                called.setdefault(short, []).append(name)
    for named, row in rows.items():
        other = PureWindowsPath(named)
        names = called.get(_joined(path, named)) or called.get(other.name) or called.get(other.stem) or []
        if is_kohya and not names:
            found.missing.append(f"{named} is named in {path.name}, but is not there")
        parts = [row] if isinstance(row, str) else [row.get("caption"), row.get("tags")] if names else []
        caption = ", ".join(one.strip() for one in parts if isinstance(one, str) and one.strip())
        for name in names:
            found.words[name] = Words((caption,) if caption else ()) | found.words.get(name, Words())


def words_in(row: Mapping[str, Any], where: str) -> Words:
    """Captions and weight from a row of a table; without a caption, its tags are one. Raises `DataError`."""
    value: Any = next((row[key] for key in CAPTION_KEYS if row.get(key) is not None), [])
    captions = [value] if isinstance(value, str) else value
    if not isinstance(captions, list) or not all(isinstance(one, str) for one in captions):
        raise DataError(f"{where}: a caption must be text, or a list of texts")
    if not captions:
        captions = [", ".join(_tags(row.get("tags")))]
    return Words(tuple(one.strip() for one in captions if one.strip()), _weight(row, where))


def _tags(value: Any) -> list[str]:
    """Tags from a text or a list; from a table with their scores, or of lists of several kinds."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict) and any(isinstance(one, list) for one in value.values()):
        value = [tag for one in value.values() if isinstance(one, list) for tag in one]
    return [tag for tag in value if isinstance(tag, str)] if isinstance(value, list | dict) else []


def _weight(row: Mapping[str, Any], where: str) -> float | None:
    weight: Any = row.get("weight")
    if weight is None:
        return None
    if isinstance(weight, str):  # in a CSV all is text
        with suppress(ValueError):
            weight = float(weight)
    is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
    if not is_number or not (weight == 0 or 0.001 <= weight <= 1000):
        raise DataError(
            f"{where}: weight must be 0 or from 0.001 to 1,000: how often it is shown in an epoch"
        )
    return float(weight)


def json_object(raw: bytes, where: str) -> dict[str, Any]:
    """The JSON object in `raw`. Raises `DataError`."""
    try:
        return parse_json(raw, where)
    except SfumatoError as error:
        raise DataError(str(error)) from error


def beside(name: str, files: Mapping[str, str], read: Callable[[str], bytes]) -> Words:
    """What the caption file of picture `name` says, the first of `CAPTION_SUFFIXES` that says something.

    `files`: names by `key`; `read(name)`: the content of one. Raises `PictureError`.
    """
    found = Words()
    for suffix in CAPTION_SUFFIXES:
        for stem in (str(PurePosixPath(name).with_suffix("")), name):
            if (own := files.get(key(stem + suffix))) and own != name:
                found |= said(read(own), own)
    return found


def key(name: str) -> str:
    """`name` with its suffix in small letters."""
    path = PurePosixPath(name)
    return str(path.with_suffix(path.suffix.lower()))


def said(raw: bytes, name: str) -> Words:
    """What a caption file says: JSON, or one caption a line. Raises `PictureError`."""
    if name.lower().endswith(".json"):
        try:
            return Words() if raw.lstrip()[:1] == b"[" else words_in(json_object(raw, name), name)
        except DataError as error:
            raise PictureError(str(error)) from error
    wide = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # as some editors of Windows write
    try:
        lines = raw.decode("utf-16" if wide else "utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise PictureError(f"{name} is not UTF-8 text") from None
    return Words(tuple(line.strip() for line in lines if line.strip()))


def of_folder(name: str) -> Words:
    """What the names of the folders above picture `name` say: "20_sks dog" is 20 times "sks dog"."""
    for part in reversed(PurePosixPath(name).parts[:-1]):
        if found := _REPEATS.fullmatch(part):
            return Words((found[2].strip(),), float(found[1]))
    return Words()
