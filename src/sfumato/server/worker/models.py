"""The studios of a worker: loaded when they are asked for, within a budget of memory."""

from collections import OrderedDict
from collections.abc import Iterable

from sfumato.options import DeviceOptions, ModelOptions
from sfumato.studio import Studio, open_studio


class Models:
    """Studios by their options; the least recently used ones leave where their weights pass `budget` bytes,
    unless they draw.
    """

    def __init__(self, device: DeviceOptions, budget: int | None = None) -> None:
        self.device, self.budget = device, budget
        self._open: OrderedDict[ModelOptions, Studio] = OrderedDict()
        self._sizes: dict[ModelOptions, int] = {}

    def get(self, options: ModelOptions) -> Studio | None:
        """The studio of a model, if it is loaded."""
        if options in self._open:
            self._open.move_to_end(options)
        return self._open.get(options)

    @property
    def names(self) -> frozenset[str]:
        """The models that are loaded."""
        return frozenset(options.source for options in self._open)

    def fits(self, options: ModelOptions, busy: Iterable[Studio]) -> bool:
        """Whether a model is loaded or can be beside the `busy` ones."""
        studios = {id(studio): studio for studio in busy}
        if self.budget is None or options in self._open or not studios:
            return True
        sizes = [studio.weight_bytes for studio in studios.values()]
        return sum(sizes) + self._expected(options, sizes) <= self.budget

    def make_room(self, options: ModelOptions, busy: Iterable[Studio]) -> list[Studio]:
        """Let go of studios for the model of `options`, which is loaded or will be; they are to be closed.
        `busy` ones stay.
        """
        closed: list[Studio] = []
        if self.budget is None:
            return closed
        kept = {id(studio) for studio in busy}
        sizes = {other: studio.weight_bytes for other, studio in self._open.items() if other != options}
        needed = self._expected(options, sizes.values())
        for other, studio in list(self._open.items()):
            if sum(sizes.values()) + needed <= self.budget:
                break
            if other != options and id(studio) not in kept:
                del sizes[other]
                closed.append(self._open.pop(other))
        return closed

    def load(self, options: ModelOptions) -> Studio:
        """The studio of a model that is not loaded yet. Raises `SfumatoError`."""
        self._open[options] = open_studio(options, self.device)
        self._sizes[options] = self._open[options].weight_bytes
        return self._open[options]

    def _expected(self, options: ModelOptions, sizes: Iterable[int]) -> int:
        """What a model takes; one that never was loaded counts as much as the largest of these `sizes`."""
        return self._sizes.get(options, max(sizes, default=0))
