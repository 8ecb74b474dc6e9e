"""A picture folder as a few large files, which travel and are read faster than many small ones."""

import io
import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from sfumato.data.folder import FolderContents, Picture, bytes_of
from sfumato.errors import OutputError
from sfumato.files import check_made, check_room, make_folder, replace_atomically

SHARD_BYTES = 256 << 20
"""Of pictures in one shard, about."""


def pack(
    found: FolderContents,
    out: Path,
    shard_bytes: int = SHARD_BYTES,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> list[Path]:
    """Write the sound pictures of a folder, byte for byte, to shards `train-*.tar` and `test-*.tar` in `out`.

    Each is followed by a `.json` of the same name with its captions, its weight and its name in the folder.
    `progress(done, total)` counts pictures. To the shards' paths. Raises `OutputError`, also where shards are
    there already; `PictureError` for a picture that cannot be read any more.
    """
    check_place(out)
    make_folder(out)
    check_room(out / "train", sum(picture.length for picture in found.pictures))
    paths, done = [], 0
    for split, held_out in (("train", False), ("test", True)):
        own = [picture for picture in found.pictures if picture.held_out == held_out]
        for number, those in enumerate(_shares(own, shard_bytes)):
            paths.append(out / f"{split}-{number:05}.tar")
            with replace_atomically(paths[-1]) as file, tarfile.open(fileobj=file, mode="w") as tar:
                for place, picture in enumerate(those):
                    stem = f"{number:05}{place:05}"
                    suffix = PurePosixPath(picture.name).suffix.lower()
                    words = {"file_name": picture.name, "text": picture.captions, "weight": picture.weight}
                    raw = bytes_of(found.folder, picture).getvalue()
                    _add(tar, f"{stem}{suffix}", raw)
                    _add(tar, f"{stem}.json", json.dumps(words, ensure_ascii=False).encode("utf-8"))
                    done += 1
                    progress(done, len(found.pictures))
    return paths


def check_place(out: Path) -> None:
    """Raise `OutputError` where `pack` would not or could not write: to be called before the work."""
    if there := sorted(out.glob("*.tar")):
        raise OutputError(f"will not add to {out}: {there[0].name} is there already")
    check_made(out)


def _shares(pictures: Sequence[Picture], most: int) -> list[list[Picture]]:
    shares: list[list[Picture]] = []
    size = most
    for picture in pictures:
        if size >= most:
            shares.append([])
            size = 0
        shares[-1].append(picture)
        size += picture.length
    return shares


def _add(tar: tarfile.TarFile, name: str, raw: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(raw)
    tar.addfile(info, io.BytesIO(raw))
