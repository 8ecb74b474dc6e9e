"""The inpainting pipelines of diffusers, with the same arguments and defaults."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from sfumato.compat.arguments import Size, StepEnd, Text
from sfumato.compat.families import (
    LATENTS,
    StableDiffusion,
    StableDiffusionXL,
    StableDiffusionXLWithPictures,
)
from sfumato.compat.image_processor import PictureInput
from sfumato.compat.noise import Generators
from sfumato.compat.picture_calls import InpaintCall

MASKS = ("mask", "masked_image_latents")


class StableDiffusionXLInpaintPipeline(StableDiffusionXLWithPictures):
    """SDXL, its refiner and its inpainting models into a picture."""

    CALL = InpaintCall
    CALLBACK_TENSORS = (*StableDiffusionXL.CALLBACK_TENSORS, *MASKS)
    TASKS = ("text", "inpaint")

    def __call__(
        self,
        prompt: Text = None,
        prompt_2: Text = None,
        image: PictureInput | None = None,
        mask_image: PictureInput | None = None,
        masked_image_latents: Tensor | None = None,
        height: int | None = None,
        width: int | None = None,
        padding_mask_crop: int | None = None,
        strength: float = 0.9999,
        num_inference_steps: int = 50,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
        denoising_start: float | None = None,
        denoising_end: float | None = None,
        guidance_scale: float = 7.5,
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
        """Draw where `mask_image` is white. Raises `UsageError`."""
        return self._draw(locals())


class StableDiffusionInpaintPipeline(StableDiffusion):
    """Stable Diffusion and its inpainting models into a picture."""

    CALL = InpaintCall
    CALLBACK_TENSORS = (*StableDiffusion.CALLBACK_TENSORS, *MASKS)
    CORRECTED = {"steps_offset": 1, "skip_prk_steps": True}  # noqa: RUF012
    TASKS = ("text", "inpaint")

    def __call__(
        self,
        prompt: Text = None,
        image: PictureInput | None = None,
        mask_image: PictureInput | None = None,
        masked_image_latents: Tensor | None = None,
        height: int | None = None,
        width: int | None = None,
        padding_mask_crop: int | None = None,
        strength: float = 1.0,
        num_inference_steps: int = 50,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
        guidance_scale: float = 7.5,
        negative_prompt: Text = None,
        num_images_per_prompt: int | None = 1,
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
        **others: Any,
    ) -> Any:
        """Draw where `mask_image` is white. Raises `UsageError`."""
        return self._draw(locals())
