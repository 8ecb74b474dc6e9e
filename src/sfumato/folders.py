"""Where a user's own files are: each kind, models, adapters or styles, in its folder."""

import os
import re
from pathlib import Path

import platformdirs

from sfumato.errors import UsageError, nearest

KINDS: dict[str, str] = {
    "models": "checkpoints: diffusers folders and .safetensors files",
    "adapters": "LoRA files, named in prompts as <lora:name:weight>",
    "controls": "ControlNets, T2I-Adapters and IP-Adapters: diffusers folders and .safetensors files",
    "motion": "motion adapters (AnimateDiff), which make clips of a model's pictures",
    "embeddings": "textual inversion embeddings, named in prompts by their file's name",
    "wildcards": "lists of words, as text, YAML or JSON, named in prompts as __name__",
    "styles": "style presets, as TOML, CSV or JSON",
    "samplers": "samplers of your own, as Python files",
}
"""The kinds of file, and what belongs there."""

NAMELESS = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
"""What diffusers and PEFT call every adapter: its folder has the name."""
_WITH_CONFIG = re.compile(r"diffusion_pytorch_model(\.\w+)?\.safetensors")
"""What diffusers calls the weights of every network: its folder has the name, and the `config.json`."""
_OF_NETWORKS = ("controls", "motion")
"""Kinds that a folder with a `config.json` may be."""
_FOLDERS = ("adapters", *_OF_NETWORKS)
_PARTS = ("unet", "text_encoder", "text_encoder_2")


def folder(kind: str) -> Path:
    """The folder of one of `KINDS`; it need not exist. `SFUMATO_HOME`, where set, is the folder above."""
    if kind not in KINDS:
        raise ValueError(f"unknown kind of file {kind!r}")
    home = os.environ.get("SFUMATO_HOME")
    above = Path(home).expanduser() if home else Path(platformdirs.user_data_dir("sfumato", appauthor=False))
    return above / kind


def found(kind: str, suffixes: tuple[str, ...] = (".safetensors",)) -> dict[str, Path]:
    """Every file of a kind by its name without suffix; one in a subfolder is "subfolder/name" as well.

    What diffusers or PEFT saved is its folder, by the folder's name. Hidden files are left out.
    Of two files with one name the one higher up, then the first in the alphabet, has the short name.
    """
    top = folder(kind)
    paths = sorted(
        (path for path in top.rglob("*") if path.suffix.lower() in suffixes and path.is_file()),
        key=lambda path: (len(path.parts), path.as_posix()),
    )
    names: dict[str, Path] = {}
    for path in paths:
        inside = path.relative_to(top)
        if any(part.startswith(".") for part in inside.parts):
            continue
        names.setdefault(path.stem, path)
        names.setdefault(inside.with_suffix("").as_posix(), path)
        holder = path.parent.parent if path.parent.name in _PARTS else path.parent
        nameless = path.name in NAMELESS or (
            kind in ("controls", "motion") and _WITH_CONFIG.fullmatch(path.name)
        )
        if nameless and holder != top:
            names.setdefault(holder.name, holder)
            names.setdefault(holder.relative_to(top).as_posix(), holder)
    return names


def pick(
    kind: str, name: str, suffixes: tuple[str, ...] = (".safetensors",), *, names_only: bool = False
) -> Path:
    """The file that `name` means: a path, or the name of one in the kind's folder. Raises `UsageError`.

    A file of another suffix is what a path means too, if nothing else is, and for adapters and controls a
    folder: their reader says what is wrong. `names_only`: a path means nothing, as where strangers may name
    files.
    """
    # the functions of os.path say no to what can be no path; those of Path raise
    path = Path(os.path.expanduser(name))
    if not names_only and path.suffix.lower() in suffixes and os.path.isfile(path):
        return path
    known = found(kind, suffixes)
    one = "motion adapter" if kind == "motion" else kind.removesuffix("s")
    key = name.removesuffix(path.suffix) if path.suffix.lower() in suffixes else name
    if key in known:
        return known[key]
    if names_only:
        raise UsageError(f"there is no {one} {name!r} in the server's folder")
    if os.path.isfile(path) or (kind in _FOLDERS and os.path.isdir(path)):
        return path
    hint = nearest(key, known) if known else f"it is no file, and {folder(kind)} holds none"
    raise UsageError(f"there is no {one} {name!r}; {hint}")
