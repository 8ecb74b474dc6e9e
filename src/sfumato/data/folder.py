"""A folder of one's own pictures, as training reads it."""

import hashlib
import io
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import PIL.Image
import torch
from PIL import ImageOps
from torch import Tensor

from sfumato import pictures
from sfumato.data.caption_files import LOOKED_FOR
from sfumato.data.crops import Crop, Size
from sfumato.data.kohya_config import is_config
from sfumato.errors import DataError, PictureError, UnsupportedPictureError, warn
from sfumato.files import open_file
from sfumato.formats import READABLE

T = TypeVar("T")
MOST_PIXELS = 1 << 26
"""Of one picture, 8192 × 8192."""
MOST_BYTES = 256 << 20
"""Of one picture's file."""
_MOST_NAMED = 3


@dataclass(frozen=True)
class Picture:
    """A sound picture with its captions."""

    name: str
    """Its path in the folder; in a shard, the shard's and its own."""
    file: str
    """The path in the folder of the file that holds it."""
    start: int
    length: int
    """Its bytes in that file."""
    changed: int
    """When the file was last changed, in nanoseconds."""
    size: Size
    """Upright, as its EXIF says."""
    captions: tuple[str, ...]
    weight: float
    """How often it is shown in an epoch."""
    held_out: bool
    mask: str = ""
    """The path in the folder of the file that says what of it counts, if there is one."""


@dataclass(frozen=True)
class FolderContents:
    """What is in a folder."""

    folder: Path
    pictures: tuple[Picture, ...]
    """By name."""
    broken: tuple[str, ...]
    """What could not be read, and why, each in one line."""
    unsupported: tuple[str, ...] = ()
    """Pictures and tables of kinds that are not read, each in one line."""
    masks: tuple[str, ...] = ()
    """Masks of pictures, by their names."""

    @property
    def uncaptioned(self) -> tuple[Picture, ...]:
        """The pictures without a caption."""
        return tuple(picture for picture in self.pictures if not picture.captions)

    def is_like(self, other: "FolderContents") -> bool:
        """Whether both hold the same pictures, whenever their files were last changed."""
        mine, others = ([replace(one, changed=0) for one in each.pictures] for each in (self, other))
        return mine == others

    def warn(self, *, captioned: bool, masked: bool = False) -> None:
        """Warn of what is left out: broken and unsupported pictures, masks unless `masked` and, if
        `captioned`, pictures without a caption."""
        if self.broken:
            warn(_left_out(self.folder, self.broken, "broken picture{s}"))
        if self.unsupported:
            warn(_left_out(self.folder, self.unsupported, "picture{s} of a kind that is not read"))
        if self.masks and not masked:
            warn(_left_out(self.folder, self.masks, "mask{s}, read with data.loss_mask = 'files' alone,"))
        if captioned and self.uncaptioned:
            names = [picture.name for picture in self.uncaptioned]
            warn(_left_out(self.folder, names, "picture{s} without a caption"))

    def chosen(self, *, held_out: bool | None, captioned: bool) -> "FolderDataset":
        """The pictures to train with, those held out for tests, or with `None` all; with `captioned`, those
        that have one.

        Raises `DataError` where there are none to train with.
        """
        kept = [picture for picture in self.pictures if picture.captions or not captioned]
        own = [picture for picture in kept if held_out in (None, picture.held_out)]
        if not own and not held_out:
            raise DataError(self._empty(bool(kept)))
        return FolderDataset(self.folder, tuple(own))

    def _empty(self, kept: bool) -> str:
        if kept:
            return f"{self.folder} holds no pictures to train with: all of them are held out for tests"
        if self.pictures:
            return (
                f"{self.folder}: none of {len(self.pictures):,} pictures has a caption; {LOOKED_FOR}; "
                "or give a caption_template without {caption}"
            )
        broken = f"; {len(self.broken):,} are broken, as {self.broken[0]}" if self.broken else ""
        if self.unsupported:
            broken += f"; {len(self.unsupported):,} are not read, as {self.unsupported[0]}"
        return (
            f"{self.folder} holds no pictures to train with{broken}: it should hold {READABLE} files, "
            "shards (.tar), or what `sfumato data icons` makes"
        )


