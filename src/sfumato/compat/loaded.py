"""A loaded model under diffusers' names, and the `Studio` that draws with it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from threading import RLock
from typing import Any

import torch

from sfumato import checkpoint
from sfumato.checkpoint.saving import tokenizer_names
from sfumato.compat.assembling import assembled
from sfumato.compat.ip_adapter import IPAdapters
from sfumato.compat.loaders import AdapterState, LoaderMixin
from sfumato.compat.models import as_part, part_of
from sfumato.compat.tokenizers import CLIPTokenizer, as_tokenizer
from sfumato.names import TEXT2VIDEO_ZERO
from sfumato.nets.inference import for_inference
from sfumato.options import DEFAULT_DEVICE, DeviceOptions, ModelOptions
from sfumato.studio import Studio
from sfumato.studio.library import Library

TILE = 64
"""Latent cells to a side of the tiles of `enable_vae_tiling`."""
NETWORKS = ("unet", "vae", "text_encoder", "text_encoder_2")
TOKENIZERS = ("tokenizer", "tokenizer_2")


def component(name: str, value: Any) -> Any:
    """A network or a tokenizer in the place `name`."""
    if value is None:
        return None
    return as_tokenizer(value) if name in TOKENIZERS else as_part(name, value)


@dataclass(eq=False)
class LoadedModel(LoaderMixin):
    """A model and the studio that draws with it: pipelines made from one another share it.

    `options` but for the device and the precision, which are those of the UNet, unless weights stay in main
    memory. `parts`: its networks and tokenizers under diffusers' names. `left_out`: parts given as `None`.
    `library` outlives the studio that was `made` last.
    """

    model: checkpoint.Model
    source: str
    parts: dict[str, Any] = field(default_factory=dict)
    left_out: frozenset[str] = frozenset()
    options: DeviceOptions = DEFAULT_DEVICE
    state: AdapterState = field(default_factory=AdapterState)
    library: Library | None = None
    made: Studio | None = None
    lock: RLock = field(default_factory=RLock)
    ip_adapters: IPAdapters = field(default_factory=IPAdapters)

    def __post_init__(self) -> None:
        for name, network in self.model.networks.items():
            part = self.parts.setdefault(name, part_of(network))
            part.loaded = self
        for name, tokenizer in zip(tokenizer_names(self.model), self.model.tokenizers, strict=True):
            self.parts.setdefault(name, CLIPTokenizer(tokenizer))

    def part(self, name: str) -> Any:
        """A network or a tokenizer, `None` if it was left out or there is none."""
        return None if name in self.left_out else self.parts.get(name)

    @property
    def device(self) -> torch.device:
        """Where the networks compute."""
        if self.options.offload:
            return torch.device(str(self.options.device))
        device: torch.device = self.parts["unet"].device
        return device

    @property
    def adapters(self) -> AdapterState:
        return self.state

    @property
    def components(self) -> dict[str, Any]:
        return {name: self.part(name) for name in self.parts}

    @property
    def studio(self) -> Studio:
        """The studio that draws, made anew when the device, the precision or the memory savings change."""
        with self.lock:
            return self._studio()

    def _studio(self) -> Studio:
        unet, old = self.parts["unet"], self.made
        options = replace(
            self.options,
            device=str(self.device),
            dtype=str(unet.dtype).removeprefix("torch."),
            tile=TILE if self.parts["vae"].use_tiling else None,
            compiled=unet.compiled,
        )
        if old is None or old.device_options != options:
            if old is not None:
                old.adapt((), motion=TEXT2VIDEO_ZERO)
            self.made = Studio(self.model, ModelOptions(self.source), options)
            self.library = self.made.library = self.library or self.made.library
        assert self.made is not None
        home = torch.device("cpu") if options.offload else self.device
        for encoder in self.model.text_encoders:
            weight = encoder.final_layer_norm.weight
            if (weight.device, weight.dtype) != (home, self.made.dtype):  # a program has moved it by itself
                for_inference(encoder, self.device, self.made.dtype, offload=options.offload)
        return self.made

    def move(self, device: torch.device, dtype: torch.dtype) -> None:
        """Bring every network to a device and a precision."""
        if self.options.offload:
            self.options = replace(self.options, device=str(device))
        for network in self.model.networks.values():
            for_inference(network, device, dtype, offload=self.options.offload)

    def varied(self, changes: Mapping[str, Any]) -> "LoadedModel":
        """The same with other parts; adapters and embeddings stay unless their networks change."""
        given = {name: part for name, part in changes.items() if part is not None}
        parts = self.parts | given
        networks = {name: parts[name].network for name in self.model.networks}
        tokenizers = [parts[name].tokenizer for name in TOKENIZERS if name in parts]
        own = given.keys() & {"unet", "text_encoder", "text_encoder_2"}
        return LoadedModel(
            assembled(networks, tokenizers, self.model.scheduler, self.model) if given else self.model,
            self.source,
            parts,
            (self.left_out - given.keys()) | (changes.keys() - given.keys()),
            self.options,
            AdapterState() if own else self.state,
            None if own else self.library,
            ip_adapters=IPAdapters(encoder=self.ip_adapters.encoder) if "unet" in given else self.ip_adapters,
        )
