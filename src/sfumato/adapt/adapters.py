"""The adapters of a model: read once, then used in any mixture, and taken out again without a trace."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from sfumato.adapt import blocks, live
from sfumato.adapt.delta import SHIFTS, Delta, merged
from sfumato.adapt.keys import LayerIndex
from sfumato.adapt.reading import Adapter, read
from sfumato.adapt.source import PARTS
from sfumato.errors import UsageError, nearest
from sfumato.nets.inference import Prepacked
from sfumato.prompt.meaning import AdapterWeight


class Adapters:
    """The adapters of some `networks`, by their places: "unet", "text_encoder", "text_encoder_2".

    Its iterator gives the names of those that are ready. Not for several threads at once.
    """

    def __init__(self, networks: Mapping[str, nn.Module]) -> None:
        self.networks = {part: networks[part] for part in PARTS if part in networks}
        self.indexes = {part: LayerIndex(net) for part, net in self.networks.items()}
        self.active: tuple[AdapterWeight, ...] = ()
        """What the weights hold at the moment."""
        self._loaded: dict[str, Adapter] = {}
        self._originals: dict[tuple[str, str, str], Tensor] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Of every adapter that is ready."""
        return tuple(self._loaded)

    def tensors(self) -> Iterator[Tensor]:
        """All that is kept in memory of them, and of the weights that they changed."""
        for adapter in self._loaded.values():
            for delta in adapter.deltas.values():
                yield from delta.state_dict().values()
        yield from self._originals.values()

    def __iter__(self) -> Iterator[str]:
        return iter(self._loaded)

    def __len__(self) -> int:
        return len(self._loaded)

    def __contains__(self, name: object) -> bool:
        return name in self._loaded

    def __repr__(self) -> str:
        active = {each.name: f" (active, {each.weight:g})" for each in self.active}
        return f"<Adapters: {', '.join(repr(name) + active.get(name, '') for name in self) or 'none'}>"

    def __getitem__(self, name: str) -> Adapter:
        """One of them. Raises `UsageError` for an unknown name."""
        if name not in self._loaded:
            hint = nearest(name, self._loaded) if self._loaded else "none has been loaded"
            raise UsageError(f"there is no adapter {name!r}; {hint}")
        return self._loaded[name]

    def load(self, path: str | Path, name: str | None = None, *, allow_partial: bool = False) -> Adapter:
        """Read a file and keep it ready; the networks stay as they are. See `sfumato.adapt.reading.read`."""
        adapter = read(path, self.indexes, name, allow_partial=allow_partial)
        self.add(adapter)
        return adapter

    def add(self, adapter: Adapter) -> None:
        """Keep `adapter` ready, in the place of one of its name. Raises `UsageError` if that is in use."""
        self._check_unused(adapter.name)
        self._loaded[adapter.name] = adapter

    def remove(self, name: str) -> None:
        """Forget an adapter. Raises `UsageError` if there is none of that name, or if it is in use."""
        self._check_unused(self[name].name)
        del self._loaded[name]

    def _check_unused(self, name: str) -> None:
        beside = any(live.attached(net, name) for net in self.networks.values())
        if beside or any(each.name == name for each in self.active):
            raise UsageError(f"the adapter {name!r} is in use; take it out first")

    def find_layers(self, part: str) -> None:
        """Look for the layers of a network anew, whose modules have changed; nothing may be active."""
        self.indexes[part] = LayerIndex(self.networks[part])

    def set_adapters(self, weights: Sequence[AdapterWeight]) -> bool:
        """Merge these and no others into the weights: W + Σ wᵢ ΔWᵢ, rounded once; whether anything changed.

        Weights change in place, so that compiled networks see it; `set_adapters([])` brings back the same
        bits. What was computed from the weights before (keys and values of prompts, time embeddings) is out
        of date. Raises `UsageError` for unknown names and blocks and for weights that are no numbers, before
        anything is touched.
        """
        wanted = self._plan(weights)
        if tuple(weights) == self.active:
            return False
        try:
            with torch.no_grad():
                for part, path in {(part, path) for part, path, _ in self._originals} - wanted.keys():
                    self._restore(part, path)
                for (part, path), own in wanted.items():
                    self._merge(part, path, own)
        except BaseException:
            self._restore_all()
            raise
        self.active = tuple(weights)
        return True

    def fuse(self, weights: Sequence[AdapterWeight]) -> None:
        """Make these part of the weights for good; what was active is taken out. See `set_adapters`."""
        self.set_adapters(weights)
        self._originals.clear()
        self.active = ()

    def attach(self, weights: Sequence[AdapterWeight]) -> None:
        """Put these and no others beside the layers; the weights, and what is folded in, stay as they are.

        Slower than `set_adapters`, but ready at once. Raises `UsageError` as that does.
        """
        wanted = self._plan(weights)
        self.detach()
        for (part, path), own in wanted.items():
            layer = self.indexes[part].layers[path]
            for name, weight, delta in own:
                beside = copy.deepcopy(delta).to(layer.get_parameter("weight").device)
                live.attach(layer, live.AdapterLayer(name, beside, weight))

    def detach(self) -> None:
        """Take every attached adapter out of the networks, those in training too."""
        for net in self.networks.values():
            live.detach(net)

    def _plan(
        self, weights: Sequence[AdapterWeight]
    ) -> dict[tuple[str, str], list[tuple[str, float, Delta]]]:
        """What each layer gains: names, weights and changes; weights of 0 are left out."""
        wanted: dict[tuple[str, str], list[tuple[str, float, Delta]]] = {}
        for each in weights:
            adapter = self[each.name]
            if gone := [path for part, path in adapter.deltas if path not in self.indexes[part].layers]:
                raise UsageError(
                    f"the adapter {each.name!r} changes {gone[0]}, which is there only with a motion adapter"
                )
            for place, weight in blocks.layer_weights(each, adapter.deltas, self.indexes).items():
                wanted.setdefault(place, []).append((each.name, weight, adapter.deltas[place]))
        return wanted

    def _merge(self, part: str, path: str, own: Sequence[tuple[str, float, Delta]]) -> None:
        """Give one layer its original weights plus the changes."""
        layer = self.indexes[part].layers[path]
        device = layer.get_parameter("weight").device
        weight, bias = self._original(part, path, "weight").to(device), None
        if (part, path, "bias") in self._originals or any(delta.has(*SHIFTS) for _, _, delta in own):
            bias = self._original(part, path, "bias").to(device)
        weight, bias = merged(weight, bias, ((factor, delta) for _, factor, delta in own))
        _assign(layer, "weight", weight)
        if bias is not None:
            _assign(layer, "bias", bias)

    def _original(self, part: str, path: str, name: str) -> Tensor:
        """A parameter as it was before any adapter, kept in main memory while it is changed."""
        key = part, path, name
        if key not in self._originals:
            layer = self.indexes[part].layers[path]
            packed = name == "weight" and isinstance(layer, Prepacked)
            plain = layer.plain_weight() if packed else layer.get_parameter(name).data
            self._originals[key] = plain.to("cpu", copy=True)
        return self._originals[key]

    def _restore(self, part: str, path: str) -> None:
        for name in ("weight", "bias"):
            if (part, path, name) in self._originals:
                _assign(self.indexes[part].layers[path], name, self._originals[part, path, name])
                del self._originals[part, path, name]

    def _restore_all(self) -> None:
        with torch.no_grad():
            for part, path in {(part, path) for part, path, _ in self._originals}:
                self._restore(part, path)
        self.active = ()


def _assign(layer: nn.Module, name: str, value: Tensor) -> None:
    """Give a parameter other numbers in the memory that it has, or pack them anew where it is packed."""
    if name == "weight" and isinstance(layer, Prepacked) and layer.packed:
        layer.packed = ()
        layer.weight.data = value.to(layer.weight.dtype).clone()
        layer.pack()
    else:
        layer.get_parameter(name).data.copy_(value)
