"""The controls of a studio's drawings: their networks, read once, and what these are given for a picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from sfumato.checkpoint import Model
from sfumato.checkpoint.control import LoadedControl, load_control
from sfumato.checkpoint.families import FAMILIES
from sfumato.config.unet import EncoderConfig
from sfumato.control import Control
from sfumato.edit.control_pictures import control_picture
from sfumato.errors import CheckpointError
from sfumato.inputs import InputImage
from sfumato.nets.controlnet import ControlNet, ControlNetInputs
from sfumato.nets.denoiser import Denoiser
from sfumato.nets.inference import for_inference
from sfumato.nets.inputs import SizeConditioning
from sfumato.nets.network import AppliedControl
from sfumato.options import DeviceOptions

KEPT = 8
"""Pictures made ready that are remembered."""


@dataclass(frozen=True, eq=False)
class ReadyControl:
    """A ControlNet with its picture, ready for any text."""

    network: ControlNet
    condition: Tensor
    weight: float
    steps: range

    def of(self, states: Tensor, size: SizeConditioning | None) -> AppliedControl:
        """It for one text: `states` (1, T, D) and SDXL's `size`."""
        context = self.network.context(states.to(self.condition))
        if size is not None:
            size = size.to(self.condition.device, self.condition.dtype)
        return AppliedControl(
            self.network, ControlNetInputs(self.condition, context, size), self.weight, self.steps
        )


class Controls:
    """The networks of controls by what requests call them, for one model and its denoiser."""

    def __init__(
        self, model: Model, denoiser: Denoiser, options: DeviceOptions, *, local_files_only: bool
    ) -> None:
        self.model, self.denoiser, self.options = model, denoiser, options
        self.local_files_only = local_files_only
        self._loaded: dict[str, LoadedControl] = {}
        self._condition = lru_cache(maxsize=KEPT)(self._embedded)

    def add(self, control: LoadedControl) -> None:
        """Have a network that is in memory ready, under its name. Raises `CheckpointError`."""
        check_fits(control.name, control.network, self.model)
        denoiser, options = self.denoiser, self.options
        if options.trainable:
            control.network.to(denoiser.device, denoiser.dtype)
        else:
            for_inference(control.network, denoiser.device, denoiser.dtype, offload=options.offload)
        self._loaded[control.name] = control
        self._condition.cache_clear()

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
                        dtype=self.denoiser.dtype,
                        local_files_only=self.local_files_only,
                    )
                )
            self._condition(each.model, each.image, each.preprocessor, size)
        return {each.model: self._loaded[each.model].fingerprint for each in controls}

    def ready(
        self, controls: Sequence[Control], size: tuple[int, int], steps: range
    ) -> tuple[ReadyControl, ...]:
        """`controls`, fetched before, for a drawing of (width, height) `size` that takes `steps`."""
        made = []
        for each in controls:
            own = [step for step in steps if each.counts_in(step - steps.start, len(steps))]
            network = self._loaded[each.model].network
            condition = self._condition(each.model, each.image, each.preprocessor, size)
            counts = range(own[0], own[-1] + 1) if own else range(0)
            made.append(ReadyControl(network, condition, each.weight, counts))
        return tuple(made)

    def _embedded(self, name: str, image: InputImage, preprocessor: str, size: tuple[int, int]) -> Tensor:
        network, picture = self._loaded[name].network, control_picture(image, preprocessor, size)
        with torch.no_grad():
            return network.embed(picture.to(self.denoiser.device, network.dtype))


def check_fits(name: str, network: ControlNet, model: Model) -> None:
    """Raise `CheckpointError` where a ControlNet answers to another UNet than the model's."""
    own, unet = network.config, model.unet.config
    if own.skip_channels == unet.skip_channels and own.condition_factor == model.factor:
        attends = len(network.cross) > 0
        same_text = not attends or own.context[-1] == unet.context[-1]
        sizes = "addition_embed_type", "projection_class_embeddings_input_dim"
        same_sizes = all(getattr(own, key) == getattr(unet, key) for key in sizes)
        if same_text and same_sizes and own.in_channels == model.latent.channels:
            return
    raise CheckpointError(
        f"the ControlNet {name} is for {_described(own)}; {model.name} is {_described(unet)}"
    )


_TITLES = {family.context: family.title for family in FAMILIES.values()}


def _described(config: EncoderConfig) -> str:
    """A UNet or what goes beside one, as its configuration tells it."""
    widths, text = ", ".join(map(str, config.block_out_channels)), config.context[-1]
    return f"{_TITLES.get(text, 'another kind of model')} (levels of {widths} channels, text of {text})"
