"""The one loop: it drives any number of drawings, gathering what they ask of the network into batches.

The library's loop is this engine with the jobs of one request; a server's is the same engine with many. Jobs
share nothing, so they may differ in sampler, step count, size, guidance and level.
"""

from collections.abc import Generator, Hashable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.diffusion.guidance import Guidance
from sfumato.diffusion.level import Level
from sfumato.diffusion.sampling import Point, Sampling
from sfumato.errors import NumericsError, SfumatoError
from sfumato.nets.denoiser import Conditioning, Denoiser


@dataclass(frozen=True, eq=False)
class Job:
    """One drawing: a sampling coroutine over latents (1, C, H, W), its conditionings and their weighing."""

    key: Hashable
    sampling: Sampling
    conditionings: Sequence[Conditioning]
    guidance: Guidance


@dataclass(frozen=True, eq=False)
class Evaluated:
    """The network answered one point of a job: `x0` (1, C, H, W) is the guided clean estimate at `level`.

    `index` counts the job's evaluations from 1; `step` is the interval between levels that it serves, from 0.
    `x` (1, C, H, W) is the latent that the job goes on with. `latent` is the same if this evaluation was its
    last, which makes it the job's result, else `None`.
    """

    key: Hashable
    index: int
    step: int
    level: Level
    x0: Tensor
    x: Tensor
    latent: Tensor | None


@dataclass(frozen=True, eq=False)
class Failed:
    """A job ended with an error of its own; the others go on."""

    key: Hashable
    error: SfumatoError


Event = Evaluated | Failed


@dataclass(eq=False)
class _Running:
    job: Job
    point: Point
    evaluated: int = 0


class Engine:
    """Drives jobs, at most `most_points` in one batch; who waited longest is always in the next one."""

    def __init__(self, denoiser: Denoiser, most_points: int = 1) -> None:
        if most_points < 1:
            raise ValueError(f"most_points is {most_points}; at least 1")
        self.denoiser = denoiser
        self.most_points = most_points
        self._running: dict[Hashable, _Running] = {}

    def submit(self, job: Job) -> None:
        """Take up a job; its `key` must not be in use."""
        if job.key in self._running:
            raise ValueError(f"a job with the key {job.key!r} is running already")
        self._running[job.key] = _Running(job, next(job.sampling))

    def cancel(self, key: Hashable) -> bool:
        """Drop a job before its next evaluation; whether there was one."""
        running = self._running.pop(key, None)
        if running is None:
            return False
        running.job.sampling.close()
        return True

    @property
    def idle(self) -> bool:
        return not self._running

    def run(self, jobs: Iterable[Job]) -> Generator[Event, None, None]:
        """Drive `jobs` to their ends, taking one up whenever there is room; closing it cancels the rest."""
        waiting = iter(jobs)
        own: list[Hashable] = []
        try:
            while True:
                while len(self._running) < self.most_points and (job := next(waiting, None)) is not None:
                    own.append(job.key)
                    self.submit(job)
                if self.idle:
                    return
                yield from self.step()
        finally:
            for key in own:
                self.cancel(key)

    @torch.no_grad()
    def step(self) -> list[Event]:
        """Evaluate one batch and let its jobs go on; what happened, in the order of the jobs.

        A batch that does not fit in the device's memory is halved, and later ones stay that small.
        """
        batch = self._next_batch()
        if not batch:
            return []
        while True:
            try:
                estimates = self._evaluate(batch)
                break
            except torch.OutOfMemoryError:
                if len(batch) == 1:
                    raise
                self.most_points = len(batch) // 2
                batch = batch[: self.most_points]
                torch.cuda.empty_cache()
        return [self._advance(running, x0) for running, x0 in zip(batch, estimates, strict=True)]

    def _evaluate(self, batch: Sequence[_Running]) -> list[Tensor]:
        """The guided estimate of each job's point; terms of weight zero are left out."""
        weights = [running.job.guidance.weights(running.point.level, running.point.step) for running in batch]
        used = [[not (isinstance(w, float) and w == 0) for w in own] for own in weights]
        terms = [
            [c for c, wanted in zip(running.job.conditionings, own, strict=True) if wanted]
            for running, own in zip(batch, used, strict=True)
        ]
        answers = self.denoiser([running.point for running in batch], terms)
        guided = []
        for running, own, mask, answer in zip(batch, weights, used, answers, strict=True):
            each = iter(answer)
            estimates = [next(each) if wanted else None for wanted in mask]
            guided.append(running.job.guidance.combine(estimates, own))
        return guided

    def _next_batch(self) -> list[_Running]:
        """The longest-waiting job, and others that can share its batch: same size, same text length."""
        batch: list[_Running] = []
        for running in self._running.values():
            alike = not batch or _shape(running) == _shape(batch[0])
            if alike and len(batch) < self.most_points:
                batch.append(running)
        for running in batch:
            self._running[running.job.key] = self._running.pop(running.job.key)
        return batch

    def _advance(self, running: _Running, x0: Tensor) -> Event:
        job, point = running.job, running.point
        running.evaluated += 1
        if not bool(torch.isfinite(x0).all()):
            self.cancel(job.key)
            where = f"evaluation {running.evaluated} (σ = {point.level.sigma:.4g}, {self.denoiser.dtype})"
            return Failed(job.key, NumericsError(f"the network's answer is not finite at {where}"))
        latent = None
        try:
            running.point = job.sampling.send(x0)
        except StopIteration as done:
            del self._running[job.key]
            latent = done.value
        x = running.point.x if latent is None else latent
        return Evaluated(job.key, running.evaluated, point.step, point.level, x0, x, latent)


def _shape(running: _Running) -> tuple[Hashable, ...]:
    lengths = {conditioning.text.length for conditioning in running.job.conditionings}
    return (tuple(running.point.x.shape), *sorted(lengths))
