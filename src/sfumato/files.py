"""Files that are written whole or not at all, and read within limits.

A file is written beside its place under another name, flushed to the disk, and renamed: after a crash there
is the old file or the new one, never half of one. Files from elsewhere are opened by `open_file` and
`read_file` alone: a named pipe or a device among them can neither hang the program nor fill its memory.
"""

import errno
import json
import math
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

from sfumato.errors import CheckpointError, OutputError

_REASONS = {
    errno.ENOSPC: "no space is left on the device",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than allowed",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission is denied",
    errno.EPERM: "the operation is not permitted",
    errno.EISDIR: "it is a folder",
    errno.ENOTDIR: "a part of the path is not a folder",
    errno.ENAMETOOLONG: "the name is too long",
    errno.EIO: "the device reports an input/output error",
}

_KINDS = (
    (stat.S_ISDIR, "it is a folder"),
    (stat.S_ISFIFO, "it is a named pipe, not a file"),
    (stat.S_ISSOCK, "it is a socket, not a file"),
    (stat.S_ISCHR, "it is a device, not a file"),
    (stat.S_ISBLK, "it is a device, not a file"),
)
# Opening what has become a pipe or a terminal since it was looked at neither waits nor takes it over.
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)

# Bytes that Python takes for what begins at each mark of JSON, roughly and at most: a short text can be long
# in memory, so that bounding its size bounds little. torch.load(weights_only=True) guards pickles only;
# headers and configurations are JSON, and a hostile one must not fill the memory either.
_COSTS = {b"{": 240, b"[": 90, b":": 160, b",": 50}
_MOST_COST = 64 << 20
_MOST_STRINGS = 1 << 20
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)

# How JSON writes half of a surrogate pair; alone it is no character, and can be neither printed nor encoded.
_HALF_CHARACTER = re.compile(rb"\\u[dD][89a-fA-F]")


def output_error(path: Path, error: OSError) -> OutputError:
    """The one line that says why `path` could not be written."""
    if error.errno == errno.ENOENT:
        return OutputError(f"cannot write {path}: there is no folder {str(path.parent)!r}")
    reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
    return OutputError(f"cannot write {path}: {reason}")


def make_folder(folder: Path, for_file: Path | None = None) -> None:
    """Make `folder` and those above it; `OutputError`, naming `for_file` if given, where that is refused."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(for_file or folder, error) from error


@contextmanager
def replace_atomically(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A binary file to write to; `path` gets its content if the block ends well, and is untouched otherwise.

    What was written can be read back, to be judged before it counts. A symbolic link is followed; a device or
    a pipe (`/dev/stdout`) is written to directly, since there is nothing to replace. Raises `OutputError` for
    whatever the file system refuses.
    """
    asked = Path(path)
    try:
        mode = _mode(asked)
        if mode is not None and not stat.S_ISREG(mode):
            with open(asked, "wb") as file:
                yield file
            return
        target = Path(os.path.realpath(asked))
        beside = _beside(target)
        try:
            descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            with open(descriptor, "w+b") as file:
                if mode is not None:
                    os.chmod(beside, stat.S_IMODE(mode))
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, target)
        except BaseException:
            with suppress(OSError):
                beside.unlink()
            raise
        sync_folder(target.parent)
    except OSError as error:
        raise output_error(asked, error) from error


@contextmanager
def replace_folder(path: str | os.PathLike[str], *, marker: str, overwrite: bool = False) -> Iterator[Path]:
    """An empty folder to fill, which becomes `path` when the block ends well and is removed otherwise.

    A folder that has something in it is replaced only with `overwrite`, and only if it holds a file named
    `marker`, so that a slip cannot cost anything else than what is being replaced. Should the machine die
    between the two renames of a replacement, the old folder is beside, as `.NAME.*.old`.
    Raises `OutputError`.
    """
    asked = Path(path)
    try:
        target = Path(os.path.realpath(asked))
        replaced = _folder_to_replace(asked, target, marker, overwrite)
        beside = _beside(target)
        old = beside.with_suffix(".old")
        try:
            beside.mkdir()
            yield beside
            for folder, _, _ in os.walk(beside):
                sync_folder(Path(folder))
            try:
                if replaced:
                    os.rename(target, old)
                os.rename(beside, target)
            except BaseException:
                if old.exists() and not target.exists():
                    os.rename(old, target)
                raise
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
        sync_folder(target.parent)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise output_error(asked, error) from error


