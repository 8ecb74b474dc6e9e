"""The pipelines of diffusers that draw clips, with the same arguments and defaults."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import PIL.Image
import torch
from torch import Tensor
from torch.nn import functional as F

from sfumato import checkpoint
from sfumato.checkpoint.layout import ENCODER
from sfumato.checkpoint.motion import LoadedMotion
from sfumato.compat.arguments import Size, StepEnd, Text, optional, share
from sfumato.compat.call import Call
from sfumato.compat.drawing import Conditions
from sfumato.compat.families import LATENTS, StableDiffusion, StableDiffusionXL
from sfumato.compat.free_init import FreeInit
from sfumato.compat.models import CLIPVisionModelWithProjection
from sfumato.compat.noise import BatchNoise, Generators
from sfumato.compat.outputs import (
    AnimateDiffPipelineOutput,
    PIAPipelineOutput,
    StableVideoDiffusionPipelineOutput,
    TextToVideoSDPipelineOutput,
    pixels_in_form,
)
from sfumato.compat.pipeline import DiffusionPipeline
from sfumato.compat.plan import SampleArgs, SamplingPlan
from sfumato.compat.sources import number, whole
from sfumato.edit.clip_picture import clip_pixels
from sfumato.errors import UsageError
from sfumato.studio import Studio
from sfumato.studio.pia import SCALES, picture_channels

_LEFT_OUT = {"num_images_per_prompt": 1, "cross_attention_kwargs": None}
"""Arguments of calls that these pipelines have not."""


class VideoCall(Call):
    """A call that draws clips."""

    CHUNK: ClassVar[str] = ""
    """The argument that says how many frames are decoded at once, all unless given; "" for one by one."""

    def __init__(self, pipe: "DiffusionPipeline", given: Mapping[str, Any]) -> None:
        frames = optional("num_frames", given)
        self.frames = (pipe.model.info.frames or 1) if frames is None else frames
        if self.frames < 1:
            raise UsageError(f"num_frames is {self.frames}: must be at least 1")
        super().__init__(pipe, _LEFT_OUT | dict(given))

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all latents, (B, C, F, h, w)."""
        return (self.count, *self.pipe.model.latent.shape(self.size, frames=self.frames)[1:])

    def drawn(self, latents: Tensor) -> Any:
        studio = self.pipe.studio
        if self.output_type == "latent":
            return latents.to(studio.dtype)
        size = 1
        if self.CHUNK:
            chunk = optional(self.CHUNK, self.given)
            size = self.frames if chunk is None else chunk
        if size < 1:
            raise UsageError(f"{self.CHUNK} is {size}: must be at least 1")
        # as in diffusers the frames of all clips are one row, of which some are decoded at once
        row = latents.transpose(0, 1).flatten(1, 2)[None]
        parts = [studio.decoders.decode(part).float() for part in row.split(size, dim=2)]
        pixels = (torch.cat(parts, dim=2)[0].transpose(0, 1) / 2 + 0.5).clamp(0, 1)
        clips = [pixels_in_form(clip, self.output_type) for clip in pixels.split(self.frames)]
        if self.output_type == "pil":
            return clips
        return torch.stack(clips) if self.output_type == "pt" else np.stack(clips)


class TextToVideoSDPipeline(StableDiffusion):
    """ModelScope's text to video (Wang et al. 2023)."""

    CALL = VideoCall
    OPTIONAL: ClassVar[tuple[str, ...]] = ()
    OUTPUT = TextToVideoSDPipelineOutput

    def __init__(self, vae: Any, text_encoder: Any, tokenizer: Any, unet: Any, scheduler: Any) -> None:
        """Of parts of these names in diffusers. Raises `UsageError` and `CheckpointError`."""
        DiffusionPipeline.__init__(self, locals())

    @classmethod
    def fits(cls, model: checkpoint.Model) -> bool:
        return model.kind == "modelscope"

    def __call__(
        self,
        prompt: Text = None,
        height: int | None = None,
        width: int | None = None,
        num_frames: int = 16,
        num_inference_steps: int = 50,
        guidance_scale: float = 9.0,
        negative_prompt: Text = None,
        eta: float = 0.0,
        generator: Generators = None,
        latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        output_type: str = "np",
        return_dict: bool = True,
        callback: Callable[..., Any] | None = None,
        callback_steps: int = 1,
        cross_attention_kwargs: Mapping[str, Any] | None = None,
        clip_skip: int | None = None,
    ) -> Any:
        """Draw clips. Raises `UsageError`."""
        return self._draw(locals())


