"""The pipelines of diffusers that draw clips with networks of clips: Stable Video Diffusion, ModelScope."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from sfumato import checkpoint
from sfumato.checkpoint.layout import ENCODER
from sfumato.compat.arguments import StepEnd, Text, optional
from sfumato.compat.call import Call
from sfumato.compat.drawing import Conditions
from sfumato.compat.families import LATENTS, StableDiffusion
from sfumato.compat.models import CLIPVisionModelWithProjection
from sfumato.compat.noise import BatchNoise, Generators
from sfumato.compat.outputs import (
    StableVideoDiffusionPipelineOutput,
    TextToVideoSDPipelineOutput,
    pixels_in_form,
)
from sfumato.compat.pipeline import DiffusionPipeline
from sfumato.compat.sources import number, whole
from sfumato.edit.clip_picture import clip_pixels
from sfumato.errors import UsageError

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
        side, dtype = vision.config.image_size, vision.dtype
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
