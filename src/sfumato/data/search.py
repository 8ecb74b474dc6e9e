"""What is in a folder of pictures, found once.

Pictures may lie in folders and subfolders, with captions in a `metadata.jsonl` beside them or in a `.txt` of
the same name, or in shards: tar files in which each picture is followed by its `.txt` or `.json`.
"""

import codecs
import hashlib
import json
import mimetypes
import os
import re
import stat
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import PIL.Image

from sfumato import pictures
from sfumato.data.crops import Size
from sfumato.data.folder import METADATA, MOST_PIXELS, FolderContents, Picture, bytes_of, in_threads
from sfumato.errors import DataError, PictureError, SfumatoError, warn
from sfumato.files import make_folder, open_file, parse_json, read_file, read_lines, write_json
from sfumato.formats import FORMATS

CAPTION_KEYS = ("text", "caption", "prompt")
MOST_WORDS = 1 << 20
"""Bytes that are read of a picture's own caption file."""
_MOST_INDEX = 1 << 30
ONE_IN = 40
"""Of how many pictures one is held out for tests, where the folder does not say itself."""
_HELD_OUT = re.compile(r"(test|val|validation)([-_.].*)?")
_MORE = frozenset({".arw", ".cr2", ".cr3", ".dng", ".jfif", ".jxl", ".nef", ".psd", ".raf", ".tga"})
"""Suffixes of pictures that not every machine knows for such."""
_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)


def search(
    folder: Path, index: Path | None = None, progress: Callable[[int, int], None] = lambda *_: None
) -> FolderContents:
    """What is in `folder`. Every picture is decoded once, to know that it is sound.

    What was found is kept in the file `index` and taken from there until a file in the folder changes; a
    warning says when that changes what is found. `progress(done, total)` counts pictures. Raises `DataError`
    where the folder cannot be read, or a `metadata.jsonl` or a shard is damaged.
    """
    files = _files(folder, index)
    stamp = hashlib.sha256(
        "\n".join(f"{name}\t{status.st_size}\t{status.st_mtime_ns}" for name, status in files.items()).encode(
            "utf-8", "surrogateescape"
        )
    ).hexdigest()
    before = _kept(folder, index) if index else None
    if before and before[0] == stamp:
        return before[1]
    candidates, broken = _candidates(folder, files)
    sound: list[Picture] = []
    seen = in_threads(lambda one: _look(folder, one), candidates)
    for done, (candidate, size) in enumerate(zip(candidates, seen, strict=True), start=1):
        if isinstance(size, str):
            broken.append(size)
        else:
            sound.append(replace(candidate, size=size))
        progress(done, len(candidates))
    split = any(_says_held_out(one.name) for one in sound)
    sound = [replace(one, held_out=(_says_held_out if split else _drawn)(one.name)) for one in sound]
    found = FolderContents(folder, tuple(sorted(sound, key=lambda one: one.name)), tuple(sorted(broken)))
    if before and not before[1].is_like(found):
        warn(
            f"{folder} has changed since it was last searched: {len(before[1].pictures):,} pictures then, "
            f"{len(found.pictures):,} now; a run that goes on learns from what is there now"
        )
    if index:
        make_folder(index.parent, index)
        rows = [asdict(one) for one in found.pictures]
        write_json(index, {"stamp": stamp, "pictures": rows, "broken": found.broken})
    return found


