"""The image-to-image pipelines of diffusers, with the same arguments and defaults."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from sfumato import checkpoint
from sfumato.compat.arguments import Size, StepEnd, Text
from sfumato.compat.families import LATENTS, StableDiffusion, StableDiffusionXLWithPictures
from sfumato.compat.image_processor import PictureInput
from sfumato.compat.noise import Generators
from sfumato.compat.picture_calls import ConsistencyCall, ImageToImageCall


class StableDiffusionXLImg2ImgPipeline(StableDiffusionXLWithPictures):
    """SDXL and its refiner from a picture."""

    CALL = ImageToImageCall

    def __call__(
        self,
        prompt: Text = None,
        prompt_2: Text = None,
        image: PictureInput | None = None,
        strength: float = 0.3,
        num_inference_steps: int = 50,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
        denoising_start: float | None = None,
        denoising_end: float | None = None,
        guidance_scale: float = 5.0,
        negative_prompt: Text = None,
        negative_prompt_2: Text = None,
        num_images_per_prompt: int | None = 1,
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
        aesthetic_score: float = 6.0,
        negative_aesthetic_score: float = 2.5,
        clip_skip: int | None = None,
        callback_on_step_end: StepEnd | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = LATENTS,
        **others: Any,
    ) -> Any:
        """Draw over `image`, or go on with its latents from `denoising_start`. Raises `UsageError`."""
        return self._draw(locals())


class LatentConsistencyModelImg2ImgPipeline(StableDiffusion):
    """Latent consistency models whose network reads the guidance scale, from a picture."""

    CALL = ConsistencyCall
    CALLBACK_TENSORS = ("latents", "prompt_embeds")

    @classmethod
    def fits(cls, model: checkpoint.Model) -> bool:
        return super().fits(model) and model.unet.reads_guidance

    def __call__(
        self,
        prompt: Text = None,
        image: PictureInput | None = None,
        num_inference_steps: int = 4,
        strength: float = 0.8,
        original_inference_steps: int | None = None,
        timesteps: Sequence[float] | None = None,
        guidance_scale: float = 8.5,
        num_images_per_prompt: int | None = 1,
        generator: Generators = None,
        latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        ip_adapter_image: Any = None,
        ip_adapter_image_embeds: Sequence[Tensor] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        cross_attention_kwargs: Mapping[str, Any] | None = None,
        clip_skip: int | None = None,
        callback_on_step_end: StepEnd | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = LATENTS,
        **others: Any,
    ) -> Any:
        """Draw over `image`, all steps among the times that `strength` leaves. Raises `UsageError`."""
        return self._draw(locals())


class StableDiffusionImg2ImgPipeline(StableDiffusion):
    """Stable Diffusion from a picture."""

    CALL = ImageToImageCall
    CORRECTED = {"steps_offset": 1, "clip_sample": False}  # noqa: RUF012

    def __call__(
        self,
        prompt: Text = None,
        image: PictureInput | None = None,
        strength: float = 0.8,
        num_inference_steps: int | None = 50,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
        guidance_scale: float | None = 7.5,
        negative_prompt: Text = None,
        num_images_per_prompt: int | None = 1,
        eta: float | None = 0.0,
        generator: Generators = None,
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
        **others: Any,
    ) -> Any:
        """Draw over `image`. Raises `UsageError`."""
        return self._draw(locals())
