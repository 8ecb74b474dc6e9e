"""Outputs of the frozen networks, VAE latents and text states: cached in files, or computed every batch."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from sfumato import weights
from sfumato.adapt.embedding import Embedding
from sfumato.checkpoint import Model
from sfumato.data.crops import Crop, Dataset, Size
from sfumato.devices import sent
from sfumato.errors import CheckpointError
from sfumato.files import make_folder
from sfumato.prompt.chunks import chunks, mentioned
from sfumato.prompt.encode import Vectors, encode
from sfumato.prompt.meaning import Phrase, WeightedText
from sfumato.prompt.tokenizer import Tokenizer
from sfumato.train.log import counts

LATENTS, TEXTS = "latents-{}.safetensors", "texts.safetensors"
LATENTS_PER_FILE = 4096
PIXELS_PER_BATCH = 1 << 22
TEXTS_PER_BATCH = 256
MAX_TEXT_BYTES = 1 << 30
"""Text states that take more are not kept in a file."""


class Latents(Protocol):
    """Scaled latents (B, C, h, w) of the pictures in some rows, each as its crop, all of one size."""

    def __call__(self, rows: Sequence[int], crops: Sequence[Crop]) -> Tensor: ...


class CaptionStates(Protocol):
    """Text states (B, T, D), and for SDXL pooled embeddings (B, P), of texts."""

    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, Tensor | None]: ...


@dataclass(frozen=True, eq=False)
class LatentEncoder:
    """Encodes pictures as they are asked for."""

    dataset: Dataset
    base: Model
    device: torch.device
    dtype: torch.dtype

    @torch.no_grad()
    def __call__(self, rows: Sequence[int], crops: Sequence[Crop]) -> Tensor:
        x = sent(self.dataset.load(rows, crops), self.device).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            mean = self.base.vae.encode(x).mean
        return self.base.vae.scale(mean.float())


@dataclass(frozen=True, eq=False)
class CachedLatents:
    """Latents of every picture in its one crop, in half precision."""

    of_size: Mapping[Size, Tensor]
    """(N, C, h, w) of the pictures of a bucket, in the order of their rows."""
    places: Sequence[int]
    """Where among them each row is."""

    def __call__(self, rows: Sequence[int], crops: Sequence[Crop]) -> Tensor:
        latents = self.of_size[crops[0].size]
        return latents[sent(torch.tensor([self.places[row] for row in rows]), latents.device)].float()


def cache_latents(
    folder: Path,
    encoder: LatentEncoder,
    sizes: Sequence[Size],
    report: Callable[[str], None] = lambda _: None,
) -> CachedLatents:
    """Latents of every picture of the dataset, its centre at its own one of `sizes` (N).

    They are cached in `folder`, a few thousand in a file, so that being stopped costs little.
    `report(message)` is called every few seconds while they are encoded.
    """
    progress = counts(report, f"{folder}: encoding pictures")
    rows_of: dict[Size, list[int]] = {size: [] for size in sorted(set(sizes))}
    places = []
    for row, size in enumerate(sizes):
        places.append(len(rows_of[size]))
        rows_of[size].append(row)
    base, data = encoder.base.fingerprint, encoder.dataset.digest
    of_size, done = {}, 0
    for size, rows in rows_of.items():
        parts = []
        for number, start in enumerate(range(0, len(rows), LATENTS_PER_FILE)):
            some = rows[start : start + LATENTS_PER_FILE]
            path = folder / LATENTS.format(f"{size[0]}x{size[1]}-{number:03}")
            inputs = {"base": base, "data": data, "precision": str(encoder.dtype)}
            inputs["rows"] = _digest(map(str, some))
            make = partial(_encoded, encoder, size, some, progress, done, len(sizes))
            found = cached(path, inputs, make)
            done += len(some)
            parts.append(found["latents"].to(encoder.device))
        of_size[size] = torch.cat(parts)
    return CachedLatents(of_size, places)


def _encoded(
    encoder: LatentEncoder,
    size: Size,
    rows: Sequence[int],
    progress: Callable[[int, int], None],
    done: int,
    total: int,
) -> dict[str, Tensor]:
    """Latents of `rows`; of all `total`, `done` were encoded before."""
    parts = []
    at_once = max(1, PIXELS_PER_BATCH // (size[0] * size[1]))
    for start in range(0, len(rows), at_once):
        progress(done + start, total)
        some = rows[start : start + at_once]
        parts.append(encoder(some, [Crop(encoder.dataset.sizes[row], size) for row in some]).half())
    return {"latents": torch.cat(parts)}


@dataclass(frozen=True, eq=False)
class CaptionEncoder:
    """Encodes texts as they are asked for, each cut off at the end of one window.

    The empty text of a family that was trained so (SDXL) is all zeros.
    """

    base: Model
    device: torch.device
    embeddings: Mapping[str, Vectors] = field(default_factory=dict)
    """Learned words that texts may name. Gradients flow to their vectors, where those ask for them."""
    trained: bool = False
    """Whether gradients flow to the text encoders' weights, where those ask for them."""

    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        if self.embeddings:
            return self._with_embeddings(texts)
        with nullcontext() if self.trained else torch.no_grad():
            return self._plain(texts)

    def _with_embeddings(self, texts: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        base, last = self.base, self.base.info.family.penultimate
        read = [
            encode(
                text,
                base.tokenizers,
                base.text_encoders,
                embeddings={name: self.embeddings[name] for name in mentioned(text, self.embeddings)},
                penultimate=last,
                device=self.device,
            )
            for text in texts
        ]
        read = [
            each.zeroed() if base.zero_negative and not text else each
            for text, each in zip(texts, read, strict=True)
        ]
        pooled = [each.pooled for each in read if each.pooled is not None]
        return torch.cat([each.states for each in read]), torch.cat(pooled) if pooled else None

    def _plain(self, texts: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        states, pooled, last = [], None, self.base.info.family.penultimate
        for tokenizer, encoder in zip(self.base.tokenizers, self.base.text_encoders, strict=True):
            ids = sent(torch.tensor([_window(text, tokenizer) for text in texts]), self.device)
            out = encoder(ids, skip=int(last), final_norm=not last)
            states.append(out.states)
            pooled = out.pooled if last else None
        joined = torch.cat(states, dim=-1)
        if self.base.zero_negative:
            empty = sent(torch.tensor([not text for text in texts]), self.device)
            joined = joined.masked_fill(empty.view(-1, 1, 1), 0)
            pooled = None if pooled is None else pooled.masked_fill(empty.view(-1, 1), 0)
        return joined, pooled


@dataclass(frozen=True, eq=False)
class CachedCaptions:
    """States of every text of the dataset, in half precision."""

    numbers: Mapping[str, int]
    states: Tensor
    """(U, T, D)."""
    pooled: Tensor | None
    """(U, P)."""

    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        rows = sent(torch.tensor([self.numbers[text] for text in texts]), self.states.device)
        return self.states[rows].float(), None if self.pooled is None else self.pooled[rows].float()


def text_bytes(base: Model, count: int) -> int:
    """Bytes of the states of `count` texts."""
    width = sum(encoder.config.hidden_size for encoder in base.text_encoders)
    return 2 * count * base.tokenizers[0].limit * width


def cache_captions(
    folder: Path,
    encoder: CaptionEncoder,
    texts: Sequence[str],
    report: Callable[[str], None] = lambda _: None,
) -> CachedCaptions:
    """Every different one of `texts`, encoded once; cached in `folder`, unless they are very many.

    `report(message)` is called every few seconds while they are encoded.
    """
    progress = counts(report, f"{folder}: encoding captions")
    numbers = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    different = list(numbers)

    def make() -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for start in range(0, len(different), TEXTS_PER_BATCH):
            progress(start, len(different))
            some = different[start : start + TEXTS_PER_BATCH]
            for name, part in zip(("states", "pooled"), encoder(some), strict=True):
                if part is not None:
                    if name not in found:  # all at once: there may be many
                        found[name] = part.new_empty(len(different), *part.shape[1:], dtype=torch.float16)
                    found[name][start : start + len(some)] = part
        return found

    inputs = {"base": encoder.base.fingerprint, "texts": _digest(different)}
    if encoder.embeddings:
        words = sorted(
            f"{name} {each.fingerprint}"
            for name, each in encoder.embeddings.items()
            if isinstance(each, Embedding)
        )
        inputs["embeddings"] = _digest(words)
    few = text_bytes(encoder.base, len(different)) <= MAX_TEXT_BYTES
    found = cached(folder / TEXTS, inputs, make) if few else make()
    found = {name: tensor.to(encoder.device) for name, tensor in found.items()}
    return CachedCaptions(numbers, found["states"], found.get("pooled"))


def cached(path: Path, inputs: Mapping[str, str], make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors in `path`, if they are undamaged and of the same `inputs`; else made and kept there.

    Raises `OutputError` where they cannot be.
    """
    try:
        if path.is_file() and weights.metadata(path) == inputs:
            return weights.read(path)
    except CheckpointError:
        pass
    found = make()
    make_folder(path.parent, path)
    weights.write(path, found, inputs)
    return found


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode("utf-8")).hexdigest()


def _window(text: str, tokenizer: Tokenizer) -> list[int]:
    """The ids of the one chunk that a text is read in."""
    (chunk,), _ = chunks(Phrase((WeightedText(text),)), tokenizer, "plain")
    return chunk.ids(tokenizer)