class AnimatedCall(VideoCall):
    """A call of AnimateDiff."""

    CHUNK = "decode_chunk_size"

    def __init__(self, pipe: "DiffusionPipeline", given: Mapping[str, Any]) -> None:
        super().__init__(pipe, given)
        known = pipe.motion_adapter.network.frames
        if self.frames > known:
            raise UsageError(f"num_frames is {self.frames}: the motion adapter knows {known} frames")

    def sampled(self, latents: Tensor) -> Tensor:
        """With FreeInit drawn several times."""
        again, first, steps = self.pipe.free_init, latents, self.steps
        if again is None:
            return super().sampled(latents)
        for iteration in range(again.num_iters):
            if iteration:
                last = torch.tensor([self.pipe.scheduler.config["num_train_timesteps"] - 1])
                noisy = self.pipe.scheduler.add_noise(latents, first, last.expand(len(latents)))
                latents = again.mixed(noisy.float(), self.noise(torch.float32).block())
            self.steps = again.steps(iteration, steps)
            self.plan = self.pipe.scheduler.plan(replace(self._args(), steps=self.steps))
            latents = super().sampled(latents)
        return latents


class Animated(DiffusionPipeline):
    """What pipelines with a motion adapter have in common."""

    CALL = AnimatedCall
    BESIDE = ("motion_adapter",)
    free_init: FreeInit | None = None

    def enable_free_init(
        self,
        num_iters: int = 3,
        use_fast_sampling: bool = False,
        method: str = "butterworth",
        order: int = 4,
        spatial_stop_frequency: float = 0.25,
        temporal_stop_frequency: float = 0.25,
    ) -> None:
        """Draw each clip several times (FreeInit, Wu et al. 2023). Raises `UsageError`."""
        frequencies = spatial_stop_frequency, temporal_stop_frequency
        self.free_init = FreeInit(num_iters, use_fast_sampling, method, order, *frequencies)

    def disable_free_init(self) -> None:
        """Draw each clip once."""
        self.free_init = None

    @property
    def free_init_enabled(self) -> bool:
        return self.free_init is not None

    @property
    def motion_name(self) -> str:
        """What its motion adapter is called by the studio, which has it ready."""
        studio, network = self._loaded.studio, self.motion_adapter.network
        name = f"motion_adapter {id(network)}"
        with studio.lock:
            if name not in studio.motions:
                # the scheduler knows the noise
                studio.motions.add(LoadedMotion(name, network, name, linear=False))
        return name

    @property
    def studio(self) -> Studio:
        """The studio that draws, with the motion adapter in its UNet."""
        studio, name = self._loaded.studio, self.motion_name
        with studio.lock:
            if studio.motions.attached != name:
                studio.adapt(studio.adapters.active, motion=name)
        return studio


class AnimateDiffPipeline(Animated, StableDiffusion):
    """Stable Diffusion with a motion adapter (AnimateDiff, Guo et al. 2023)."""

    OUTPUT = AnimateDiffPipelineOutput
    OPTIONAL: ClassVar[tuple[str, ...]] = ("feature_extractor", ENCODER)

    def __init__(
        self,
        vae: Any,
        text_encoder: Any,
        tokenizer: Any,
        unet: Any,
        motion_adapter: Any,
        scheduler: Any,
        feature_extractor: Any = None,
        image_encoder: Any = None,
    ) -> None:
        """Of parts of these names in diffusers. Raises `UsageError` and `CheckpointError`."""
        DiffusionPipeline.__init__(self, locals())

    def __call__(
        self,
        prompt: Text = None,
        num_frames: int | None = 16,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 50,
        guidance_scale: float = 7.5,
        negative_prompt: Text = None,
        num_videos_per_prompt: int | None = 1,
        eta: float = 0.0,
        generator: Generators = None,
        latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        ip_adapter_image: Any = None,
        ip_adapter_image_embeds: Sequence[Tensor] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        cross_attention_kwargs: Mapping[str, Any] | None = None,
        clip_skip: int | None = None,
        callback_on_step_end: StepEnd | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = LATENTS,
        decode_chunk_size: int = 16,
        **others: Any,
    ) -> Any:
        """Draw clips, one of each prompt: as diffusers does, whatever `num_videos_per_prompt` is.

        Raises `UsageError`.
        """
        return self._draw(locals())