@dataclass(frozen=True, eq=False)
class FolderDataset:
    """A dataset of pictures that stay in their files."""

    folder: Path
    pictures: tuple[Picture, ...]

    @cached_property
    def sizes(self) -> tuple[Size, ...]:
        return tuple(picture.size for picture in self.pictures)

    @cached_property
    def captions(self) -> tuple[tuple[str, ...], ...]:
        return tuple(picture.captions for picture in self.pictures)

    @cached_property
    def weights(self) -> tuple[float, ...]:
        return tuple(picture.weight for picture in self.pictures)

    @cached_property
    def digest(self) -> str:
        digest = hashlib.sha256(b"colours by their profiles\n")
        for picture in self.pictures:
            digest.update(f"{picture.name}\n{picture.start} {picture.length} {picture.changed}\n".encode())
        return digest.hexdigest()

    def some(self, rows: Sequence[int]) -> "FolderDataset":
        """The pictures in `rows` alone."""
        return FolderDataset(self.folder, tuple(self.pictures[row] for row in rows))

    def load(self, rows: Sequence[int], crops: Sequence[Crop]) -> Tensor:
        return torch.stack(list(in_threads(self._loaded, rows, crops)))

    def _loaded(self, row: int, crop: Crop) -> Tensor:
        cropped = _cropped(pictures.srgb(self._whole(row)), crop)
        return torch.from_numpy(np.array(cropped)).permute(2, 0, 1).float() / 127.5 - 1

    def mask(self, row: int, crop: Crop) -> Tensor | None:
        """What of a picture's `crop` counts, by the file beside it: (h, w) in [0, 1]; nothing without one.

        Raises `DataError` for a mask that cannot be read, or is of another shape than its picture.
        """
        picture = self.pictures[row]
        if not picture.mask:
            return None
        try:
            with pictures.opened(self.folder / picture.mask, most=MOST_PIXELS) as opened:
                whole = pictures.srgb(opened).convert("L")
        except PictureError as error:
            raise DataError(f"{self.folder}: the mask of {picture.name}: {error}") from error
        (width, height), (w, h) = whole.size, picture.size
        if abs(width * h - w * height) > max(w, h) * max(width / w, height / h):
            raise DataError(
                f"{self.folder}: the mask {picture.mask} has {width}×{height} pixels: must have the shape of "
                f"its picture, {w}×{h}"
            )
        return _coverage(_cropped(whole.resize(picture.size), crop))

    def opacity(self, row: int, crop: Crop) -> Tensor:
        """How opaque a picture's `crop` is: (h, w) in [0, 1]."""
        return _coverage(_cropped(pictures.rgba(self._whole(row)).getchannel("A"), crop))

    def _whole(self, row: int) -> PIL.Image.Image:
        picture = self.pictures[row]
        try:
            content = bytes_of(self.folder, picture)
            with pictures.opened_content(content, picture.name, most=MOST_PIXELS) as opened:
                opened.load()
                upright = ImageOps.exif_transpose(opened)
                if upright.size != picture.size:
                    raise PictureError(f"{picture.name} has another size now")
                return upright
        except PictureError as error:
            raise DataError(f"{self.folder}: {error}; it was sound when the folder was searched") from error


def _cropped(whole: PIL.Image.Image, crop: Crop) -> PIL.Image.Image:
    shown = whole.resize(crop.size, PIL.Image.Resampling.LANCZOS, box=crop.box)
    return ImageOps.mirror(shown) if crop.mirrored else shown


def _coverage(grey: PIL.Image.Image) -> Tensor:
    return torch.from_numpy(np.array(grey)).float() / 255


def check_is_there(folder: Path) -> None:
    """Raise `DataError` that says what else can be done unless `folder` is a folder or lists some."""
    if not folder.is_dir() and not is_config(folder):
        missing = f"there is no folder {folder}: name one of captioned pictures, or make one of icons with"
        raise DataError(f"{missing} `sfumato data icons {folder}`")


def bytes_of(folder: Path, picture: Picture) -> io.BytesIO:
    """The file of a picture, as it lies in `folder`. Raises `PictureError`."""
    if picture.length > MOST_BYTES:
        raise UnsupportedPictureError(
            f"{picture.name} takes {picture.length:,} bytes; at most {MOST_BYTES:,} are read"
        )
    try:
        with open_file(folder / picture.file) as file:
            file.seek(picture.start)
            return io.BytesIO(file.read(picture.length))
    except OSError as error:
        raise PictureError(f"cannot read {picture.name}: {error.strerror}") from error


def in_threads(work: Callable[..., T], *rows: Sequence[Any]) -> Iterator[T]:
    """`work` on every row, in order; what Pillow warns of is seen by what comes of it."""
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        warnings.simplefilter("ignore")
        yield from pool.map(work, *rows)


def _left_out(folder: Path, which: Sequence[str], what: str) -> str:
    more = f", and {len(which) - _MOST_NAMED:,} more" if len(which) > _MOST_NAMED else ""
    plural, verb = ("", "is") if len(which) == 1 else ("s", "are")
    named = "; ".join(which[:_MOST_NAMED])
    return f"{folder}: {len(which):,} {what.format(s=plural)} {verb} left out: {named}{more}"
