"""The one loop: it drives any number of drawings, gathering what they ask of the networks into batches.

The library's loop is this engine with the jobs of one request; a server's is the same engine with many. Jobs
share nothing: they may differ in sampler, step count, size, guidance, level and adapters, and each comes out
as it does alone.
"""

from collections.abc import Callable, Generator, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from sfumato.diffusion.guidance import MAIN, Estimate, Guidance, Term
from sfumato.diffusion.level import Level
from sfumato.diffusion.sampling import Point, Sampling
from sfumato.errors import NumericsError

Row = tuple[Point, Term]
"""What a network is asked: a point (1, C, H, W) or (1, C, F, H, W), under one term."""
Decode = Callable[[Tensor], Tensor]
"""From latents (B, …) of one shape to pixels (B, 3, H, W)."""


class Backend(Protocol):
    """A network as the engine asks it; a `sfumato.nets.denoiser.Denoiser` is one."""

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in."""
        ...

    def group(self, row: Row) -> Hashable:
        """Rows of equal groups can share a batch."""
        ...

    def __call__(self, rows: Sequence[Row]) -> list[Tensor]:
        """One clean estimate, of its point's shape, for each of `rows` of one group, in one batch."""
        ...


@dataclass(frozen=True, eq=False)
class Job:
    """One drawing: a sampling coroutine over latents (1, …), and how its estimates are guided.

    `adapters`: what the weights must hold while it is evaluated; only equals share a batch. `decode`: from
    its last latent to pixels, in one batch with the latents of other jobs that have the same function; `None`
    leaves it a latent.
    """

    key: Hashable
    sampling: Sampling
    guidance: Guidance
    adapters: Hashable = ()
    decode: Decode | None = None


@dataclass(frozen=True, eq=False)
class Evaluated:
    """The networks answered one point of a job: `x0` (1, …) is the guided clean estimate at `level`.

    `index` counts the job's evaluations from 1; `step` is the interval between levels that it serves, from 0.
    `x` (1, …) is the latent that the job goes on with, or its result if this was its `last` evaluation.
    """

    key: Hashable
    index: int
    step: int
    level: Level
    x0: Tensor
    x: Tensor
    last: bool


@dataclass(frozen=True, eq=False)
class Finished:
    """A job's result: its last latent (1, …), and pixels (1, 3, H, W) if it is to be decoded."""

    key: Hashable
    latent: Tensor
    pixels: Tensor | None


@dataclass(frozen=True, eq=False)
class Failed:
    """A job ended with an error of its own; the others go on."""

    key: Hashable
    error: Exception


Event = Evaluated | Finished | Failed


@dataclass(eq=False)
class _Running:
    job: Job
    point: Point
    evaluated: int = 0


_Asking = tuple[_Running, Sequence[Term]]
"""A job, and the terms of its point that are to be evaluated."""