def _kept(folder: Path, index: Path) -> tuple[str, FolderContents] | None:
    try:
        kept = json.loads(read_file(index, _MOST_INDEX))
        found = tuple(
            Picture(**{**one, "size": tuple(one["size"]), "captions": tuple(one["captions"])})
            for one in kept["pictures"]
        )
        return kept["stamp"], FolderContents(folder, found, tuple(kept["broken"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _files(folder: Path, index: Path | None) -> dict[str, os.stat_result]:
    """Every plain file below `folder` that is not hidden, by its path in it, without those beside `index`:
    what a run draws while it learns is not what it learns from."""

    def refuse(error: OSError) -> None:
        raise DataError(f"cannot read the folder {error.filename}: {error.strerror}") from error

    found, been = {}, {os.path.realpath(path) for path in (folder, index.parent if index else folder)}
    for root, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        real = {os.path.realpath(Path(root, name)): name for name in sorted(folders)}
        folders[:] = [name for path, name in real.items() if path not in been and name[0] != "."]
        been |= real.keys()
        for name in sorted(names):
            path = Path(root, name)
            try:
                status = path.stat()
            except OSError:
                status = path.lstat()
            if not name.startswith(".") and (stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)):
                found[path.relative_to(folder).as_posix()] = status
    return found


@dataclass(frozen=True)
class _Words:
    captions: tuple[str, ...] = ()
    weight: float = 1.0


def _candidates(folder: Path, files: Mapping[str, os.stat_result]) -> tuple[list[Picture], list[str]]:
    """What may be pictures, and what is named as one or looks like one and cannot be."""
    described: dict[str, _Words] = {}
    for name in files:
        if PurePosixPath(name).name == METADATA:
            described |= _described(folder, name)
    broken = [f"{name} is named in {METADATA}, but is not there" for name in described if name not in files]
    found: list[Picture] = []
    for name, status in files.items():
        if not _is_text(name):
            broken.append(f"{name!a} has a name that is not UTF-8")
            continue
        suffix = PurePosixPath(name).suffix.lower()
        if suffix == ".tar":
            found += _members(folder, name, status.st_mtime_ns)
        elif suffix in FORMATS:
            try:
                words = described.get(name) or _beside(folder, name, files)
            except PictureError as error:
                broken.append(str(error))
                continue
            found.append(_picture(name, name, 0, status.st_size, status.st_mtime_ns, words))
        elif suffix in _MORE or (mimetypes.guess_type(name)[0] or "").startswith("image/"):
            broken.append(f"{name} is not a PNG, JPEG or WebP picture")
    return found, broken


def _is_text(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _picture(name: str, file: str, start: int, length: int, changed: int, words: _Words) -> Picture:
    return Picture(name, file, start, length, changed, (0, 0), words.captions, words.weight, False)


def _described(folder: Path, name: str) -> dict[str, _Words]:
    """What a `metadata.jsonl` says, by the paths in the folder of the pictures that it names."""
    home = PurePosixPath(name).parent
    found = {}
    try:
        for number, line in enumerate(read_lines(folder / name), start=1):
            if content := line.removeprefix(codecs.BOM_UTF8).strip():
                where = f"{folder / name}, line {number}"
                row = _json(content, where)
                if not isinstance(row.get("file_name"), str):
                    raise DataError(f"{where}: file_name must say which picture is meant")
                found[os.path.normpath(home / row["file_name"])] = _words(row, where)
    except OSError as error:
        raise DataError(f"cannot read {folder / name}: {error.strerror}") from error
    return found


def _words(row: Mapping[str, Any], where: str) -> _Words:
    """Captions and weight from a line of JSON."""
    value: Any = next((row[key] for key in CAPTION_KEYS if row.get(key) is not None), [])
    captions = [value] if isinstance(value, str) else value
    if not isinstance(captions, list) or not all(isinstance(one, str) for one in captions):
        raise DataError(f"{where}: a caption must be text, or a list of texts")
    weight = row.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not _may_weigh(weight):
        raise DataError(
            f"{where}: weight must be 0 or from 0.001 to 1,000: how often it is shown in an epoch"
        )
    return _Words(tuple(one.strip() for one in captions if one.strip()), float(weight))


def _may_weigh(weight: float) -> bool:
    return weight == 0 or 0.001 <= weight <= 1000


def _json(raw: bytes, where: str) -> dict[str, Any]:
    try:
        return parse_json(raw, where)
    except SfumatoError as error:
        raise DataError(str(error)) from error


def _beside(folder: Path, name: str, files: Mapping[str, os.stat_result]) -> _Words:
    """What a `.txt` of the picture's name says. Raises `PictureError`."""
    words = str(PurePosixPath(name).with_suffix(".txt"))
    if words not in files:
        return _Words()
    try:
        return _lines(read_file(folder / words, MOST_WORDS), words)
    except OSError as error:
        raise PictureError(f"cannot read {words}: {error.strerror}") from error


def _lines(raw: bytes, where: str) -> _Words:
    """One caption a line. Raises `PictureError`."""
    if len(raw) > MOST_WORDS:
        raise PictureError(f"{where} is larger than {MOST_WORDS:,} bytes, the most that is read of captions")
    try:
        lines = raw.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise PictureError(f"{where} is not UTF-8 text") from None
    return _Words(tuple(line.strip() for line in lines if line.strip()))


def _members(folder: Path, shard: str, changed: int) -> Iterator[Picture]:
    """The pictures in a tar file, each with what the `.txt` or `.json` of its name says."""
    places: dict[str, tarfile.TarInfo] = {}
    words: dict[str, _Words] = {}
    try:
        with open_file(folder / shard) as opened, tarfile.open(fileobj=opened, mode="r:") as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                if not member.isreg() or path.name.startswith("."):
                    continue
                if path.suffix.lower() in FORMATS:
                    places[member.name] = member
                elif path.suffix.lower() in (".txt", ".json"):
                    file = tar.extractfile(member)
                    raw = file.read(MOST_WORDS + 1) if file else b""
                    where, stem = f"{folder / shard}/{member.name}", str(path.with_suffix(""))
                    if path.suffix.lower() == ".txt":
                        words.setdefault(stem, _lines(raw, where))
                    else:
                        words[stem] = _words(_json(raw, where), where)
            _check_end(tar)
    except (tarfile.TarError, EOFError, OSError, PictureError) as error:
        raise DataError(f"the shard {folder / shard} is damaged: {error}") from error
    for name, member in places.items():
        own = words.get(str(PurePosixPath(name).with_suffix("")), _Words())
        yield _picture(f"{shard}/{name}", shard, member.offset_data, member.size, changed, own)


def _check_end(tar: tarfile.TarFile) -> None:
    """Raise `tarfile.ReadError` unless a block of zeros follows: tarfile takes a cut one for the end."""
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("its end is missing")


def _look(folder: Path, candidate: Picture) -> Size | str:
    """The upright size of a picture that can be decoded, or what is wrong with it."""
    try:
        content = bytes_of(folder, candidate)
        with pictures.opened_content(content, candidate.name, most=MOST_PIXELS) as picture:
            width, height = picture.size
            turned = picture.getexif().get(_ORIENTATION) in _TURNED
            _refuse_deep(picture, candidate.name)
            picture.draft("RGB", (1, 1))  # a JPEG is read to its end, but not drawn in full
            picture.load()
            return (height, width) if turned else (width, height)
    except PictureError as error:
        return str(error)


def _refuse_deep(picture: PIL.Image.Image, name: str) -> None:
    if picture.mode.startswith(("I", "F")):
        raise PictureError(f"{name} is grey and of more than 8 bits, most of which would be lost: make it 8")


def _says_held_out(name: str) -> bool:
    """Whether a folder above a picture, or its shard, is called "test" or "validation"."""
    parts = PurePosixPath(name).parts[:-1]
    return any(_HELD_OUT.fullmatch(part) for part in parts)


def _drawn(name: str) -> bool:
    digest = hashlib.sha256(name.encode("utf-8")).digest()
    return int.from_bytes(digest[:4], "big") % ONE_IN == 0
