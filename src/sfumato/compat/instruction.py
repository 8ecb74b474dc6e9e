"""The pipelines of diffusers that edit by instruction, with the same arguments and defaults."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from sfumato.compat.arguments import Size, StepEnd, Text
from sfumato.compat.families import LATENTS, StableDiffusion, StableDiffusionXL
from sfumato.compat.image_processor import PictureInput
from sfumato.compat.noise import Generators
from sfumato.compat.picture_calls import InstructionCall
from sfumato.compat.pipeline import DiffusionPipeline


class StableDiffusionXLInstructPix2PixPipeline(StableDiffusionXL):
    """Models made of SDXL that edit by instruction; CosXL's read the picture's latents scaled."""

    CALL = InstructionCall
    OPTIONAL = ()
    TASKS = ("instruct",)

    def __init__(
        self,
        vae: Any,
        text_encoder: Any,
        text_encoder_2: Any,
        tokenizer: Any,
        tokenizer_2: Any,
        unet: Any,
        scheduler: Any,
        force_zeros_for_empty_prompt: bool = True,
        add_watermarker: bool | None = None,
        is_cosxl_edit: bool | None = False,
    ) -> None:
        """Of parts of these names in diffusers. Raises `UsageError` and `CheckpointError`."""
        DiffusionPipeline.__init__(self, locals())

    @property
    def is_cosxl_edit(self) -> bool:
        """Whether the picture's latents are scaled as the UNet's own are."""
        return bool(self.model.index.get("is_cosxl_edit"))

    def __call__(
        self,
        prompt: Text = None,
        prompt_2: Text = None,
        image: PictureInput | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 100,
        denoising_end: float | None = None,
        guidance_scale: float = 5.0,
        image_guidance_scale: float = 1.5,
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
        output_type: str = "pil",
        return_dict: bool = True,
        callback: Callable[..., Any] | None = None,
        callback_steps: int = 1,
        cross_attention_kwargs: Mapping[str, Any] | None = None,
        guidance_rescale: float = 0.0,
        original_size: Size = None,
        crops_coords_top_left: tuple[int, int] = (0, 0),
        target_size: Size = None,
    ) -> Any:
        """Edit `image` as the prompt says. Raises `UsageError`."""
        return self._draw(locals())


class StableDiffusionInstructPix2PixPipeline(StableDiffusion):
    """InstructPix2Pix (Brooks et al. 2023)."""

    CALL = InstructionCall
    CALLBACK_TENSORS = ("latents", "prompt_embeds", "image_latents")
    TASKS = ("instruct",)

    def __call__(
        self,
        prompt: Text = None,
        image: PictureInput | None = None,
        num_inference_steps: int = 100,
        guidance_scale: float = 7.5,
        image_guidance_scale: float = 1.5,
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
        callback_on_step_end: StepEnd | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = LATENTS,
        cross_attention_kwargs: Mapping[str, Any] | None = None,
        **others: Any,
    ) -> Any:
        """Edit `image` as the prompt says. Raises `UsageError`."""
        return self._draw(locals())
