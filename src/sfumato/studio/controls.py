"""The controls of a studio's drawings: their networks, read once, and what these are given for a picture."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache

import torch
from torch import nn

from sfumato.checkpoint import Model
from sfumato.checkpoint.control import LoadedControl, load_control
from sfumato.checkpoint.layout import Part
from sfumato.checkpoint.loading import build
from sfumato.control import Control
from sfumato.errors import UsageError
from sfumato.inputs import InputImage
from sfumato.nets.denoiser import Denoiser
from sfumato.nets.inference import for_inference
from sfumato.nets.ip_adapter import IPAdapter
from sfumato.nets.t2i_adapter import T2IAdapter
from sfumato.nets.vision import CLIPVision
from sfumato.options import DeviceOptions
from sfumato.studio.control_fits import check_fits
from sfumato.studio.ready_controls import (
    ReadyControl,
    ready_controlnet,
    ready_ip_adapter,
    ready_t2i_adapter,
)

KEPT = 8
"""Pictures made ready that are remembered."""


class Controls:
    """The networks of controls by what requests call them, for one model and its denoiser."""

    def __init__(
        self, model: Model, denoiser: Denoiser, options: DeviceOptions, *, local_files_only: bool
    ) -> None:
        self.model, self.denoiser, self.options = model, denoiser, options
        self.local_files_only = local_files_only
        self.names_only = False
        """Whether requests may name only what the user's folder holds, and no paths."""
        self._loaded: dict[str, LoadedControl] = {}
        self._encoders: dict[str, CLIPVision] = {}
        """The image encoders by their folders: IP-Adapters of one make share one."""
        self._embedded = lru_cache(maxsize=KEPT)(self._embed)

    def add(self, control: LoadedControl) -> None:
        """Have a network that is in memory ready, under its name. Raises `CheckpointError`."""
        check_fits(control.name, control.network, self.model)
        self._place(control.network)
        if control.encoder is not None:
            control = replace(control, encoder=self._encoder(control.encoder))
        self._loaded[control.name] = control
        self._embedded.cache_clear()

    def networks(self) -> Iterator[nn.Module]:
        """Those that are in memory, also the image encoders."""
        yield from (each.network for each in self._loaded.values())
        yield from self._encoders.values()

    def fetch(self, controls: Sequence[Control], size: tuple[int, int]) -> dict[str, str]:
        """Have the networks and the pictures of `controls` ready; the networks' fingerprints, by their names.

        `size`: (width, height) of the drawing. Raises `CheckpointError`, `PictureError` and `UsageError`.
        """
        for each in controls:
            if each.model not in self._loaded:
                self.add(
                    load_control(
                        each.model,
                        self.model.unet.config,
                        own=self.model.controls,
                        image_encoder=self.model.image_encoder,
                        dtype=self.denoiser.dtype,
                        local_files_only=self.local_files_only,
                        names_only=self.names_only,
                    )
                )
            self._embedded(each.model, each.images, each.preprocessor, size)
        return {each.model: self._loaded[each.model].fingerprint for each in controls}

    def ready(
        self, controls: Sequence[Control], size: tuple[int, int], steps: range
    ) -> tuple[ReadyControl, ...]:
        """`controls`, fetched before, for a drawing of (width, height) `size` that takes `steps`."""
        made = []
        for each in controls:
            own = [step for step in steps if each.counts_in(step - steps.start, len(steps))]
            counts = range(own[0], own[-1] + 1) if own else range(0)
            embedded = self._embedded(each.model, each.images, each.preprocessor, size)
            made.append(replace(embedded, weight=each.weight, steps=counts))
        return tuple(made)

    @torch.no_grad()
    def _embed(
        self, name: str, images: tuple[InputImage, ...], preprocessor: str, size: tuple[int, int]
    ) -> ReadyControl:
        loaded, device = self._loaded[name], self.denoiser.device
        network = loaded.network
        if isinstance(network, IPAdapter):
            if preprocessor != "none":
                raise UsageError(
                    f"preprocessor is {preprocessor}: the IP-Adapter {name} reads pictures as they are"
                )
            assert isinstance(loaded.encoder, CLIPVision)
            return ready_ip_adapter(network, loaded.encoder, self.model.unet, images, device)
        if len(images) > 1:
            raise UsageError(f"{len(images)} pictures are given to the control {name}, which reads one")
        if isinstance(network, T2IAdapter):
            return ready_t2i_adapter(network, images[0], preprocessor, size, device)
        return ready_controlnet(network, images[0], preprocessor, size, device)

    def _encoder(self, given: CLIPVision | Part) -> CLIPVision:
        """An image encoder where it computes."""
        if isinstance(given, Part):
            if given.where not in self._encoders:
                built = build(given, self.denoiser.dtype)
                assert isinstance(built, CLIPVision)
                self._place(built)
                self._encoders[given.where] = built
            return self._encoders[given.where]
        self._place(given)
        return given

    def _place(self, network: nn.Module) -> None:
        """Bring a network to where it computes."""
        device, dtype = self.denoiser.device, self.denoiser.dtype
        if self.options.trainable:
            network.to(device, dtype)
        else:
            for_inference(network, device, dtype, offload=self.options.offload)