def check_file(path: str | os.PathLike[str], size: int = 0) -> None:
    """Raise the `OutputError` that `replace_atomically` would, where that is known before the work.

    `size`: the bytes that the file will take.
    """
    asked = Path(path)
    try:
        mode = _mode(asked)
        if mode is not None and stat.S_ISDIR(mode):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        if mode is None or stat.S_ISREG(mode):
            beside = _beside(Path(os.path.realpath(asked)))
            os.close(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            beside.unlink()
            check_room(asked, size)
    except OSError as error:
        raise output_error(asked, error) from error


def check_folder(path: str | os.PathLike[str], *, marker: str, overwrite: bool = False) -> None:
    """Raise the `OutputError` that `replace_folder` would, where that is known before the work."""
    asked = Path(path)
    try:
        target = Path(os.path.realpath(asked))
        _folder_to_replace(asked, target, marker, overwrite)
        beside = _beside(target)
        beside.mkdir()
        beside.rmdir()
    except OSError as error:
        raise output_error(asked, error) from error


def check_made(folder: Path) -> None:
    """Raise `OutputError` if `folder` is none and cannot be made, or if nothing can be written in it."""
    there = next(above for above in (folder, *folder.absolute().parents) if os.path.lexists(above))
    try:
        beside = _beside(there / "probe")
        beside.mkdir()
        beside.rmdir()
    except OSError as error:
        raise output_error(folder, error) from error


def check_room(path: Path, size: int) -> None:
    """Raise `OutputError` if a file or folder `path` of `size` bytes has no room on its disk."""
    there = next(above for above in path.absolute().parents if above.is_dir())
    free = shutil.disk_usage(there).free
    if free < size:
        raise OutputError(f"cannot write {path}: it takes {size:,} bytes, and its disk has {free:,} free")


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` outlast a power cut, where the system lets a folder be opened."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_file(path: str | os.PathLike[str]) -> BufferedReader:
    """The regular file `path`, or the one that it links to, opened to be read.

    Raises `OSError`, whose `strerror` says why: also for a folder, a pipe, a socket or a device.
    """
    regular(path)
    descriptor = os.open(path, _READ)
    try:
        _check_regular(os.fstat(descriptor).st_mode, path)
    except OSError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def read_file(path: str | os.PathLike[str], most: int) -> bytes:
    """The content of the regular file `path`. Raises `OSError` as `open_file` does, and for more bytes."""
    with open_file(path) as file:
        if os.fstat(file.fileno()).st_size <= most and len(content := file.read(most + 1)) <= most:
            return content
    raise _too_large("it", most, path)


def read_lines(path: str | os.PathLike[str], most: int = 1 << 20) -> Iterator[bytes]:
    """The lines of the regular file `path`, each of at most `most` bytes. Raises `OSError`."""
    with open_file(path) as file:
        for number, line in enumerate(iter(lambda: file.readline(most + 1), b""), start=1):
            if len(line) > most:
                raise _too_large(f"line {number}", most, path)
            yield line


def _too_large(what: str, most: int, path: str | os.PathLike[str]) -> OSError:
    why = f"{what} is larger than {most:,} bytes, the most that is read of such a file"
    return OSError(errno.EFBIG, why, os.fspath(path))


def regular(path: str | os.PathLike[str]) -> Path:
    """`path` itself, for what opens files by their paths. Raises `OSError` as `open_file` does."""
    _check_regular(os.stat(path).st_mode, path)
    return Path(path)


def _check_regular(mode: int, path: str | os.PathLike[str]) -> None:
    if not stat.S_ISREG(mode):
        why = next((why for is_kind, why in _KINDS if is_kind(mode)), "it is not a file")
        raise OSError(errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL, why, os.fspath(path))


def read_json(path: Path, limit: int = 1 << 20, *, infinite: bool = False) -> dict[str, Any]:
    """The JSON object in `path`, at most `limit` bytes. Raises `CheckpointError`, naming the file.

    `infinite`: its numbers may be.
    """
    try:
        return parse_json(read_file(path, limit), str(path), infinite=infinite)
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing") from None
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error


def parse_json(raw: bytes, where: str, *, infinite: bool = False) -> dict[str, Any]:
    """The JSON object in `raw`. Raises `CheckpointError` as `json_value` does, and for anything else."""
    found = json_value(raw, where, infinite=infinite)
    if not isinstance(found, dict):
        raise CheckpointError(f"{where} must hold a JSON object, not {type(found).__name__}")
    return found


def json_value(raw: bytes, where: str, *, infinite: bool = False) -> Any:
    """What the JSON in `raw` holds: UTF-8, no key twice, numbers finite, whole characters.

    `infinite`: ±Infinity is a number too, which diffusers writes into the settings of schedulers.
    Raises `CheckpointError`, before parsing where the result would take much memory.
    """
    if is_crowded(raw):
        raise CheckpointError(f"{where} lists far more than such a file may")
    number = _number if infinite else _finite
    try:
        found = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_once, parse_constant=number, parse_float=number
        )
        if _HALF_CHARACTER.search(raw):
            json.dumps(found, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{where} is not valid JSON: {error}") from error
    return found


def is_crowded(raw: bytes) -> bool:
    """Whether JSON text would take much more memory than sound files do; what strings hold does not count."""
    if _cost(raw) <= _MOST_COST:
        return False
    strings = (raw.count(b'"') - raw.count(b'\\"')) // 2
    return strings > _MOST_STRINGS or _cost(_STRING.sub(b"", raw)) > _MOST_COST


def _cost(raw: bytes) -> int:
    return sum(cost * raw.count(mark) for mark, cost in _COSTS.items())


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} stands twice")
        found[key] = value
    return found


def _finite(number: str) -> float:
    if not math.isfinite(value := float(number)):
        raise ValueError(f"{number} is not a finite number")
    return value


def _number(number: str) -> float:
    if math.isnan(value := float(number)):
        raise ValueError(f"{number} is not a number")
    return value


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write `content` as JSON people can read, atomically. Raises `OutputError`."""
    with replace_atomically(path) as file:
        file.write((json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode("utf-8"))


def _beside(target: Path) -> Path:
    return target.with_name(f".{target.name[:100]}.{secrets.token_hex(6)}.tmp")


def _mode(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None


def _folder_to_replace(asked: Path, target: Path, marker: str, overwrite: bool) -> bool:
    """Whether a filled folder has to make room; an `OutputError` where it must not."""
    if not target.exists():
        return False
    if not target.is_dir():
        raise OutputError(f"cannot write the folder {asked}: a file of that name is there")
    if not any(target.iterdir()):
        return False
    if not (target / marker).is_file():
        raise OutputError(f"will not replace {asked}: it is not empty and holds no {marker}")
    if not overwrite:
        raise OutputError(f"will not replace {asked}: a model is there already (overwrite=True replaces it)")
    return True
