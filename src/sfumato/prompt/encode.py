"""From what a prompt says to what the networks read of it: text states, weighted as its dialect weighs."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from sfumato.devices import own_precision
from sfumato.errors import UsageError
from sfumato.nets.text import CLIPText
from sfumato.prompt.chunks import Chunk, chunks
from sfumato.prompt.meaning import Blend, Concatenation, Content, Phrase, WeightedText
from sfumato.prompt.tokenizer import Tokenizer

MAX_LENGTH = 77 * 512
"""Token places of one prompt, marks and padding included."""


@dataclass(frozen=True, eq=False)
class TextEmbedding:
    """One encoded prompt: `states` (1, T, D), T a multiple of a window, and for SDXL `pooled` (1, P)."""

    states: Tensor
    pooled: Tensor | None = None

    def zeroed(self) -> "TextEmbedding":
        """All zeros, which SDXL was trained to take for "no prompt" (Podell et al. 2023)."""
        pooled = None if self.pooled is None else torch.zeros_like(self.pooled)
        return TextEmbedding(torch.zeros_like(self.states), pooled)

    def repeated(self, length: int) -> "TextEmbedding":
        """States (1, length, D), which `length` must be a multiple of: over and over.

        As often as each other repeated, keys and values leave every attention to them as it was.
        """
        return TextEmbedding(self.states.repeat(1, length // self.states.shape[1], 1), self.pooled)


class Vectors(Protocol):
    """A learned embedding that prompts can name."""

    def for_width(self, index: int, width: int) -> Tensor:
        """Its vectors (n, width) for text encoder number `index`. Raises `CheckpointError`."""
        ...


@dataclass(frozen=True, eq=False)
class TextReader:
    """One text encoder with its tokenizer, and how a family reads its states."""

    tokenizer: Tokenizer
    encoder: CLIPText
    skip: int
    final_norm: bool
    vectors: Mapping[str, Tensor]
    """Those of every embedding that may be named, (n, D)."""
    device: torch.device

    def chunks(self, phrase: Phrase, dialect: str) -> tuple[list[Chunk], int]:
        """How this encoder's tokens of `phrase` are cut, and how many are left out."""
        lengths = {name: len(rows) for name, rows in self.vectors.items()}
        return chunks(phrase, self.tokenizer, dialect, lengths)

    @own_precision
    def read(self, cut: Sequence[Chunk], hidden: int | None = None) -> tuple[Tensor, Tensor]:
        """States (K, L, D) of the K chunks, and the pooled row (1, P) of the first.

        `hidden`: a part of the phrase that the other tokens may not look at.
        """
        ids = torch.tensor([chunk.ids(self.tokenizer) for chunk in cut], device=self.device)
        placed = [
            (row, place, self.vectors[slot.vector[0]][slot.vector[1]])
            for row, chunk in enumerate(cut)
            for place, slot in enumerate(chunk.slots, start=1)
            if slot.vector
        ]
        unseen = None
        if hidden is not None:
            unseen = torch.zeros(ids.shape, dtype=torch.bool, device=self.device)
            for row, chunk in enumerate(cut):
                for place, slot in enumerate(chunk.slots, start=1):
                    unseen[row, place] = slot.piece == hidden
        out = self.encoder(ids, self.skip, self.final_norm, vectors=placed, hidden=unseen)
        return out.states, out.pooled[:1]

    def weights(self, cut: Sequence[Chunk]) -> Tensor:
        """(K, L, 1): every place's weight."""
        rows = [chunk.weights(self.tokenizer) for chunk in cut]
        return torch.tensor(rows, device=self.device).unsqueeze(-1)

    @cached_property
    def empty(self) -> Tensor:
        """States (1, L, D) of no text."""
        return self.read([Chunk(())])[0]


