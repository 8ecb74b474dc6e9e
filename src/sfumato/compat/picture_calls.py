"""Calls of pipelines that begin with pictures: image to image, inpainting, editing by instruction."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import PIL.Image
import torch
from torch import Tensor
from torch.nn import functional as F

from sfumato.compat.arguments import share
from sfumato.compat.call import Call
from sfumato.compat.drawing import CallState, StepResult
from sfumato.compat.models import AutoencoderKL
from sfumato.compat.noise import BatchNoise
from sfumato.compat.plan import SampleArgs, SamplingPlan
from sfumato.compat.sources import number, whole
from sfumato.diffusion.level import Level
from sfumato.edit.masks import Box
from sfumato.errors import UsageError

if TYPE_CHECKING:
    from sfumato.compat.pipeline import DiffusionPipeline


class PictureCall(Call):
    """A call with pictures, `image` (N, 3, H, W) in [−1, 1], or (N, C, h, w) where they are latents."""

    image: Tensor

    def __init__(self, pipe: "DiffusionPipeline", given: Mapping[str, Any]) -> None:
        if given["image"] is None:
            raise UsageError(f"{type(pipe).__name__} begins with a picture: give image")
        if pipe.vae is None:
            raise UsageError("the pipeline has no vae: it was loaded without it")
        super().__init__(pipe, given)

    def _size(self) -> tuple[int, int]:
        """Width and height in pixels, those of the picture."""
        self.image = self.pipe.image_processor.preprocess(self.given["image"])
        factor = self.pipe.model.factor if self.latent_image else 1
        return self.image.shape[-1] * factor, self.image.shape[-2] * factor

    @property
    def latent_image(self) -> bool:
        """Whether the pictures are latents."""
        return self.image.shape[1] != 3

    def encoded(self, pixels: Tensor, spread: bool = True) -> Tensor:
        """Pixels (N, 3, H, W) as the UNet's latents (N, C, h, w); latents are as they are.

        `spread`: whether they are drawn at random, by the caller's generators, or else the most likely.
        """
        studio = self.pipe.studio
        if pixels.shape[1] != 3:
            return pixels.to(studio.device, torch.float32)
        noise = self.spread(pixels).block() if spread and isinstance(self.pipe.vae, AutoencoderKL) else None
        return studio.decoders.encode(pixels, noise)

    def spread(self, pixels: Tensor) -> BatchNoise:
        """The noise by which the latents of pixels are drawn."""
        studio, generator = self.pipe.studio, self.generator
        if isinstance(generator, list | tuple):
            generator = generator[: len(pixels)]
        dtype = torch.float32 if self.pipe.UPCAST else studio.dtype
        return BatchNoise(generator, (len(pixels), *self.shape[1:]), studio.device, dtype)

    def filled(self, rows: Tensor, what: str) -> Tensor:
        """`rows` (N, …) one after another as often as it takes for all pictures. Raises `UsageError`."""
        times, rest = divmod(self.count, len(rows))
        if rest or not times:
            raise UsageError(f"{len(rows)} {what} were given for {self.count} pictures")
        return rows.repeat(times, *(1 for _ in rows.shape[1:]))


class ImageToImageCall(PictureCall):
    """A call that begins in the middle, as `strength` or `denoising_start` say, with the noise there."""

    def _args(self) -> SampleArgs:
        args = super()._args()
        strength = share("strength", self.given, "at least 0")
        if strength is None:
            raise UsageError("strength is None: must be a number from 0 to 1")
        self.strength = strength
        return self._begun(args)

    def _begun(self, args: SampleArgs) -> SampleArgs:
        """The arguments with what is left out at the start. Raises `UsageError` where nothing is left."""
        if (start := self.state.denoising_start) is not None:
            order, cut = self.pipe.scheduler.order, self.cutoff(start)
            times = [level.t for level in self.pipe.scheduler.plan(args).evaluated]
            first = (len(times) - sum(t < cut for t in times)) // order
            return replace(args, first=first)
        taken = int(args.steps * self.strength)
        if taken < 1:
            raise UsageError(
                f"strength is {self.strength:g}: of {args.steps} steps none is left; num_inference_steps × "
                "strength must be at least 1"
            )
        return replace(args, first=args.steps - taken)

    def _plan(self) -> tuple[SamplingPlan, int]:
        args = self._args()
        if args.first >= args.steps:
            raise UsageError(f"denoising_start is {self.state.denoising_start:g}: no step comes after it")
        return self.pipe.scheduler.plan(args), args.steps - args.first

    def start(self) -> Tensor:
        if self.latents is not None:
            return self.latents.to(self.pipe.studio.device, torch.float32)
        image = self.image
        if isinstance(self.generator, list | tuple):
            image = self.filled(image, "pictures")
        known = self.filled(self.encoded(image), "pictures")
        if self.state.denoising_start is not None:
            return known
        return self.noisy(known, self.noise().block(), self.plan.levels[0])

    def noisy(self, known: Tensor, eps: Tensor, level: Level) -> Tensor:
        """Latents (B, C, h, w) with noise, in the scale of diffusers' scheduler."""
        return level.noisy(known, eps) / self.plan.scale(level)


