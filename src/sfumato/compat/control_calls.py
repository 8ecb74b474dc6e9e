"""Calls that pictures steer through networks beside the UNet: ControlNets and T2I-Adapters."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import PIL.Image
import torch
from torch import Tensor

from sfumato.compat.arguments import optional, share
from sfumato.compat.call import Call
from sfumato.compat.control_models import Several, networks
from sfumato.compat.drawing import Steering
from sfumato.compat.image_processor import VaeImageProcessor
from sfumato.compat.picture_calls import ImageToImageCall, InpaintCall
from sfumato.compat.sources import number
from sfumato.errors import UsageError
from sfumato.nets.inference import for_inference
from sfumato.nets.inputs import SizeConditioning
from sfumato.nets.network import AppliedControl, ControlNetwork, Residuals
from sfumato.studio.control_fits import check_fits
from sfumato.studio.ready_controls import ReadyControlNet, ReadyT2IAdapter


@dataclass(frozen=True, eq=False)
class Graded:
    """A ControlNet in guess mode: what it adds grows from a tenth at the first skip to all in the middle."""

    network: ControlNetwork

    def residuals(self, x: Tensor, t: Tensor, inputs: Sequence[Any]) -> Residuals:
        found = self.network.residuals(x, t, inputs)
        scales = torch.logspace(-1, 0, len(found.skips) + 1).to(x)
        skips = tuple(skip * scale for skip, scale in zip(found.skips, scales[:-1], strict=True))
        return replace(found, skips=skips)


@dataclass(frozen=True, eq=False)
class Guessed(ReadyControlNet):
    """A ControlNet in guess mode."""

    graded: Graded

    def of(self, states: Tensor, size: SizeConditioning | None, negative: bool) -> AppliedControl:
        return replace(super().of(states, size, negative), network=self.graded)


class ControlCall(Call):
    """A call from noise that `image` steers."""

    SHOWN = "image"
    """The argument with the pictures that the networks are shown."""
    PLACE = "controlnet"
    """The pipeline's part with the networks."""
    shown: list[Tensor]
    """What each network is shown, (N, C, H, W) in [0, 1]."""

    def _size(self) -> tuple[int, int]:
        width, height = optional("width", self.given), optional("height", self.given)
        self.shown = self._read(height, width)
        return self._size_of(self.shown[0])

    def _read(self, height: int | None, width: int | None, **crop: Any) -> list[Tensor]:
        """What each network is shown. Raises `UsageError`."""
        pictures = self._for_each(self.given[self.SHOWN])
        processor = VaeImageProcessor(
            vae_scale_factor=self.pipe.model.factor,
            vae_latent_channels=0,
            do_normalize=False,
            do_convert_rgb=True,
        )
        return [processor.preprocess(each, height, width, **crop) for each in pictures]

    @property
    def networks(self) -> list[Any]:
        """The networks beside the UNet."""
        return networks(getattr(self.pipe, self.PLACE))

    def _for_each(self, pictures: Any) -> list[Any]:
        """The pictures of each network. Raises `UsageError` where there are not as many."""
        if pictures is None:
            raise UsageError(f"{type(self.pipe).__name__} is steered by a picture: give {self.SHOWN}")
        count = len(self.networks)
        if not isinstance(getattr(self.pipe, self.PLACE), Several):
            return [pictures]
        if not isinstance(pictures, list | tuple) or not pictures:
            raise UsageError(f"{self.SHOWN} must be a list of pictures, one for each of {count} networks")
        if isinstance(pictures[0], list | tuple):  # for each prompt the pictures of all networks
            pictures = [list(each) for each in zip(*pictures, strict=True)]
        if len(pictures) != count:
            raise UsageError(f"{len(pictures)} pictures as {self.SHOWN} were given for {count} networks")
        return list(pictures)

    def _numbers(self, name: str) -> list[float]:
        """One number for each network. Raises `UsageError`."""
        value, count = self.given[name], len(self.networks)
        each = list(value) if isinstance(value, list | tuple) else [value] * count
        if len(each) < count or (count > 1 and len(each) > count):
            raise UsageError(f"{name} has {len(each)} numbers for {count} networks")
        return [number(name, one) for one in each]

    def start(self) -> Tensor:
        latents = super().start()
        self.conditions = replace(self.conditions, controls=tuple(self._controls()))
        return latents

    @torch.no_grad()
    def _controls(self) -> list[Steering]:
        """The networks with what they are shown. Raises `UsageError` and `CheckpointError`."""
        studio, guess = self.pipe.studio, bool(self.given["guess_mode"])
        scales, starts, ends = (
            self._numbers(name)
            for name in ("controlnet_conditioning_scale", "control_guidance_start", "control_guidance_end")
        )
        made = []
        for index, (network, shown) in enumerate(zip(self.networks, self.shown, strict=True)):
            check_fits(f"number {index + 1}", network, self.pipe.model)
            for_inference(network, studio.device, studio.dtype, offload=studio.device_options.offload)
            embedded = network.embed(shown.to(studio.device, studio.dtype)).split(1)
            steps = self._steps(starts[index], ends[index])
            graded = Graded(network)
            ready = [
                Guessed(network, each, graded, weight=scales[index], steps=steps)
                if guess
                else ReadyControlNet(network, each, weight=scales[index], steps=steps)
                for each in embedded
            ]
            made.append(Steering(self._rows(ready), prompt_only=guess))
        return made

    def _rows(self, ready: list[Any]) -> list[Any]:
        """One of those that pictures were made ready as for each picture of the batch."""
        repeats = self.count if len(ready) == 1 else self.per_prompt
        rows = [each for each in ready for _ in range(repeats)]
        if len(rows) != self.count:
            raise UsageError(f"{len(ready)} pictures steer {self.count // self.per_prompt} prompts")
        return rows

    def _steps(self, start: float, end: float) -> range:
        """The evaluations that lie within two fractions of all. Raises `UsageError`."""
        if not 0 <= start < end <= 1:
            raise UsageError(
                f"control_guidance_start is {start:g} and control_guidance_end {end:g}: the first must be "
                "below the second, both from 0 to 1"
            )
        count = len(self.plan.evaluated)
        own = [index for index in range(count) if index / count >= start and (index + 1) / count <= end]
        return range(own[0], own[-1] + 1) if own else range(0)


