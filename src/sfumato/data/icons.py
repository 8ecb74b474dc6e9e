"""The rendered icon and emoji set, as training reads it."""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from sfumato.data.captions import TINTS, caption, tint, tinted_caption
from sfumato.data.crops import Crop, Size
from sfumato.data.sets import SETS
from sfumato.errors import DataError
from sfumato.files import read_lines, regular

_MOVED = 4096
"""Pictures that are moved to an accelerator at once."""


@dataclass(frozen=True)
class Row:
    """What a picture shows."""

    set: str
    label: str
    tags: tuple[str, ...]
    share: float
    held_out: bool

    @property
    def weight(self) -> float:
        """How often it is shown, relative to all others."""
        return self.share * SETS[self.set].share


def rows(folder: Path) -> dict[Path, list[Row]]:
    """What the pictures in `folder` show, by the file that says it. Raises `DataError`."""
    found = {}
    for path in sorted(folder.glob("part-*.jsonl")):
        try:
            described = map(json.loads, read_lines(path))
            found[path] = [Row(**{**row, "tags": tuple(row["tags"])}) for row in described]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} is no readable part of a data set: {error}") from error
    return found


class Pixels:
    """Pictures that stay in their files until they are asked for: a set is larger than most memories."""

    device = torch.device("cpu")

    def __init__(self, shape: tuple[int, ...], parts: Sequence[tuple[NDArray[np.uint8], Sequence[int]]]):
        """`shape` of one picture; files' pixels, with the places in each of the pictures that count."""
        self._parts = [pixels for pixels, _ in parts]
        self._places = [np.asarray(places, dtype=np.int64) for _, places in parts]
        self._ends = list(accumulate(len(places) for _, places in parts))
        self.shape = (self._ends[-1] if parts else 0, *shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Tensor | Sequence[int] | slice) -> Tensor:
        """The pictures in `rows`, uint8, in memory."""
        if isinstance(rows, slice):
            rows = range(*rows.indices(len(self)))
        found = torch.empty(len(rows), *self.shape[1:], dtype=torch.uint8)
        into = found.numpy()
        for place, row in enumerate(rows.tolist() if isinstance(rows, Tensor) else rows):
            part = bisect_right(self._ends, row)
            first = self._ends[part - 1] if part else 0
            into[place] = self._parts[part][self._places[part][row - first]]
        return found

    def to(self, device: torch.device) -> Tensor:
        """All of them, uint8, on `device`."""
        found = torch.empty(self.shape, dtype=torch.uint8, device=device)
        for start in range(0, len(self), _MOVED):
            found[start : start + _MOVED] = self[start : start + _MOVED].to(device)
        return found


@dataclass(frozen=True, eq=False)
class Icons:
    """Pictures and one-colour drawings: on an accelerator in its memory, else in their files."""

    pictures: Tensor | Pixels
    """(N, S, S, 3) uint8."""
    rows: tuple[Row, ...]
    """N."""
    inks: Tensor | Pixels
    """(M, S, S) uint8: 255 where the ink of a one-colour drawing is."""
    ink_rows: tuple[Row, ...]
    """M."""
    digest: str
    """Of the files that they are from."""


def load(folder: Path, *, held_out: bool, device: torch.device | None = None) -> Icons:
    """The pictures in `folder` for training, or those of the concepts held out for tests, on `device`.

    Raises `DataError` where there are none or a part is damaged.
    """
    kept: dict[bool, list[tuple[NDArray[np.uint8], list[int]]]] = {False: [], True: []}
    shown: dict[bool, list[Row]] = {False: [], True: []}
    digest = hashlib.sha256(str(held_out).encode())
    for path, of_part in rows(folder).items():
        try:
            pixels = np.load(regular(path.with_suffix(".npy")), mmap_mode="r")
        except (OSError, ValueError) as error:
            raise DataError(f"{path.with_suffix('.npy')} cannot be read: {error}") from error
        if len(pixels) != len(of_part):
            raise DataError(f"{path} describes {len(of_part)} pictures, its .npy holds {len(pixels)}")
        status = path.with_suffix(".npy").stat()
        digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
        places = [place for place, row in enumerate(of_part) if row.held_out == held_out]
        if places:
            tinted = SETS[of_part[0].set].tinted
            kept[tinted].append((pixels, places))
            shown[tinted] += [of_part[place] for place in places]
    if not shown[False] and not shown[True]:
        kind = "held out" if held_out else "to train with"
        raise DataError(f"{folder} holds no pictures {kind}; `sfumato data icons` makes them")
    size = (kept[False] or kept[True])[0][0].shape[1]
    pictures: Tensor | Pixels = Pixels((size, size, 3), kept[False])
    inks: Tensor | Pixels = Pixels((size, size), kept[True])
    if device is not None and device.type != "cpu":
        pictures, inks = pictures.to(device), inks.to(device)
    return Icons(pictures, tuple(shown[False]), inks, tuple(shown[True]), digest.hexdigest())


