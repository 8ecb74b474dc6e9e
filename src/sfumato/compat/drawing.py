"""Drawing a batch in lock-step, so that a caller sees and changes its latents after every evaluation."""

import math
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sfumato.compat.noise import Source
from sfumato.compat.scheduler import SamplingPlan
from sfumato.diffusion.guidance import Estimate, Term, weighted_sum
from sfumato.diffusion.level import Level
from sfumato.diffusion.predict import clean_estimate
from sfumato.diffusion.sampling import Point, Sampling
from sfumato.engine import Engine, Evaluated, Failed, Finished, Job
from sfumato.nets.denoiser import Conditioning, Denoiser
from sfumato.nets.inputs import SizeConditioning


class CallState(Protocol):
    """What callbacks may turn while a batch is drawn."""

    @property
    def do_classifier_free_guidance(self) -> bool: ...
    @property
    def guidance_scale(self) -> float: ...
    @property
    def guidance_rescale(self) -> float: ...
    @property
    def interrupt(self) -> bool: ...


@dataclass(frozen=True, eq=False)
class Texts:
    """What the network is told of B pictures, as diffusers lays it out: with guidance, negatives first.

    `states` (B or 2B, T, D); for SDXL also `pooled` (…, P) and `ids` (…, 6).
    """

    states: Tensor
    pooled: Tensor | None = None
    ids: Tensor | None = None

    def conditionings(
        self, denoiser: Denoiser, count: int, index: int, guidance: float | None
    ) -> list[Conditioning]:
        """Those of picture `index` of `count`: the prompt's, then the negative's if there is one."""
        places = [index] if len(self.states) == count else [count + index, index]
        return [self._one(denoiser, place, guidance) for place in places]

    def _one(self, denoiser: Denoiser, place: int, guidance: float | None) -> Conditioning:
        row = slice(place, place + 1)
        added = None
        if self.pooled is not None and self.ids is not None:
            added = SizeConditioning(self.pooled[row], self.ids[row])
        return denoiser.condition(self.states[row], added, guidance)


@dataclass(frozen=True, eq=False)
class StepResult:
    """A batch after one evaluation. `latents` (B, C, H, W) are scaled as diffusers' scheduler has them."""

    index: int
    time: float
    latents: Tensor


After = Callable[[StepResult], tuple[Tensor, Texts | None]]
"""What a caller makes of a batch on its way: the latents to go on with, and other texts if they change."""


class Picture:
    """One picture of a batch: its guidance, and the point it stands at."""

    def __init__(self, knobs: CallState, denoiser: Denoiser, conditionings: list[Conditioning]) -> None:
        self.knobs, self.denoiser, self.conditionings = knobs, denoiser, conditionings
        self.point: Point

    def watched(self, sampling: Sampling) -> Sampling:
        """`sampling` itself, its point kept in view."""
        try:
            self.point = next(sampling)
            while True:
                x0 = yield self.point
                self.point = sampling.send(x0)
        except StopIteration as done:
            result: Tensor = done.value
            return result

    def terms(self, point: Point) -> list[Term]:
        prompt, *negative = self.conditionings
        if not negative or not self.knobs.do_classifier_free_guidance:
            return [Term(prompt)]
        scale = float(self.knobs.guidance_scale)
        return [Term(prompt, scale), Term(negative[0], 1 - scale, conditional=False)]

    def combine(self, point: Point, estimates: Sequence[Estimate]) -> Tensor:
        """The weighted sum; a rescale is diffusers', of the network's own answers (Lin et al. 2023, §3.4)."""
        guided, amount = weighted_sum(estimates), self.knobs.guidance_rescale
        if not amount or len(estimates) == 1:
            return guided
        wanted, answer = self._answer(point, estimates[0][1]), self._answer(point, guided)
        ratio = wanted.std() / answer.std()
        answer = answer * (amount * ratio + 1 - amount)
        return clean_estimate(self.denoiser.prediction, point.x, answer, [point.level])

    def _answer(self, point: Point, x0: Tensor) -> Tensor:
        """What the network must have said for this clean estimate."""
        a, s = (torch.tensor(each).to(x0) for each in (point.level.a, point.level.s))
        return self.denoiser.prediction.target(x0, (point.x - a * x0) / s, a, s)


def draw(
    knobs: CallState,
    denoiser: Denoiser,
    plan: SamplingPlan,
    texts: Texts,
    latents: Tensor,
    source: Source,
    *,
    guidance: float | None = None,
    after: After | None = None,
) -> Tensor:
    """Draw from `latents` (B, C, H, W), scaled as diffusers begins, and return them so at the end.

    `guidance`: the scale that a latent consistency model is told. `after` is called when all
    pictures have had an evaluation. Raises `NumericsError`.
    """
    count = len(latents)
    pictures = [
        Picture(knobs, denoiser, texts.conditionings(denoiser, count, index, guidance))
        for index in range(count)
    ]
    x = latents * _scale(plan, plan.levels[0])
    jobs = [
        Job(
            index,
            picture.watched(plan.sampler(x[index : index + 1].clone(), plan.levels, source.row(index))),
            picture,
        )
        for index, picture in enumerate(pictures)
    ]
    events: dict[int, Evaluated] = {}
    with closing(Engine(denoiser, math.inf).run(jobs)) as running:
        for event in running:
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, Finished):
                continue
            events[int(str(event.key))] = event
            if len(events) < count:
                continue
            done = events[0].last
            if after is None and not done:
                events.clear()
                continue
            levels = [plan.levels[-1] if done else picture.point.level for picture in pictures]
            scales = [_scale(plan, level) for level in levels]
            latents = torch.cat([events[index].x / scales[index] for index in range(count)])
            if after is not None:
                seen = StepResult(events[0].index - 1, events[0].level.t, latents)
                changed, others = after(seen)
                if changed is not latents and not done:
                    for index in range(count):
                        events[index].x.copy_(changed[index : index + 1] * scales[index])
                latents = changed
                if others is not None:
                    for index, picture in enumerate(pictures):
                        picture.conditionings[:] = others.conditionings(denoiser, count, index, guidance)
                if knobs.interrupt:
                    break
            events.clear()
    if not knobs.interrupt:
        source.finish(plan.draws)
    return latents


def _scale(plan: SamplingPlan, level: Level) -> float:
    """What turns latents as diffusers has them at `level` into a·x0 + s·eps."""
    return level.a if plan.exploding else 1.0