class ControlImageToImageCall(ControlCall, ImageToImageCall):
    """A call from a picture that `control_image` steers."""

    SHOWN = "control_image"

    def _size(self) -> tuple[int, int]:
        width, height = optional("width", self.given), optional("height", self.given)
        self.image = self.pipe.image_processor.preprocess(self.given["image"], height, width)
        size = self._size_of(self.image)
        self.shown = self._read(size[1], size[0])
        return size


class ControlInpaintCall(ControlCall, InpaintCall):
    """A call into a picture that `control_image` steers."""

    SHOWN = "control_image"

    def _size(self) -> tuple[int, int]:
        size = InpaintCall._size(self)
        crop = {"resize_mode": self.mode, "crops_coords": self.crop}
        self.shown = self._read(size[1], size[0], **crop)
        return size

    def _wanted_size(self) -> tuple[int, int]:
        """That of the picture, unless another is given."""
        image, processor = self.given["image"], self.pipe.image_processor
        width, height = optional("width", self.given), optional("height", self.given)
        if isinstance(image, list | tuple) and image:
            image = image[0]
        if not isinstance(image, PIL.Image.Image):
            return self._size_of(processor.preprocess(image, height, width))
        high, wide = processor.get_default_height_width(image, height, width)
        return wide, high


class AdapterCall(ControlCall):
    """A call from noise that `image` steers through T2I-Adapters."""

    PLACE = "adapter"

    def _size(self) -> tuple[int, int]:
        width, height = optional("width", self.given), optional("height", self.given)
        pictures = zip(self.networks, self._for_each(self.given["image"]), strict=True)
        self.shown = [
            VaeImageProcessor(
                vae_scale_factor=network.config.downscale_factor,
                vae_latent_channels=0,
                do_normalize=False,
                do_convert_rgb=network.config.in_channels != 1,
                do_convert_grayscale=network.config.in_channels == 1,
            ).preprocess(each, height, width)
            for network, each in pictures
        ]
        return self._size_of(self.shown[0])

    @torch.no_grad()
    def _controls(self) -> list[Steering]:
        studio, scales = self.pipe.studio, self._numbers("adapter_conditioning_scale")
        part = share("adapter_conditioning_factor", self.given, "at least 0")
        steps = None if part is None else range(int(self.steps * part))
        made = []
        for index, (network, shown) in enumerate(zip(self.networks, self.shown, strict=True)):
            check_fits(f"number {index + 1}", network, self.pipe.model)
            for_inference(network, studio.device, studio.dtype, offload=studio.device_options.offload)
            features = [network(each.to(studio.device, studio.dtype)) for each in shown.split(1)]
            ready = [ReadyT2IAdapter(network, each, weight=scales[index], steps=steps) for each in features]
            times, rest = divmod(self.count, len(ready))
            if rest or not times:
                raise UsageError(f"{len(ready)} pictures steer {self.count} drawings")
            made.append(Steering(ready * times))
        return made