class AnimateDiffSDXLPipeline(Animated, StableDiffusionXL):
    """SDXL with a motion adapter."""

    OUTPUT = AnimateDiffPipelineOutput

    def __init__(
        self,
        vae: Any,
        text_encoder: Any,
        text_encoder_2: Any,
        tokenizer: Any,
        tokenizer_2: Any,
        unet: Any,
        motion_adapter: Any,
        scheduler: Any,
        image_encoder: Any = None,
        feature_extractor: Any = None,
        force_zeros_for_empty_prompt: bool = True,
    ) -> None:
        """Of parts of these names in diffusers. Raises `UsageError` and `CheckpointError`."""
        DiffusionPipeline.__init__(self, locals())

    def __call__(
        self,
        prompt: Text = None,
        prompt_2: Text = None,
        num_frames: int = 16,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 50,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
        denoising_end: float | None = None,
        guidance_scale: float = 5.0,
        negative_prompt: Text = None,
        negative_prompt_2: Text = None,
        num_videos_per_prompt: int | None = 1,
        eta: float = 0.0,
        generator: Generators = None,
        latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        pooled_prompt_embeds: Tensor | None = None,
        negative_pooled_prompt_embeds: Tensor | None = None,
        ip_adapter_image: Any = None,
        ip_adapter_image_embeds: Sequence[Tensor] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        cross_attention_kwargs: Mapping[str, Any] | None = None,
        guidance_rescale: float = 0.0,
        original_size: Size = None,
        crops_coords_top_left: tuple[int, int] = (0, 0),
        target_size: Size = None,
        negative_original_size: Size = None,
        negative_crops_coords_top_left: tuple[int, int] = (0, 0),
        negative_target_size: Size = None,
        clip_skip: int | None = None,
        callback_on_step_end: StepEnd | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = LATENTS,
    ) -> Any:
        """Draw clips; sizes are (height, width) in pixels, as diffusers has them. Raises `UsageError`."""
        return self._draw(locals())

    def encode_prompt(  # type: ignore[override]
        self,
        prompt: Text = None,
        prompt_2: Text = None,
        device: torch.device | None = None,
        num_videos_per_prompt: int = 1,
        do_classifier_free_guidance: bool = True,
        *others: Any,
        **more: Any,
    ) -> tuple[Any, Any, Any, Any]:
        """As `StableDiffusionXL.encode_prompt`."""
        given = device, num_videos_per_prompt, do_classifier_free_guidance
        return super().encode_prompt(prompt, prompt_2, *given, *others, **more)


