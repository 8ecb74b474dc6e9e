"""The adapters of a pipeline, as diffusers keeps count of them: active, fused, or only loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sfumato.errors import CheckpointError, UsageError, nearest
from sfumato.prompt.meaning import AdapterWeight
from sfumato.studio import Studio

DEFAULT_FILE = "pytorch_lora_weights.safetensors"


class Loras:
    """Names as the program has them, each with the name that the studio knows it by."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        self._active: dict[str, AdapterWeight] = {}
        self._fused: tuple[AdapterWeight, ...] = ()
        self._count = 0
        self.enabled = True

    @property
    def names(self) -> list[str]:
        return list(self._known)

    @property
    def active(self) -> list[str]:
        return list(self._active) if self.enabled else []

    def load(self, studio: Studio, path: Path, name: str | None) -> None:
        """Read a file and have it alone active from now on, as diffusers does."""
        name = name or f"default_{len(self._known)}"
        if name in self._known:
            raise UsageError(f"the adapter {name!r} is loaded already; delete it or use another adapter_name")
        self._count += 1
        own = studio.load_adapter(path, f"{name}#{self._count}")
        self._known[name] = own
        self._active = {name: AdapterWeight(own)}

    def select(self, names: str | Sequence[str], weights: Any = None) -> None:
        """Have just these active, each with a weight, or with weights by network and block."""
        names = [names] if isinstance(names, str) else list(names)
        weights = list(weights) if isinstance(weights, list | tuple) else [weights] * len(names)
        if len(names) != len(weights):
            raise UsageError(f"{len(names)} adapters were named, with {len(weights)} weights")
        chosen = {name: _use(self._own(name), weight) for name, weight in zip(names, weights, strict=True)}
        self._active = chosen
        self.enabled = True

    def fuse(self, scale: float, names: Sequence[str] | None) -> None:
        """Have the active ones in the weights until `unfuse`, whatever a call's scale is."""
        wanted = list(self._active) if names is None else list(names)
        self._fused += tuple(
            _scaled(self._active.get(name, AdapterWeight(self._own(name))), scale) for name in wanted
        )

    def unfuse(self) -> None:
        self._fused = ()

    def unload(self) -> None:
        """Forget all that are not fused."""
        self._known, self._active = {}, {}

    def delete(self, names: str | Sequence[str]) -> None:
        """Forget these."""
        for name in [names] if isinstance(names, str) else names:
            self._own(name)
            del self._known[name]
            self._active.pop(name, None)

    def uses(self, scale: float) -> tuple[AdapterWeight, ...]:
        """What the weights should hold for a call whose `cross_attention_kwargs` have this scale."""
        fused = {use.name for use in self._fused}
        active = self._active.values() if self.enabled else ()
        return self._fused + tuple(_scaled(use, scale) for use in active if use.name not in fused)

    def sweep(self, studio: Studio) -> None:
        """Drop from the studio what no name leads to any more."""
        wanted = {*self._known.values(), *(use.name for use in self._fused)}
        for own in set(studio.adapters.names) - wanted:
            studio.adapters.remove(own)

    def _own(self, name: str) -> str:
        if name not in self._known:
            hint = nearest(name, self._known) if self._known else "none has been loaded"
            raise UsageError(f"there is no adapter {name!r}; {hint}")
        return self._known[name]


def weight_file(
    source: str | Path, weight_name: str | None, default: str, subfolder: str | None = None
) -> Path:
    """The file that a program means: itself, one in a folder, or one on the hub.

    Raises `UsageError` where several might be meant, and `CheckpointError` where there is none.
    """
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
    return _from_hub(str(source), "/".join(filter(None, (subfolder, weight_name or default))))


def _from_hub(repository: str, name: str) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(huggingface_hub.hf_hub_download(repository, name))
    except HFValidationError:
        raise CheckpointError(f"there is no file, folder or hub id {repository!r}") from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{name} of {repository} cannot be had from the hub: {reason}") from None


def _use(name: str, weight: Any) -> AdapterWeight:
    """One adapter with diffusers' kinds of weight: a number, or numbers by network and by way."""
    if weight is None:
        return AdapterWeight(name)
    if not isinstance(weight, Mapping):
        return AdapterWeight(name, float(weight))
    for part in weight:
        if part not in ("unet", "text_encoder", "text_encoder_2"):
            raise UsageError(f"an adapter's weight for {part!r} is not supported: only unet and text_encoder")
    text, unet = weight.get("text_encoder", 1.0), weight.get("unet", 1.0)
    if weight.get("text_encoder_2", text) != text:
        raise UsageError("weights that differ between text_encoder and text_encoder_2 are not supported")
    if not isinstance(unet, Mapping):
        return AdapterWeight(name, float(unet), float(text))
    for way, value in unet.items():
        if way not in ("down", "mid", "up") or isinstance(value, Mapping | list | tuple):
            raise UsageError(
                f"weights for parts of {way!r} are not supported: one number for each of down, mid, up"
            )
    return AdapterWeight(name, 1.0, float(text), {way: float(value) for way, value in unet.items()})


def _scaled(use: AdapterWeight, scale: float) -> AdapterWeight:
    if scale == 1:
        return use
    text = use.weight if use.text_weight is None else use.text_weight
    return replace(use, weight=use.weight * scale, text_weight=text * scale)
