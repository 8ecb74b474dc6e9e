"""One call of a pipeline: reads its arguments, draws its batch, and calls its callbacks."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import zip_longest
from numbers import Real
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from sfumato.compat.drawing import CallState, StepResult, Texts, draw
from sfumato.compat.noise import BatchNoise, Generators
from sfumato.compat.outputs import FORMS, in_form
from sfumato.compat.pipeline import DiffusionPipeline
from sfumato.compat.plan import SampleArgs
from sfumato.compat.sources import no_others, number, whole
from sfumato.errors import UsageError, nearest, warn
from sfumato.nets.denoiser import Denoiser
from sfumato.request import Request
from sfumato.validation import shown

Text = str | Sequence[str] | None
StepEnd = Callable[..., Mapping[str, Any] | None]

_UNSUPPORTED = ("denoising_end", "ip_adapter_image", "ip_adapter_image_embeds")
_CHANGEABLE = {"prompt_embeds": "states", "add_text_embeds": "pooled", "add_time_ids": "ids"}
"""The tensors besides the latents that callbacks may change, with their fields of `Texts`."""


class Call:
    """One call of a pipeline.

    `size`: width and height in pixels. `per_prompt`: pictures for each prompt.
    """

    def __init__(self, pipe: DiffusionPipeline, given: Mapping[str, Any]) -> None:
        """Read a call's `locals()`, set the pipeline's state, and select its adapters.

        Raises `UsageError` for what is not supported or out of range.
        """
        _check(given)
        others = {**given["others"], **{name: given[name] for name in _UNSUPPORTED if name in given}}
        self.callback, self.callback_steps = others.pop("callback", None), others.pop("callback_steps", 1)
        no_others(type(pipe).__name__, others)
        self.output_type: str = given["output_type"]
        if self.output_type not in FORMS:
            known = nearest(str(self.output_type), FORMS)
            raise UsageError(f"output_type = {self.output_type!r} is not supported; {known}")
        for name in ("unet", *(["vae"] if self.output_type != "latent" else [])):
            if getattr(pipe, name) is None:
                raise UsageError(f"the pipeline has no {name}: it was loaded without it")
        self.step_end: StepEnd | None = given["callback_on_step_end"]
        inputs = given["callback_on_step_end_tensor_inputs"]
        self.step_end_inputs: Sequence[str] = getattr(self.step_end, "tensor_inputs", inputs)
        for name in self.step_end_inputs:
            if name not in pipe.CALLBACK_TENSORS:
                known = nearest(name, pipe.CALLBACK_TENSORS)
                raise UsageError(f"callback_on_step_end_tensor_inputs: {name!r} is not supported; {known}")
        kwargs = dict(given["cross_attention_kwargs"] or {})
        adapter_scale = number("cross_attention_kwargs: scale", kwargs.pop("scale", 1.0))
        no_others("cross_attention_kwargs", kwargs)
        self.args = SampleArgs(
            steps=_steps(given),
            eta=number("eta", given.get("eta", 0.0)),
            timesteps=given["timesteps"],
            sigmas=given.get("sigmas"),
            original_steps=_optional("original_inference_steps", given),
        )
        pipe.state = CallState(
            guidance_scale=number("guidance_scale", given["guidance_scale"]),
            guidance_rescale=number("guidance_rescale", given.get("guidance_rescale", 0.0)),
            clip_skip=_optional("clip_skip", given),
            cross_attention_kwargs=given["cross_attention_kwargs"],
            reads_guidance=pipe.model.unet.reads_guidance,
        )
        pipe.studio.adapt(pipe.adapter_weights(adapter_scale))
        self.pipe = pipe
        self.prompts, self.negatives = listed(given["prompt"]), listed(given.get("negative_prompt"))
        self.size = self._size(given["width"], given["height"])
        per_prompt = given["num_images_per_prompt"]
        self.per_prompt = 1 if per_prompt is None else whole("num_images_per_prompt", per_prompt)
        if self.per_prompt < 1:
            raise UsageError(f"num_images_per_prompt is {self.per_prompt}: must be at least 1")
        self.generator: Generators = given["generator"]
        self.latents: Tensor | None = given["latents"]
        self.return_dict = bool(given["return_dict"])

    def _size(self, width: Any, height: Any) -> tuple[int, int]:
        """Width and height in pixels, by default those of training; warns of unsuitable settings."""
        width = None if width is None else whole("width", width)
        height = None if height is None else whole("height", height)
        studio, size = self.pipe.studio, self.pipe.model.native_size
        notes: dict[str, None] = {}
        # diffusers accepts any scale, and does not guide at 1 and below
        guidance = min(max(1.0, self.pipe.state.guidance_scale), 100.0)
        for prompt, negative in zip_longest(self.prompts or [""], self.negatives or [""], fillvalue=""):
            (picture,) = studio.prepare(
                Request.build(
                    prompt=prompt,
                    negative=negative,
                    width=width or size[0],
                    height=height or size[1],
                    steps=self.args.steps,
                    guidance=guidance,
                    dialect="plain",
                    templates="off",
                )
            )
            notes |= dict.fromkeys(picture.notes)
        for note in notes:
            warn(note)
        return width or size[0], height or size[1]

    def images(self, texts: Texts) -> Any:
        """Draw a picture for each of `texts`, as the call's `output_type`."""
        pipe, studio, state = self.pipe, self.pipe.studio, self.pipe.state
        self.texts = texts
        plan = pipe.scheduler.plan(self.args)
        slices = studio.device_options.slices
        denoiser = Denoiser(pipe.model.unet, pipe.scheduler.prediction, studio.device, slices=slices)
        count = len(texts.states) // (2 if state.do_classifier_free_guidance else 1)
        shape = (count, *pipe.model.latent.shape(self.size)[1:])
        if self.latents is None:
            latents = BatchNoise(self.generator, shape, studio.device, studio.dtype).block()
        elif tuple(self.latents.shape) == shape:
            latents = self.latents.to(studio.device, torch.float32)
        else:
            raise UsageError(f"latents have the shape {tuple(self.latents.shape)}: this call's is {shape}")
        latents = latents * plan.init_noise_sigma
        noise = BatchNoise(self.generator, shape, studio.device, plan.noise_dtype or studio.dtype)
        noise.skip(plan.unused)
        state.num_timesteps = len(plan.evaluated)
        with _progress_bar(self.args.steps, **pipe.progress) as advance:
            latents = draw(state, denoiser, plan, texts, latents, noise, partial(self._after, advance))
        return in_form(studio, latents, self.output_type)

    def _after(self, advance: Callable[[], None], result: StepResult) -> tuple[Tensor, Texts | None]:
        """Advance the progress bar and call the callbacks, at the same steps as diffusers."""
        pipe, latents, changed = self.pipe, result.latents, None
        time = torch.tensor(int(result.time) if result.time.is_integer() else result.time)
        if self.step_end is not None:
            latents, changed = self._step_end(self.step_end, result, time)
        total, order, done = pipe.state.num_timesteps, pipe.scheduler.order, result.index + 1
        if done == total or (done > total - self.args.steps * order and done % order == 0):
            advance()
            if self.callback is not None and result.index % (self.callback_steps or 1) == 0:
                self.callback(result.index // order, time, latents)
        return latents, changed

    def _step_end(self, step_end: StepEnd, result: StepResult, time: Tensor) -> tuple[Tensor, Texts | None]:
        """Call `callback_on_step_end`, which may change tensors in place or return others."""
        texts = self.texts
        half = len(texts.states) // 2 if self.pipe.state.do_classifier_free_guidance else 0
        offered: dict[str, Any] = {
            "latents": result.latents.to(self.pipe.dtype, copy=True),
            "prompt_embeds": texts.states,
            "negative_prompt_embeds": texts.states[:half] if half else None,
            "add_text_embeds": texts.pooled,
            "add_time_ids": texts.ids,
        }
        before = offered["latents"].clone()
        given = {name: offered[name] for name in self.step_end_inputs}
        returned = dict(step_end(self.pipe, result.index, time, dict(given)) or {})
        latents = returned.pop("latents", offered["latents"])
        changed = {name: value for name, value in returned.items() if value is not offered.get(name)}
        for name in changed:
            if name not in _CHANGEABLE:
                raise UsageError(f"callback_on_step_end cannot change {name!r}; {nearest(name, _CHANGEABLE)}")
        if changed:
            self.texts = replace(texts, **{_CHANGEABLE[name]: value for name, value in changed.items()})
        latents = result.latents if torch.equal(latents, before) else latents.to(result.latents)
        return latents, self.texts if changed else None


def _check(given: Mapping[str, Any]) -> None:
    """Raise `UsageError` for an argument of a call that is not of its kind."""
    for names, right, fits in _KINDS:
        for name in names.split():
            if given.get(name) is not None and not fits(given[name]):
                raise UsageError(f"{name} is {shown(given[name])}: must be {right}")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) or (_is_list(value) and all(isinstance(each, str) for each in value))


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) > 0


