"""What is in a folder of pictures, found once.

Pictures may lie in folders and subfolders, or in shards: tar files in which each picture is followed by its
`.txt`, `.caption` or `.json`. `sfumato.data.caption_files` says where captions may stand.
"""

import hashlib
import json
import mimetypes
import os
import re
import stat
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path, PurePosixPath

from sfumato import pictures
from sfumato.data import caption_files, kohya_config
from sfumato.data.caption_files import CSV, JSON_LINES, MOST_WORDS, Words
from sfumato.data.crops import Size
from sfumato.data.folder import MOST_PIXELS, FolderContents, Picture, bytes_of, in_threads
from sfumato.errors import DataError, PictureError, UnsupportedPictureError, warn
from sfumato.files import make_folder, open_file, read_file, write_json
from sfumato.formats import READ_FORMATS, READABLE

VERSION = 4
"""Of what is kept of a search: another version's is not read, as it may have read less."""
ONE_IN = 40
"""Of how many pictures one is held out for tests, where the folder does not say itself."""
_LEFT_OUT = ("broken", "unsupported", "masks")
_MOST_INDEX = 1 << 30
_HELD_OUT = re.compile(r"(test|val|validation)([-_.].*)?")
_MORE = frozenset({".arw", ".cr2", ".cr3", ".dng", ".heic", ".heif", ".jxl", ".nef", ".psd", ".raf", ".tga"})
"""Suffixes of pictures that not every machine knows for such."""
_UNREAD = {
    **dict.fromkeys((".7z", ".gz", ".rar", ".tgz", ".zip"), "an archive: unpack it"),
    **dict.fromkeys(
        (".arrow", ".parquet"), "a table: write its captions to metadata.csv, its pictures as files"
    ),
}
"""What else may hold pictures, by suffix, and what to do about it."""
_OTHER_TABLES = dict.fromkeys(
    (".csv", ".jsonl", ".tsv"),
    f"a table of another name: as {CSV} or {JSON_LINES}, with file_name and text, it is read",
)
"""The same where no caption is found elsewhere."""
_MASK = re.compile(r"(.+)(-masklabel|-condlabel|[-_.]mask)", re.IGNORECASE)
"""The name of a picture's mask, after the picture's own: OneTrainer's, and what others write."""
MASK_ENDS = ("-masklabel.png", ".mask.png", "-mask.png", "_mask.png")
"""What the names of masks end in that are looked for beside a picture."""
_CONDITION = "-condlabel"
"""Of these, OneTrainer's picture to condition on, which is no mask."""
_MASK_FOLDER = re.compile(r"masks?|conditioning.*|.*[-_ ]masks?", re.IGNORECASE)
"""Folders of masks: kohya's `conditioning_data_dir` may have any name, and has one of these."""
_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)


def search(
    folder: Path, index: Path | None = None, progress: Callable[[int, int], None] = lambda *_: None
) -> FolderContents:
    """What is in `folder`. Every picture is decoded once, to know that it is sound.

    What was found is kept in the file `index` and taken from there until a file in the folder changes; a
    warning says when that changes what is found. `progress(done, total)` counts pictures. Raises `DataError`
    where the folder cannot be read, or a `metadata.jsonl`, a `metadata.csv` or a shard is damaged. A dataset
    config of kohya's is searched as the folders that it lists.
    """
    if kohya_config.is_config(folder):
        return _configured(folder, index, progress)
    files = _files(folder, index)
    stamp = hashlib.sha256(
        "\n".join(f"{name}\t{status.st_size}\t{status.st_mtime_ns}" for name, status in files.items()).encode(
            "utf-8", "surrogateescape"
        )
    ).hexdigest()
    before = _kept(folder, index) if index else None
    if before and before[0] == stamp:
        return before[1]
    candidates, broken, unsupported, masks = _candidates(folder, files)
    sound: list[Picture] = []
    seen = in_threads(lambda one: look(folder, one), candidates)
    for done, (candidate, size) in enumerate(zip(candidates, seen, strict=True), start=1):
        if isinstance(size, PictureError):
            (unsupported if isinstance(size, UnsupportedPictureError) else broken).append(str(size))
        else:
            sound.append(replace(candidate, size=size))
        progress(done, len(candidates))
    split = any(_says_held_out(one.name) for one in sound)
    sound = [replace(one, held_out=(_says_held_out if split else _drawn)(one.name)) for one in sound]
    found = FolderContents(
        folder,
        tuple(sorted(sound, key=lambda one: one.name)),
        tuple(sorted(broken)),
        tuple(sorted(unsupported)),
        tuple(sorted(masks)),
    )
    if before and not before[1].is_like(found):
        warn(
            f"{folder} has changed since it was last searched: {len(before[1].pictures):,} pictures then, "
            f"{len(found.pictures):,} now; a run that goes on learns from what is there now"
        )
    if index:
        make_folder(index.parent, index)
        rows = [asdict(one) for one in found.pictures]
        left_out = {name: getattr(found, name) for name in _LEFT_OUT}
        write_json(index, {"version": VERSION, "stamp": stamp, "pictures": rows, **left_out})
    return found


