"""What the blocks of a UNet are given besides the picture: time, text, and which rows share a point."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, eq=False)
class SizeConditioning:
    """SDXL's micro-conditioning besides the prompt: pooled text and sizes (Podell et al. 2023, §2.2)."""

    pooled: Tensor
    """(R, P): the prompt as one vector."""
    ids: Tensor
    """(R, 6) pixels: original height and width, top and left of the crop, target height and width.

    The refiner's (R, 5) end in an aesthetic score instead of the target.
    """

    def to(self, device: torch.device, dtype: torch.dtype) -> "SizeConditioning":
        """The same on `device`, the pooled text as `dtype`; sizes in pixels keep their own."""
        return SizeConditioning(self.pooled.to(device, dtype), self.ids.to(device))


@dataclass(frozen=True, eq=False)
class TextKV:
    """Keys and values of a prompt for every cross-attention of a UNet."""

    pairs: tuple[tuple[Tensor, Tensor], ...]
    """(R, M, C) each, M ≥ T."""
    length: int
    """T, the number of tokens."""
    mask: Tensor | None = None
    """(1, M): 0 for the tokens and −∞ for what fills up the rest; nothing where M = T."""

    @staticmethod
    def of(pairs: Sequence[tuple[Tensor, Tensor]]) -> "TextKV":
        """Keys and values (R, T, C), filled up to a multiple of 16 on a CPU.

        CPUs multiply in blocks of 16: attention to 80 keys takes half the time of 77.
        """
        first = pairs[0][0] if pairs else torch.empty(0)
        length = first.shape[1] if pairs else 0
        missing = -length % 16 if first.device.type == "cpu" else 0
        if not missing:
            return TextKV(tuple(pairs), length)
        mask = first.new_zeros(1, length + missing)
        mask[:, length:] = -torch.inf
        fill = (0, 0, 0, missing)
        return TextKV(tuple((F.pad(k, fill), F.pad(v, fill)) for k, v in pairs), length, mask)

    def __len__(self) -> int:
        """R, the number of rows."""
        return len(self.pairs[0][0])

    def index(self, rows: Tensor) -> "TextKV":
        """The rows numbered in `rows` (S,), in that order and as often as they are named."""
        return replace(self, pairs=tuple((k[rows], v[rows]) for k, v in self.pairs))

    @staticmethod
    def cat(parts: Sequence["TextKV"]) -> "TextKV":
        """All rows of all `parts`, which must be of one length T."""
        every = zip(*(part.pairs for part in parts), strict=True)
        pairs = tuple((torch.cat([k for k, _ in pair]), torch.cat([v for _, v in pair])) for pair in every)
        return replace(parts[0], pairs=pairs)


@dataclass(frozen=True, eq=False)
class BlockInputs:
    """All of that for one evaluation.

    Rows of text may share a point: until the first cross-attention the picture has P rows, from there on R,
    and row i of the R belongs to point `rows[i]`. Without `rows`, R = P from the start.
    """

    time: Tensor
    """(P, E): the time's projections for all residual blocks, side by side."""
    row_time: Tensor
    """(R, E): the same for each row of the text."""
    text: TextKV
    rows: Tensor | None = None
    """(R,), and R > P."""
    slices: int | None = None
    """In how many parts the queries of an attention take turns."""

    def time_shift(self, h: Tensor, columns: slice) -> Tensor:
        """The time's projection for one residual block, a row for each of `h` (P or R, …) or one for all."""
        return (self.time if len(self.time) in (1, len(h)) else self.row_time)[:, columns]

    def expand_rows(self, h: Tensor) -> Tensor:
        """`h` (P or R, …) as R rows."""
        if self.rows is None or len(h) == len(self.rows):
            return h
        return torch.cat([h] * len(self.rows)) if len(h) == 1 else h[self.rows]
