"""The pipelines of Stable Diffusion and of SDXL: what those that draw in different ways have in common."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from sfumato import checkpoint
from sfumato.compat.arguments import Text
from sfumato.compat.encoding import encoded
from sfumato.compat.outputs import StableDiffusionPipelineOutput, StableDiffusionXLPipelineOutput
from sfumato.compat.pipeline import DiffusionPipeline

LATENTS = ("latents",)


class StableDiffusion(DiffusionPipeline):
    """Stable Diffusion 1.x and 2.x, and other models with one text encoder (Rombach et al. 2022)."""

    PARTS = ("vae", "text_encoder", "tokenizer", "unet")
    OUTPUT: ClassVar[type[Any]] = StableDiffusionPipelineOutput
    TASKS: ClassVar[tuple[str, ...]] = ("text",)
    """What the model may be given besides noise and text."""

    def __init__(
        self,
        vae: Any,
        text_encoder: Any,
        tokenizer: Any,
        unet: Any,
        scheduler: Any,
        safety_checker: None = None,
        feature_extractor: Any = None,
        image_encoder: Any = None,
        requires_safety_checker: bool = True,
    ) -> None:
        """Of parts of these names in diffusers. Raises `UsageError` and `CheckpointError`."""
        super().__init__(locals())

    @classmethod
    def fits(cls, model: checkpoint.Model) -> bool:
        pictures = model.info.frames is None
        return pictures and not model.kind.startswith("sdxl") and model.task in cls.TASKS

    def encode_prompt(
        self,
        prompt: Text,
        device: torch.device | None = None,
        num_images_per_prompt: int = 1,
        do_classifier_free_guidance: bool = True,
        negative_prompt: Text = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        lora_scale: float | None = None,
        clip_skip: int | None = None,
    ) -> tuple[Any, Any]:
        """Text states and negative states (B, T, D), of an encoder that holds the active adapters."""
        given = (prompt_embeds, negative_prompt_embeds, None, None)
        guided, times = do_classifier_free_guidance, num_images_per_prompt
        with self.studio.lock:
            self.adapt(lora_scale)
            return encoded(self, (prompt,), (negative_prompt,), given, guided, times, clip_skip)[:2]


class StableDiffusionXL(DiffusionPipeline):
    """SDXL (Podell et al. 2023)."""

    CALLBACK_TENSORS = (*DiffusionPipeline.CALLBACK_TENSORS, "add_text_embeds", "add_time_ids")
    PARTS = ("vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "unet")
    OPTIONAL: ClassVar[tuple[str, ...]] = ("image_encoder", "feature_extractor")
    OUTPUT: ClassVar[type[Any]] = StableDiffusionXLPipelineOutput
    UPCAST = True
    KINDS_OF_MODEL: ClassVar[tuple[str, ...]] = ("sdxl",)
    TASKS: ClassVar[tuple[str, ...]] = ("text",)
    """What the model may be given besides noise and text."""

    def __init__(
        self,
        vae: Any,
        text_encoder: Any,
        text_encoder_2: Any,
        tokenizer: Any,
        tokenizer_2: Any,
        unet: Any,
        scheduler: Any,
        image_encoder: Any = None,
        feature_extractor: Any = None,
        force_zeros_for_empty_prompt: bool = True,
        add_watermarker: bool | None = None,
    ) -> None:
        """Of parts of these names in diffusers. Raises `UsageError` and `CheckpointError`."""
        super().__init__(locals())

    @classmethod
    def fits(cls, model: checkpoint.Model) -> bool:
        return model.kind in cls.KINDS_OF_MODEL and model.task in cls.TASKS

    def encode_prompt(
        self,
        prompt: Text,
        prompt_2: Text = None,
        device: torch.device | None = None,
        num_images_per_prompt: int = 1,
        do_classifier_free_guidance: bool = True,
        negative_prompt: Text = None,
        negative_prompt_2: Text = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        pooled_prompt_embeds: Tensor | None = None,
        negative_pooled_prompt_embeds: Tensor | None = None,
        lora_scale: float | None = None,
        clip_skip: int | None = None,
    ) -> tuple[Any, Any, Any, Any]:
        """Text states and negative states (B, T, D), pooled states and negative pooled states (B, P)."""
        with self.studio.lock:
            self.adapt(lora_scale)
            return encoded(
                self,
                (prompt, prompt_2),
                (negative_prompt, negative_prompt_2),
                (prompt_embeds, negative_prompt_embeds, pooled_prompt_embeds, negative_pooled_prompt_embeds),
                do_classifier_free_guidance,
                num_images_per_prompt,
                clip_skip,
            )


class StableDiffusionXLWithPictures(StableDiffusionXL):
    """Pipelines of SDXL that its refiner draws with too, which has one text encoder and reads a score."""

    REFINER_LACKS = ("text_encoder", "tokenizer")
    KINDS_OF_MODEL = ("sdxl", "sdxl-refiner")

    def __init__(
        self,
        vae: Any,
        text_encoder: Any,
        text_encoder_2: Any,
        tokenizer: Any,
        tokenizer_2: Any,
        unet: Any,
        scheduler: Any,
        image_encoder: Any = None,
        feature_extractor: Any = None,
        requires_aesthetics_score: bool = False,
        force_zeros_for_empty_prompt: bool = True,
        add_watermarker: bool | None = None,
    ) -> None:
        """Of parts of these names in diffusers. Raises `UsageError` and `CheckpointError`."""
        DiffusionPipeline.__init__(self, locals())
