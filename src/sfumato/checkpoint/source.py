"""Where a model is: the embedded one, a folder, a file, or a repository on the Hugging Face hub."""

import os
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sfumato.checkpoint.layout import (
    ENCODER,
    FAST,
    INDEX,
    NETWORKS,
    PICTURES,
    RENDERER,
    SHAPES,
    TOKENIZERS,
    choose,
    lacking,
    read_index,
    require_variant,
)
from sfumato.checkpoint.library import by_name, cached_of, installed, whole_commit
from sfumato.config.model_settings import SETTINGS_FILE
from sfumato.errors import CheckpointError, nearest, unreachable
from sfumato.folders import folder
from sfumato.options import EDITOR, EMBEDDED

SUFFIX = ".safetensors"
_SUFFIXES = (SUFFIX, ".ckpt", ".pt", ".pth", ".bin")
"""What files of weights are called; what ends so is no hub id."""
INSTRUCT = "instruct.safetensors"
"""The file in the embedded model's folder that makes it edit by instruction."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.\-]*/[\w.\-]+", re.ASCII)
_HUB_NAME = re.compile(
    rf"(?P<repository>{_HUB_ID.pattern})(?:@(?P<revision>[\w.\-]+(?:/[\w.\-]+)*))?", re.ASCII
)
_ADDRESS = re.compile(
    rf"https?://(?:huggingface\.co|hf\.co)/({_HUB_ID.pattern})(?:/tree/([^?#]+?))?/?(?:[?#].*)?", re.ASCII
)
_SHARD = re.compile(r"(?P<stem>.+?)-\d{5}-of-\d{5}(?P<variant>\.\w+)?\.safetensors")


def embedded() -> Path:
    """The folder of the model that is installed with the package."""
    return Path(str(resources.files("sfumato"))) / "models" / "icons"


def bundled() -> dict[str, Path]:
    """The folder or file of every model that is installed with the package, by its name."""
    return {EMBEDDED: embedded(), EDITOR: embedded() / INSTRUCT}


def bundled_name(place: Path) -> str | None:
    """What a model that is installed with the package is called, `None` for others."""
    return next((name for name, own in bundled().items() if own == place), None)


def locate(
    source: str | Path,
    *,
    variant: str | None = None,
    prefer_half: bool = False,
    local_files_only: bool = False,
) -> Path:
    """The folder or file of the model `source`: one installed with the package, a path, a name or a hub id.

    A name is one in the user's folder. A hub id may name a revision: a branch, a tag, a commit or, of one
    that is cached, its beginning ("org/name@main"). Local models need no network. What the local cache holds
    completely is taken from there, without asking the hub; else what is missing is downloaded:
    configurations, tokenizers and one variant of the safetensors, never a pickle. Which files of a folder are
    read does not depend on how it is named. Raises `CheckpointError`.
    """
    if isinstance(source, str) and (installed_here := bundled().get(source)):
        return installed_here
    # the functions of os.path say no to what can be no path; those of Path raise
    path = Path(os.path.expanduser(source))
    if os.path.exists(path):
        return path
    if isinstance(source, str) and (own := by_name(source)):
        return own
    if isinstance(source, str) and (named := hub_name(source)):
        repository, revision = named
        return _from_hub(repository, variant, prefer_half, local_files_only, revision)
    elsewhere = ": of addresses only those of models on huggingface.co are read; download the file"
    hint = elsewhere if "://" in str(source) else _near(path)
    raise CheckpointError(f"there is no model {str(source)!r}{hint}")


def pull(
    repository: str,
    *,
    variant: str | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
    **access: Any,
) -> Path:
    """Bring the model "org/name" from the hub into the cache, as `locate` does; the folder it is in.

    `revision`: a branch, a tag or a commit, else "main". `access`: `cache_dir` and `token`, as the hub's
    library has them. What is there already is not asked for again. Raises `CheckpointError`.
    """
    if not (match := _HUB_NAME.fullmatch(_as_name(repository))):
        raise CheckpointError(f'{repository!r} is not a hub id; one is like "org/name"')
    revision = revision or match["revision"]
    return _from_hub(match["repository"], variant, False, local_files_only, revision, _given(access))


def _given(access: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in access.items() if value is not None}


def hub_file(
    repository: str,
    name: str,
    *,
    revision: str | None = None,
    local_files_only: bool = False,
    **access: Any,
) -> Path:
    """One file of the hub's repository "org/name", downloaded unless cached. Raises `CheckpointError`.

    `revision`: a branch, a tag or a commit, else "main". `access` as in `pull`.
    """
    options = {"revision": revision, "local_files_only": local_files_only, **access}
    return _had(repository, name, "hf_hub_download", filename=name, **options)


def hub_network(
    repository: str,
    *,
    revision: str | None = None,
    inside: Sequence[str] = ("",),
    prefer_half: bool = False,
    local_files_only: bool = False,
) -> Path:
    """The cached folder of one network of the hub's repository "org/name", downloaded unless it is there.

    Its `config.json` and one variant of its safetensors: plain, or "fp16" where only that exists or half
    precision is preferred. `inside`: the folders of the repository to look in, one after another. Raises
    `CheckpointError`.
    """
    names = [f"diffusion_pytorch_model{infix}.safetensors" for infix in ("", ".fp16")]
    revision = whole_commit(repository, revision)
    errors: list[CheckpointError] = []
    for local in (True,) if local_files_only else (True, False):
        options: dict[str, Any] = {"revision": revision, "local_files_only": local}
        errors = []
        for folder_name, name in product(inside, reversed(names) if prefer_half else names):
            before = f"{folder_name}/" if folder_name else ""
            try:
                config = hub_file(repository, f"{before}config.json", **options)
                hub_file(repository, f"{before}{name}", **options)
            except CheckpointError as error:
                errors.append(error)
            else:
                return config.parent
    raise errors[0]


def hub_configs(repository: str, **options: Any) -> Path:
    """A folder of all configurations and tokenizers of the hub's model "org/name"; see `hub_file`."""
    files = [INDEX, "*/*.json", "*/*.txt"]
    return _had(repository, "the configuration", "snapshot_download", allow_patterns=files, **options)


