"""Which models are here: those in the user's folder of models, and those that the hub's cache keeps."""

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sfumato import weights
from sfumato.checkpoint.families import FAMILIES
from sfumato.checkpoint.layout import INDEX, RENDERER, read_headers
from sfumato.checkpoint.shape_info import SHAP_E
from sfumato.errors import CheckpointError, OutputError, UsageError, nearest
from sfumato.files import output_error
from sfumato.folders import folder
from sfumato.weights import TensorInfo

if TYPE_CHECKING:
    from huggingface_hub import HFCacheInfo

_SUFFIX = ".safetensors"
_DEPTH = 4
_SHORT_HASH = 8
_COMMIT = re.compile(r"[0-9a-f]{4,40}")

_CONTEXTS = {family.context: family.name for family in FAMILIES.values()}


@dataclass(frozen=True)
class Installed:
    """One model that is here.

    `name` is what `checkpoint.load` takes. `place`: "folder" (the user's own) or "hub" (the cache). `layout`:
    "diffusers" or "single file". `kind`: the family as far as a header tells it, "shap-e", "vae", "adapter",
    "unknown", or "damaged". `bytes` on the disk.
    """

    name: str
    place: str
    layout: str
    kind: str
    bytes: int
    path: Path
    refs: tuple[str, ...] = ()
    """Of one in the cache: its branches and tags, then its commit."""


def installed() -> list[Installed]:
    """Every model in the user's folder, then every one in the hub's cache, each in the order of its name.

    Only headers are read, and no network is asked.
    """
    return [*_own(), *_cached()]


def by_name(name: str) -> Path | None:
    """The model that `name` means in the user's folder.

    A model's name is its path below the folder, without `.safetensors`, or only the last part of it where
    that means no other; the suffix may be given.
    """
    return _names().get(name)


def path(name: str) -> Path:
    """Where the model `name`, one that `installed` lists, is. Raises `UsageError`."""
    return by_name(name) or _listed(name).path


def remove(name: str) -> Installed:
    """Delete the model `name`, one that `installed` lists; what it was.

    Nothing outside the user's folder and the cache is touched: of a link, the link itself is removed. Raises
    `UsageError` for a name that is not listed, `OutputError` where it cannot be removed.
    """
    model = _listed(name)
    if model.place == "hub":
        _remove_cached(model)
    else:
        _remove_own(model)
    return model


def _listed(name: str) -> Installed:
    models = installed()
    own = _names().get(name)
    repository, _, revision = name.partition("@")
    revision = whole_commit(repository, revision or None) or ""
    for model in models:
        if model.name == name or model.path == own:
            return model
        if model.name.partition("@")[0] == repository and revision in model.refs:
            return model
    hint = nearest(name, [model.name for model in models]) if models else "no model is installed"
    raise UsageError(f"there is no installed model {name!r}; {hint}")


def whole_commit(repository: str, revision: str | None) -> str | None:
    """`revision`, or the commit of a cached snapshot of which it is the beginning."""
    if revision is None or not _COMMIT.fullmatch(revision):
        return revision
    found = [each for each in _snapshots(repository) if each.startswith(revision)]
    return found[0] if len(found) == 1 else revision


def cached_of(repository: str) -> str:
    """What the hub's cache keeps of a repository, or else of others, in words."""
    from huggingface_hub import constants

    models = [model for model in _cached() if model.name.partition("@")[0] == repository]
    if models:
        kept = "; ".join(", ".join([*model.refs[:-1], model.refs[-1][:_SHORT_HASH]]) for model in models)
        return f"its revisions there: {kept}"
    others = sorted({model.name.partition("@")[0] for model in _cached()})
    return f"{constants.HF_HUB_CACHE} holds " + (", ".join(others[:8]) or "no model")


def _snapshots(repository: str) -> list[str]:
    """The commits of a repository of which the hub's cache keeps files."""
    from huggingface_hub import constants

    place = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}" / "snapshots"
    return [entry.name for entry in place.iterdir()] if place.is_dir() else []


def _own() -> list[Installed]:
    names: dict[Path, str] = {}
    for name, place in _names().items():
        names.setdefault(place, name)
    return [
        Installed(
            name=name,
            place="folder",
            layout="diffusers" if place.is_dir() else "single file",
            kind=_kind(place),
            bytes=_bytes(place),
            path=place,
        )
        for place, name in sorted(names.items(), key=lambda item: item[1])
    ]