class Engine:
    """Drives jobs; who waited longest is always in the next batch.

    `networks`: what terms ask, by name, or the one network. `budget`: how large a batch may be, in rows ×
    cells of the latent; a batch holds at least one job, whatever its size, and with 0 just one. `select` is
    called with a job's `adapters` before it is evaluated, to have the weights hold them.
    """

    def __init__(
        self,
        networks: Backend | Mapping[str, Backend],
        budget: float = 0,
        select: Callable[[Any], None] = lambda adapters: None,
    ) -> None:
        self.networks = networks if isinstance(networks, Mapping) else {MAIN: networks}
        self.budget, self.select = budget, select
        self._running: dict[Hashable, _Running] = {}
        self._ended: list[Event] = []
        self._to_decode: list[tuple[Job, Tensor]] = []

    def submit(self, job: Job) -> None:
        """Take up a job; its `key` must not be in use."""
        if job.key in self._keys:
            raise ValueError(f"a job with the key {job.key!r} is running already")
        try:
            self._running[job.key] = _Running(job, next(job.sampling))
        except StopIteration as done:
            self._finish(job, done.value)
        except Exception as error:
            self._ended.append(Failed(job.key, error))

    def cancel(self, key: Hashable) -> bool:
        """Drop a job before its next evaluation or its decoding; whether there was one."""
        running = self._running.pop(key, None)
        if running is not None:
            running.job.sampling.close()
        there = key in self._keys or running is not None
        self._to_decode = [(job, latent) for job, latent in self._to_decode if job.key != key]
        self._ended = [event for event in self._ended if event.key != key]
        return there

    @property
    def idle(self) -> bool:
        """Whether nothing is left to do."""
        return not self._keys

    @property
    def _keys(self) -> set[Hashable]:
        waiting = (job.key for job, _ in self._to_decode)
        return {*self._running, *waiting, *(event.key for event in self._ended)}

    def run(self, jobs: Iterable[Job]) -> Generator[Event, None, None]:
        """Drive `jobs` to their ends, taking one up whenever there is room; closing it cancels the rest."""
        waiting = iter(jobs)
        own: list[Hashable] = []
        try:
            while True:
                while self._has_room and (job := next(waiting, None)) is not None:
                    own.append(job.key)
                    self.submit(job)
                if self.idle:
                    return
                yield from self.step()
        finally:
            for key in own:
                self.cancel(key)

    @property
    def _has_room(self) -> bool:
        """Whether another job like the running ones would fit into a batch with them."""
        if self._ended or self._to_decode:
            return False
        sizes = [_cells(running.point.x) for running in self._running.values()]
        return not sizes or 2 * (sum(sizes) + max(sizes)) <= self.budget

    @torch.no_grad()
    def step(self) -> list[Event]:
        """Evaluate or decode one batch and let its jobs go on; what happened, in the order of the jobs.

        A batch that does not fit in the device's memory is halved, and later ones stay that small.
        """
        if self._ended:
            ended, self._ended = self._ended, []
            return ended
        if self._to_decode:
            return self._decode()
        batch = self._next_batch()
        while batch:
            try:
                self.select(batch[0][0].job.adapters)
                estimates = guided_estimates(
                    self.networks, [(each.point, each.job.guidance, terms) for each, terms in batch]
                )
            except Exception as error:
                if len(batch) == 1:
                    return [self._fail(batch[0][0], error)]
                batch = self._smaller(batch, error)
            else:
                return [self._advance(each, x0) for (each, _), x0 in zip(batch, estimates, strict=True)]
        return []

    def _smaller(self, batch: list[_Asking], error: Exception) -> list[_Asking]:
        """Half of a batch that did not fit; of one in which some job is at fault just the first."""
        if not isinstance(error, torch.OutOfMemoryError):
            return batch[:1]
        half = batch[: len(batch) // 2]
        self.budget = sum(len(terms) * _cells(running.point.x) for running, terms in half)
        torch.cuda.empty_cache()
        return half

    def _next_batch(self) -> list[_Asking]:
        """The longest-waiting job, and others that can share its batch: same adapters, same kinds of rows."""
        batch: list[_Asking] = []
        kind, room = None, self.budget
        for running in list(self._running.values()):
            if batch and room <= 0:
                break
            try:
                terms = [term for term in running.job.guidance.terms(running.point) if not term.is_zero]
                own = running.job.adapters, frozenset(self._group((running.point, term)) for term in terms)
            except Exception as error:
                self._ended.append(self._fail(running, error))
                continue
            cost = len(terms) * _cells(running.point.x)
            if not batch or (own == kind and cost <= room):
                kind, room = own, room - cost
                batch.append((running, terms))
        for running, _ in batch:
            self._running[running.job.key] = self._running.pop(running.job.key)
        return batch

    def _group(self, row: Row) -> Hashable:
        name = row[1].network
        return name, self.networks[name].group(row)

    def _advance(self, running: _Running, x0: Tensor) -> Event:
        job, point = running.job, running.point
        running.evaluated += 1
        if not bool(torch.isfinite(x0).all()):
            names = " and ".join(str(network.dtype) for network in self.networks.values())
            where = f"evaluation {running.evaluated} (σ = {point.level.sigma:.4g}, {names})"
            return self._fail(running, NumericsError(f"the network's answer is not finite at {where}"))
        last = False
        try:
            running.point = job.sampling.send(x0)
            x = running.point.x
        except StopIteration as done:
            x, last = done.value, True
            del self._running[job.key]
            self._finish(job, x)
        except Exception as error:
            return self._fail(running, error)
        return Evaluated(job.key, running.evaluated, point.step, point.level, x0, x, last)

    def _finish(self, job: Job, latent: Tensor) -> None:
        if job.decode is None:
            self._ended.append(Finished(job.key, latent, None))
        else:
            self._to_decode.append((job, latent))

    def _fail(self, running: _Running, error: Exception) -> Failed:
        self._running.pop(running.job.key, None)
        running.job.sampling.close()
        return Failed(running.job.key, error)

    def _decode(self) -> list[Event]:
        """Decode the longest-waiting latent, and with it those that are alike, within the budget."""
        first, latent = self._to_decode[0]
        decode = first.decode
        assert decode is not None
        alike = [
            (job, other)
            for job, other in self._to_decode
            if job.decode is decode and other.shape == latent.shape
        ]
        alike = alike[: max(int(min(self.budget / _cells(latent), len(alike))), 1)]
        while True:
            try:
                pixels = decode(torch.cat([other for _, other in alike]))
                break
            except Exception as error:
                if len(alike) == 1:
                    del self._to_decode[0]
                    return [Failed(first.key, error)]
                if isinstance(error, torch.OutOfMemoryError):
                    self.budget = len(alike) // 2 * _cells(latent)
                    torch.cuda.empty_cache()
                alike = alike[:1]
        keys = {job.key for job, _ in alike}
        self._to_decode = [entry for entry in self._to_decode if entry[0].key not in keys]
        each = zip(alike, pixels.split(1), strict=True)
        return [Finished(job.key, other, own) for (job, other), own in each]


def guided_estimates(
    networks: Mapping[str, Backend], questions: Sequence[tuple[Point, Guidance, Sequence[Term]]]
) -> list[Tensor]:
    """The guided estimate of each point under its terms, rows of one group in one batch."""
    rows = [(number, (point, term)) for number, (point, _, terms) in enumerate(questions) for term in terms]
    groups: dict[tuple[str, Hashable], list[int]] = {}
    for place, (_, row) in enumerate(rows):
        name = row[1].network
        groups.setdefault((name, networks[name].group(row)), []).append(place)
    answers: dict[int, Tensor] = {}
    for (name, _), places in groups.items():
        answers.update(zip(places, networks[name]([rows[place][1] for place in places]), strict=True))
    estimates: list[list[Estimate]] = [[] for _ in questions]
    for place, (number, (_, term)) in enumerate(rows):
        estimates[number].append((term, answers[place]))
    return [
        guidance.combine(point, own) for (point, guidance, _), own in zip(questions, estimates, strict=True)
    ]


def _cells(x: Tensor) -> int:
    """The cells of a latent (B, C, …): B × (F ×) H × W."""
    return x.numel() // x.shape[1]