def _are_numbers(value: Any) -> bool:
    if isinstance(value, Tensor | np.ndarray):
        return value.ndim == 1 and len(value) > 0
    return _is_list(value) and all(isinstance(each, Real) for each in value)


def _are_generators(value: Any) -> bool:
    return all(isinstance(each, torch.Generator) for each in (value if _is_list(value) else [value]))


_KINDS: tuple[tuple[str, str, Callable[[Any], bool]], ...] = (
    ("prompt prompt_2 negative_prompt negative_prompt_2", "a text or a list of texts", _is_text),
    ("timesteps sigmas", "a list of numbers", _are_numbers),
    (
        "original_size target_size crops_coords_top_left negative_original_size negative_target_size "
        "negative_crops_coords_top_left",
        "two numbers",
        lambda value: _are_numbers(value) and len(value) == 2,
    ),
    (
        "latents prompt_embeds negative_prompt_embeds pooled_prompt_embeds negative_pooled_prompt_embeds",
        "a tensor",
        lambda value: isinstance(value, Tensor),
    ),
    ("generator", "a torch.Generator or a list of them", _are_generators),
    ("cross_attention_kwargs", "a dictionary", lambda value: isinstance(value, Mapping)),
    ("callback_on_step_end", "a function", callable),
    ("callback_on_step_end_tensor_inputs", "a list of names", _is_text),
    ("return_dict", "True or False", lambda value: isinstance(value, int)),
)
"""The arguments of calls, what they are, and whether a value is that."""


def _optional(name: str, given: Mapping[str, Any]) -> int | None:
    return None if given.get(name) is None else whole(name, given[name])


def _steps(given: Mapping[str, Any]) -> int:
    for name, more in (("timesteps", 0), ("sigmas", 1)):
        if given.get(name) is not None:
            return len(given[name]) - more
    return whole("num_inference_steps", given["num_inference_steps"])


def listed(text: Text) -> list[str] | None:
    """One prompt or several as a list."""
    return None if text is None else [text] if isinstance(text, str) else list(text)


@contextmanager
def _progress_bar(total: int, disable: bool = False, **settings: Any) -> Iterator[Callable[[], None]]:
    """A progress bar of `total` steps on stderr if that is a terminal; yields the function that advances it.

    `settings`: those of diffusers' bar, ignored.
    """
    console = Console(file=sys.stderr)
    with Progress(console=console, disable=disable or not sys.stderr.isatty()) as bar:
        yield partial(bar.advance, bar.add_task("drawing", total=total))
