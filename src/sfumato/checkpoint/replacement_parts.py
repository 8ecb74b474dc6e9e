"""An autoencoder from a file or folder of its own, in place of a model's or as its tiny decoder."""

import os
from dataclasses import replace
from pathlib import Path

from sfumato import weights
from sfumato.checkpoint import grouping, single
from sfumato.checkpoint.layout import TINY, Part, read_network
from sfumato.checkpoint.library import by_name
from sfumato.checkpoint.source import hub_name, hub_network
from sfumato.checkpoint.unsupported import described
from sfumato.config import TinyVAEConfig
from sfumato.errors import CheckpointError
from sfumato.folders import folder

_HALVES = ("encoder", "decoder")


def vae_part(path: Path, scaling: float) -> Part:
    """The autoencoder in `path`: a file, a folder with its `config.json`, or a model's folder.

    A file may hold an `AutoencoderKL` in either layout, alone or within a checkpoint, a tiny one in
    diffusers' layout, or half of a TAESD, whose other half lies beside it. A file does not say what its
    latents are multiplied by: that is `scaling`. Raises `CheckpointError`.
    """
    if path.is_dir():
        inside = path if (path / "config.json").is_file() else path / "vae"
        return read_network(inside, "vae", {})
    header = weights.header(path)
    if "0.weight" in header.tensors or "1.weight" in header.tensors:
        return _halves(path)
    if (group := grouping.vae_group(header.tensors)) is None:
        what = described(header.tensors)
        raise CheckpointError(f"{path} is {what}" if what else f"{path} holds no VAE")
    return single.part(path, header, group, single.vae_config(group, scaling, 512, str(path)))


def tiny_part(path: Path) -> Part:
    """The tiny autoencoder in `path`, a file or folder as `vae_part` reads it. Raises `CheckpointError`."""
    if path.is_dir():
        inside = next((place for place in (path, path / TINY) if (place / "config.json").is_file()), path)
        return read_network(inside, TINY, {})
    part = vae_part(path, 1.0)
    if not isinstance(part.config, TinyVAEConfig):
        raise CheckpointError(f"{path} holds a full autoencoder; a tiny one, such as TAESD, is asked for")
    return replace(part, name=TINY)


def located(name: str, part: str, *, prefer_half: bool = False, local_files_only: bool = False) -> Path:
    """The file or folder of the autoencoder `name`, for `vae_part` and `tiny_part`.

    `name`: a path, a name in the models folder, or a hub id, of an autoencoder or of a model that has one as
    its `part`. Raises `CheckpointError`.
    """
    found = Path(os.path.expanduser(name))
    if os.path.exists(found):
        return found
    if named := by_name(name):
        return named
    if on_hub := hub_name(name):
        repository, revision = on_hub
        return hub_network(
            repository,
            revision=revision,
            inside=("", part),
            prefer_half=prefer_half,
            local_files_only=local_files_only,
        )
    where = f"no file or folder of that name, here or in {folder('models')}, and it is no hub id"
    raise CheckpointError(f"there is no VAE {name!r}: {where}")


def _halves(path: Path) -> Part:
    """A TAESD from the two files in which it was published."""
    half = next((half for half in _HALVES if half in path.name), None)
    if half is None:
        raise CheckpointError(
            f"{path} is half of a tiny autoencoder; its name must say which: encoder or decoder"
        )
    files = {name: path.with_name(path.name.replace(half, name)) for name in _HALVES}
    for name, file in files.items():
        if not file.is_file():
            raise CheckpointError(f"{path} is the {half} of a tiny autoencoder; its {name} {file} is missing")
    headers = {file: weights.header(file) for file in files.values()}
    labels = {file: f"taesd_{name}." for name, file in files.items()}
    tensors = {
        labels[file] + key: info for file, header in headers.items() for key, info in header.tensors.items()
    }
    group = grouping.Group(grouping.Place("vae", ""), tensors)
    config = single.vae_config(group, 1.0, 512, str(path))
    assert isinstance(config, TinyVAEConfig)
    whole = single.part(path, headers[path], group, config)
    return Part(
        "vae", whole.class_name, config, str(path), headers, whole.tensors, table=whole.table, labels=labels
    )
