"""Adapters and learned embeddings of a pipeline, loaded and selected by diffusers' methods."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sfumato.checkpoint.source import hub_file
from sfumato.errors import UsageError, nearest
from sfumato.prompt.meaning import AdapterWeight
from sfumato.studio import Studio


class LoaderMixin(ABC):
    """Diffusers' methods for adapters, which are loaded, active or fused, and for learned embeddings.

    The studio has another name for each adapter, since a fused one stays when its name is deleted.
    """

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        self._active: dict[str, AdapterWeight] = {}
        self._fused: tuple[AdapterWeight, ...] = ()
        self._count = 0
        self._enabled = True

    @property
    @abstractmethod
    def studio(self) -> Studio:
        """The studio that draws."""

    def load_lora_weights(
        self,
        source: str | Path,
        *,
        weight_name: str | None = None,
        adapter_name: str | None = None,
        subfolder: str | None = None,
        **others: Any,
    ) -> None:
        """Load a LoRA from a file, a folder or the hub, and make it the only active adapter."""
        no_others("load_lora_weights", others, harmless=("use_safetensors", "low_cpu_mem_usage"))
        path = weight_file(source, weight_name, "pytorch_lora_weights.safetensors", subfolder)
        name = adapter_name or f"default_{len(self._known)}"
        if name in self._known:
            raise UsageError(f"the adapter {name!r} is loaded already; delete it or use another adapter_name")
        self._count += 1
        self._known[name] = self.studio.load_adapter(path, f"{name}#{self._count}")
        self._active = {name: AdapterWeight(self._known[name])}

    def set_adapters(self, adapter_names: str | Sequence[str], adapter_weights: Any = None) -> None:
        """Make these the active adapters, each with a weight or a dictionary of weights."""
        names = _names(adapter_names)
        many = isinstance(adapter_weights, list | tuple)
        weights = list(adapter_weights) if many else [adapter_weights] * len(names)
        if len(names) != len(weights):
            raise UsageError(f"{len(names)} adapters were named, with {len(weights)} weights")
        self._active = {name: _weight(self._own(name), w) for name, w in zip(names, weights, strict=True)}
        self._enabled = True

    def get_active_adapters(self) -> list[str]:
        return list(self._active) if self._enabled else []

    def get_list_adapters(self) -> dict[str, list[str]]:
        return {"unet": list(self._known)} if self._known else {}

    def delete_adapters(self, adapter_names: str | Sequence[str]) -> None:
        for name in _names(adapter_names):
            self._own(name)
            del self._known[name]
            self._active.pop(name, None)
        self._forget()

    def disable_lora(self) -> None:
        self._enabled = False

    def enable_lora(self) -> None:
        self._enabled = True

    def fuse_lora(
        self, lora_scale: float = 1.0, adapter_names: Sequence[str] | None = None, **others: Any
    ) -> None:
        """Keep the active adapters in the weights until `unfuse_lora`, which restores the weights exactly."""
        no_others("fuse_lora", others, harmless=("safe_fusing", "components"))
        names = list(self._active if adapter_names is None else adapter_names)
        chosen = [self._active.get(name) or AdapterWeight(self._own(name)) for name in names]
        self._fused += tuple(_scaled(each, lora_scale) for each in chosen)

    def unfuse_lora(self, **others: Any) -> None:
        no_others("unfuse_lora", others, harmless=("components",))
        self._fused = ()

    def unload_lora_weights(self) -> None:
        """Delete all adapters; fused ones stay in the weights."""
        self._known, self._active = {}, {}
        self._forget()

    def adapter_weights(self, scale: float) -> tuple[AdapterWeight, ...]:
        """The adapters of a call whose `cross_attention_kwargs` have this scale, with their weights."""
        fused = {each.name for each in self._fused}
        active = self._active.values() if self._enabled else ()
        return self._fused + tuple(_scaled(each, scale) for each in active if each.name not in fused)

    def load_textual_inversion(
        self,
        source: str | Path | Sequence[str | Path],
        token: str | Sequence[str] | None = None,
        *,
        weight_name: str | None = None,
        subfolder: str | None = None,
        **others: Any,
    ) -> None:
        """Load learned embeddings under `token`, or under the token in the file."""
        no_others("load_textual_inversion", others, harmless=("use_safetensors",))
        sources = [source] if isinstance(source, str | Path) else list(source)
        tokens = [token] * len(sources) if token is None or isinstance(token, str) else list(token)
        if len(tokens) != len(sources):
            raise UsageError(f"{len(sources)} embeddings were given, and {len(tokens)} tokens")
        for each, name in zip(sources, tokens, strict=True):
            file = weight_file(each, weight_name, "learned_embeds.safetensors", subfolder)
            known = self.studio.load_embedding(file, name)
            word = self.studio.library.embeddings[known].token
            if name is None and word is not None and word != known:
                self.studio.library.embeddings[word] = self.studio.library.embeddings.pop(known)

    def _own(self, name: str) -> str:
        """The studio's name of an adapter. Raises `UsageError` for one that is not loaded."""
        if name not in self._known:
            hint = nearest(name, self._known) if self._known else "none has been loaded"
            raise UsageError(f"there is no adapter {name!r}; {hint}")
        return self._known[name]

    def _forget(self) -> None:
        """Remove from the studio the adapters that are neither named nor fused any more."""
        self.studio.adapt(self.adapter_weights(1.0))
        wanted = {*self._known.values(), *(each.name for each in self._fused)}
        for own in set(self.studio.adapters.names) - wanted:
            self.studio.adapters.remove(own)


def no_others(where: str, others: Mapping[str, Any], harmless: Sequence[str] = ()) -> None:
    """Raise `UsageError` for arguments that are not supported, unless they are `None` or `harmless`."""
    for name, value in others.items():
        if name not in harmless and value is not None:
            raise UsageError(f"{where}: {name} is not supported")


def weight_file(
    source: str | Path, weight_name: str | None, default: str, subfolder: str | None = None
) -> Path:
    """The weight file at `source`: the file itself, one in a folder, or one on the hub.

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
    return hub_file(str(source), "/".join(filter(None, (subfolder, weight_name or default))))


def _names(names: str | Sequence[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def _weight(name: str, weight: Any) -> AdapterWeight:
    """An adapter with its weight as diffusers has it: a number, or numbers by network and UNet part."""
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
    for part, value in unet.items():
        if part not in ("down", "mid", "up") or isinstance(value, Mapping | list | tuple):
            raise UsageError(
                f"weights for parts of {part!r} are not supported: one number for each of down, mid, up"
            )
    return AdapterWeight(name, 1.0, float(text), {part: float(value) for part, value in unet.items()})


def _scaled(use: AdapterWeight, scale: float) -> AdapterWeight:
    if scale == 1:
        return use
    text = use.weight if use.text_weight is None else use.text_weight
    return replace(use, weight=use.weight * scale, text_weight=text * scale)
