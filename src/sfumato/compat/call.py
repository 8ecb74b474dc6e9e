"""One call of a pipeline: its arguments read, its batch drawn, its callbacks called when diffusers does."""

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import zip_longest
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress as ProgressBars
from torch import Tensor

from sfumato.compat.drawing import StepResult, Texts, draw
from sfumato.compat.noise import Generators, Source
from sfumato.compat.outputs import check_form
from sfumato.compat.pipeline import DiffusionPipeline, no_others
from sfumato.compat.scheduler import SampleArgs
from sfumato.compat.state import CallState
from sfumato.diffusion.predict import prediction_named
from sfumato.errors import SfumatoWarning, UsageError, nearest
from sfumato.nets.denoiser import Denoiser
from sfumato.prompt.encode import TextEmbedding
from sfumato.request import Request

Text = str | Sequence[str] | None
StepEnd = Callable[..., Mapping[str, Any] | None]

_UNSUPPORTED = ("denoising_end", "ip_adapter_image", "ip_adapter_image_embeds")
_CHANGEABLE = {"prompt_embeds": "states", "add_text_embeds": "pooled", "add_time_ids": "ids"}
"""What callbacks may change beside the latents, and where it is in `Texts`."""


@dataclass(frozen=True)
class Call:
    """What the calls of all pipelines have in common."""

    prompts: list[str] | None
    negatives: list[str] | None
    size: tuple[int, int]
    """Width and height in pixels."""
    args: SampleArgs
    per_prompt: int
    generator: Generators
    latents: Tensor | None
    output_type: str
    return_dict: bool
    step_end: StepEnd | None
    step_end_inputs: Sequence[str]
    callback: Callable[..., None] | None
    callback_steps: int


def begin(pipe: DiffusionPipeline, given: Mapping[str, Any]) -> Call:
    """Read a call's `locals()`, set the pipeline's state, and have its adapters in the weights.

    Raises `UsageError` for what is not supported or out of range.
    """
    others = {**given["others"], **{name: given[name] for name in _UNSUPPORTED if name in given}}
    callback, callback_steps = others.pop("callback", None), others.pop("callback_steps", None)
    no_others(type(pipe).__name__, others)
    check_form(given["output_type"])
    step_end = given["callback_on_step_end"]
    inputs = getattr(step_end, "tensor_inputs", given["callback_on_step_end_tensor_inputs"])
    for name in inputs:
        if name not in pipe.CALLBACK_TENSORS:
            known = nearest(name, pipe.CALLBACK_TENSORS)
            raise UsageError(f"callback_on_step_end_tensor_inputs: {name!r} is not supported; {known}")
    kwargs = dict(given["cross_attention_kwargs"] or {})
    adapter_scale = float(kwargs.pop("scale", 1.0))
    no_others("cross_attention_kwargs", kwargs)
    args = SampleArgs(
        steps=_steps(given),
        eta=float(given.get("eta", 0.0)),
        timesteps=given["timesteps"],
        sigmas=given.get("sigmas"),
        original_steps=given.get("original_inference_steps"),
    )
    prompts, negatives = listed(given["prompt"]), listed(given.get("negative_prompt"))
    pipe.state = CallState(
        guidance_scale=float(given["guidance_scale"]),
        guidance_rescale=float(given.get("guidance_rescale", 0.0)),
        clip_skip=given["clip_skip"],
        cross_attention_kwargs=given["cross_attention_kwargs"],
        reads_guidance=pipe.model.unet.config.time_cond_proj_dim is not None,
    )
    pipe.studio.adapt(pipe.loras.uses(adapter_scale))
    return Call(
        prompts=prompts,
        negatives=negatives,
        size=_size(pipe, given, prompts, negatives, args.steps),
        args=args,
        per_prompt=int(given["num_images_per_prompt"] or 1),
        generator=given["generator"],
        latents=given["latents"],
        output_type=given["output_type"],
        return_dict=bool(given["return_dict"]),
        step_end=step_end,
        step_end_inputs=inputs,
        callback=callback,
        callback_steps=int(callback_steps or 1),
    )


def _steps(given: Mapping[str, Any]) -> int:
    for name, more in (("timesteps", 0), ("sigmas", 1)):
        if given.get(name) is not None:
            return len(given[name]) - more
    return int(given["num_inference_steps"])


def _size(
    pipe: DiffusionPipeline,
    given: Mapping[str, Any],
    prompts: list[str] | None,
    negatives: list[str] | None,
    steps: int,
) -> tuple[int, int]:
    """Width and height in pixels, those of training unless given; warns of what may not come out as hoped."""
    native = pipe.model.native_size
    told: dict[str, None] = {}
    size = native
    # diffusers takes any number, and from 0 to 1 leaves guidance out
    guidance = min(max(1.0, float(given["guidance_scale"])), 100.0)
    for prompt, negative in zip_longest(prompts or [""], negatives or [""], fillvalue=""):
        (picture,) = pipe.studio.prepare(
            Request.build(
                prompt=prompt,
                negative=negative,
                width=given["width"] or native[0],
                height=given["height"] or native[1],
                steps=steps,
                guidance=guidance,
                dialect="plain",
                templates="off",
            )
        )
        told |= dict.fromkeys(picture.notes)
        size = picture.request.size
    for note in told:
        warnings.warn(note, SfumatoWarning, stacklevel=5)
    return size


