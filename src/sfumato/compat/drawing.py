"""Draws a batch in lock-step, so that callbacks can read and change its latents after every evaluation."""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count as counted
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from sfumato.compat.noise import BatchNoise
from sfumato.compat.plan import SamplingPlan
from sfumato.diffusion.guidance import Estimate, Term, weighted_sum
from sfumato.diffusion.level import CLEAN, Level
from sfumato.diffusion.predict import clean_estimate
from sfumato.diffusion.sampling import Point, Sampling, mapped
from sfumato.engine import Engine, Evaluated, Failed, Job
from sfumato.nets.denoiser import Conditioning, Denoiser
from sfumato.nets.inputs import ImageKV, SizeConditioning
from sfumato.nets.network import AppliedImage
from sfumato.studio.ready_controls import ReadyControlNet, ReadyT2IAdapter


@dataclass
class CallState:
    """The state of a call: callbacks read it as `pipe.guidance_scale`, set it as `pipe._guidance_scale`, ….

    `image_guidance_scale`: of a network that edits by instruction, else `None`. `num_timesteps`: evaluations
    of the call under way. `interrupt`: return the latents as they are. `reads_guidance`: whether the network
    itself reads the scale.
    """

    guidance_scale: float | Tensor = 1.0
    """Of a picture that is moved a number for each frame, (1, 1, F, 1, 1)."""
    guidance_rescale: float = 0.0
    image_guidance_scale: float | None = None
    clip_skip: int | None = None
    cross_attention_kwargs: Mapping[str, Any] | None = None
    denoising_start: float | None = None
    denoising_end: float | None = None
    num_timesteps: int = 0
    interrupt: bool = False
    reads_guidance: bool = False

    @property
    def do_classifier_free_guidance(self) -> bool:
        """Whether more is evaluated than the prompt."""
        image = self.image_guidance_scale
        guides = bool(torch.as_tensor(self.guidance_scale).max() > 1)
        return guides and not self.reads_guidance and (image is None or image >= 1)


@dataclass(frozen=True, eq=False)
class Steering:
    """A network beside the UNet, ready with what it is shown for each of B pictures.

    Its steps are numbers of evaluations. `prompt_only`: it does nothing beside the negative prompt.
    """

    pictures: Sequence[ReadyControlNet | ReadyT2IAdapter]
    prompt_only: bool = False


@dataclass(frozen=True, eq=False)
class Conditions:
    """What the network is given besides the latents of B pictures, in diffusers' layout.

    With guidance all that belongs to the negative prompt comes first, then all that belongs to the prompt; of
    networks that edit by instruction first the prompt, then the negative prompt, then that without the
    picture. `states` (R·B, T, D) with R = 1, 2 or 3; for SDXL also `pooled` (…, P) and `ids` (…, 5 or 6).
    `channels` (R·B, C', h, w): input channels besides the latents' own. `images`: image prompts of R·B rows.
    `controls`: networks beside the UNet.
    """

    states: Tensor
    pooled: Tensor | None = None
    ids: Tensor | None = None
    channels: Tensor | None = None
    images: tuple[ImageKV, ...] = ()
    controls: tuple[Steering, ...] = ()

    def conditionings(
        self, denoiser: Denoiser, count: int, guidance: float | None
    ) -> list[list[Conditioning]]:
        """Those of each of `count` pictures, in the order of the layout.

        `guidance`: the scale, for networks that read it.
        """
        rows = []
        for row in range(len(self.states)):
            size = None
            if self.pooled is not None and self.ids is not None:
                size = SizeConditioning(self.pooled[row : row + 1], self.ids[row : row + 1])
            channels = None if self.channels is None else self.channels[row : row + 1]
            images = [AppliedImage(image.row(row)) for image in self.images]
            states, negative = self.states[row : row + 1], row < len(self.states) - count
            controls = [
                control.pictures[row % count].of(states, size, negative)
                for control in self.controls
                if not (negative and control.prompt_only)
            ]
            rows.append(
                denoiser.condition(
                    states, size, guidance, channels=channels, controls=controls, images=images
                )
            )
        return [rows[index::count] for index in range(count)]


@dataclass(frozen=True, eq=False)
class StepResult:
    """A batch after one evaluation. `latents` (B, C, H, W) are in the scale of diffusers' scheduler.

    `time`: of the evaluation; `level`: what the latents are at now, the clean one after the last.
    """

    index: int
    time: float
    level: Level
    latents: Tensor