def _names() -> dict[str, Path]:
    """Each model in the user's folder by all its names, of which the first is the one to show."""
    top = folder("models")
    paths = sorted(_models(top, _DEPTH), key=lambda place: (len(place.parts), place.is_file(), place))
    names: dict[str, Path] = {}
    for place in paths:
        inside = place.relative_to(top).as_posix()
        for name in (_bare(inside), inside):
            names.setdefault(name, place)
    for place in paths:
        for name in (_bare(place.name), place.name):
            names.setdefault(name, place)
    return names


def _bare(name: str) -> str:
    return name[: -len(_SUFFIX)] if name.lower().endswith(_SUFFIX) else name


def _models(top: Path, depth: int) -> Iterator[Path]:
    """Model folders and single files below `top`; a model folder is not searched itself."""
    try:
        entries = sorted(top.iterdir())
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if (entry / INDEX).is_file() or (entry.suffix.lower() == _SUFFIX and entry.is_file()):
            yield entry
        elif depth and entry.is_dir():
            yield from _models(entry, depth - 1)


def _kind(place: Path) -> str:
    if (place / RENDERER).is_dir():
        return SHAP_E
    try:
        tensors = _unet_tensors(place) if place.is_dir() else weights.header(place).tensors
    except CheckpointError:
        return "damaged"
    for name, info in tensors.items():
        if name.endswith("attn2.to_k.weight") and len(info.shape) == 2:
            return _CONTEXTS.get(info.shape[1], "latent-diffusion")
    if any("lora" in name for name in tensors):
        return "adapter"
    return "vae" if any("decoder." in name for name in tensors) else "unknown"


def _unet_tensors(place: Path) -> dict[str, TensorInfo]:
    headers, _ = read_headers(place / "unet")
    return {name: info for header in headers.values() for name, info in header.tensors.items()}


def _bytes(place: Path) -> int:
    files = place.rglob("*") if place.is_dir() else [place]
    return sum(file.stat().st_size for file in files if file.is_file())


def _cache() -> "HFCacheInfo | None":
    # The hub's library takes a while to import, and the user's own models do without it.
    import huggingface_hub
    from huggingface_hub import constants, errors

    try:
        return huggingface_hub.scan_cache_dir(constants.HF_HUB_CACHE)
    except (errors.CacheNotFound, ValueError):
        return None


def _cached() -> list[Installed]:
    """Every cached revision that is a model folder; the one that a bare hub id means has it as its name."""
    cache = _cache()
    models = []
    for repository in cache.repos if cache else ():
        for revision in repository.revisions:
            if repository.repo_type != "model" or not (revision.snapshot_path / INDEX).is_file():
                continue
            mark = min(revision.refs, default=revision.commit_hash[:_SHORT_HASH])
            main = "main" in revision.refs
            models.append(
                Installed(
                    name=repository.repo_id if main else f"{repository.repo_id}@{mark}",
                    place="hub",
                    layout="diffusers",
                    kind=_kind(revision.snapshot_path),
                    bytes=revision.size_on_disk,
                    path=revision.snapshot_path,
                    refs=(*sorted(revision.refs), revision.commit_hash),
                )
            )
    return sorted(models, key=lambda model: model.name)


def _remove_own(model: Installed) -> None:
    top = folder("models").resolve()
    if not model.path.parent.resolve().is_relative_to(top):
        raise OutputError(f"will not remove {model.path}: a link leads there, out of {top}")
    try:
        if model.path.is_symlink() or model.path.is_file():
            model.path.unlink()
        else:
            shutil.rmtree(model.path)
    except OSError as error:
        raise output_error(model.path, error) from error


def _remove_cached(model: Installed) -> None:
    cache = _cache()
    for repository in cache.repos if cache else ():
        for revision in repository.revisions:
            if revision.snapshot_path != model.path:
                continue
            inside = repository.repo_path.resolve()
            if repository.repo_path.is_symlink():
                raise OutputError(f"will not remove {model.path}: {repository.repo_path} is a link")
            for file in revision.files:
                if not file.blob_path.resolve().is_relative_to(inside):
                    raise OutputError(f"will not remove {model.path}: {file.file_name} is a link out of it")
            assert cache is not None
            cache.delete_revisions(revision.commit_hash).execute()
    if model.path.exists():
        raise OutputError(f"cannot remove {model.path}")
