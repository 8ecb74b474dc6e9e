"""Where an adapter is: a file, or a folder of PEFT or diffusers, with what stands beside the tensors."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from sfumato import folders, weights
from sfumato.adapt.settings import BESIDE, Settings
from sfumato.checkpoint.layout import INDEX
from sfumato.errors import CheckpointError
from sfumato.files import open_file, read_json

PARTS = ("unet", "text_encoder", "text_encoder_2")


@dataclass(frozen=True)
class Source:
    """What was read; `path` is the file, or the folder where each network has a file of its own."""

    path: Path
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    settings: Settings
    fingerprint: str


def read(path: Path) -> Source:
    """Read a file, or the adapter of a folder. Raises `CheckpointError`."""
    files = files_of(path)
    if "" in files:
        file = files[""]
        metadata = weights.metadata(file)
        return Source(file, weights.read(file), metadata, Settings.of(file, metadata), _fingerprint(file))
    tensors: dict[str, Tensor] = {}
    settings: dict[str, Any] = {}
    for part, file in files.items():
        tensors |= {f"{part}.{key}": tensor for key, tensor in weights.read(file).items()}
        if (file.parent / BESIDE).is_file():
            settings |= {f"{part}.{key}": value for key, value in read_json(file.parent / BESIDE).items()}
    digest = hashlib.sha256("".join(map(_fingerprint, files.values())).encode()).hexdigest()[:16]
    return Source(path, tensors, {}, Settings(settings, f"{path}/*/{BESIDE}"), digest)


def files_of(path: Path) -> dict[str, Path]:
    """The file of an adapter, at "", or of its networks, by their places. Raises `CheckpointError`."""
    if not path.is_dir():
        return {"": path}
    parts = {part: path / part / _PEFT for part in PARTS if (path / part / _PEFT).is_file()}
    return parts or {"": _file_in(path)}


def name_of(path: Path) -> str:
    """What an adapter is called unless it is told: as its file, or its folder."""
    return path.resolve().name if path.is_dir() else path.stem


def _file_in(folder: Path) -> Path:
    """The adapter's file in a folder of diffusers or PEFT, or the only one there.

    PEFT has a folder below for each adapter that is not called "default". Raises `CheckpointError`.
    """
    for name in folders.NAMELESS:
        if (folder / name).is_file():
            return folder / name
    if (folder / INDEX).is_file():
        raise CheckpointError(f"{folder} is a model's folder, not an adapter's")
    found = sorted(folder.glob("*.safetensors")) or sorted(folder.glob(f"*/{_PEFT}"))
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(path.relative_to(folder).as_posix() for path in found[:5])
        raise CheckpointError(f"{folder} holds {len(found)} adapters: name one of {names}")
    if pickles := [path for path in sorted(folder.glob("*.bin")) if path.stem in _STEMS]:
        return pickles[0]
    raise CheckpointError(f"{folder} holds no adapter: there is neither {' nor '.join(folders.NAMELESS)}")


def _fingerprint(path: Path) -> str:
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


_PEFT = folders.NAMELESS[1]
_STEMS = tuple(Path(name).stem for name in folders.NAMELESS)