def _configured(config: Path, index: Path | None, progress: Callable[[int, int], None]) -> FolderContents:
    """What is in the folders that kohya's dataset config lists, each picture as its subset has it."""
    sound: list[Picture] = []
    left_out: dict[str, list[str]] = {name: [] for name in _LEFT_OUT}
    for number, subset in enumerate(kohya_config.read(config).subsets):
        if subset.regularisation:
            warn(f"{config}: pictures of {subset.folder} are left out: dreambooth draws its class itself")
            continue
        found = search(subset.folder, index and index.with_name(f"{number}-{index.name}"), progress)
        masks = {} if subset.masks is None else _by_stem(subset.masks)
        where, learned = subset.folder.resolve(), found.pictures
        if subset.metadata is not None:
            names = [one.name for one in learned]
            tables = caption_files.kohya_metadata(subset.metadata, subset.folder, names)
            left_out["broken"] += [said for said in tables.missing if said not in found.broken]
            learned = tuple(
                replace(one, captions=tables.words[one.name].captions or one.captions)
                for one in learned
                if one.name in tables.words
            )
        for one in learned:
            mask = masks.get(PurePosixPath(one.name).stem) or (where / one.mask if one.mask else None)
            told = replace(
                one,
                name=f"{subset.folder}/{one.name}",
                file=str(where / one.file),
                captions=subset.captions(one.captions),
                weight=one.weight if subset.repeats is None else subset.repeats,
                mask="" if mask is None else str(mask),
            )
            sound.append(told)
        for name in _LEFT_OUT:
            left_out[name] += getattr(found, name)
    return FolderContents(
        config, tuple(sorted(sound, key=lambda one: one.name)), *(tuple(left_out[name]) for name in _LEFT_OUT)
    )


def _by_stem(folder: Path) -> dict[str, Path]:
    """The pictures in `folder` by their names without suffix. Raises `DataError` where it cannot be read."""
    try:
        return {path.stem: path.resolve() for path in folder.iterdir() if _suffix(path.name) in READ_FORMATS}
    except OSError as error:
        raise DataError(f"cannot read the folder of masks {folder}: {error.strerror}") from error


def _kept(folder: Path, index: Path) -> tuple[str, FolderContents] | None:
    try:
        kept = json.loads(read_file(index, _MOST_INDEX))
        found = tuple(
            Picture(**{**one, "size": tuple(one["size"]), "captions": tuple(one["captions"])})
            for one in kept["pictures"]
        )
        if kept.get("version") != VERSION:
            return None
        return kept["stamp"], FolderContents(folder, found, *(tuple(kept[name]) for name in _LEFT_OUT))
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


def _candidates(
    folder: Path, files: Mapping[str, os.stat_result]
) -> tuple[list[Picture], list[str], list[str], list[str]]:
    """What may be pictures to learn from, what is broken, what is of kinds that are not read, and masks."""
    broken = [f"{name!a} has a name that is not UTF-8" for name in files if not _is_text(name)]
    files = {name: status for name, status in files.items() if _is_text(name)}
    names = [name for name in files if _suffix(name) in READ_FORMATS]
    tables = caption_files.tables(folder, files, names)
    broken += tables.missing
    by_key = {caption_files.key(name): name for name in files}
    found: list[Picture] = []
    unsupported: list[str] = []
    words: dict[str, Words] = {}
    for name in names:
        try:
            own = caption_files.beside(name, by_key, lambda one: _read(folder, one))
            words[name] = tables.words.get(name, Words()) | own
        except PictureError as error:
            broken.append(str(error))
    masks = _masks(words) | {name: of for name, of in tables.companions.items() if name in words}
    mask_of = {of: name for name, of in masks.items()}
    silent = words and not any(each.captions for each in words.values())
    unread = _UNREAD | _OTHER_TABLES if silent else _UNREAD
    for name, status in files.items():
        suffix = _suffix(name)
        if suffix == ".tar":
            found += _members(folder, name, status.st_mtime_ns)
        elif name in words and name not in masks:
            one = _picture(folder, name, name, 0, status.st_size, status.st_mtime_ns, words[name])
            found.append(replace(one, mask=mask_of.get(name, "")))
        elif suffix in unread and PurePosixPath(name).name not in (JSON_LINES, CSV):
            unsupported.append(f"{name} is {unread[suffix]}")
        elif suffix not in READ_FORMATS and _is_named_picture(name):
            unsupported.append(f"{name} is not a {READABLE} picture: convert it")
    return found, broken, unsupported, list(masks)