def to_signal(pictures: Tensor) -> Tensor:
    """Pictures (B, S, S, 3) uint8 as (B, 3, S, S) in [−1, 1]."""
    return pictures.permute(0, 3, 1, 2).float() / 127.5 - 1


def tinted(inks: Tensor, ink: Tensor, ground: Tensor) -> Tensor:
    """Drawings `inks` (B, S, S) uint8 as pictures (B, 3, S, S), in colours (B, 3), all of [−1, 1]."""
    cover = inks[:, None].float() / 255
    ink, ground = ink[..., None, None], ground[..., None, None]
    return ground + (ink - ground) * cover


@dataclass(frozen=True, eq=False)
class IconDataset:
    """A dataset of all icons, the one-colour ones in several tints."""

    icons: Icons
    tints: Tensor
    """(T·M, 2, 3) in [−1, 1]: the ink and the ground of every drawing in its first tint, its second, …"""
    captions: tuple[tuple[str, ...], ...]
    weights: tuple[float, ...]
    """Relative to the others."""

    def __len__(self) -> int:
        return len(self.captions)

    @property
    def side(self) -> int:
        """Width and height of every picture in pixels."""
        return self.icons.pictures.shape[1]

    @property
    def sizes(self) -> tuple[Size, ...]:
        return ((self.side, self.side),) * len(self)

    @property
    def digest(self) -> str:
        return hashlib.sha256(f"{self.icons.digest}\n{self.tints.tolist()}".encode()).hexdigest()

    def load(self, rows: Sequence[int], crops: Sequence[Crop]) -> Tensor:
        """As every dataset does; the pictures are square, and so are all crops of them."""
        x = self._signal(torch.tensor(rows, device=self.tints.device))
        mirrored = torch.tensor([crop.mirrored for crop in crops], device=x.device).view(-1, 1, 1, 1)
        x = torch.where(mirrored, x.flip(3), x)
        width, height = crops[0].size
        if (width, height) != (self.side, self.side):
            x = F.interpolate(x, (height, width), mode="bicubic", antialias=True).clamp(-1, 1)
        return x

    def _signal(self, rows: Tensor) -> Tensor:
        icons, count = self.icons, len(self.icons.rows)
        x = torch.empty(len(rows), 3, self.side, self.side, device=rows.device)
        coloured = rows < count
        if len(own := rows[coloured]):
            x[coloured] = to_signal(icons.pictures[own])
        if len(own := rows[~coloured] - count):
            ink, ground = self.tints[own].unbind(1)
            x[~coloured] = tinted(icons.inks[own % len(icons.ink_rows)], ink, ground)
        return x


def icon_dataset(icons: Icons, *, seed: int, captions: int = 6, tints: int = 3) -> IconDataset:
    """`captions` for each picture, and each one-colour drawing in `tints` pairs of colours.

    The order is pictures, then drawings in their first tint, in their second, and so on.
    """
    random = Random(seed)
    texts: list[tuple[str, ...]] = []
    for row in icons.rows:
        styles = SETS[row.set].styles
        texts.append(tuple(caption(row.label, row.tags, styles, random) for _ in range(captions)))
    weights = [row.weight for row in icons.rows]
    pairs: list[tuple[str, str]] = []
    for _ in range(tints):
        for row in icons.ink_rows:
            styles, pair = SETS[row.set].styles, tint(random)
            pairs.append(pair)
            texts.append(
                tuple(tinted_caption(row.label, row.tags, styles, *pair, random) for _ in range(captions))
            )
            weights.append(row.weight / tints)
    colours = torch.tensor([[TINTS[name] for name in pair] for pair in pairs] or [[(0, 0, 0)] * 2])
    colours = colours.to(icons.inks.device).float() / 127.5 - 1
    return IconDataset(icons, colours, tuple(texts), tuple(weights))
