"""What the loaders of diffusers' names share: their common arguments, and the files that these mean."""

import re
from collections.abc import Collection, Mapping
from itertools import product
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from sfumato import devices
from sfumato.checkpoint.layout import choose
from sfumato.checkpoint.library import by_name
from sfumato.checkpoint.source import embedded, hub_configs, hub_file
from sfumato.errors import CheckpointError, UsageError, warn
from sfumato.options import EMBEDDED
from sfumato.validation import shown
from sfumato.weights import shards

Dtype = torch.dtype | str | Mapping[str, torch.dtype | str] | None
"""A precision, "auto" for that of the files, or one for each part ("default" for the others)."""

_IGNORED = """add_watermarker custom_revision disable_mmap force_download
    ignore_mismatched_sizes load_connected_pipeline low_cpu_mem_usage max_memory mirror
    offload_folder offload_state_dict proxies requires_aesthetics_score requires_safety_checker
    resume_download token trust_remote_code use_auth_token use_flashpack use_onnx user_agent"""
IGNORED = frozenset(_IGNORED.split())
"""Arguments of loaders that change nothing: what is local needs no hub, and nothing is ever run or mapped."""
_HUB_URL = re.compile(
    r"https?://(?:huggingface\.co|hf\.co)/([\w.\-]+/[\w.\-]+)/(?:blob|resolve|raw)/([^/]+)/([^?]+)(?:\?.*)?",
    re.ASCII,
)


def no_others(where: str, others: Mapping[str, Any], ignored: Collection[str] = ()) -> None:
    """Raise `UsageError` for arguments that are not supported, unless they are off or change nothing."""
    if others.get("use_safetensors") is False:
        raise UsageError("use_safetensors = False is not supported: pickles are never read")
    for name, value in others.items():
        known = name == "use_safetensors" or name in IGNORED or name in ignored
        if value is not None and value is not False and not known:
            raise UsageError(f"{where}: {name} is not supported; leave it out")


def hub_options(others: dict[str, Any]) -> dict[str, Any]:
    """The arguments among `others` that say what to ask the hub for and how, which are taken out."""
    tokens = [others.pop(name, None) for name in ("token", "hf_token", "use_auth_token")]
    return {
        "revision": others.pop("revision", None),
        "local_files_only": bool(others.pop("local_files_only", False)),
        "cache_dir": others.pop("cache_dir", None),
        "token": next((token for token in tokens if token is not None), None),
    }


def number(name: str, value: Any) -> float:
    """A number that a caller gave as `name`. Raises `UsageError`."""
    try:
        return float(value + 0)  # which texts do not bear
    except (TypeError, ValueError):
        raise UsageError(f"{name} is {shown(value)}: must be a number") from None


def whole(name: str, value: Any) -> int:
    """A whole number that a caller gave as `name`. Raises `UsageError`."""
    if not (found := number(name, value)).is_integer():
        raise UsageError(f"{name} is {shown(value)}: must be a whole number")
    return int(found)


def wanted_dtype(
    where: str, dtype: Dtype, torch_dtype: Dtype, part: str = "unet", default: torch.dtype = torch.float32
) -> torch.dtype | None:
    """The precision asked for by `dtype` or its older name, `None` for that of the files.

    Of one for each part, that of `part`: a pipeline computes in one. Raises `UsageError`.
    """
    if dtype is not None and torch_dtype is not None:
        raise UsageError(f"{where}: give dtype or torch_dtype, its older name, not both")
    asked = torch_dtype if dtype is None else dtype
    if isinstance(asked, Mapping):
        if len({str(each) for each in asked.values()}) > 1:
            warn(f"{where}: all parts compute in the precision of the {part}")
        asked = asked.get(part, asked.get("default"))
    if asked is None:
        return default
    if isinstance(asked, str):
        asked = asked.removeprefix("torch.")
        if asked == "auto":
            return None
    elif not isinstance(asked, torch.dtype):
        raise UsageError(f"{where}: dtype is {shown(asked)}: must be a torch.dtype or 'auto'")
    return devices.pick_dtype(torch.device("cpu"), asked)


