"""The one loop: it drives any number of drawings, gathering what they ask of the networks into batches.

The library's loop is this engine with the jobs of one request; a server's is the same engine with many. Jobs
share nothing: they may differ in sampler, step count, size, guidance, level and adapters, and each comes out
as it does alone.
"""

from collections.abc import Callable, Generator, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from sfumato.diffusion.guidance import MAIN, Estimate, Guidance, Term, active_terms
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


_Evaluation = tuple[_Running, Sequence[Term]]
"""A job, and the terms of its point that are to be evaluated."""


class Engine:
    """Drives jobs; who waited longest is always in the next batch, or who comes first in `order`.

    `networks`: what terms ask, by name, or the one network. `budget`: how large a batch may be, in rows ×
    cells of the latent; a batch holds at least one job, whatever its size, and with 0 just one.
    `decode_budget`: the same of the latents that are decoded at once, in cells. `select` is called with a
    job's `adapters` before it is evaluated, to have the weights hold them. `order`: from a job's key to its
    rank, lower first. A batch that does not fit in the device's memory is halved, and later ones stay that
    small.
    """

    def __init__(
        self,
        networks: Backend | Mapping[str, Backend],
        budget: float = 0,
        select: Callable[[Any], None] = lambda adapters: None,
        *,
        decode_budget: float = 0,
        order: Callable[[Any], float] | None = None,
    ) -> None:
        self.networks = networks if isinstance(networks, Mapping) else {MAIN: networks}
        self.budget, self.decode_budget, self.select = budget, decode_budget, select
        self.order = order
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
        there = key in self._keys
        running = self._running.pop(key, None)
        if running is not None:
            _close(running.job.sampling)
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
        own: set[Hashable] = set()
        try:
            while True:
                while self._has_room and (job := next(waiting, None)) is not None:
                    self.submit(job)
                    own.add(job.key)
                if self.idle:
                    return
                for event in self.step():
                    if not isinstance(event, Evaluated):
                        own.discard(event.key)
                    yield event
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
        """Evaluate or decode one batch and let its jobs go on; what happened, in the order of the jobs."""
        if self._ended:
            ended, self._ended = self._ended, []
            return ended
        return self._decode(self._alike()) if self._to_decode else self._evaluate(self._next_batch())

    def _evaluate(self, batch: Sequence[_Evaluation]) -> list[Event]:
        """One batch; where some job of it is at fault, its jobs one by one."""
        if not batch:
            return []
        try:
            self.select(batch[0][0].job.adapters)
            asked = [(running.point, running.job.guidance, terms) for running, terms in batch]
            estimates = guided_estimates(self.networks, asked)
        except torch.OutOfMemoryError as error:
            if len(batch) == 1:
                return [self._fail(batch[0][0], error)]
        except Exception as error:
            if len(batch) == 1:
                return [self._fail(batch[0][0], error)]
            return [event for each in batch for event in self._evaluate([each])]
        else:
            return [self._advance(running, x0) for (running, _), x0 in zip(batch, estimates, strict=True)]
        half = batch[: len(batch) // 2]
        self.budget = sum(len(terms) * _cells(running.point.x) for running, terms in half)
        torch.cuda.empty_cache()
        return self._evaluate(half)

    def _next_batch(self) -> list[_Evaluation]:
        """The job whose turn it is, and others that can share its batch: same adapters and kinds of rows."""
        batch: list[_Evaluation] = []
        kind, room, order = None, self.budget, self.order
        waiting = list(self._running.values())
        for running in waiting if order is None else sorted(waiting, key=lambda each: order(each.job.key)):
            if batch and room <= 0:
                break
            try:
                terms = active_terms(running.job.guidance, running.point)
                own = running.job.adapters, frozenset(self._group((running.point, term)) for term in terms)
            except Exception as error:
                self._ended.append(self._fail(running, error))
                continue
            cost = len(terms) * _cells(running.point.x)
            if not batch or (own == kind and cost <= room):
                kind, room = own, room - cost
                batch.append((running, terms))
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
        del self._running[job.key]
        try:
            running.point = job.sampling.send(x0)
        except StopIteration as done:
            x, last = done.value, True
            self._finish(job, x)
        except Exception as error:
            return self._fail(running, error)
        else:
            x = running.point.x
            self._running[job.key] = running  # behind those that have waited longer
        return Evaluated(job.key, running.evaluated, point.step, point.level, x0, x, last)

    def _finish(self, job: Job, latent: Tensor) -> None:
        if job.decode is None:
            self._ended.append(Finished(job.key, latent, None))
        else:
            self._to_decode.append((job, latent))

    def _fail(self, running: _Running, error: Exception) -> Failed:
        self._running.pop(running.job.key, None)
        _close(running.job.sampling)
        return Failed(running.job.key, error)

    def _alike(self) -> list[tuple[Job, Tensor]]:
        """The latent that has waited longest, and those that can be decoded with it, within the budget."""
        first, latent = self._to_decode[0]
        alike = [
            (job, other)
            for job, other in self._to_decode
            if job.decode is first.decode and other.shape == latent.shape
        ]
        return alike[: max(int(min(self.decode_budget / _cells(latent), len(alike))), 1)]

    def _decode(self, batch: Sequence[tuple[Job, Tensor]]) -> list[Event]:
        """One batch; where some latent of it cannot be decoded, its latents one by one."""
        decode, keys = batch[0][0].decode, {job.key for job, _ in batch}
        assert decode is not None
        try:
            pixels = decode(torch.cat([latent for _, latent in batch]))
        except torch.OutOfMemoryError as error:
            failed: Exception = error.with_traceback(None)
        except Exception as error:
            if len(batch) > 1:
                return [event for each in batch for event in self._decode([each])]
            failed = error
        else:
            self._to_decode = [entry for entry in self._to_decode if entry[0].key not in keys]
            each = zip(batch, pixels.split(1), strict=True)
            return [Finished(job.key, latent, own) for (job, latent), own in each]
        if len(batch) == 1:
            self._to_decode = [entry for entry in self._to_decode if entry[0].key not in keys]
            return [Failed(batch[0][0].key, failed)]
        half = batch[: len(batch) // 2]
        self.decode_budget = len(half) * _cells(half[0][1])
        torch.cuda.empty_cache()
        return self._decode(half)


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


def _close(sampling: Sampling) -> None:
    """End a coroutine; what it raises at its end concerns nobody any more."""
    with suppress(Exception):
        sampling.close()