def _had(repository: str, what: str, function: str, **options: Any) -> Path:
    """What `function` of the hub's library returns for a repository. Raises `CheckpointError`."""
    if repository.endswith(_SUFFIXES):
        raise CheckpointError(f"there is no file {repository!r}")
    if not _HUB_ID.fullmatch(repository):
        raise CheckpointError(f"there is no file, folder or hub id {repository!r}")
    import huggingface_hub

    try:
        return Path(getattr(huggingface_hub, function)(repository, **_given(options)))
    except Exception as error:  # the hub's library passes on whatever its network library raises
        wrong = CheckpointError(f"{what} of {repository} cannot be had from the hub: {_reason(error)}")
        raise unreachable(wrong) from error


def _reason(error: Exception) -> str:
    """What went wrong on the hub, in a line."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def hub_name(source: str) -> tuple[str, str | None] | None:
    """Repository and revision of "org/name" or "org/name@revision", unless there is a local folder "org".

    The address of its page on the hub means the same. A file of weights is none, whether it is there or not.
    """
    match, first = _HUB_NAME.fullmatch(_as_name(source)), source.partition("/")[0]
    if (
        match is None
        or match["repository"].endswith(_SUFFIXES)
        or first in (".", "..")
        or Path(first).is_dir()
    ):
        return None
    return match["repository"], match["revision"]


def _as_name(source: str) -> str:
    """`source`, or "org/name" or "org/name@revision" where it is the address of a page on the hub."""
    if not (match := _ADDRESS.fullmatch(source)):
        return source
    repository, revision = match.groups()
    return f"{repository}@{revision}" if revision else str(repository)


def _near(path: Path) -> str:
    """What a missing model's name comes nearest to, beside it or by name, as the end of an error."""
    parent = path.parent
    if not os.path.isdir(parent):
        return f": there is no folder {str(parent)!r}"
    endings = (SUFFIX,) if path.suffix == SUFFIX else ()
    known = [entry.name for entry in parent.iterdir() if (entry / INDEX).is_file() or entry.suffix in endings]
    searched = ""
    if len(path.parts) == 1:
        known += [model.name for model in installed()]
        searched = f" here or in {folder('models')}"
    if known:
        return f"{searched}; {nearest(path.name, known)}"
    kind = "file" if path.suffix in _SUFFIXES else "folder"
    return f': no {kind} of that name{searched}, and it is neither "{EMBEDDED}" nor a hub id like "org/name"'


