"""What the frozen networks make of pictures and texts: once and kept, or anew for every batch."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from sfumato import weights
from sfumato.checkpoint import Model
from sfumato.data.crops import Crop, Dataset, Size
from sfumato.devices import sent
from sfumato.errors import CheckpointError
from sfumato.files import output_error
from sfumato.prompt.chunks import chunks
from sfumato.prompt.meaning import Phrase, WeightedText
from sfumato.prompt.tokenizer import Tokenizer

LATENTS, TEXTS = "latents-{}.safetensors", "texts.safetensors"
LATENTS_IN_FILE = 4096
PIXELS_AT_ONCE = 1 << 22
TEXTS_AT_ONCE = 256
MOST_TEXT_BYTES = 1 << 30
"""Of text states, which are kept unless they take more."""


class LatentsOf(Protocol):
    """Scaled latents (B, C, h, w) of the pictures in some rows, each as its view, all of one size."""

    def __call__(self, rows: Sequence[int], views: Sequence[Crop]) -> Tensor: ...


class StatesOf(Protocol):
    """Text states (B, T, D), and for SDXL pooled rows (B, P), of texts."""

    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, Tensor | None]: ...


@dataclass(frozen=True, eq=False)
class FreshLatents:
    """Pictures encoded as they are asked for."""

    source: Dataset
    base: Model
    device: torch.device
    dtype: torch.dtype

    @torch.no_grad()
    def __call__(self, rows: Sequence[int], views: Sequence[Crop]) -> Tensor:
        x = sent(self.source.show(rows, views), self.device).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            mean = self.base.vae.encode(x).mean
        return self.base.vae.scale(mean.float())


@dataclass(frozen=True, eq=False)
class KeptLatents:
    """Latents of every picture in its one view, in half precision."""

    of_size: Mapping[Size, Tensor]
    """(N, C, h, w) of the pictures that are shown at a size, in the order of their rows."""
    places: Sequence[int]
    """Where among them each row is."""

    def __call__(self, rows: Sequence[int], views: Sequence[Crop]) -> Tensor:
        latents = self.of_size[views[0].size]
        return latents[sent(torch.tensor([self.places[row] for row in rows]), latents.device)].float()


def keep_latents(folder: Path, fresh: FreshLatents, sizes: Sequence[Size]) -> KeptLatents:
    """Every picture of the source, from its middle, at its own one of `sizes` (N).

    They are kept in `folder`, a few thousand in a file, so that being stopped costs little.
    """
    rows_of: dict[Size, list[int]] = {size: [] for size in sorted(set(sizes))}
    places = []
    for row, size in enumerate(sizes):
        places.append(len(rows_of[size]))
        rows_of[size].append(row)
    data = {
        "base": fresh.base.fingerprint,
        "data": fresh.source.digest,
        "precision": str(fresh.dtype),
    }
    of_size = {}
    for size, rows in rows_of.items():
        parts = []
        for number, start in enumerate(range(0, len(rows), LATENTS_IN_FILE)):
            some = rows[start : start + LATENTS_IN_FILE]
            path = folder / LATENTS.format(f"{size[0]}x{size[1]}-{number:03}")
            told = {**data, "rows": _digest(map(str, some))}
            parts.append(
                made_once(path, told, partial(_encoded, fresh, size, some))["latents"].to(fresh.device)
            )
        of_size[size] = torch.cat(parts)
    return KeptLatents(of_size, places)


def _encoded(fresh: FreshLatents, size: Size, rows: Sequence[int]) -> dict[str, Tensor]:
    parts = []
    at_once = max(1, PIXELS_AT_ONCE // (size[0] * size[1]))
    for start in range(0, len(rows), at_once):
        some = rows[start : start + at_once]
        parts.append(fresh(some, [Crop(fresh.source.sizes[row], size) for row in some]).half())
    return {"latents": torch.cat(parts)}


@dataclass(frozen=True, eq=False)
class FreshTexts:
    """Texts encoded as they are asked for, each read as far as one window reaches.

    The empty text of a family that was trained so (SDXL) is all zeros.
    """

    base: Model
    device: torch.device

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        states, pooled, last = [], None, self.base.info.family.penultimate
        for tokenizer, encoder in zip(self.base.tokenizers, self.base.text_encoders, strict=True):
            ids = sent(torch.tensor([_window(text, tokenizer) for text in texts]), self.device)
            out = encoder(ids, skip=int(last), final_norm=not last)
            states.append(out.states)
            pooled = out.pooled if last else None
        said = torch.cat(states, dim=-1)
        if self.base.zero_negative:
            null_text = sent(torch.tensor([not text for text in texts]), self.device)
            said = said.masked_fill(null_text.view(-1, 1, 1), 0)
            pooled = None if pooled is None else pooled.masked_fill(null_text.view(-1, 1), 0)
        return said, pooled


@dataclass(frozen=True, eq=False)
class KeptTexts:
    """States of every text that there is, in half precision."""

    numbers: Mapping[str, int]
    states: Tensor
    """(U, T, D)."""
    pooled: Tensor | None
    """(U, P)."""

    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        rows = sent(torch.tensor([self.numbers[text] for text in texts]), self.states.device)
        return self.states[rows].float(), None if self.pooled is None else self.pooled[rows].float()


def text_bytes(base: Model, count: int) -> int:
    """What the states of `count` texts take."""
    width = sum(encoder.config.hidden_size for encoder in base.text_encoders)
    return 2 * count * base.tokenizers[0].limit * width


def keep_texts(folder: Path, fresh: FreshTexts, texts: Sequence[str]) -> KeptTexts:
    """Every different one of `texts`, encoded once; kept in `folder`, unless they are very many."""
    numbers = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    different = list(numbers)

    def make() -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for start in range(0, len(different), TEXTS_AT_ONCE):
            end = min(start + TEXTS_AT_ONCE, len(different))
            states, pooled = fresh(different[start:end])
            for name, part in (("states", states), ("pooled", pooled)):
                if part is not None:
                    if name not in found:
                        shape = len(different), *part.shape[1:]
                        found[name] = torch.empty(shape, dtype=torch.float16, device=fresh.device)
                    found[name][start:end] = part
        return found

    told = {
        "base": fresh.base.fingerprint,
        "texts": _digest(different),
    }
    few = text_bytes(fresh.base, len(different)) <= MOST_TEXT_BYTES
    found = made_once(folder / TEXTS, told, make) if few else make()
    found = {name: tensor.to(fresh.device) for name, tensor in found.items()}
    return KeptTexts(numbers, found["states"], found.get("pooled"))


def made_once(
    path: Path, told: Mapping[str, str], make: Callable[[], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """The tensors in `path`, if they are what `told` says and undamaged; else they are made and kept there.

    Raises `OutputError` where they cannot be.
    """
    try:
        if path.is_file() and weights.metadata(path) == told:
            return weights.read(path)
    except CheckpointError:
        pass
    found = make()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(path, error) from error
    weights.write(path, found, told)
    return found


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode("utf-8")).hexdigest()


def _window(text: str, tokenizer: Tokenizer) -> list[int]:
    """The ids of the one chunk that a text is read in."""
    (chunk,), _ = chunks(Phrase((WeightedText(text),)), tokenizer, "plain")
    return chunk.ids(tokenizer)
