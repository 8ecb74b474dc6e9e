"""One call of a pipeline: reads its arguments, draws its batch, and calls its callbacks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sfumato import expansion
from sfumato.compat.arguments import StepEnd, check, listed, optional, share, steps_of
from sfumato.compat.drawing import CallState, Conditions, StepResult, draw
from sfumato.compat.encoding import conditions
from sfumato.compat.noise import BatchNoise, Generators
from sfumato.compat.outputs import FORMS, in_form
from sfumato.compat.plan import SampleArgs, SamplingPlan
from sfumato.compat.sources import no_others, number, whole
from sfumato.errors import UsageError, nearest, warn
from sfumato.nets.denoiser import Denoiser
from sfumato.request import Request
from sfumato.studio import advice

if TYPE_CHECKING:
    from sfumato.compat.pipeline import DiffusionPipeline

_CHANGEABLE = {"prompt_embeds": "states", "add_text_embeds": "pooled", "add_time_ids": "ids"}
"""The tensors besides the latents that callbacks may change, with their fields of `Conditions`."""


class Call:
    """One call of a pipeline, from noise.

    `size`: width and height in pixels. `per_prompt`: pictures for each prompt. `count`: pictures in all.
    `plan`: the sampler and its levels, from the one to begin at. `steps`: those that are taken.
    """

    conditions: Conditions
    count: int

    def __init__(self, pipe: "DiffusionPipeline", given: Mapping[str, Any]) -> None:
        """Read a call's `locals()`, set the pipeline's state, and select its adapters.

        Raises `UsageError` for what is not supported or out of range.
        """
        check(given)
        others = {
            **given.get("others", {}),
            **{name: given[name] for name in ("callback", "callback_steps") if name in given},
        }
        self.callback, self.callback_steps = others.pop("callback", None), others.pop("callback_steps", 1)
        no_others(type(pipe).__name__, others)
        self.pipe, self.given = pipe, given
        self.output_type: str = given["output_type"]
        if self.output_type not in FORMS:
            known = nearest(str(self.output_type), FORMS)
            raise UsageError(f"output_type = {self.output_type!r} is not supported; {known}")
        for name in ("unet", *(["vae"] if self.output_type != "latent" else [])):
            if getattr(pipe, name) is None:
                raise UsageError(f"the pipeline has no {name}: it was loaded without it")
        self._read_callback()
        kwargs = dict(given["cross_attention_kwargs"] or {})
        adapter_scale = number("cross_attention_kwargs: scale", kwargs.pop("scale", 1.0))
        no_others("cross_attention_kwargs", kwargs)
        pipe.state = self.state = self._state()
        pipe.adapt(adapter_scale)
        per_prompt = given["num_images_per_prompt"]
        self.per_prompt = 1 if per_prompt is None else whole("num_images_per_prompt", per_prompt)
        if self.per_prompt < 1:
            raise UsageError(f"num_images_per_prompt is {self.per_prompt}: must be at least 1")
        self.generator: Generators = given.get("generator")
        self.latents: Tensor | None = given.get("latents")
        self.size = self._size()
        self._note(steps_of(given))
        self.plan, self.steps = self._plan()

    def _read_callback(self) -> None:
        given, pipe = self.given, self.pipe
        self.step_end: StepEnd | None = given.get("callback_on_step_end")
        inputs = given.get("callback_on_step_end_tensor_inputs", ())
        self.step_end_inputs: Sequence[str] = getattr(self.step_end, "tensor_inputs", inputs)
        for name in self.step_end_inputs:
            if name not in pipe.CALLBACK_TENSORS:
                known = nearest(name, pipe.CALLBACK_TENSORS)
                raise UsageError(f"callback_on_step_end_tensor_inputs: {name!r} is not supported; {known}")

    def _state(self) -> CallState:
        """The state that callbacks see."""
        given = self.given
        return CallState(
            guidance_scale=number("guidance_scale", given["guidance_scale"]),
            guidance_rescale=number("guidance_rescale", given.get("guidance_rescale", 0.0)),
            clip_skip=optional("clip_skip", given),
            cross_attention_kwargs=given["cross_attention_kwargs"],
            denoising_start=share("denoising_start", given, high="below 1"),
            denoising_end=share("denoising_end", given),
            reads_guidance=self.pipe.model.unet.reads_guidance,
        )

    def _size(self) -> tuple[int, int]:
        """Width and height in pixels, by default those of training."""
        native = self.pipe.model.native_size
        return optional("width", self.given) or native[0], optional("height", self.given) or native[1]

    @staticmethod
    def _size_of(pixels: Tensor) -> tuple[int, int]:
        return pixels.shape[-1], pixels.shape[-2]

    def _note(self, steps: int) -> None:
        """Warn of unsuitable settings. Raises `UsageError` for those out of range."""
        model, studio = self.pipe.model, self.pipe.studio
        for name, value in zip(("width", "height"), self.size, strict=True):
            if value % model.factor:
                raise UsageError(f"{name} is {value}: must be a multiple of {model.factor} for this model")
        # diffusers accepts any scale, and does not guide at 1 and below
        guidance = min(max(1.0, float(self.state.guidance_scale)), 100.0)
        texts = listed(self.given.get("prompt")), listed(self.given.get("negative_prompt"))
        notes: dict[str, None] = {}
        for prompt, negative in zip_longest(*(text or [""] for text in texts), fillvalue=""):
            request = Request.build(
                prompt=prompt,
                negative=negative,
                width=self.size[0],
                height=self.size[1],
                upscale=1,
                multidiffusion=False,
                steps=steps,
                guidance=guidance,
                sampler=model.defaults.sampler,
                seed=0,
                dialect="plain",
                templates="off",
            )
            for picture in expansion.expand(request):
                notes |= dict.fromkeys(advice.notes(picture, model, studio.adapters))
        for note in notes:
            warn(note)

    def _args(self) -> SampleArgs:
        """What the scheduler is told."""
        given = self.given
        return SampleArgs(
            steps=steps_of(given),
            eta=number("eta", given.get("eta", 0.0)),
            timesteps=given.get("timesteps"),
            sigmas=given.get("sigmas"),
            original_steps=optional("original_inference_steps", given),
        )

    def _plan(self) -> tuple[SamplingPlan, int]:
        """The plan, and how many steps it takes."""
        args = self._args()
        return self.pipe.scheduler.plan(args), args.steps

    def result(self) -> Any:
        """Draw, and give what the pipeline returns. Raises `UsageError` and `NumericsError`."""
        pipe = self.pipe
        self.conditions, self.count = self._conditions()
        self.image_embeds = self._image_embeds()
        self._show_images()
        found = pipe.OUTPUT(self.finished(self.drawn(self.sampled(self.start()))))
        return found if self.given["return_dict"] else found.to_tuple()

    def sampled(self, latents: Tensor) -> Tensor:
        """The last latents (B, C, …), from those that the drawing begins with, by the plan."""
        pipe, state, plan = self.pipe, self.state, self.plan
        state.num_timesteps, evaluations = self._evaluations(), len(plan.evaluated)
        self.warm_up = max(evaluations - self.steps * pipe.scheduler.order, 0)
        studio = pipe.studio
        slices = studio.device_options.slices
        denoiser = Denoiser(pipe.model.unet, pipe.scheduler.prediction, studio.device, slices=slices)
        noise = self.noise(plan.noise_dtype)
        noise.skip(plan.unused)
        with pipe.progress_bar(total=state.num_timesteps - self.warm_up) as bar:
            after = partial(self._after, bar.update)
            return draw(state, denoiser, plan, self.conditions, latents, noise, after)

    def _conditions(self) -> tuple[Conditions, int]:
        """What the network is given besides the latents, and for how many pictures."""
        return conditions(self.pipe, self.given, self.size, self.per_prompt)

    def drawn(self, latents: Tensor) -> Any:
        """The last latents (B, C, …) in the form that was asked for."""
        return in_form(self.pipe.studio, latents, self.output_type)

    def _image_embeds(self) -> list[Tensor]:
        """What IP-Adapters are given for each row of the conditions; nothing without their arguments."""
        images, embeds = (self.given.get(f"ip_adapter_image{end}") for end in ("", "_embeds"))
        if images is None and embeds is None:
            return []
        kinds = len(self.conditions.states) // self.count
        prepare, device = self.pipe.prepare_ip_adapter_image_embeds, self.pipe.studio.device
        found = prepare(images, embeds, device, self.count, kinds > 1)
        if kinds == 3:  # the prompt comes first, then what is without it
            found = [torch.cat([*rows.chunk(2)[::-1], rows.chunk(2)[0]]) for rows in found]
        return found

    def _show_images(self) -> None:
        """Give the network the pictures of IP-Adapters, under the scales of now."""
        self.image_scales = self.pipe.ip_adapters.scales
        if self.image_embeds:
            images = self.pipe.image_prompts(self.image_embeds)
            self.conditions = replace(self.conditions, images=images)

    def _evaluations(self) -> int:
        """How many evaluations are taken: all, or those before `denoising_end`."""
        times, end = [level.t for level in self.plan.evaluated], self.state.denoising_end
        if end is None or end == 1:
            return len(times)
        cut = self.cutoff(end)
        if not (taken := sum(t >= cut for t in times)):
            raise UsageError(f"denoising_end is {end:g}: no step of this call comes before it")
        return taken

    def cutoff(self, part: float) -> int:
        """The training time at which this part of the way from noise to picture is done."""
        trained: int = self.pipe.scheduler.config["num_train_timesteps"]
        return round(trained - part * trained)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all latents, (B, C, h, w)."""
        return (self.count, *self.pipe.model.latent.shape(self.size)[1:])

    def noise(self, dtype: torch.dtype | None = None) -> BatchNoise:
        """Blocks of noise from the caller's generators."""
        studio = self.pipe.studio
        return BatchNoise(self.generator, self.shape, studio.device, dtype or studio.dtype)

    def given_latents(self) -> Tensor | None:
        """The caller's latents, of the call's shape. Raises `UsageError`."""
        if self.latents is None:
            return None
        if tuple(self.latents.shape) != self.shape:
            raise UsageError(
                f"latents have the shape {tuple(self.latents.shape)}: this call's is {self.shape}"
            )
        return self.latents.to(self.pipe.studio.device, torch.float32)

    def start(self) -> Tensor:
        """The latents that the drawing begins with (B, C, h, w), in the scale of diffusers' scheduler."""
        latents = self.given_latents()
        return (self.noise().block() if latents is None else latents) * self.plan.init_noise_sigma

    def finished(self, images: Any) -> Any:
        """The pictures as they are returned."""
        return images

    def mixed(self, result: StepResult) -> Tensor:
        """The latents after an evaluation, before callbacks see them."""
        return result.latents

    def _after(self, advance: Callable[[], None], result: StepResult) -> tuple[Tensor, Conditions | None]:
        """Advance the progress bar and call the callbacks, at the same steps as diffusers."""
        pipe, latents, changed = self.pipe, self.mixed(result), None
        time = torch.tensor(int(result.time) if result.time.is_integer() else result.time)
        if self.step_end is not None:
            before = self.conditions
            latents = self._step_end(self.step_end, result.index, time, latents)
            if self.pipe.ip_adapters.scales is not self.image_scales:
                self._show_images()
            changed = self.conditions if self.conditions is not before else None
        order, done = pipe.scheduler.order, result.index + 1
        if done == self.state.num_timesteps or (done > self.warm_up and done % order == 0):
            advance()
            if self.callback is not None and result.index % (self.callback_steps or 1) == 0:
                self.callback(result.index // order, time, latents)
        return latents, changed

    def _step_end(self, step_end: StepEnd, index: int, time: Tensor, latents: Tensor) -> Tensor:
        """Call `callback_on_step_end`, which may change tensors in place or return others."""
        offered = {"latents": latents.to(self.pipe.dtype, copy=True), **self.offered()}
        before = offered["latents"].clone()
        given = {name: offered[name] for name in self.step_end_inputs}
        returned = dict(step_end(self.pipe, index, time, dict(given)) or {})
        changed_latents = returned.pop("latents", offered["latents"])
        changed = {name: value for name, value in returned.items() if value is not offered.get(name)}
        if changed:
            self.change(changed)
        return latents if torch.equal(changed_latents, before) else changed_latents.to(latents)

    def offered(self) -> dict[str, Any]:
        """What callbacks may see besides the latents."""
        now = self.conditions
        kinds = len(now.states) // self.count
        return {
            "prompt_embeds": now.states,
            "negative_prompt_embeds": now.states[: self.count] if kinds == 2 else None,
            "add_text_embeds": now.pooled,
            "add_time_ids": now.ids,
        }

    def change(self, changed: Mapping[str, Any]) -> None:
        """Take what a callback has returned. Raises `UsageError` for what it cannot change."""
        for name in changed:
            if name not in _CHANGEABLE:
                raise UsageError(f"callback_on_step_end cannot change {name!r}; {nearest(name, _CHANGEABLE)}")
        self.conditions = replace(
            self.conditions, **{_CHANGEABLE[name]: value for name, value in changed.items()}
        )
