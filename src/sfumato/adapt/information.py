"""What an adapter is, with the size of its change in every block, and which adapters there are."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from sfumato import folders
from sfumato.adapt import source
from sfumato.adapt.architecture import Architecture, fitted
from sfumato.adapt.delta import Delta, LoRA
from sfumato.adapt.description import Description, describe
from sfumato.adapt.low_rank import factors
from sfumato.errors import CheckpointError

_KINDS = ("adapters", "embeddings")
_WAYS = ("text", "in", "time", "down", "mid", "up", "out")


@dataclass(frozen=True)
class InstalledAdapter:
    """One adapter or embedding in the user's folders.

    `name` is what requests call it. `kind`: as "LoRA", "embedding", "not read" or "damaged". `base`: the
    family that it is for, where its file tells. `rank`: the most frequent. `bytes` on the disk.
    """

    name: str
    kind: str
    base: str | None
    rank: int | None
    bytes: int
    path: Path


def info(adapter: str | Path, *, model: str | None = None) -> Description:
    """What `adapter`, a path or a name, is: see `Description`; and the norm of its change in every block.

    `model`: the one that it was made for, where that has another shape than the published ones. Norms are of
    the change before the magnitudes of a DoRA, which need the model's weights. Raises `CheckpointError` for
    a file that is no adapter or embedding, `UsageError` for a name that there is not.
    """
    path = find(adapter)
    told = describe(path)
    if told is None or told.kinds:
        architecture, (read,) = fitted([(source.name_of(path), source.read(path))], model)
        assert told is not None, "what can be used can be described"
        told = replace(told, norms=_norms(read.deltas, architecture))
    return told


def find(adapter: str | Path) -> Path:
    """The adapter or embedding that a path or a name means. Raises `UsageError`."""
    name = str(adapter)
    known = folders.found("embeddings")
    return (
        known[name]
        if name in known and name not in folders.found("adapters")
        else folders.pick("adapters", name)
    )


def installed() -> list[InstalledAdapter]:
    """Every adapter, then every embedding, in the user's folders, in the order of their names.

    Only headers are read.
    """
    found = []
    for kind in _KINDS:
        names: dict[Path, str] = {}
        for name, path in folders.found(kind).items():
            if path.is_dir():  # its folder is the name of what diffusers and PEFT save
                names = {
                    own: known for own, known in names.items() if own.parent not in (path, *path.glob("*/"))
                }
            names.setdefault(path, name)
        found += [_installed(name, path) for path, name in sorted(names.items(), key=lambda each: each[1])]
    return found


def _installed(name: str, path: Path) -> InstalledAdapter:
    files = [file for file in path.rglob("*.safetensors") if file.is_file()] if path.is_dir() else [path]
    size = sum(file.stat().st_size for file in files)
    try:
        told = describe(path)
    except CheckpointError:
        told = None
    if told is None:
        return InstalledAdapter(name, "not read", None, None, size, path)
    kind = " + ".join(told.kinds) or "embedding"
    return InstalledAdapter(name, kind, told.base, next(iter(told.ranks), None), size, path)


def _norms(deltas: Mapping[tuple[str, str], Delta], architecture: Architecture) -> dict[str, float]:
    norms: dict[str, float] = {}
    for (part, layer), delta in deltas.items():
        block = architecture.indexes[part].blocks[layer][-2:][0] if part == "unet" else part
        norms[block] = math.hypot(norms.get(block, 0.0), norm_of(delta))
    return dict(sorted(norms.items(), key=lambda each: (_WAYS.index(_way(each[0])), each[0])))


def _way(block: str) -> str:
    way = block.partition(".")[0]
    return way if way in _WAYS else "text"


def norm_of(delta: Delta) -> float:
    """‖s·P‖ in the Frobenius norm; of two factors without their product, by tr(BᵀB AAᵀ)."""
    if isinstance(delta, LoRA):
        up, down = factors(delta)
        return math.sqrt(max(0.0, float(((up.mT @ up) * (down @ down.mT)).sum())))
    return abs(delta.scale) * float(torch.linalg.vector_norm(delta.product(torch.device("cpu"))))
