"""Networks that are used beside a model, such as controls and motion adapters: found, and read."""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sfumato import folders
from sfumato.checkpoint import layout, source
from sfumato.checkpoint.layout import Part
from sfumato.checkpoint.unsupported import family_of_classes
from sfumato.config import Config
from sfumato.errors import CheckpointError, UsageError
from sfumato.files import read_json
from sfumato.validation import shown

_HUB_FILE = re.compile(
    r"(?P<repository>\w[\w.\-]*/[\w.\-]+)(?:@(?P<revision>[\w.\-]+))?/(?P<name>[\w.\-/]+\.safetensors)",
    re.ASCII,
)
"""A file of a repository, such as "h94/IP-Adapter/models/ip-adapter_sd15.safetensors"."""


def locate(
    kind: str,
    name: str,
    own: Mapping[str, Path],
    *,
    fetch: Callable[..., Path] = source.hub_file,
    prefer_half: bool = False,
    local_files_only: bool = False,
    names_only: bool = False,
) -> Path:
    """The file or folder that `name` means: one of `own`, a path, one in the user's folder of this `kind`, or
    on the hub.

    `own`: what the model brings. `fetch`: gets a single file of the hub, as `source.hub_file` does.
    `names_only`: paths and hub ids mean nothing. Raises `CheckpointError`.
    """
    if name in own:
        return own[name]
    path = Path(os.path.expanduser(name))
    if os.path.exists(path) and not names_only:
        return path
    try:
        return folders.pick(kind, name, names_only=names_only)
    except UsageError as error:
        brings = f"; the model brings {', '.join(own)}" if own else ""
        wrong = CheckpointError(f"{error}{brings}")
        if names_only:
            raise wrong from None
        if (match := _HUB_FILE.fullmatch(name)) and not Path(match["repository"]).parent.is_dir():
            return fetch(**match.groupdict(), local_files_only=local_files_only)
        if named := source.hub_name(name):
            repository, revision = named
            return source.hub_network(
                repository, revision=revision, prefer_half=prefer_half, local_files_only=local_files_only
            )
        raise wrong from None


def part_in(
    path: Path,
    name: str,
    called: str,
    classes: Mapping[str, type[Config]],
    of_file: Callable[[Path], Part],
    *,
    prefer_half: bool = False,
) -> Part:
    """The network in `path`, a folder with its `config.json` or a file, as the part `name`.

    `called`: what it is called in errors. `classes`: those that a configuration may name, which are only
    compared. `of_file`: what reads a file. Raises `CheckpointError`.
    """
    file = path / "config.json"
    if not file.is_file():
        return of_file(_only_file(path, called) if path.is_dir() else path)
    content = read_json(file)
    kind: Any = content.get("_class_name")
    if kind not in classes:
        what = family_of_classes([kind]) or f"a network of class {shown(kind)}"
        raise CheckpointError(f"{file}: {what} is no {called}; {' or '.join(classes)} is")
    config = classes[kind].from_dict(content, str(file))
    headers, variant = layout.read_headers(path, prefer_half=prefer_half)
    tensors = {key: info for header in headers.values() for key, info in header.tensors.items()}
    return Part(name, kind, config, str(path), headers, tensors, variant)


def _only_file(folder: Path, called: str) -> Path:
    """The file of a folder without a configuration. Raises `CheckpointError` where there is not just one."""
    files = sorted(folder.glob("*.safetensors"))
    if len(files) == 1:
        return files[0]
    if files:
        some = ", ".join(file.name for file in files[:5])
        raise CheckpointError(f"{folder} holds {len(files)} files: name one of {some}")
    raise CheckpointError(
        f"{folder} holds no {called}: it has no config.json, and no .safetensors file that needs none"
    )
