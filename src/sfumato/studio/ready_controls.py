"""What each kind of control makes of its pictures: ControlNets, T2I-Adapters and IP-Adapters."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import PIL.Image
import torch
from torch import Tensor

from sfumato.edit.canvas import on_white
from sfumato.edit.clip_picture import clip_picture
from sfumato.edit.control_pictures import control_picture
from sfumato.errors import UsageError
from sfumato.inputs import InputImage
from sfumato.nets.controlnet import ControlNet, ControlNetInputs
from sfumato.nets.inputs import KV, ImageKV, SizeConditioning
from sfumato.nets.ip_adapter import IPAdapter
from sfumato.nets.network import AppliedControl, AppliedImage
from sfumato.nets.t2i_adapter import T2IAdapter
from sfumato.nets.unet import UNet
from sfumato.nets.vision import CLIPVision

GREY = (0.299, 0.587, 0.114)
"""What red, green and blue count in a grey (ITU-R BT.601), as in Pillow."""


@dataclass(frozen=True, eq=False)
class ReadyControl(ABC):
    """A control with its pictures, ready for any text, to count `weight` in `steps`, or in all."""

    weight: float = field(default=1.0, kw_only=True)
    steps: range | None = field(default=None, kw_only=True)

    @abstractmethod
    def of(
        self, states: Tensor, size: SizeConditioning | None, negative: bool
    ) -> AppliedControl | AppliedImage:
        """It for one text: `states` (1, T, D), SDXL's `size`, and whether it is that of a negative prompt."""


@dataclass(frozen=True, eq=False)
class ReadyControlNet(ReadyControl):
    """A ControlNet, and its picture as it has embedded it."""

    network: ControlNet
    condition: Tensor

    def of(self, states: Tensor, size: SizeConditioning | None, negative: bool) -> AppliedControl:
        context = self.network.context(states.to(self.condition))
        if size is not None:
            size = size.to(self.condition.device, self.condition.dtype)
        inputs = ControlNetInputs(self.condition, context, size)
        return AppliedControl(self.network, inputs, self.weight, self.steps)


@dataclass(frozen=True, eq=False)
class ReadyT2IAdapter(ReadyControl):
    """A T2I-Adapter, and the features of its picture."""

    network: T2IAdapter
    features: tuple[Tensor, ...]

    def of(self, states: Tensor, size: SizeConditioning | None, negative: bool) -> AppliedControl:
        return AppliedControl(self.network, self.features, self.weight, self.steps)


@dataclass(frozen=True, eq=False)
class ReadyIPAdapter(ReadyControl):
    """An IP-Adapter's keys and values for its pictures, and for none, which go with a negative prompt."""

    pictures: tuple[KV, ...]
    nothing: tuple[KV, ...]

    def of(self, states: Tensor, size: SizeConditioning | None, negative: bool) -> AppliedImage:
        pairs = self.nothing if negative else self.pictures
        weights = pairs[0][0].new_full((1, len(pairs)), self.weight)
        return AppliedImage(ImageKV(pairs, weights), self.steps)


def ready_controlnet(
    network: ControlNet, image: InputImage, preprocessor: str, size: tuple[int, int], device: torch.device
) -> ReadyControlNet:
    """For a drawing of (width, height) `size`. Raises `UsageError` if the preprocessor is not installed."""
    picture = control_picture(image, preprocessor, size)
    return ReadyControlNet(network, network.embed(picture.to(device, network.dtype)))


def ready_t2i_adapter(
    network: T2IAdapter, image: InputImage, preprocessor: str, size: tuple[int, int], device: torch.device
) -> ReadyT2IAdapter:
    """As `ready_controlnet`. Raises `UsageError` too for sizes that the adapter cannot read."""
    factor = network.config.downscale_factor
    for side, pixels in zip(("width", "height"), size, strict=True):
        if pixels % factor:
            raise UsageError(f"{side} is {pixels}: with this T2I-Adapter it must be a multiple of {factor}")
    picture = control_picture(image, preprocessor, size)
    if network.config.in_channels == 1:
        picture = (picture * torch.tensor(GREY)[:, None, None]).sum(1, keepdim=True)
    return ReadyT2IAdapter(network, network(picture.to(device, network.dtype)))


def ready_ip_adapter(
    network: IPAdapter, encoder: CLIPVision, unet: UNet, images: Sequence[InputImage], device: torch.device
) -> ReadyIPAdapter:
    """Of one picture or several, which are read together. `encoder`: what the adapter sees them through."""
    side = encoder.config.image_size
    shown = [clip_picture(PIL.Image.fromarray(on_white(image.rgba)), side) for image in images]
    pixels = torch.cat(shown).to(device, network.dtype)
    seen = encoder(pixels)
    if network.config.pooled:
        given, none = seen.pooled, torch.zeros_like(seen.pooled)
    else:
        # no picture is what CLIP sees of zeros, as in training
        given, none = seen.states, encoder(torch.zeros_like(pixels)).states
    return ReadyIPAdapter(unet.image_pairs(network(given)), unet.image_pairs(network(none)))