def _from_hub(
    repository: str,
    variant: str | None,
    prefer_half: bool,
    local_files_only: bool,
    revision: str | None = None,
    access: Mapping[str, Any] = MappingProxyType({}),
) -> Path:
    # The hub's library takes a while to import, and local models do without it.
    import huggingface_hub
    from huggingface_hub import errors

    called = repository if revision is None else f"{repository}@{revision}"
    revision = whole_commit(repository, revision)
    try:
        found = huggingface_hub.snapshot_download(
            repository, revision=revision, local_files_only=True, **access
        )
        kept = Path(found)
        lack = lacking(kept, variant, prefer_half)
        if lack is None:
            return kept
        absent = f"{called} is not completely in the local cache ({lack})"
    except errors.LocalEntryNotFoundError:
        absent = f"{called} is not in the local cache ({cached_of(repository)})"
    except errors.HFValidationError as error:
        raise CheckpointError(f"{called!r} is not a hub id: {error}") from error
    if local_files_only or huggingface_hub.is_offline_mode():
        why = "local_files_only is set" if local_files_only else "HF_HUB_OFFLINE is set"
        raise unreachable(CheckpointError(f"{absent}, and {why}"))
    try:
        token = {name: value for name, value in access.items() if name == "token"}
        known = huggingface_hub.HfApi().model_info(repository, revision=revision, timeout=10, **token)
        listed = known.siblings or []
        names = [sibling.rfilename for sibling in listed]
        if INDEX not in names:
            raise CheckpointError(f"{called} on the hub is not in the diffusers layout: it has no {INDEX}")
        wanted = _wanted(called, names, variant, prefer_half)

        def download(patterns: list[str]) -> Path:
            return Path(
                huggingface_hub.snapshot_download(
                    repository, revision=revision, allow_patterns=patterns, **access
                )
            )

        read_index(download([INDEX]))  # which refuses what is not supported before its weights are there
        return download(wanted)
    except CheckpointError:
        raise
    except errors.GatedRepoError:
        raise CheckpointError(
            f"{repository} asks for its terms to be accepted on huggingface.co, and for `hf auth login`"
        ) from None
    except errors.RepositoryNotFoundError:
        raise CheckpointError(
            f"there is no model {repository!r}: no folder of that name, and the hub does not know it"
        ) from None
    except errors.RevisionNotFoundError:
        raise CheckpointError(
            f"{repository} on the hub has no revision {revision or 'main'!r}; in the cache: "
            f"{cached_of(repository)}"
        ) from None
    except Exception as error:  # the hub's library passes on whatever its network library raises
        wrong = CheckpointError(f"{absent}, and the hub cannot be reached: {_reason(error)}")
        raise unreachable(wrong) from error


def _wanted(repository: str, names: list[str], variant: str | None, prefer_half: bool) -> list[str]:
    """The files to download: the small ones of known components, and one variant of the weights of each."""
    wanted = [name for name in (INDEX, SETTINGS_FILE, FAST) if name in names]
    chosen: dict[str, str | None] = {}
    shapes = (*SHAPES, ENCODER, PICTURES) if any(name.startswith(f"{RENDERER}/") for name in names) else ()
    for part in (*NETWORKS, *shapes, *TOKENIZERS.values(), "scheduler"):
        inside = [name.removeprefix(f"{part}/") for name in names if name.startswith(f"{part}/")]
        inside = [name for name in inside if "/" not in name]
        texts = [name for name in inside if name.endswith((".json", ".txt")) and ".index." not in name]
        if part in (*NETWORKS, *shapes) and part != PICTURES and inside:
            file, found = choose(inside, f"{repository}/{part}", variant=variant, prefer_half=prefer_half)
            texts.append(file)
            chosen[part] = found
            if file.endswith(".json"):
                texts += [name for name in inside if _variant_of_shard(name) == (found or "")]
        wanted += [f"{part}/{name}" for name in texts]
    require_variant(variant, chosen, f"{repository} on the hub")
    return wanted


def _variant_of_shard(name: str) -> str | None:
    """ "" for a plain shard, "fp16" for one of that variant, `None` for what is no shard."""
    if not (match := _SHARD.fullmatch(name)):
        return None
    return match["variant"].removeprefix(".") if match["variant"] else match["stem"].partition(".")[2]
