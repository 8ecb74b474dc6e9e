"""Which cells of a latent count in the loss: those of the subject, by masks or by what is cut out."""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sfumato.data.crops import Crop, Size
from sfumato.data.folder import FolderDataset
from sfumato.devices import sent
from sfumato.edit.matting import PLAIN, cut_out
from sfumato.errors import DataError, warn

LOSS_MASKS = ("none", "files", "alpha", "background")
"""All of a picture counts; what the file beside it says; what is opaque; what stands out from a plain
background."""
_LEAST = 1e-3
"""Below that share of a crop there is no subject in it, and all of it counts."""
_MOST_NAMED = 3


class LossMasks:
    """Weights (B, 1, h, w) in [`outside`, 1] of the cells of latents, 1 on the subject."""

    def __init__(
        self, dataset: FolderDataset, kind: str, outside: float, factor: int, device: torch.device
    ) -> None:
        """`kind`: one of `LOSS_MASKS` but "none". `factor`: pixels to one cell, along each side."""
        self.dataset, self.kind, self.outside = dataset, kind, outside
        self.factor, self.device = factor, device
        self._of = lru_cache(maxsize=4096)(self._of_uncached)

    def __call__(self, rows: Sequence[int], crops: Sequence[Crop]) -> Tensor:
        """Of the pictures in `rows`, each as its crop."""
        cells = [self._of(row, crop) for row, crop in zip(rows, crops, strict=True)]
        whole = torch.ones(1, crops[0].size[1] // self.factor, crops[0].size[0] // self.factor)
        found = torch.stack([whole if each is None else each for each in cells])
        return sent(self.outside + (1 - self.outside) * found, self.device)

    def check(self, sizes: Sequence[Size], progress: Callable[[int, int], None]) -> None:
        """Find the subject of every picture, as its centre at its one of `sizes`.

        Warns of those of which all counts. Raises `DataError` where that is all of them, or a mask is broken.
        """
        without = []
        for row, (picture, size) in enumerate(zip(self.dataset.pictures, sizes, strict=True)):
            progress(row, len(sizes))
            if self._of(row, Crop(picture.size, size)) is None:
                without.append(picture.name)
        if not without:
            return
        why = {
            "files": "no mask beside it, such as NAME-masklabel.png, or an empty one",
            "alpha": "no part that is transparent, or nothing else",
            "background": "no plain background, or nothing in front of it",
        }[self.kind]
        if len(without) == len(sizes):
            raise DataError(f"{self.dataset.folder}: loss_mask = {self.kind!r}, but every picture has {why}")
        more = f" and {len(without) - _MOST_NAMED:,} more" if len(without) > _MOST_NAMED else ""
        warn(f"{self.dataset.folder}: all counts of {', '.join(without[:_MOST_NAMED])}{more}: it has {why}")

    def _of_uncached(self, row: int, crop: Crop) -> Tensor | None:
        """The share of each cell (1, h, w) that the subject covers; nothing where there is no telling."""
        cover = self._cover(row, crop)
        if cover is None or cover.mean() < _LEAST or cover.min() == 1:
            return None
        return F.avg_pool2d(cover[None], self.factor)

    def _cover(self, row: int, crop: Crop) -> Tensor | None:
        if self.kind == "files":
            return self.dataset.mask(row, crop)
        if self.kind == "alpha":
            return self.dataset.opacity(row, crop)
        pixels = ((self.dataset.load([row], [crop])[0] + 1) * 127.5).round().byte()
        matte = cut_out(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()))
        return torch.from_numpy(matte.pixels[..., 3]).float() / 255 if matte.plainness >= PLAIN else None
