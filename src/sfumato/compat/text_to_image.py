"""The pipelines by diffusers' names, each with the arguments and the defaults that it has there."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sfumato import checkpoint
from sfumato.compat.call import (
    Call,
    StepEnd,
    Text,
    batch_size,
    begin,
    drawn,
    encoded,
    listed,
    negatives_for,
)
from sfumato.compat.drawing import Texts
from sfumato.compat.noise import Generators
from sfumato.compat.outputs import (
    StableDiffusionPipelineOutput,
    StableDiffusionXLPipelineOutput,
    in_form,
)
from sfumato.compat.pipeline import DiffusionPipeline
from sfumato.errors import UsageError
from sfumato.prompt.encode import size_ids

Size = tuple[int, int] | None
LATENTS = ("latents",)


class StableDiffusionXLPipeline(DiffusionPipeline):
    """SDXL (Podell et al. 2023)."""

    CALLBACK_TENSORS = (*DiffusionPipeline.CALLBACK_TENSORS, "add_text_embeds", "add_time_ids")

    @classmethod
    def fits(cls, model: checkpoint.Model) -> bool:
        return model.kind == "sdxl"

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
        ip_adapter_image: None = None,
        ip_adapter_image_embeds: None = None,
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
        call = begin(self, locals())
        states, negatives, pooled, negative_pooled = self.encode_prompt(
            call.prompts,
            prompt_2,
            num_images_per_prompt=call.per_prompt,
            do_classifier_free_guidance=self.state.do_classifier_free_guidance,
            negative_prompt=call.negatives,
            negative_prompt_2=negative_prompt_2,
            prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds,
            pooled_prompt_embeds=pooled_prompt_embeds,
            negative_pooled_prompt_embeds=negative_pooled_prompt_embeds,
            clip_skip=clip_skip,
        )
        count, here = len(states), (call.size[1], call.size[0])
        ids = _ids(original_size or here, crops_coords_top_left, target_size or here, count)
        if negatives is not None:
            others_ids = ids
            if negative_original_size and negative_target_size:
                others_ids = _ids(
                    negative_original_size, negative_crops_coords_top_left, negative_target_size, count
                )
            states, pooled = torch.cat([negatives, states]), torch.cat([negative_pooled, pooled])
            ids = torch.cat([others_ids, ids])
        texts = Texts(states, pooled, ids.to(states.device))
        images = in_form(self.studio, drawn(self, call, texts, count), call.output_type)
        return StableDiffusionXLPipelineOutput(images) if call.return_dict else (images,)

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
        clip_skip: int | None = None,
    ) -> tuple[Any, Any, Any, Any]:
        """States and negative ones (B, T, D), pooled rows and negative ones (B, P)."""
        prompts = listed(prompt)
        count = batch_size(prompts, prompt_embeds)
        states: Any = prompt_embeds
        pooled: Any = pooled_prompt_embeds
        if prompts is not None:
            states, pooled = self._both(prompts, listed(prompt_2) or prompts, clip_skip)
        elif pooled is None:
            raise UsageError("prompt_embeds need pooled_prompt_embeds")
        negatives, negative_pooled = negative_prompt_embeds, negative_pooled_prompt_embeds
        if not do_classifier_free_guidance:
            negatives = negative_pooled = None
        elif negatives is None and negative_prompt is None and self.model.zero_negative:
            negatives, negative_pooled = torch.zeros_like(states), torch.zeros_like(pooled)
        elif negatives is None:
            first = negatives_for(listed(negative_prompt), count)
            second = listed(negative_prompt_2)
            second = first if second is None else negatives_for(second, count, "negative_prompt_2")
            negatives, negative_pooled = self._both(first, second, None)
        times = num_images_per_prompt
        return (
            _each(states, times, self),
            _each(negatives, times, self),
            _each(pooled, times, self),
            _each(negative_pooled, times, self),
        )

    def _both(
        self, first: Sequence[str], second: Sequence[str], clip_skip: int | None
    ) -> tuple[Tensor, Tensor | None]:
        """States of `first` by the first encoder beside those of `second` by the second, which pools."""
        if len(first) != len(second):
            raise UsageError(f"{len(second)} texts as prompt_2 were given for {len(first)} prompts")
        states, pooled = encoded(self, second, clip_skip)
        if list(first) != list(second):
            width = self.model.text_encoders[0].config.hidden_size
            states = torch.cat([encoded(self, first, clip_skip)[0][..., :width], states[..., width:]], dim=-1)
        return states, pooled


class LatentConsistencyModelPipeline(DiffusionPipeline):
    """Latent consistency models, which are told the guidance (Luo et al. 2023)."""

    CALLBACK_TENSORS = ("latents", "prompt_embeds")

    @classmethod
    def fits(cls, model: checkpoint.Model) -> bool:
        return not model.kind.startswith("sdxl") and model.unet.config.time_cond_proj_dim is not None

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
        ip_adapter_image: None = None,
        ip_adapter_image_embeds: None = None,
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
        call = begin(self, locals())
        states = prompt_embeds
        batch_size(call.prompts, prompt_embeds)
        if call.prompts is not None:
            states, _ = encoded(self, call.prompts, clip_skip)
        return _finished(self, call, _each(states, call.per_prompt, self), None)


class StableDiffusionPipeline(DiffusionPipeline):
    """Stable Diffusion 1.x and 2.x, and other models with one text encoder (Rombach et al. 2022)."""

    @classmethod
    def fits(cls, model: checkpoint.Model) -> bool:
        return not model.kind.startswith("sdxl")

    def __init__(self, model: checkpoint.Model, source: str, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(model, source, dtype)
        # diffusers mends these two settings of old files, here and in no other pipeline
        for name, right in (("steps_offset", 1), ("clip_sample", False)):
            if self.scheduler.config.get(name, right) != right:
                self.scheduler.config[name] = right

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
        ip_adapter_image: None = None,
        ip_adapter_image_embeds: None = None,
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
        call = begin(self, locals())
        states, negatives = self.encode_prompt(
            call.prompts,
            None,
            call.per_prompt,
            self.state.do_classifier_free_guidance,
            call.negatives,
            prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds,
            clip_skip=clip_skip,
        )
        return _finished(self, call, states, negatives)

    def encode_prompt(
        self,
        prompt: Text,
        device: torch.device | None = None,
        num_images_per_prompt: int = 1,
        do_classifier_free_guidance: bool = True,
        negative_prompt: Text = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        clip_skip: int | None = None,
    ) -> tuple[Any, Any]:
        """States and negative ones (B, T, D)."""
        prompts = listed(prompt)
        count = batch_size(prompts, prompt_embeds)
        states, negatives = prompt_embeds, negative_prompt_embeds
        if prompts is not None:
            states, _ = encoded(self, prompts, clip_skip)
        if not do_classifier_free_guidance:
            negatives = None
        elif negatives is None:
            negatives, _ = encoded(self, negatives_for(listed(negative_prompt), count))
        return _each(states, num_images_per_prompt, self), _each(negatives, num_images_per_prompt, self)


LCMStableDiffusionPipeline = LatentConsistencyModelPipeline


class AutoPipelineForText2Image:
    """Makes the pipeline that a model is for."""

    @staticmethod
    def from_pretrained(source: str | Path, **settings: Any) -> DiffusionPipeline:
        """See `DiffusionPipeline.from_pretrained`."""
        return DiffusionPipeline.from_pretrained(source, **settings)


def _finished(
    pipe: DiffusionPipeline, call: Call, states: Tensor, negatives: Tensor | None
) -> StableDiffusionPipelineOutput | tuple[Any, None]:
    """The result of a call with one text encoder."""
    texts = Texts(states if negatives is None else torch.cat([negatives, states]))
    images = in_form(pipe.studio, drawn(pipe, call, texts, len(states)), call.output_type)
    return StableDiffusionPipelineOutput(images) if call.return_dict else (images, None)


def _each(rows: Tensor | None, times: int, pipe: DiffusionPipeline) -> Any:
    """Every row `times` times in a row, in the networks' dtype and where they compute."""
    return None if rows is None else rows.to(pipe.device, pipe.dtype).repeat_interleave(times, dim=0)


def _ids(original: tuple[int, int], crop: tuple[int, int], target: tuple[int, int], count: int) -> Tensor:
    """What SDXL is told of sizes given as (height, width), (count, 6)."""
    (height, width), (top, left) = target, crop
    row = size_ids((width, height), original=(original[1], original[0]), crop=(left, top))
    return row.repeat(count, 1)