def mapped_device(device_map: str | Mapping[str, Any] | None) -> torch.device:
    """Where `device_map` has the UNet: on a device, for "balanced" the fastest here; without one the CPU."""
    if isinstance(device_map, Mapping):
        device_map = str(device_map.get("unet", device_map.get("", "cpu")))
    if device_map is None:
        return torch.device("cpu")
    return devices.pick_device(None if device_map in ("balanced", "auto") else device_map)


def single_file(path: str | Path, **hub: Any) -> Path:
    """The file at `path`, or at an address on the hub. Raises `CheckpointError`."""
    if match := _HUB_URL.fullmatch(str(path)):
        repository, revision, name = match.groups()
        return hub_file(repository, name, **hub | {"revision": revision})
    if re.match(r"https?://", str(path)):
        raise CheckpointError(f"{path} is not on the Hugging Face hub: download it, and give the file's path")
    if not (local := Path(path).expanduser()).exists():
        raise CheckpointError(f"there is no file {str(path)!r}, and it is no address on the Hugging Face hub")
    return local


def config_folder(config: str | Path, **hub: Any) -> Path:
    """The folder of a model, or of all but its weights if it is on the hub. Raises `CheckpointError`."""
    folder = embedded() if config == EMBEDDED else by_name(str(config)) or Path(config).expanduser()
    return folder if folder.is_dir() else hub_configs(str(config), **hub)


def part_folder(
    source: str | Path,
    subfolder: str | None,
    *,
    config: str = "config.json",
    weights: bool = False,
    variant: str | None = None,
    **hub: Any,
) -> Path:
    """The folder of one part of a model: a local one, "embedded", or one on the hub, which is downloaded.

    `config`: the file that it must have; `weights`: whether those are wanted too; `hub`: as `hub_options` has
    them. Raises `CheckpointError`.
    """
    top = embedded() if source == EMBEDDED else Path(source).expanduser()
    if top.is_dir():
        return top / (subfolder or "")
    inside = f"{subfolder}/" if subfolder else ""
    settings = hub_file(str(source), inside + config, **hub)
    if weights:
        stems, names = ("diffusion_pytorch_model", "model"), []
        for mark, stem in product((f".{variant}", "", ".fp16")[not variant :], stems):
            names += [f"{stem}{mark}.safetensors", f"{stem}.safetensors.index{mark}.json"]
        for name in names:
            try:
                found = hub_file(str(source), inside + name, **hub)
            except CheckpointError:
                continue
            for shard in shards(found) if found.suffix == ".json" else ():
                hub_file(str(source), inside + shard.name, **hub)
            break
        choose([each.name for each in settings.parent.iterdir()], f"{source}/{inside}", variant=variant)
    return settings.parent


def weight_file(
    source: str | Path,
    weight_name: str | None,
    default: str,
    subfolder: str | None = None,
    **hub: Any,
) -> Path:
    """The weight file at `source`: the file itself, one in a folder, or one on the hub.

    `hub`: as `hub_options` has them. Raises `UsageError` where several might be meant, and `CheckpointError`
    where there is none.
    """
    if not isinstance(source, str | PathLike):
        raise UsageError(
            f"weights are loaded from a path, a hub id or a state dict, not {type(source).__name__}"
        )
    if match := _HUB_URL.fullmatch(str(source)):
        return single_file(match[0], **hub)
    path = Path(source).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        folder = path / (subfolder or "")
        wanted = folder / (weight_name or default)
        files = sorted(folder.glob("*.safetensors"))
        if wanted.is_file() or weight_name or not files:
            return wanted
        if len(files) > 1:
            shown = ", ".join(file.name for file in files[:5])
            raise UsageError(f"{folder} holds several files ({shown}): name one as weight_name")
        return files[0]
    name = "/".join(filter(None, (subfolder, weight_name or default)))
    return hub_file(str(source), name, **hub)


def size_in_bytes(size: int | str | None) -> int | None:
    """A size as the libraries write it: a number of bytes, or text such as "10GB" or "200MiB".

    Raises `UsageError`.
    """
    if not isinstance(size, str):
        return size
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT])?(i)?B", size.strip(), re.IGNORECASE)
    if not match:
        raise UsageError(f"max_shard_size is {size!r}: must be a size such as '10GB'")
    power = "KMGT".index(match[2].upper()) + 1 if match[2] else 0
    return int(float(match[1]) * (1024 if match[3] else 1000) ** power)
