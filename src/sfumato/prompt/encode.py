"""Prompt encoding: from a parsed prompt to text states, cut into chunks and weighted as its dialect does."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from sfumato.devices import own_precision
from sfumato.errors import UsageError
from sfumato.nets.text import CLIPText
from sfumato.prompt.chunks import Chunk, chunks
from sfumato.prompt.meaning import Blend, Concatenation, Content, Phrase, Travel, WeightedText
from sfumato.prompt.tokenizer import Tokenizer

MAX_LENGTH = 77 * 512
"""Token places of one prompt, marks and padding included."""


@dataclass(frozen=True, eq=False)
class TextEmbedding:
    """One encoded prompt: `states` (1, T, D), T a multiple of a window, and for SDXL `pooled` (1, P).

    Of a `Travel` there is a row for each of its parts.
    """

    states: Tensor
    pooled: Tensor | None = None

    def zeroed(self) -> "TextEmbedding":
        """All zeros, which SDXL was trained to take for "no prompt" (Podell et al. 2023)."""
        pooled = None if self.pooled is None else torch.zeros_like(self.pooled)
        return TextEmbedding(torch.zeros_like(self.states), pooled)

    def repeated(self, length: int) -> "TextEmbedding":
        """The states repeated to (R, length, D); `length` must be a multiple of theirs.

        Keys and values that are all repeated equally often leave the result of attention as it was.
        """
        return TextEmbedding(self.states.repeat(1, length // self.states.shape[1], 1), self.pooled)


class Vectors(Protocol):
    """A learned embedding that prompts can name."""

    def for_width(self, index: int, width: int) -> Tensor | None:
        """Its vectors (n, width) for text encoder number `index`; `None` where it is an ordinary word there.

        Raises `CheckpointError`.
        """
        ...


@dataclass(frozen=True, eq=False)
class TextEncoder:
    """A CLIP text encoder with its tokenizer, and which of its states a model family reads."""

    tokenizer: Tokenizer
    network: CLIPText
    skip: int
    final_norm: bool
    vectors: Mapping[str, Tensor]
    """Those of every embedding that may be named, (n, D)."""
    device: torch.device

    def chunks(self, phrase: Phrase, dialect: str) -> list[Chunk]:
        """The chunks of this encoder's tokens of `phrase`."""
        lengths = {name: len(rows) for name, rows in self.vectors.items()}
        return chunks(phrase, self.tokenizer, dialect, lengths)[0]

    @own_precision
    def read(self, cut: Sequence[Chunk], hidden: int | None = None) -> tuple[Tensor, Tensor]:
        """States (K, L, D) of the K chunks, and the pooled row (1, P) of the first.

        `hidden`: the part of the phrase that the other tokens may not attend to.
        """
        ids = torch.tensor([chunk.ids(self.tokenizer) for chunk in cut], device=self.device)
        vectors, unseen = [], torch.zeros_like(ids, dtype=torch.bool)
        for row, chunk in enumerate(cut):
            for place, slot in enumerate(chunk.slots, start=1):
                if slot.vector:
                    vectors.append((row, place, self.vectors[slot.vector[0]][slot.vector[1]]))
                unseen[row, place] = slot.part == hidden
        out = self.network(
            ids, self.skip, self.final_norm, vectors=vectors, hidden=None if hidden is None else unseen
        )
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
    that cannot be read and for a `clip_skip` out of range, `CheckpointError` for an embedding that does not
    fit.
    """
    if isinstance(content, str):
        content = Phrase((WeightedText(content),))
    ready = text_encoders(tokenizers, encoders, embeddings, penultimate, clip_skip, device)
    parts = [_encode(content, encoder, dialect) for encoder in ready]
    longest = max(states.shape[1] for states, _ in parts)
    states = torch.cat([_filled(states, longest) for states, _ in parts], dim=-1)
    return TextEmbedding(states, parts[-1][1] if penultimate else None)


def text_encoders(
    tokenizers: Sequence[Tokenizer],
    encoders: Sequence[CLIPText],
    embeddings: Mapping[str, Vectors] | None,
    penultimate: bool,
    clip_skip: int,
    device: torch.device | None = None,
) -> Iterator[TextEncoder]:
    """The encoders as `encode` reads a text with them. Raises as it does."""
    for index, (tokenizer, network) in enumerate(zip(tokenizers, encoders, strict=True)):
        most = network.config.num_hidden_layers - 1 - penultimate
        if not 0 <= clip_skip <= most:
            raise UsageError(f"clip_skip = {clip_skip} is out of range: this text encoder allows 0 to {most}")
        width = network.config.hidden_size
        found = {name: each.for_width(index, width) for name, each in (embeddings or {}).items()}
        vectors = {name: rows for name, rows in found.items() if rows is not None}
        where = device or next(network.parameters()).device
        yield TextEncoder(tokenizer, network, clip_skip + penultimate, not penultimate, vectors, where)


def places(content: Content, encoder: TextEncoder, dialect: str) -> int:
    """The places T of the states that `content` is encoded to. Raises what `encode` would."""
    if isinstance(content, Phrase):
        return len(encoder.chunks(content, dialect)) * encoder.tokenizer.limit
    parts = [places(part, encoder, dialect) for part in content.parts]
    if isinstance(content, Travel):
        return common_length(parts)
    if isinstance(content, Concatenation):
        return sum(parts)
    _shares(content)
    return max(parts)


def _shares(blend: Blend) -> list[float]:
    """The weights of a blend's parts, made to sum to 1 if it asks for that."""
    total = sum(blend.weights) if blend.normalised else 1.0
    if not total:
        raise UsageError("the weights of a blend sum to 0, so that nothing can be made to sum to 1")
    return [weight / total for weight in blend.weights]


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
    """The encoders cut one text into chunks of their own; the shorter is filled up with its last chunks."""
    missing = length - states.shape[1]
    return torch.cat([states, states[:, -missing:]], dim=1) if missing else states


