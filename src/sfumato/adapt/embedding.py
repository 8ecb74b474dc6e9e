"""Textual inversion: words with vectors of their own (Gal et al. 2023), in every published form."""

import hashlib
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sfumato import folders, weights
from sfumato.errors import CheckpointError, warn
from sfumato.prompt.chunks import mentioned

MAX_VECTORS = 1000

# Keys that name SDXL's two encoders, in their order.
_PAIRS = (("clip_l", "clip_g"), ("text_encoders_0", "text_encoders_1"))
_KOHYA = "emb_params"
_SECOND = ("clip_g", "text_encoders_1")
_NO_ENCODERS = ("t5", "t5xxl")
_BUNDLED = re.compile(
    r"(?:bundle_emb\.(?P<name>.+)\.)?"
    r"(?P<encoder>string_to_param\.\*|emb_params|clip_[lgh]|text_encoders_[01]|t5|t5xxl)(?P<out>_out)?"
    r"|(?P<word><[^<>]+>)"
)
_PICKLES = (".pt", ".bin", ".pth", ".ckpt", ".pkl")
_WIDTHS = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x", 1280: "the second encoder of SDXL"}


@dataclass(frozen=True, eq=False)
class Embedding:
    """A word: `vectors` (n, D) for each text encoder, one for SD 1.x and 2.x, two for SDXL.

    `None` in the place of an encoder's vectors: to that one it is an ordinary word.
    `name` is the file's, by which prompts call it; `token` what it was called in training, if the file says.
    """

    name: str
    vectors: tuple[Tensor | None, ...]
    token: str | None = None

    def __repr__(self) -> str:
        shapes = ", ".join(" × ".join(map(str, rows.shape)) for rows in self.vectors if rows is not None)
        return f"<Embedding {self.name!r}: {shapes}>"

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that identify the vectors."""
        digest = hashlib.sha256()
        for rows in self._present:
            digest.update(rows.float().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    @property
    def count(self) -> int:
        """n, how many tokens it takes in a prompt."""
        return len(self._present[0])

    @property
    def _present(self) -> list[Tensor]:
        return [rows for rows in self.vectors if rows is not None]

    def for_width(self, index: int, width: int) -> Tensor | None:
        """The vectors (n, `width`) for text encoder `index`, from 0; `None` where it is an ordinary word.

        Raises `CheckpointError` if they do not fit.
        """
        if index >= len(self.vectors):
            made = family(self._present[0].shape[1])
            raise CheckpointError(
                f"the embedding {self.name!r} has nothing for this model's text encoder {index + 1}: "
                f"it was made for {made}"
            )
        found = self.vectors[index]
        if found is not None and found.shape[1] != width:
            raise CheckpointError(
                f"the embedding {self.name!r} is {found.shape[1]} wide, made for "
                f"{family(found.shape[1])}; this model's text encoder {index + 1} reads {width}"
            )
        return found

    def check_fits(self, widths: Sequence[int]) -> None:
        """Raise `CheckpointError` unless there are vectors for text encoders of these `widths`."""
        for index, width in enumerate(widths):
            self.for_width(index, width)


def embeddings_in(text: str, known: Container[str], widths: Sequence[int]) -> dict[str, Embedding]:
    """The embeddings of the user's folder whose names stand in `text`, except those that are `known`.

    Warns of pickles, and of embeddings that do not fit text encoders of these `widths`: they are left out.
    Raises `CheckpointError` as `read` does for other files that hold no embedding.
    """
    found = folders.found("embeddings", (".safetensors", *_PICKLES))
    embeddings = {}
    for name in sorted(mentioned(text, (name for name in found if name not in known))):
        path, problem = found[name], ""
        if path.suffix.lower() in _PICKLES:
            problem = _refusal(path)
        else:
            embeddings[name] = read(path)
            try:
                embeddings[name].check_fits(widths)
            except CheckpointError as error:
                problem = str(error)
                del embeddings[name]
        if problem:
            warn(f"{name!r} is read as words: {problem}")
    return embeddings


def read(path: str | Path, name: str | None = None) -> Embedding:
    """Read an embedding. Raises `CheckpointError` for pickles, and for files that hold anything else."""
    path = Path(path)
    if path.suffix.lower() in _PICKLES:
        raise CheckpointError(_refusal(path))
    return from_tensors(weights.read(path), name or path.stem, str(path))


@dataclass(frozen=True)
class BundledKey:
    """What a key of an adapter's file says of an embedding in it; `problem`, where that cannot be used."""

    name: str
    encoder: int
    problem: str = ""


