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
    """(R, P): the prompt as one vector; P = 0 for Stable Video Diffusion, which reads no text."""
    ids: Tensor
    """(R, 6) pixels: original height and width, top and left of the crop, target height and width.

    The refiner's (R, 5) end in an aesthetic score instead of the target. Stable Video Diffusion's (R, 3) are
    the frames per second less 1, the motion bucket in [0, 255], and the noise added to the picture that it
    moves (Blattmann et al. 2023, appendix D).
    """

    def to(self, device: torch.device, dtype: torch.dtype) -> "SizeConditioning":
        """The same on `device`, the pooled text as `dtype`; sizes in pixels keep their own."""
        return SizeConditioning(self.pooled.to(device, dtype), self.ids.to(device))


KV = tuple[Tensor, Tensor]
"""Keys and values of one attention, (R, M, C) each."""


@dataclass(frozen=True, eq=False)
class ImageKV:
    """Keys and values of an image prompt for every cross-attention, (R, M, C) each, in the order of `TextKV`.

    Each attention attends to them apart from the text, and its own of `weights` (R, A), of A attentions,
    times the answer is added to the text's (IP-Adapter, Ye et al. 2023, eq. 5).
    """

    pairs: tuple[KV, ...]
    weights: Tensor

    @property
    def tokens(self) -> int:
        """M, the tokens of each row."""
        return self.pairs[0][0].shape[1]

    def row(self, index: int) -> "ImageKV":
        """One row."""
        own = slice(index, index + 1)
        return ImageKV(tuple((k[own], v[own]) for k, v in self.pairs), self.weights[own])

    def expanded(self, rows: int) -> "ImageKV":
        """The one row so many times."""
        return ImageKV(_expanded(self.pairs, rows), self.weights.expand(rows, -1))


@dataclass(frozen=True, eq=False)
class TextKV:
    """Keys and values of prompts for every cross-attention of a UNet: the `Context` of its rows."""

    pairs: tuple[KV, ...]
    """(R, M, C) each, M ≥ T."""
    length: int
    """T, the number of tokens of the longest row."""
    mask: Tensor | None = None
    """(1, M) or (R, M): 0 for the tokens and −∞ for what fills up the rest; nothing where M = T."""
    images: tuple[ImageKV, ...] = ()

    @staticmethod
    def of(pairs: Sequence[KV]) -> "TextKV":
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
        return TextKV(tuple((_filled(k, missing), _filled(v, missing)) for k, v in pairs), length, mask)

    def with_images(self, images: Sequence[ImageKV]) -> "TextKV":
        """The same with these image prompts, of as many rows."""
        return replace(self, images=tuple(images))

    def __len__(self) -> int:
        """R, the number of rows."""
        return len(self.pairs[0][0])

    def mixed(self, shares: Tensor) -> "TextKV":
        """A row for each of F frames: the R rows by their `shares` (F, R), or the one row in every frame.

        Keys and values are linear in the text's states, so that a mix of them is that of a mix of states.
        """
        frames = len(shares)
        if len(self) == 1:
            pairs = _expanded(self.pairs, frames)
        else:
            pairs = tuple((_weighted(shares, k), _weighted(shares, v)) for k, v in self.pairs)
        images = tuple(image.expanded(frames) for image in self.images)
        return replace(self, pairs=pairs, images=images)

    @property
    def group(self) -> tuple[int, ...]:
        """Rows with image prompts of so many tokens can be joined; those of any text lengths can."""
        return tuple(image.tokens for image in self.images)

    @classmethod
    def cat(cls, parts: Sequence["TextKV"]) -> "TextKV":
        """All rows of all `parts`; texts shorter than the longest are filled up, and what fills them
        masked.
        """
        first, longest = parts[0], max((part.pairs[0][0].shape[1] for part in parts if part.pairs), default=0)
        mask = first.mask
        if any(part.length != first.length for part in parts):
            mask = torch.cat([part._row_mask(longest) for part in parts])
            parts = [part._filled_to(longest) for part in parts]
        images = tuple(
            ImageKV(joined([each.pairs for each in own]), torch.cat([each.weights for each in own]))
            for own in zip(*(part.images for part in parts), strict=True)
        )
        return TextKV(
            joined([part.pairs for part in parts]), max(part.length for part in parts), mask, images
        )

    def _row_mask(self, width: int) -> Tensor:
        """(R, width): 0 for the tokens, −∞ for the rest."""
        mask = self.pairs[0][0].new_zeros(len(self), width)
        mask[:, self.length :] = -torch.inf
        return mask

    def _filled_to(self, width: int) -> "TextKV":
        missing = width - self.pairs[0][0].shape[1]
        return replace(self, pairs=tuple((_filled(k, missing), _filled(v, missing)) for k, v in self.pairs))


def _filled(x: Tensor, missing: int) -> Tensor:
    """(R, M, C) with `missing` rows of zeros behind its own."""
    return F.pad(x, (0, 0, 0, missing)) if missing else x


def _expanded(pairs: Sequence[KV], rows: int) -> tuple[KV, ...]:
    """The one row so many times."""
    return tuple((k.expand(rows, -1, -1), v.expand(rows, -1, -1)) for k, v in pairs)


def _weighted(shares: Tensor, rows: Tensor) -> Tensor:
    """(F, R) times (R, M, C) to (F, M, C)."""
    return torch.tensordot(shares.to(rows), rows, dims=1)


def joined(parts: Sequence[Sequence[KV]]) -> tuple[KV, ...]:
    """The rows of all parts, attention by attention."""
    every = zip(*parts, strict=True)
    return tuple((torch.cat([k for k, _ in pair]), torch.cat([v for _, v in pair])) for pair in every)


@dataclass(frozen=True, eq=False)
class BlockInputs:
    """All of that for one evaluation.

    Rows of text may share a point: until the first cross-attention the picture has P rows, from there on R,
    and row i of the R belongs to point `rows[i]`. Without `rows`, R = P from the start. P and R count the
    frames of clips; the text of a clip has one row for all of them, or one for each.
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
    token_merging: float = 0.0
    """The share of places that self-attentions merge where there are the most."""
    frames: int | None = None
    """F, where the rows are frames: those of a clip, in their order, after those of another."""

    def of_frames(self, frames: int, by_frame: bool) -> "BlockInputs":
        """The same for clips of so many `frames`, each a row; those of a clip share its text.

        `by_frame`: the time has a row for each of them already.
        """
        time, row_time = (
            each if by_frame or len(each) == 1 else each.repeat_interleave(frames, dim=0)
            for each in (self.time, self.row_time)
        )
        rows = self.rows
        if rows is not None:
            rows = (frames * rows[:, None] + torch.arange(frames, device=rows.device)).flatten()
        return replace(self, time=time, row_time=row_time, rows=rows, frames=frames)

    def time_shift(self, h: Tensor, columns: slice) -> Tensor:
        """The time's projection for one residual block, a row for each of `h` (P or R, …) or one for all."""
        return (self.time if len(self.time) in (1, len(h)) else self.row_time)[:, columns]

    def expand_rows(self, h: Tensor) -> Tensor:
        """`h` (P or R, …) as R rows."""
        if self.rows is None or len(h) == len(self.rows):
            return h
        return torch.cat([h] * len(self.rows)) if len(h) == 1 else h[self.rows]