class ShownPictureCall(AnimatedCall):
    """A call of PIA, whose frames read a picture beside their noise."""

    def _args(self) -> SampleArgs:
        args = super()._args()
        self.strength = share("strength", self.given, "at least 0") or 0.0
        taken = min(int(args.steps * self.strength), args.steps)
        if taken < 1:
            raise UsageError(f"strength is {self.strength:g}: of {args.steps} steps none is left")
        return replace(args, first=args.steps - taken)

    def _plan(self) -> tuple[SamplingPlan, int]:
        args = self._args()
        return self.pipe.scheduler.plan(args), args.steps - args.first

    def _conditions(self) -> tuple[Conditions, int]:
        found, count = super()._conditions()
        self.count = count
        scale = whole("motion_scale", self.given["motion_scale"])
        if not 0 <= scale < len(SCALES):
            raise UsageError(f"motion_scale is {scale}: must be 0 to {len(SCALES) - 1}")
        begun = super().start()  # its noise comes before that of the picture
        pipe, studio = self.pipe, self.pipe.studio
        pixels = pipe.image_processor.preprocess(self.given["image"]).to(studio.device)
        if len(pixels) not in (1, count):
            raise UsageError(f"{len(pixels)} pictures were given for {count} clips")
        side = [edge // pipe.model.factor for edge in pixels.shape[2:]]
        shape = (len(pixels), self.shape[1], *side)
        spread = BatchNoise(self.generator, shape, studio.device, studio.dtype).block()
        latent = F.interpolate(studio.decoders.encode(pixels, spread), size=self.shape[3:])
        channels = picture_channels(latent, self.frames, scale).expand(count, -1, -1, -1, -1)
        if self.strength < 1:
            first = self.plan.levels[0]
            begun = first.noisy(channels[:1, 1:], self.noise().block()) / self.plan.scale(first)
        self.begun = begun
        kinds = len(found.states) // count
        return replace(found, channels=channels.repeat(kinds, 1, 1, 1, 1)), count

    def start(self) -> Tensor:
        return self.begun


class PIAPipeline(Animated, StableDiffusion):
    """Stable Diffusion with PIA, a motion adapter that reads a picture (Zhang et al. 2023)."""

    CALL = ShownPictureCall
    OPTIONAL: ClassVar[tuple[str, ...]] = ("feature_extractor", ENCODER)
    OUTPUT = PIAPipelineOutput

    def __init__(
        self,
        vae: Any,
        text_encoder: Any,
        tokenizer: Any,
        unet: Any,
        scheduler: Any,
        motion_adapter: Any = None,
        feature_extractor: Any = None,
        image_encoder: Any = None,
    ) -> None:
        """Of parts of these names in diffusers. Raises `UsageError` and `CheckpointError`."""
        DiffusionPipeline.__init__(self, locals())

    def __call__(
        self,
        image: Any,
        prompt: Text = None,
        strength: float = 1.0,
        num_frames: int | None = 16,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 50,
        guidance_scale: float = 7.5,
        negative_prompt: Text = None,
        num_videos_per_prompt: int | None = 1,
        eta: float = 0.0,
        generator: Generators = None,
        latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        ip_adapter_image: Any = None,
        ip_adapter_image_embeds: Sequence[Tensor] | None = None,
        motion_scale: int = 0,
        output_type: str = "pil",
        return_dict: bool = True,
        cross_attention_kwargs: Mapping[str, Any] | None = None,
        clip_skip: int | None = None,
        callback_on_step_end: StepEnd | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = LATENTS,
    ) -> Any:
        """Move `image`, as `motion_scale`, 0 to 8, says: see `sfumato.studio.pia`. Raises `UsageError`."""
        return self._draw(locals())


class MovedPictureCall(VideoCall):
    """A call of Stable Video Diffusion. Its callers' latents are (B, F, C, h, w)."""

    CHUNK = "decode_chunk_size"

    def __init__(self, pipe: "DiffusionPipeline", given: Mapping[str, Any]) -> None:
        low, high = (number(name, given[name]) for name in ("min_guidance_scale", "max_guidance_scale"))
        per_image = given["num_videos_per_prompt"]
        told = {"guidance_scale": high, "num_images_per_prompt": 1 if per_image is None else per_image}
        super().__init__(pipe, {**given, **told})
        scales = torch.linspace(low, high, self.frames)
        self.guides = high > 1
        self.state.guidance_scale = scales.view(1, 1, -1, 1, 1) if self.guides else 1.0
        self.images = _pictures(given["image"])

    def _conditions(self) -> tuple[Conditions, int]:
        pipe, studio, times = self.pipe, self.pipe.studio, self.per_prompt
        model, given = pipe.model, self.given
        vision = model.vision
        assert vision is not None
        fps = whole("fps", given["fps"])
        bucket = whole("motion_bucket_id", given["motion_bucket_id"])
        amount = number("noise_aug_strength", given["noise_aug_strength"])
        side, dtype = vision.config.image_size, vision.visual_projection.weight.dtype
        seen = torch.cat([clip_pixels(2 * image - 1, side) for image in self.images])
        with torch.no_grad():
            states = vision(seen.to(studio.device, dtype)).pooled[:, None].repeat_interleave(times, dim=0)
        width, height = self.size
        source = given["image"]
        pixels = pipe.image_processor.preprocess(source, height=height, width=width).to(studio.device)
        noise = BatchNoise(self.generator, tuple(pixels.shape), studio.device, pixels.dtype).block()
        latents = model.vae.unscale(studio.decoders.encode(pixels + amount * noise)).repeat(times, 1, 1, 1)
        channels = latents[:, :, None].expand(-1, -1, self.frames, -1, -1)
        count = len(states)
        ids = torch.tensor([[fps - 1, bucket, amount]]).expand(count, -1)
        rows = (states, channels, ids)
        if self.guides:
            rows = (
                torch.cat([torch.zeros_like(states), states]),
                torch.cat([torch.zeros_like(channels), channels]),
                torch.cat([ids, ids]),
            )
        states, channels, ids = rows
        return Conditions(states, torch.empty(len(states), 0), ids, channels), count

    def start(self) -> Tensor:
        return super().start().transpose(1, 2) if self.latents is not None else self._noise()

    def _noise(self) -> Tensor:
        count, channels, frames, *size = self.shape
        studio = self.pipe.studio
        drawn = BatchNoise(self.generator, (count, frames, channels, *size), studio.device, studio.dtype)
        return drawn.block().transpose(1, 2) * self.plan.init_noise_sigma

    def given_latents(self) -> Tensor | None:
        count, channels, frames, *size = self.shape
        due = (count, frames, channels, *size)
        if self.latents is None:
            return None
        if tuple(self.latents.shape) != due:
            raise UsageError(f"latents have the shape {tuple(self.latents.shape)}: this call's is {due}")
        return self.latents.to(self.pipe.studio.device, torch.float32)

    def _step_end(self, step_end: StepEnd, index: int, time: Tensor, latents: Tensor) -> Tensor:
        return super()._step_end(step_end, index, time, latents.transpose(1, 2)).transpose(1, 2)

    def drawn(self, latents: Tensor) -> Any:
        found = super().drawn(latents)
        return found.transpose(1, 2) if self.output_type == "latent" else found


class StableVideoDiffusionPipeline(DiffusionPipeline):
    """Stable Video Diffusion moves a picture (Blattmann et al. 2023)."""

    CALL = MovedPictureCall
    CALLBACK_TENSORS = ("latents",)
    PARTS = ("vae", ENCODER, "unet")
    OPTIONAL: ClassVar[tuple[str, ...]] = ("feature_extractor",)
    OUTPUT = StableVideoDiffusionPipelineOutput

    def __init__(
        self, vae: Any, image_encoder: Any, unet: Any, scheduler: Any, feature_extractor: Any = None
    ) -> None:
        """Of parts of these names in diffusers. Raises `UsageError` and `CheckpointError`."""
        super().__init__(locals())

    @classmethod
    def fits(cls, model: checkpoint.Model) -> bool:
        return model.task == "animate"

    @property  # type: ignore[misc]
    def image_encoder(self) -> CLIPVisionModelWithProjection | None:
        """What sees the picture; it can be assigned."""
        found: CLIPVisionModelWithProjection | None = self.loaded.part(ENCODER)
        return found

    def __call__(
        self,
        image: Any,
        height: int = 576,
        width: int = 1024,
        num_frames: int | None = None,
        num_inference_steps: int = 25,
        sigmas: Sequence[float] | None = None,
        min_guidance_scale: float = 1.0,
        max_guidance_scale: float = 3.0,
        fps: int = 7,
        motion_bucket_id: int = 127,
        noise_aug_strength: float = 0.02,
        decode_chunk_size: int | None = None,
        num_videos_per_prompt: int | None = 1,
        generator: Generators = None,
        latents: Tensor | None = None,
        output_type: str = "pil",
        callback_on_step_end: StepEnd | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = LATENTS,
        return_dict: bool = True,
    ) -> Any:
        """Move `image`: a PIL image, a list of them or a tensor (B, 3, H, W) in [0, 1].

        Raises `UsageError`.
        """
        return self._draw(locals())


def _pictures(image: Any) -> list[Tensor]:
    """Each of the pictures as (1, 3, H, W) in [0, 1]. Raises `UsageError`."""
    if isinstance(image, Tensor) and image.ndim == 4:
        return list(image.float().cpu().split(1))
    listed = image if isinstance(image, list | tuple) else [image]
    if not listed or not all(isinstance(each, PIL.Image.Image) for each in listed):
        raise UsageError("image must be a PIL image, a list of them, or a tensor (B, 3, H, W) in [0, 1]")
    arrays = (np.asarray(each.convert("RGB"), dtype=np.float32) / 255 for each in listed)
    return [torch.from_numpy(array).permute(2, 0, 1)[None] for array in arrays]