After = Callable[[StepResult], tuple[Tensor, Conditions | None]]
"""Called after every evaluation of a batch: returns the latents to go on with, and conditions if changed."""


@dataclass(eq=False)
class PictureGuidance:
    """Guidance of one picture, with the scales and the rescale that callbacks set."""

    state: CallState
    denoiser: Denoiser
    conditionings: list[Conditioning]

    def terms(self, point: Point) -> list[Term]:
        """Classifier-free guidance, or with a picture's scale that of Brooks et al. 2023, eq. 3."""
        state, scale = self.state, self.state.guidance_scale
        scale = scale.to(point.x) if isinstance(scale, Tensor) else float(scale)
        image = state.image_guidance_scale
        prompt, *others = self.conditionings[:: -1 if image is None else 1]
        if not others or not state.do_classifier_free_guidance:
            return [Term(prompt)]
        weights = [1 - scale] if image is None else [image - scale, 1 - image]
        negative = zip(others, weights, strict=True)
        return [Term(prompt, scale), *(Term(each, weight, conditional=False) for each, weight in negative)]

    def combine(self, point: Point, estimates: Sequence[Estimate]) -> Tensor:
        """The weighted sum; guidance rescale acts on the network's output (Lin et al. 2023, §3.4)."""
        guided, amount = weighted_sum(estimates), self.state.guidance_rescale
        if not amount or len(estimates) == 1:
            return guided
        prompt, output = (self._output(point, x0) for x0 in (estimates[0][1], guided))
        output = output * (amount * (prompt.std() / output.std()) + 1 - amount)
        return clean_estimate(self.denoiser.prediction, point.x, output, [point.level])

    def _output(self, point: Point, x0: Tensor) -> Tensor:
        """The network's output that gives this clean estimate."""
        a, s = (torch.tensor(each).to(x0) for each in (point.level.a, point.level.s))
        return self.denoiser.prediction.target(x0, (point.x - a * x0) / s, a, s)


def draw(
    state: CallState,
    denoiser: Denoiser,
    plan: SamplingPlan,
    conditions: Conditions,
    latents: Tensor,
    noise: BatchNoise,
    after: After,
) -> Tensor:
    """Sample from `latents` (B, C, H, W) to the last level; both in the scale of diffusers' scheduler.

    `after` is called after each evaluation of the whole batch. Ends after `state.num_timesteps` of them.
    Raises `NumericsError`.
    """
    count, scale = len(latents), float(state.guidance_scale) if state.reads_guidance else None
    pictures = [
        PictureGuidance(state, denoiser, own) for own in conditions.conditionings(denoiser, count, scale)
    ]
    engine = Engine(denoiser, math.inf)
    for index, x in enumerate((latents * plan.scale(plan.levels[0])).split(1)):
        sampling = _numbered(plan.sampler(x.clone(), plan.levels, noise.row(index)))
        engine.submit(Job(index, sampling, pictures[index]))
    for index, (level, there) in enumerate(pairwise([*plan.evaluated, plan.levels[-1]])):
        rows = [event.x for event in _evaluated(engine, count)]
        latents = torch.cat(rows) / plan.scale(there)
        last = index + 1 == state.num_timesteps
        changed, others = after(StepResult(index, level.t, CLEAN if last else there, latents))
        if changed is not latents:
            for row, own in zip(rows, changed.split(1), strict=True):
                row.copy_(own * plan.scale(there))
            latents = changed
        if others is not None:
            for picture, each in zip(pictures, others.conditionings(denoiser, count, scale), strict=True):
                picture.conditionings = each
        if state.interrupt or (last and index + 1 < len(plan.evaluated)):
            return latents
    noise.finish(plan.draws)
    return latents


def _numbered(sampling: Sampling) -> Sampling:
    """`sampling` whose points have the numbers of their evaluations for steps."""
    numbers = counted()
    return mapped(sampling, point=lambda asked: replace(asked, step=next(numbers)))


def _evaluated(engine: Engine, count: int) -> list[Evaluated]:
    """One evaluation of each of `count` jobs, in the order of their keys."""
    events: dict[Hashable, Evaluated] = {}
    while len(events) < count:
        for event in engine.step():
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, Evaluated):
                events[event.key] = event
    return [events[index] for index in range(count)]