class ConsistencyCall(ImageToImageCall):
    """A call of a latent consistency model, whose steps are chosen from the times that `strength` leaves."""

    def _begun(self, args: SampleArgs) -> SampleArgs:
        return super()._begun(args) if args.timesteps is not None else replace(args, strength=self.strength)


class InpaintCall(ImageToImageCall):
    """A call that draws where a mask is white.

    `mask` (B, 1, h, w): 1 where the latents are drawn. `known`, `eps` (B, C, h, w): what is kept elsewhere,
    and the noise that it is shown with. `masked` (B, C, h, w): the latents of the picture without what is
    drawn, for networks that read them.
    """

    def _size(self) -> tuple[int, int]:
        given, pipe = self.given, self.pipe
        if given["mask_image"] is None:
            raise UsageError(f"{type(pipe).__name__} draws where a mask is white: give mask_image")
        width, height = self._wanted_size()
        self.crop: Box | None = None
        self.mode = "default"
        if given["padding_mask_crop"] is not None:
            for name in ("image", "mask_image"):
                if not isinstance(given[name], PIL.Image.Image):
                    raise UsageError(f"padding_mask_crop needs a PIL image as {name}")
            if self.output_type != "pil":
                raise UsageError(f"padding_mask_crop needs output_type 'pil', not {self.output_type!r}")
            padding = whole("padding_mask_crop", given["padding_mask_crop"])
            self.crop = pipe.mask_processor.get_crop_region(given["mask_image"], width, height, pad=padding)
            self.mode = "fill"
        fit = height, width, self.mode, self.crop
        self.image = pipe.image_processor.preprocess(given["image"], *fit)
        self.pixel_mask = pipe.mask_processor.preprocess(given["mask_image"], *fit)
        return width, height

    def _wanted_size(self) -> tuple[int, int]:
        """Width and height in pixels, by default those of training."""
        return Call._size(self)

    @property
    def keeps(self) -> bool:
        """Whether what is known is mixed in, since the network does not see it."""
        return self.pipe.model.task == "text"

    def start(self) -> Tensor:
        given, state = self.given, self.given_latents()
        pure, begun = self.strength == 1.0, self.state.denoising_start is not None
        if self.latent_image and self.image.shape[1:] != self.shape[1:]:
            raise UsageError(
                f"image has latents of the shape {tuple(self.image.shape[1:])}: "
                f"this call's are {self.shape[1:]}"
            )
        known = None
        if self.latent_image or self.keeps or begun or (state is None and not pure):
            known = self.filled(self.encoded(self.image), "pictures")
        eps = self.noise().block() if state is None or begun else state
        latents = eps * self.plan.init_noise_sigma
        if known is not None and begun:
            latents = known
        elif known is not None and state is None and not pure:
            latents = self.noisy(known, eps, self.plan.levels[0])
        width, height = self.size
        factor = self.pipe.model.factor
        mask = F.interpolate(self.pixel_mask, size=(height // factor, width // factor))
        self.mask = self.filled(mask, "masks").to(latents)
        self.known, self.eps = known, eps
        self.masked = self._masked(given.get("masked_image_latents"))
        if not self.keeps:
            self._show()
        return latents

    def _masked(self, given: Tensor | None) -> Tensor | None:
        """The latents of what is not drawn; its noise is drawn even if nobody reads them, as in diffusers."""
        if given is not None:
            return self.filled(given.to(self.pipe.studio.device, torch.float32), "masked_image_latents")
        if self.latent_image:
            if not self.keeps:
                raise UsageError("a picture given as latents cannot be masked: give masked_image_latents too")
            return None
        pixels = self.image * (self.pixel_mask < 0.5)
        if self.keeps and "masked_image_latents" not in self.step_end_inputs:
            if isinstance(self.pipe.vae, AutoencoderKL):
                self.spread(pixels).block()
            return None
        return self.filled(self.encoded(pixels), "pictures")

    def _show(self) -> None:
        """Give the network the mask and what is not drawn."""
        assert self.masked is not None
        kinds = len(self.conditions.states) // self.count
        channels = torch.cat([self.mask, self.masked], dim=1)
        self.conditions = replace(self.conditions, channels=channels.repeat(kinds, 1, 1, 1))

    def mixed(self, result: StepResult) -> Tensor:
        if not self.keeps:
            return result.latents
        assert self.known is not None
        known = self.noisy(self.known, self.eps, result.level)
        return (1 - self.mask) * known + self.mask * result.latents

    def finished(self, images: Any) -> Any:
        if self.crop is None:
            return images
        overlay, given = self.pipe.image_processor.apply_overlay, self.given
        return [overlay(given["mask_image"], given["image"], each, self.crop) for each in images]

    def offered(self) -> dict[str, Any]:
        kinds = len(self.conditions.states) // self.count
        own = {"mask": self.mask, "masked_image_latents": self.masked}
        repeated = {name: None if rows is None else rows.repeat(kinds, 1, 1, 1) for name, rows in own.items()}
        return {**super().offered(), **repeated}

    def change(self, changed: Mapping[str, Any]) -> None:
        own = {name: changed[name] for name in ("mask", "masked_image_latents") if name in changed}
        super().change({name: value for name, value in changed.items() if name not in own})
        self.mask = own.get("mask", self.mask)[: self.count].to(self.mask)
        if "masked_image_latents" in own:
            self.masked = own["masked_image_latents"][: self.count]
        if own and not self.keeps:
            self._show()


class InstructionCall(PictureCall):
    """A call that edits pictures by instruction: `image_latents` (R·B, C, h, w) go beside the latents."""

    def _state(self) -> CallState:
        scale = number("image_guidance_scale", self.given["image_guidance_scale"])
        return replace(super()._state(), image_guidance_scale=scale)

    def _size(self) -> tuple[int, int]:
        if "width" not in self.given:
            return super()._size()
        width, height = super(PictureCall, self)._size()
        self.image = self.pipe.image_processor.preprocess(self.given["image"], height, width)
        return width, height

    def start(self) -> Tensor:
        vae = self.pipe.model.vae
        image = self.image.to(self.pipe.studio.device, torch.float32)
        if image.shape[1] == 3:
            # as it was trained: the raw latents
            image = vae.unscale(self.encoded(image, spread=False))
            if self.pipe.model.index.get("is_cosxl_edit"):
                image = image * vae.config.scaling_factor
        image = self.filled(image, "pictures")
        guided = len(self.conditions.states) > self.count
        channels = torch.cat([image, image, torch.zeros_like(image)]) if guided else image
        self.conditions = replace(self.conditions, channels=channels)
        return super().start()

    def offered(self) -> dict[str, Any]:
        return {**super().offered(), "image_latents": self.conditions.channels}

    def change(self, changed: Mapping[str, Any]) -> None:
        others = {name: value for name, value in changed.items() if name != "image_latents"}
        super().change(others)
        channels = changed.get("image_latents", self.conditions.channels)
        self.conditions = replace(self.conditions, channels=channels)
