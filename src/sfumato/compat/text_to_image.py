"""The text-to-image pipelines of diffusers, with the same arguments and defaults."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sfumato import checkpoint
from sfumato.compat.call import Call, StepEnd, Text, listed
from sfumato.compat.drawing import Texts
from sfumato.compat.noise import Generators
from sfumato.compat.outputs import StableDiffusionPipelineOutput, StableDiffusionXLPipelineOutput
from sfumato.compat.pipeline import DiffusionPipeline
from sfumato.compat.sources import whole
from sfumato.errors import UsageError, nearest
from sfumato.prompt.encode import size_ids

Size = tuple[int, int] | None
LATENTS = ("latents",)


class StableDiffusionXLPipeline(DiffusionPipeline):
    """SDXL (Podell et al. 2023)."""

    CALLBACK_TENSORS = (*DiffusionPipeline.CALLBACK_TENSORS, "add_text_embeds", "add_time_ids")
    PARTS = ("vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "unet")
    OPTIONAL = ("image_encoder", "feature_extractor")

    def __init__(
        self,
        vae: Any,
        text_encoder: Any,
        text_encoder_2: Any,
        tokenizer: Any,
        tokenizer_2: Any,
        unet: Any,
        scheduler: Any,
        image_encoder: None = None,
        feature_extractor: Any = None,
        force_zeros_for_empty_prompt: bool = True,
        add_watermarker: bool | None = None,
    ) -> None:
        """Of parts of these names in diffusers. Raises `UsageError` and `CheckpointError`."""
        super().__init__(locals())

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
        with self.studio.lock:
            call = Call(self, locals())
            states, negatives, pooled, negative_pooled = _encoded(
                self,
                (prompt, prompt_2),
                (negative_prompt, negative_prompt_2),
                (prompt_embeds, negative_prompt_embeds, pooled_prompt_embeds, negative_pooled_prompt_embeds),
                self.state.do_classifier_free_guidance,
                call.per_prompt,
                clip_skip,
            )
            here, count = (call.size[1], call.size[0]), len(states)
            ids = negative_ids = _ids(
                here if original_size is None else original_size,
                crops_coords_top_left,
                here if target_size is None else target_size,
                count,
            )
            if negative_original_size is not None and negative_target_size is not None:
                top_left = negative_crops_coords_top_left
                negative_ids = _ids(negative_original_size, top_left, negative_target_size, count)
            if negatives is not None:
                states, pooled = torch.cat([negatives, states]), torch.cat([negative_pooled, pooled])
                ids = torch.cat([negative_ids, ids])
            images = call.images(Texts(states, pooled, ids.to(states.device)))
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
        lora_scale: float | None = None,
        clip_skip: int | None = None,
    ) -> tuple[Any, Any, Any, Any]:
        """Text states and negative states (B, T, D), pooled states and negative pooled states (B, P)."""
        with self.studio.lock:
            self.adapt(lora_scale)
            return _encoded(
                self,
                (prompt, prompt_2),
                (negative_prompt, negative_prompt_2),
                (prompt_embeds, negative_prompt_embeds, pooled_prompt_embeds, negative_pooled_prompt_embeds),
                do_classifier_free_guidance,
                num_images_per_prompt,
                clip_skip,
            )


class _OneEncoder(DiffusionPipeline):
    """A pipeline with one text encoder."""

    PARTS = ("vae", "text_encoder", "tokenizer", "unet")

    def __init__(
        self,
        vae: Any,
        text_encoder: Any,
        tokenizer: Any,
        unet: Any,
        scheduler: Any,
        safety_checker: None = None,
        feature_extractor: Any = None,
        image_encoder: None = None,
        requires_safety_checker: bool = True,
    ) -> None:
        """Of parts of these names in diffusers. Raises `UsageError` and `CheckpointError`."""
        super().__init__(locals())

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
            return _encoded(self, (prompt,), (negative_prompt,), given, guided, times, clip_skip)[:2]


class LatentConsistencyModelPipeline(_OneEncoder):
    """Latent consistency models whose network reads the guidance scale (Luo et al. 2023)."""

    CALLBACK_TENSORS = ("latents", "prompt_embeds")

    @classmethod
    def fits(cls, model: checkpoint.Model) -> bool:
        return not model.kind.startswith("sdxl") and model.unet.reads_guidance

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
        given = (prompt_embeds, None, None, None)
        with self.studio.lock:
            call = Call(self, locals())
            states, *_ = _encoded(self, (prompt,), (None,), given, False, call.per_prompt, clip_skip)
            return _finished(call, states, None)


class StableDiffusionPipeline(_OneEncoder):
    """Stable Diffusion 1.x and 2.x, and other models with one text encoder (Rombach et al. 2022)."""

    @classmethod
    def fits(cls, model: checkpoint.Model) -> bool:
        return not model.kind.startswith("sdxl")

    def __init__(self, *parts: Any, **named: Any) -> None:
        super().__init__(*parts, **named)
        # diffusers corrects these two settings of old files in this pipeline alone
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
        given = (prompt_embeds, negative_prompt_embeds, None, None)
        with self.studio.lock:
            call = Call(self, locals())
            guided, times = self.state.do_classifier_free_guidance, call.per_prompt
            states, negatives, *_ = _encoded(
                self, (prompt,), (negative_prompt,), given, guided, times, clip_skip
            )
            return _finished(call, states, negatives)


LCMStableDiffusionPipeline = LatentConsistencyModelPipeline
PIPELINES = (StableDiffusionXLPipeline, LatentConsistencyModelPipeline, StableDiffusionPipeline)
"""In the order in which a model is tried: an SDXL model, one whose network reads the guidance, any other."""
DiffusionPipeline.KINDS = PIPELINES


class AutoPipelineForText2Image:
    """Chooses the pipeline by the model."""

    @staticmethod
    def from_pretrained(pretrained_model_or_path: str | Path, **settings: Any) -> DiffusionPipeline:
        """See `DiffusionPipeline.from_pretrained`."""
        if settings.pop("enable_pag", False):
            raise UsageError("enable_pag is not supported: only False")
        return DiffusionPipeline.from_pretrained(pretrained_model_or_path, **settings)

    @staticmethod
    def from_pipe(pipeline: Any, **changes: Any) -> DiffusionPipeline:
        """See `DiffusionPipeline.from_pipe`; of a pipeline of diffusers too."""
        if changes.pop("enable_pag", False):
            raise UsageError("enable_pag is not supported: only False")
        kinds = {each.__name__: each for each in PIPELINES}
        kind = kinds.get(type(pipeline).__name__)
        if kind is None:
            raise UsageError(
                f"{type(pipeline).__name__} is not supported; {nearest(type(pipeline).__name__, kinds)}"
            )
        return kind.from_pipe(pipeline, **changes)


def _finished(
    call: Call, states: Tensor, negatives: Tensor | None
) -> StableDiffusionPipelineOutput | tuple[Any, None]:
    """The result of a call with one text encoder."""
    images = call.images(Texts(states if negatives is None else torch.cat([negatives, states])))
    return StableDiffusionPipelineOutput(images) if call.return_dict else (images, None)


def _encoded(
    pipe: DiffusionPipeline,
    prompts: Sequence[Text],
    negative_prompts: Sequence[Text],
    given: tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None],
    guided: bool,
    times: int,
    clip_skip: int | None,
) -> tuple[Any, Any, Any, Any]:
    """States, negative states, pooled and negative pooled states, each row repeated `times` times.

    `prompts`: one for each text encoder. `given`: those that the caller has computed. Raises `UsageError`.
    """
    model, (states, negatives, pooled, negative_pooled) = pipe.model, given
    texts = [listed(prompt) for prompt in prompts]
    if (texts[0] is None) == (states is None):
        raise UsageError("give a prompt or prompt_embeds, one of the two")
    if texts[0] is not None:
        states, pooled = _states(pipe, [text or texts[0] for text in texts], clip_skip)
    elif len(prompts) > 1 and pooled is None:
        raise UsageError("prompt_embeds need pooled_prompt_embeds")
    assert states is not None
    width = model.unet.config.context[-1]
    if states.ndim != 3 or states.shape[-1] != width:
        raise UsageError(f"prompt_embeds have the shape {tuple(states.shape)}: must be (B, T, {width})")
    if negatives is not None and negatives.shape != states.shape:
        raise UsageError(
            f"negative_prompt_embeds have the shape {tuple(negatives.shape)}: must be "
            f"{tuple(states.shape)}, that of prompt_embeds"
        )
    if not guided:
        negatives = negative_pooled = None
    elif negatives is None and negative_prompts[0] is None and pooled is not None and model.zero_negative:
        negatives, negative_pooled = torch.zeros_like(states), torch.zeros_like(pooled)
    elif negatives is None:
        count, empty = len(texts[0] or states), listed(negative_prompts[0]) or [""]
        negative_texts = [
            _repeated(listed(text) or empty, count, name)
            for text, name in zip(negative_prompts, ("negative_prompt", "negative_prompt_2"), strict=False)
        ]
        negatives, negative_pooled = _states(pipe, negative_texts, None)

    def placed(rows: Tensor | None) -> Any:
        return None if rows is None else rows.to(pipe.device, pipe.dtype).repeat_interleave(times, dim=0)

    return placed(states), placed(negatives), placed(pooled), placed(negative_pooled)


def _repeated(texts: list[str], count: int, name: str) -> list[str]:
    """One text for each of `count` prompts; a single one goes for all. Raises `UsageError`."""
    if len(texts) not in (1, count):
        raise UsageError(f"{len(texts)} texts as {name} were given for {count} prompts")
    return texts * count if len(texts) == 1 else texts


@torch.no_grad()
def _states(
    pipe: DiffusionPipeline, texts: Sequence[list[str]], clip_skip: int | None
) -> tuple[Tensor, Tensor | None]:
    """Text states (B, T, D) of `texts`, a list for each encoder, and SDXL's pooled states (B, P)."""
    first, last = texts[0], texts[-1]
    if len(first) != len(last):
        raise UsageError(f"{len(last)} texts as prompt_2 were given for {len(first)} prompts")
    for name in ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"):
        if name in pipe.PARTS and getattr(pipe, name) is None:
            raise UsageError(f"the pipeline has no {name}: give prompt_embeds and negative_prompt_embeds")
    studio, skip = pipe.studio, 0 if clip_skip is None else whole("clip_skip", clip_skip)
    known = {
        text: pipe.model.encode(text, skip, studio.device, embeddings=studio.library.embeddings)
        for text in dict.fromkeys([*first, *last])
    }
    states = torch.cat([known[text].states for text in last])
    if first != last:
        width = pipe.model.text_encoders[0].config.hidden_size
        own = torch.cat([known[text].states for text in first])
        states = torch.cat([own[..., :width], states[..., width:]], dim=-1)
    pooled = [each for text in last if (each := known[text].pooled) is not None]
    return states, torch.cat(pooled) if pooled else None


def _ids(original: tuple[int, int], crop: tuple[int, int], target: tuple[int, int], count: int) -> Tensor:
    """SDXL's size conditioning (count, 6), from sizes given as (height, width)."""
    (height, width), (top, left) = target, crop
    row = size_ids((width, height), original=(original[1], original[0]), crop=(left, top))
    return row.repeat(count, 1)