def encoded(
    pipe: DiffusionPipeline, prompts: Sequence[str], clip_skip: int | None = None
) -> tuple[Tensor, Tensor | None]:
    """States (B, T, D) of `prompts` and, for SDXL, pooled rows (B, P)."""
    studio = pipe.studio
    known: dict[str, TextEmbedding] = {}
    with torch.no_grad():
        for prompt in prompts:
            if prompt not in known:
                known[prompt] = pipe.model.encode(
                    prompt, clip_skip or 0, studio.device, dialect="plain", embeddings=studio.embeddings
                )
    conds = [known[prompt] for prompt in prompts]
    pooled = [cond.pooled for cond in conds if cond.pooled is not None]
    return torch.cat([cond.states for cond in conds]), torch.cat(pooled) if pooled else None


def batch_size(prompts: list[str] | None, embeds: Tensor | None) -> int:
    """How many prompts there are. Raises `UsageError` unless they are given once, as text or as states."""
    if (prompts is None) == (embeds is None):
        raise UsageError("give a prompt or prompt_embeds, one of the two")
    return len(embeds) if prompts is None and embeds is not None else len(prompts or ())


def negatives_for(negatives: list[str] | None, count: int, name: str = "negative_prompt") -> list[str]:
    """One negative prompt for each of `count` prompts; a single one goes for all. Raises `UsageError`."""
    if negatives is None:
        return [""] * count
    if len(negatives) not in (1, count):
        raise UsageError(f"{len(negatives)} texts as {name} were given for {count} prompts")
    return negatives * count if len(negatives) == 1 else negatives


def drawn(pipe: DiffusionPipeline, call: Call, texts: Texts, count: int) -> Tensor:
    """Latents (B, C, H, W) of `count` pictures, scaled as diffusers' scheduler leaves them."""
    studio, plan = pipe.studio, pipe.scheduler.plan(call.args)
    prediction = prediction_named(pipe.scheduler.config["prediction_type"])
    slices = studio.device_options.slices
    denoiser = Denoiser(pipe.model.unet, prediction.name, studio.device, slices=slices)
    width, height = call.size
    factor, channels = pipe.model.factor, pipe.model.vae.config.latent_channels
    shape = (count, channels, height // factor, width // factor)
    if call.latents is None:
        latents = Source(call.generator, shape, studio.device, studio.dtype).block()
    elif tuple(call.latents.shape) == shape:
        latents = call.latents.to(studio.device, torch.float32)
    else:
        raise UsageError(f"latents have the shape {tuple(call.latents.shape)}: this call's is {shape}")
    noise = Source(call.generator, shape, studio.device, plan.noise_dtype or studio.dtype)
    guidance = pipe.state.guidance_scale if pipe.state.reads_guidance else None
    pipe.state.num_timesteps = len(plan.times)
    with progress_bar(call.args.steps, **pipe.progress) as advance:
        after = _After(pipe, call, texts, advance)
        start = latents * plan.init_noise_sigma
        return draw(pipe.state, denoiser, plan, texts, start, noise, guidance=guidance, after=after)


@contextmanager
def progress_bar(total: int, disable: bool = False, **settings: Any) -> Iterator[Callable[[], None]]:
    """A bar of `total` steps on stderr, none where that is no terminal; what advances it.

    `settings`: those of diffusers' bar, which change nothing here.
    """
    console = Console(file=sys.stderr)
    with ProgressBars(console=console, disable=disable or not sys.stderr.isatty()) as bars:
        yield partial(bars.advance, bars.add_task("drawing", total=total))


class _After:
    """What happens when a batch has had an evaluation: the bar moves, the caller's functions are called."""

    def __init__(
        self, pipe: DiffusionPipeline, call: Call, texts: Texts, advance: Callable[[], None]
    ) -> None:
        self.pipe, self.call, self.texts, self.advance = pipe, call, texts, advance

    def __call__(self, seen: StepResult) -> tuple[Tensor, Texts | None]:
        call, latents, others = self.call, seen.latents, None
        time = torch.tensor(int(seen.time) if seen.time.is_integer() else seen.time)
        if call.step_end is not None:
            latents, others = self._offer(call.step_end, seen, time)
        total, order, done = self.pipe.state.num_timesteps, self.pipe.scheduler.order, seen.index + 1
        if done == total or (done > total - call.args.steps * order and done % order == 0):
            self.advance()
            if call.callback is not None and seen.index % call.callback_steps == 0:
                call.callback(seen.index // order, time, latents)
        return latents, others

    def _offer(self, step_end: StepEnd, seen: StepResult, time: Tensor) -> tuple[Tensor, Texts | None]:
        """What the caller makes of the latents and the texts, which it may also change in place."""
        half = len(self.texts.states) // 2 if self.pipe.state.do_classifier_free_guidance else 0
        offered: dict[str, Any] = {
            "latents": seen.latents.to(self.pipe.dtype, copy=True),
            "prompt_embeds": self.texts.states,
            "negative_prompt_embeds": self.texts.states[:half] if half else None,
            "add_text_embeds": self.texts.pooled,
            "add_time_ids": self.texts.ids,
        }
        before = offered["latents"].clone()
        given = {name: offered[name] for name in self.call.step_end_inputs}
        returned = dict(step_end(self.pipe, seen.index, time, dict(given)) or {})
        latents = returned.pop("latents", offered["latents"])
        changed = {name: value for name, value in returned.items() if value is not offered.get(name)}
        for name in changed:
            if name not in _CHANGEABLE:
                raise UsageError(f"callback_on_step_end cannot change {name!r}; {nearest(name, _CHANGEABLE)}")
        others = None
        if changed:
            others = self.texts = replace(
                self.texts, **{_CHANGEABLE[name]: value for name, value in changed.items()}
            )
        return seen.latents if torch.equal(latents, before) else latents.to(seen.latents), others


def listed(text: Text) -> list[str] | None:
    """One prompt or several as a list."""
    if text is None:
        return None
    return [text] if isinstance(text, str) else list(text)