def encode(
    content: Content | str,
    tokenizers: Sequence[Tokenizer],
    encoders: Sequence[CLIPText],
    *,
    dialect: str = "plain",
    embeddings: Mapping[str, Vectors] | None = None,
    penultimate: bool = False,
    clip_skip: int = 0,
    device: torch.device | None = None,
) -> TextEmbedding:
    """Encode `content` with every encoder and its tokenizer; their states are concatenated along D.

    `dialect` is one of `sfumato.names.DIALECTS`: it decides how long texts are cut and how weights are
    applied. `embeddings`: learned embeddings by the names that texts may call them by. `penultimate` is how
    SDXL reads its encoders: the states before the last layer, without the final norm, and the last encoder's
    pooled row. `clip_skip` leaves out that many more layers (diffusers' count; A1111's is one higher).
    `device` is where the encoders compute, if not where their weights lie. Raises `UsageError` for a prompt
    that cannot be read and for a `clip_skip` out of range.
    """
    if isinstance(content, str):
        content = Phrase((WeightedText(content),))
    parts = []
    for reader in readers(tokenizers, encoders, embeddings, penultimate, clip_skip, device):
        parts.append(_encode(content, reader, dialect))
    longest = max(states.shape[1] for states, _ in parts)
    states = torch.cat([_filled(states, longest) for states, _ in parts], dim=-1)
    return TextEmbedding(states, parts[-1][1] if penultimate else None)


def readers(
    tokenizers: Sequence[Tokenizer],
    encoders: Sequence[CLIPText],
    embeddings: Mapping[str, Vectors] | None = None,
    penultimate: bool = False,
    clip_skip: int = 0,
    device: torch.device | None = None,
) -> list[TextReader]:
    """One reader for each encoder; the arguments are those of `encode`."""
    found = []
    for index, (tokenizer, encoder) in enumerate(zip(tokenizers, encoders, strict=True)):
        most = encoder.config.num_hidden_layers - 1 - penultimate
        if not 0 <= clip_skip <= most:
            raise UsageError(f"clip_skip = {clip_skip} is out of range: this text encoder allows 0 to {most}")
        width = encoder.config.hidden_size
        vectors = {name: each.for_width(index, width) for name, each in (embeddings or {}).items()}
        where = device or next(encoder.parameters()).device
        found.append(TextReader(tokenizer, encoder, clip_skip + penultimate, not penultimate, vectors, where))
    return found


def common_length(lengths: Sequence[int]) -> int:
    """The number of places T that all of `lengths` divide. Raises `UsageError` above `MAX_LENGTH`."""
    longest = math.lcm(*lengths)
    if longest > MAX_LENGTH:
        raise UsageError(
            f"prompts of {', '.join(map(str, lengths))} token places are too long to be drawn together: "
            f"their common multiple is {longest:,}, and at most {MAX_LENGTH:,} are read"
        )
    return longest


def _filled(states: Tensor, length: int) -> Tensor:
    """Two encoders cut one text into chunks of their own; the shorter is filled up with its last chunks."""
    missing = length - states.shape[1]
    return torch.cat([states, states[:, -missing:]], dim=1) if missing else states


def _encode(content: Content, reader: TextReader, dialect: str) -> tuple[Tensor, Tensor]:
    """States (1, T, D) and pooled row (1, P) of any content."""
    if isinstance(content, Phrase):
        return _WEIGHINGS[dialect](content, reader)
    parts = [_encode(part, reader, dialect) for part in content.parts]
    if isinstance(content, Concatenation):
        moved = [
            states if weight == 1 else _from_empty(states, weight, _like(reader.empty, states))
            for (states, _), weight in zip(parts, content.weights, strict=True)
        ]
        return torch.cat(moved, dim=1), parts[0][1]
    return _blend(content, parts, reader)