def bundled(key: str, name: str) -> BundledKey | None:
    """The embedding that `key`, of the adapter `name`, belongs to; nothing if it is of the adapter itself.

    OneTrainer and A1111 write `bundle_emb.WORD.…`; one that stands by itself is called as the adapter is.
    """
    if not (found := _BUNDLED.fullmatch(key)):
        return None
    if found["word"]:
        return BundledKey(found["word"], 0)
    if found["encoder"] in _NO_ENCODERS or found["out"]:
        what = "an embedding of a text encoder's output" if found["out"] else "an embedding for T5"
        return BundledKey(found["name"] or name, 0, f"is {what}, which is not supported")
    return BundledKey(found["name"] or name, int(found["encoder"] in _SECOND))


def from_tensors(tensors: Mapping[str, Tensor], name: str, where: str = "the state dict") -> Embedding:
    """As `read`, of tensors in memory, called `where` in errors."""
    found = {key: bundled(key, name) for key in tensors}
    inside = {each.name for each in found.values() if each}
    if len(inside) == 1 and any(key.startswith("bundle_emb.") for key in found):
        kept = ((key, each) for key, each in found.items() if each and not each.problem)
        tensors = {_PAIRS[0][each.encoder]: tensors[key] for key, each in kept}
    vectors, token = _vectors(where, weights.checked(tensors, where))
    for each in vectors:
        if not each.is_floating_point() or each.ndim != 2 or not 0 < len(each) <= MAX_VECTORS:
            raise CheckpointError(
                f"{where} is not an embedding: it holds {each.dtype} numbers of shape {list(each.shape)}, "
                f"not 1 to {MAX_VECTORS} vectors"
            )
    if len({len(each) for each in vectors}) > 1:
        raise CheckpointError(f"{where} has {' and '.join(str(len(each)) for each in vectors)} vectors")
    return Embedding(name, vectors, token)


def tensors_of(embedding: Embedding) -> dict[str, Tensor]:
    """An embedding as the tensors of a file that A1111, ComfyUI, diffusers and kohya's scripts read."""
    if len(embedding.vectors) == 1:
        return {embedding.token or embedding.name: embedding._present[0]}
    pairs = zip(_PAIRS[0], embedding.vectors, strict=False)
    return {key: rows for key, rows in pairs if rows is not None}


def bundled_tensors(embedding: Embedding) -> dict[str, Tensor]:
    """An embedding as the tensors of an adapter's file, as OneTrainer and A1111 write it: see `bundled`."""
    if len(embedding.vectors) == 1:
        return {f"bundle_emb.{embedding.name}.string_to_param.*": embedding._present[0]}
    return {f"bundle_emb.{embedding.name}.{key}": rows for key, rows in tensors_of(embedding).items()}


def _refusal(path: Path) -> str:
    return (
        f"{path} is a pickled embedding, and pickles can run code when they are opened; "
        f"`sfumato convert --from-pickle {path} {path.with_suffix('.safetensors')}` makes a safetensors "
        "file of it"
    )


def _vectors(where: str, tensors: Mapping[str, Tensor]) -> tuple[tuple[Tensor, ...], str | None]:
    """The vectors for each encoder, and the word of training."""
    for pair in _PAIRS:
        if set(tensors) == set(pair):
            return tuple(_rows(tensors[key]) for key in pair), None
    if set(tensors) == {_KOHYA}:
        return (_rows(tensors[_KOHYA]),), None
    if len(tensors) == 1:
        ((token, only),) = tensors.items()
        return (_rows(only),), token
    if tensors:
        # a word whose vectors are kept one by one: word, word_1, word_2, …
        word = min(tensors, key=len)
        rows = [tensors.get(f"{word}_{i}" if i else word) for i in range(len(tensors))]
        if all(row is not None and row.ndim == 1 and row.shape == tensors[word].shape for row in rows):
            return (torch.stack([row for row in rows if row is not None]),), word
    shown = ", ".join(repr(key) for key in list(tensors)[:3])
    raise CheckpointError(
        f"{where} is not an embedding: one has a single word's vectors, and this has {len(tensors)} tensors"
        + (f" ({shown}, …)" if shown else "")
    )


def _rows(tensor: Tensor) -> Tensor:
    """(D,) as (1, D); anything else as it is."""
    return tensor[None] if tensor.ndim == 1 else tensor


def family(width: int) -> str:
    """What an embedding so wide is for."""
    return _WIDTHS.get(width, f"a model whose text encoder is {width} wide")