def _encode(content: Content, encoder: TextEncoder, dialect: str) -> tuple[Tensor, Tensor]:
    """States (1, T, D) and pooled row (1, P) of any content, of a `Travel` a row for each part."""
    if isinstance(content, Phrase):
        return _encode_phrase(content, encoder, dialect)
    parts = [_encode(part, encoder, dialect) for part in content.parts]
    if isinstance(content, Travel):
        length = common_length([states.shape[1] for states, _ in parts])
        rows = [states.repeat(1, length // states.shape[1], 1) for states, _ in parts]
        return torch.cat(rows), torch.cat([pooled for _, pooled in parts])
    if isinstance(content, Concatenation):
        moved = [
            states if weight == 1 else _from_empty(states, weight, _empty(encoder, states.shape[1]))
            for (states, _), weight in zip(parts, content.weights, strict=True)
        ]
        return torch.cat(moved, dim=1), parts[0][1]
    weights = _shares(content)
    longest = max(states.shape[1] for states, _ in parts)
    filled = [
        torch.cat([states, _empty(encoder, missing)], dim=1)
        if (missing := longest - states.shape[1])
        else states
        for states, _ in parts
    ]
    return _weighted_sum(weights, filled), _weighted_sum(weights, [pooled for _, pooled in parts])


def _encode_phrase(phrase: Phrase, encoder: TextEncoder, dialect: str) -> tuple[Tensor, Tensor]:
    """States (1, K·L, D) of the K chunks in a row, weighted as `dialect` does it, and pooled row (1, P)."""
    cut = encoder.chunks(phrase, dialect)
    states, pooled = encoder.read(cut)
    weights = encoder.weights(cut)
    if dialect != "plain" and bool((weights != 1).any()):
        if dialect == "comfy":
            states = _from_empty(states, weights, encoder.empty)
        elif dialect == "compel":
            states = _without_light_parts(phrase, cut, states, weights, encoder)
        else:
            # A1111: every state times its weight, then each chunk scaled back to the mean it had
            z = states.float()
            weighted = z * weights
            axes = (1, 2)
            states = (weighted * (z.mean(axes, keepdim=True) / weighted.mean(axes, keepdim=True))).to(states)
    return states.flatten(0, 1).unsqueeze(0), pooled


def _without_light_parts(
    phrase: Phrase, cut: Sequence[Chunk], states: Tensor, weights: Tensor, encoder: TextEncoder
) -> Tensor:
    """compel: weighted as in ComfyUI, then averaged with the states when a part of weight below 1 is hidden.

    A weight scales a token's own state; that its meaning is also in the states of the tokens behind it is
    undone by reading the text once more for each part of weight w < 1, with that part masked. Against the
    text as a whole, which counts 1, that reading counts tan((1 − w)·π/2): 0 at w = 1, without bound at 0.
    """
    readings, shares = [_from_empty(states, weights, encoder.empty)], [1.0]
    read = {slot.part for chunk in cut for slot in chunk.slots}
    for number, part in enumerate(phrase.parts):
        if isinstance(part, WeightedText) and part.weight < 1 and number in read:
            masked, _ = encoder.read(cut, hidden=number)
            readings.append(_from_empty(masked, weights, encoder.empty))
            shares.append(math.tan((1 - max(part.weight, 1e-5)) * math.pi / 2))
    total = sum(shares)
    return _weighted_sum([share / total for share in shares], readings)


def _from_empty(states: Tensor, weights: Tensor | float, empty: Tensor) -> Tensor:
    """empty + weight·(states − empty), with those of weight 1 as they are to the bit."""
    moved = (empty + (states - empty) * weights).to(states.dtype)
    return torch.where(weights == 1, states, moved) if isinstance(weights, Tensor) else moved


def _weighted_sum(weights: Sequence[float], tensors: Sequence[Tensor]) -> Tensor:
    return torch.stack([weight * each for weight, each in zip(weights, tensors, strict=True)]).sum(0)


def _empty(encoder: TextEncoder, length: int) -> Tensor:
    """States (1, length, D) of no text; `length` is a multiple of a chunk's."""
    return encoder.empty.repeat(1, length // encoder.empty.shape[1], 1)


def size_ids(
    size: tuple[int, int], *, original: tuple[int, int] | None = None, crop: tuple[int, int] = (0, 0)
) -> Tensor:
    """SDXL's six numbers of size conditioning (1, 6): original size, crop, and target size.

    Sizes are (width, height) in pixels, `crop` is (left, top); `original` is `size` unless given
    (Podell et al. 2023, §2.2).
    """
    width, height = original or size
    return torch.tensor([[height, width, crop[1], crop[0], size[1], size[0]]], dtype=torch.float32)


def refiner_ids(size: tuple[int, int], *, aesthetic: float = 6.0, crop: tuple[int, int] = (0, 0)) -> Tensor:
    """The SDXL refiner's five numbers of conditioning (1, 5): original size, crop, and an aesthetic score.

    Its own examples use a score of 6 for the prompt and 2.5 for the negative prompt.
    """
    return torch.tensor([[size[1], size[0], crop[1], crop[0], aesthetic]], dtype=torch.float32)