def _masks(words: Mapping[str, Words]) -> dict[str, str]:
    """The pictures that have no words of their own and are named as the masks of others, and those others.

    "" where no single picture, or another thing than a mask, is meant.
    """
    paths = {name: PurePosixPath(name) for name in words}
    stems = {str(path.with_suffix("")): name for name, path in paths.items()}
    shown: dict[str, list[str]] = {}
    for name, path in paths.items():
        if not _in_mask_folder(path):
            shown.setdefault(path.stem, []).append(name)
    found = {}
    for name, path in paths.items():
        if words[name].captions:
            continue
        if named := _MASK.fullmatch(path.stem):
            of = stems.get(str(path.with_name(named[1])))
            if of or named[2].lower().endswith("label"):
                found[name] = of if of and named[2].lower() != _CONDITION else ""
        if _in_mask_folder(path) and (own := shown.get(path.stem)):
            # of several of one name, the one that lies where the folder of masks does
            above = [of for of in own if _folder_above_masks(path) == paths[of].parent] or own
            found[name] = above[0] if len(above) == 1 else ""
    return found


def _folder_above_masks(path: PurePosixPath) -> PurePosixPath:
    """Where the pictures lie whose masks lie at `path`: in the same folder without that of the masks."""
    return PurePosixPath(*(part for part in path.parts[:-1] if not _MASK_FOLDER.fullmatch(part)))


def _in_mask_folder(path: PurePosixPath) -> bool:
    return any(_MASK_FOLDER.fullmatch(part) for part in path.parts[:-1])


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _is_named_picture(name: str) -> bool:
    return _suffix(name) in _MORE or (mimetypes.guess_type(name)[0] or "").startswith("image/")


def _is_text(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _picture(
    folder: Path, name: str, file: str, start: int, length: int, changed: int, words: Words
) -> Picture:
    words |= caption_files.of_folder(f"{folder.resolve().name}/{name}")
    weight = 1.0 if words.weight is None else words.weight
    return Picture(name, file, start, length, changed, (0, 0), words.captions, weight, False)


def _read(folder: Path, name: str) -> bytes:
    """The content of a caption file, if it is not too large. Raises `PictureError`."""
    try:
        return read_file(folder / name, MOST_WORDS)
    except OSError as error:
        raise PictureError(f"cannot read {name}: {error.strerror}") from error


def _members(folder: Path, shard: str, changed: int) -> Iterator[Picture]:
    """The pictures in a tar file, each with what the caption file of its name says."""
    places: dict[str, tarfile.TarInfo] = {}
    raw: dict[str, bytes] = {}
    try:
        with open_file(folder / shard) as opened, tarfile.open(fileobj=opened, mode="r:") as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                if not member.isreg() or path.name.startswith("."):
                    continue
                if path.suffix.lower() in READ_FORMATS:
                    places[member.name] = member
                elif path.suffix.lower() in caption_files.CAPTION_SUFFIXES:
                    if member.size > MOST_WORDS:
                        raise PictureError(f"{member.name} is larger than {MOST_WORDS:,} bytes")
                    file = tar.extractfile(member)
                    raw[member.name] = file.read() if file else b""
            _check_end(tar)
        by_key = {caption_files.key(name): name for name in raw}
        for name, member in places.items():
            own = caption_files.beside(name, by_key, raw.__getitem__)
            yield _picture(folder, f"{shard}/{name}", shard, member.offset_data, member.size, changed, own)
    except (tarfile.TarError, EOFError, OSError, PictureError) as error:
        raise DataError(f"the shard {folder / shard} is damaged: {error}") from error


def _check_end(tar: tarfile.TarFile) -> None:
    """Raise `tarfile.ReadError` unless a block of zeros follows: tarfile takes a cut one for the end."""
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("its end is missing")


def look(folder: Path, candidate: Picture) -> Size | PictureError:
    """The upright size of a picture that can be decoded, or what is wrong with it."""
    try:
        content = bytes_of(folder, candidate)
        with pictures.opened_content(content, candidate.name, most=MOST_PIXELS) as picture:
            width, height = picture.size
            picture.draft("RGB", (1, 1))  # a JPEG is read to its end, but not drawn in full
            picture.load()
            # once it is loaded: Pillow turns some formats by itself, and then says so
            turned = picture.getexif().get(_ORIENTATION) in _TURNED
            return (height, width) if turned else (width, height)
    except PictureError as error:
        return error


def _says_held_out(name: str) -> bool:
    """Whether a folder above a picture, or its shard, is called "test" or "validation"."""
    parts = PurePosixPath(name).parts[:-1]
    return any(_HELD_OUT.fullmatch(part) for part in parts)


def _drawn(name: str) -> bool:
    digest = hashlib.sha256(name.encode("utf-8")).digest()
    return int.from_bytes(digest[:4], "big") % ONE_IN == 0
