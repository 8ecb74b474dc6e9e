"""Which pictures are learned from at which step: functions of the step alone, so that nothing is kept.

`Epochs` shows every picture once in an epoch, in batches of one size each;
`WeightedSampling` draws by weight.
"""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sfumato.data.crops import Size
from sfumato.errors import DataError
from sfumato.train.context import StepContext, seed_of

_EPOCH, _BATCHES, _ROWS, CAPTIONS, CROPS, CONDITIONS, PRIOR = range(7)
"""What random numbers are for."""


def random_of(context: StepContext, purpose: int) -> Random:
    """Random numbers for one purpose of a step's part, without waiting for the device."""
    return Random(seed_of(context.generator.initial_seed(), purpose))


class Order(Protocol):
    """Rows of a dataset for every part of every step."""

    def __call__(self, context: StepContext, count: int) -> tuple[Size, list[int]]:
        """The bucket of the batch, and `count` rows."""
        ...


@dataclass(frozen=True, eq=False)
class WeightedSampling:
    """Rows drawn by weight, with replacement."""

    size: Size
    cumulative: NDArray[np.float64]

    @staticmethod
    def of(weights: Sequence[float], size: Size) -> "WeightedSampling":
        return WeightedSampling(size, np.cumsum(weights))

    def __call__(self, context: StepContext, count: int) -> tuple[Size, list[int]]:
        random = random_of(context, _ROWS)
        draws = np.array([random.random() for _ in range(count)]) * self.cumulative[-1]
        rows = np.searchsorted(self.cumulative, draws, side="right")
        return self.size, np.minimum(rows, len(self.cumulative) - 1).tolist()


class Epochs:
    """Every picture as often in an epoch as its weight says, in an order of each epoch's own.

    The pictures of each size come in a row without end, epoch after epoch, and a batch is cut from it
    whenever one is full: what is left over at the end of an epoch begins the next one's first batch of that
    size. The batches of an epoch are shuffled over the sizes. Epoch e shows a picture of weight w
    ⌊(e + 1)·w⌋ − ⌊e·w⌋ times: one of weight 1/2 comes every other epoch.
    """

    def __init__(self, sizes: Sequence[Size], weights: Sequence[float], batch: int, seed: int) -> None:
        """`sizes`: that which each picture is shown at. `batch`: rows of one step, over all its parts.

        Raises `DataError` where no picture has any weight.
        """
        if not any(weights):
            raise DataError("every picture has the weight 0, so that none is ever shown")
        self.batch, self.seed = batch, seed
        self.sizes = sorted(set(sizes))
        of = np.array([self.sizes.index(size) for size in sizes])
        self._rows = [np.flatnonzero(of == index) for index in range(len(self.sizes))]
        self._weights = [np.asarray(weights, dtype=np.float64)[rows] for rows in self._rows]
        self._loaded = [[0] for _ in self.sizes]
        """Of each size: how many pictures before every epoch."""
        self._batches = [0]
        """How many batches before every epoch."""
        self._stretch = lru_cache(maxsize=4 * len(self.sizes) + 4)(self._stretch_uncached)
        self._plan = lru_cache(maxsize=2)(self._plan_uncached)

    def __call__(self, context: StepContext, count: int) -> tuple[Size, list[int]]:
        """Part `context.part` of the batch of its step. Raises `ValueError` for a batch of another size."""
        if count * context.parts != self.batch:
            raise ValueError(f"{context.parts} parts of {count} are not a batch of {self.batch}")
        while self._batches[-1] <= context.step:
            self._add_epoch()
        epoch = bisect.bisect_right(self._batches, context.step) - 1
        index, number = self._plan(epoch)[context.step - self._batches[epoch]]
        start = number * self.batch + context.part * count
        return self.sizes[index], self._cut(index, start, start + count)

    def epoch(self, step: int) -> int:
        """The epoch that a step belongs to, counted from 0."""
        while self._batches[-1] <= step:
            self._add_epoch()
        return bisect.bisect_right(self._batches, step) - 1

    def _add_epoch(self) -> None:
        epoch = len(self._batches) - 1
        for index, shown in enumerate(self._loaded):
            shown.append(shown[-1] + int(self._times(index, epoch).sum()))
        self._batches.append(sum(shown[-1] // self.batch for shown in self._loaded))

    def _times(self, index: int, epoch: int) -> NDArray[np.int64]:
        """How often each picture of a size is shown in an epoch."""
        w = self._weights[index]
        return (np.floor((epoch + 1) * w) - np.floor(epoch * w)).astype(np.int64)

    def _plan_uncached(self, epoch: int) -> list[tuple[int, int]]:
        """The batches of an epoch: the index of the size of each, and its number among those of that size."""
        batches = [
            (index, number)
            for index, shown in enumerate(self._loaded)
            for number in range(shown[epoch] // self.batch, shown[epoch + 1] // self.batch)
        ]
        Random(seed_of(self.seed, epoch, _BATCHES)).shuffle(batches)
        return batches

    def _stretch_uncached(self, index: int, epoch: int) -> list[int]:
        """The rows of a size that an epoch shows, in its order."""
        rows: list[int] = np.repeat(self._rows[index], self._times(index, epoch)).tolist()
        Random(seed_of(self.seed, epoch, _EPOCH, index)).shuffle(rows)
        return rows

    def _cut(self, index: int, start: int, end: int) -> list[int]:
        """Rows `[start, end)` of what is shown of a size from the first epoch on."""
        found: list[int] = []
        shown = self._loaded[index]
        epoch = bisect.bisect_right(shown, start) - 1
        while len(found) < end - start:
            first = start + len(found) - shown[epoch]
            found += self._stretch(index, epoch)[first : end - shown[epoch]]
            epoch += 1
        return found
