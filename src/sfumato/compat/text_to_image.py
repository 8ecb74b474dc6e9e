"""The text-to-image pipelines of diffusers, with the same arguments and defaults."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from sfumato import checkpoint
from sfumato.compat.arguments import Size, StepEnd, Text
from sfumato.compat.families import LATENTS, StableDiffusion, StableDiffusionXL
from sfumato.compat.noise import Generators


class StableDiffusionXLPipeline(StableDiffusionXL):
    """SDXL from a text."""

    def __call__(
        self,
        prompt: Text = None,
        prompt_2: Text = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 50,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
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
        clip_skip: int | None = None,
        callback_on_step_end: StepEnd | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = LATENTS,
        **others: Any,
    ) -> Any:
        """Draw; sizes are (height, width) in pixels, as diffusers has them. Raises `UsageError`."""
        return self._draw(locals())


class LatentConsistencyModelPipeline(StableDiffusion):
    """Latent consistency models whose network reads the guidance scale (Luo et al. 2023)."""

    CALLBACK_TENSORS = ("latents", "prompt_embeds")

    @classmethod
    def fits(cls, model: checkpoint.Model) -> bool:
        return super().fits(model) and model.unet.reads_guidance

    def __call__(
        self,
        prompt: Text = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 4,
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
        lcm_origin_steps: int | None = None,
        **others: Any,
    ) -> Any:
        """Draw; `lcm_origin_steps` is the older name of `original_inference_steps`. Raises `UsageError`."""
        if original_inference_steps is None:
            original_inference_steps = lcm_origin_steps
        return self._draw(locals())


class StableDiffusionPipeline(StableDiffusion):
    """Stable Diffusion from a text."""

    CORRECTED = {"steps_offset": 1, "clip_sample": False}  # noqa: RUF012

    def __call__(
        self,
        prompt: Text = None,
        height: int | None = None,
        width: int | None = None,
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
        guidance_rescale: float = 0.0,
        clip_skip: int | None = None,
        callback_on_step_end: StepEnd | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = LATENTS,
        **others: Any,
    ) -> Any:
        """Draw. Raises `UsageError`."""
        return self._draw(locals())


LCMStableDiffusionPipeline = LatentConsistencyModelPipeline
