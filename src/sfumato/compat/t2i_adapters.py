"""The T2I-Adapter pipelines of diffusers, with the same arguments and defaults."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from sfumato.compat.arguments import Size, Text
from sfumato.compat.control_calls import AdapterCall
from sfumato.compat.families import StableDiffusion, StableDiffusionXL
from sfumato.compat.noise import Generators
from sfumato.compat.pipeline import DiffusionPipeline


class StableDiffusionXLAdapterPipeline(StableDiffusionXL):
    """SDXL steered by T2I-Adapters."""

    CALL = AdapterCall
    BESIDE = ("adapter",)

    def __init__(
        self,
        vae: Any,
        text_encoder: Any,
        text_encoder_2: Any,
        tokenizer: Any,
        tokenizer_2: Any,
        unet: Any,
        adapter: Any,
        scheduler: Any,
        force_zeros_for_empty_prompt: bool = True,
        feature_extractor: Any = None,
        image_encoder: Any = None,
    ) -> None:
        """Of parts of these names in diffusers. Raises `UsageError` and `CheckpointError`."""
        DiffusionPipeline.__init__(self, locals())

    def __call__(
        self,
        prompt: Text = None,
        prompt_2: Text = None,
        image: Any = None,
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
        callback: Callable[..., Any] | None = None,
        callback_steps: int = 1,
        cross_attention_kwargs: Mapping[str, Any] | None = None,
        guidance_rescale: float = 0.0,
        original_size: Size = None,
        crops_coords_top_left: tuple[int, int] = (0, 0),
        target_size: Size = None,
        negative_original_size: Size = None,
        negative_crops_coords_top_left: tuple[int, int] = (0, 0),
        negative_target_size: Size = None,
        adapter_conditioning_scale: float | Sequence[float] = 1.0,
        adapter_conditioning_factor: float = 1.0,
        clip_skip: int | None = None,
    ) -> Any:
        """Draw, steered by `image`. Raises `UsageError`."""
        return self._draw(locals())


class StableDiffusionAdapterPipeline(StableDiffusion):
    """Stable Diffusion steered by T2I-Adapters."""

    CALL = AdapterCall
    BESIDE = ("adapter",)

    def __init__(
        self,
        vae: Any,
        text_encoder: Any,
        tokenizer: Any,
        unet: Any,
        adapter: Any,
        scheduler: Any,
        safety_checker: None = None,
        feature_extractor: Any = None,
        requires_safety_checker: bool = True,
    ) -> None:
        """Of parts of these names in diffusers. Raises `UsageError` and `CheckpointError`."""
        DiffusionPipeline.__init__(self, locals())

    def __call__(
        self,
        prompt: Text = None,
        image: Any = None,
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
        output_type: str = "pil",
        return_dict: bool = True,
        callback: Callable[..., Any] | None = None,
        callback_steps: int = 1,
        cross_attention_kwargs: Mapping[str, Any] | None = None,
        adapter_conditioning_scale: float | Sequence[float] = 1.0,
        clip_skip: int | None = None,
    ) -> Any:
        """Draw, steered by `image`. Raises `UsageError`."""
        return self._draw(locals())