def _blend(
    content: Blend, parts: Sequence[tuple[Tensor, Tensor]], reader: TextReader
) -> tuple[Tensor, Tensor]:
    total = sum(content.weights) if content.normalised else 1.0
    if not total:
        raise UsageError("the weights of a blend sum to 0, so that nothing can be made to sum to 1")
    longest = max(states.shape[1] for states, _ in parts)
    filled = []
    for states, _ in parts:
        if missing := longest - states.shape[1]:
            states = torch.cat([states, reader.empty.repeat(1, missing // reader.empty.shape[1], 1)], dim=1)
        filled.append(states)
    shares = [weight / total for weight in content.weights]
    states = torch.stack([share * each for share, each in zip(shares, filled, strict=True)]).sum(0)
    pooled = torch.stack([share * row for share, (_, row) in zip(shares, parts, strict=True)]).sum(0)
    return states, pooled


def _as_written(phrase: Phrase, reader: TextReader) -> tuple[Tensor, Tensor]:
    cut, _ = reader.chunks(phrase, "plain")
    states, pooled = reader.read(cut)
    return states, pooled


def _by_mean(phrase: Phrase, reader: TextReader) -> tuple[Tensor, Tensor]:
    """A1111: every state times its weight, then each chunk brought back to the mean it had."""
    cut, _ = reader.chunks(phrase, "a1111")
    states, pooled = reader.read(cut)
    weights = reader.weights(cut)
    if bool((weights != 1).any()):
        z = states.float()
        weighted = z * weights
        axes = (1, 2)
        states = (weighted * (z.mean(axes, keepdim=True) / weighted.mean(axes, keepdim=True))).to(states)
    return _in_a_row(states), pooled


def _by_empty(phrase: Phrase, reader: TextReader) -> tuple[Tensor, Tensor]:
    """ComfyUI: every state moved from the empty text's by its weight."""
    cut, _ = reader.chunks(phrase, "comfy")
    states, pooled = reader.read(cut)
    weights = reader.weights(cut)
    if bool((weights != 1).any()):
        states = torch.where(weights == 1, states, _from_empty(states, weights, reader.empty))
    return _in_a_row(states), pooled


def _by_masking(phrase: Phrase, reader: TextReader) -> tuple[Tensor, Tensor]:
    """compel: as ComfyUI, and parts of weight below 1 are also mixed with a text in which they are hidden.

    The text without a part of weight w counts tan((1 − w)·π/2) to 1.
    """
    cut, _ = reader.chunks(phrase, "compel")
    weights = reader.weights(cut)

    def weighted(hidden: int | None = None) -> tuple[Tensor, Tensor]:
        states, pooled = reader.read(cut, hidden)
        if bool((weights != 1).any()):
            states = torch.where(weights == 1, states, _from_empty(states, weights, reader.empty))
        return states, pooled

    whole, pooled = weighted()
    kinds, shares = [whole], [1.0]
    present = {slot.piece for chunk in cut for slot in chunk.slots}
    for number, part in enumerate(phrase.parts):
        if isinstance(part, WeightedText) and part.weight < 1 and number in present:
            kinds.append(weighted(number)[0])
            shares.append(math.tan((1 - max(part.weight, 1e-5)) * math.pi / 2))
    total = sum(shares)
    states = torch.stack([share / total * kind for share, kind in zip(shares, kinds, strict=True)]).sum(0)
    return _in_a_row(states), pooled


_WEIGHINGS: dict[str, Callable[[Phrase, TextReader], tuple[Tensor, Tensor]]] = {
    "sfumato": _by_mean,
    "a1111": _by_mean,
    "comfy": _by_empty,
    "compel": _by_masking,
    "plain": _as_written,
}


def _from_empty(states: Tensor, weight: Tensor | float, empty: Tensor) -> Tensor:
    return (empty + (states - empty) * weight).to(states.dtype)


def _in_a_row(states: Tensor) -> Tensor:
    """(K, L, D) to (1, K·L, D)."""
    return states.flatten(0, 1).unsqueeze(0)


def _like(empty: Tensor, states: Tensor) -> Tensor:
    return empty.repeat(1, states.shape[1] // empty.shape[1], 1)


def size_ids(
    size: tuple[int, int], *, original: tuple[int, int] | None = None, crop: tuple[int, int] = (0, 0)
) -> Tensor:
    """The six numbers that SDXL is told (1, 6): original size, where it was cropped, and target size.

    Sizes are (width, height) in pixels, `crop` is (left, top); `original` is `size` unless given
    (Podell et al. 2023, §2.2).
    """
    width, height = original or size
    return torch.tensor([[height, width, crop[1], crop[0], size[1], size[0]]], dtype=torch.float32)


def refiner_ids(size: tuple[int, int], *, aesthetic: float = 6.0, crop: tuple[int, int] = (0, 0)) -> Tensor:
    """The five numbers that the SDXL refiner is told (1, 5): original size, crop, and an aesthetic score.

    Its own examples use a score of 6 for the prompt and 2.5 for the negative prompt.
    """
    return torch.tensor([[size[1], size[0], crop[1], crop[0], aesthetic]], dtype=torch.float32)
