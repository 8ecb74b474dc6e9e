"""How long drawing takes here, from how long it took lately."""

import math
from collections.abc import Iterable

from sfumato.diffusion.samplers import sampler_named
from sfumato.request import Request
from sfumato.server.model_facts import model_facts

KEPT = 0.9
"""How much of what is known counts when a batch is added: about the last ten batches are what counts."""
FAST_STEPS = 4
"""Of a request with `fast` that says none."""


class Pace:
    """Seconds that an evaluation of a pixel takes, for each model. One thread writes, others may read."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[float, float]] = {}

    def see(self, model: str, pixels: int, seconds: float) -> None:
        """A batch: `pixels` of the pictures whose points were evaluated, all together."""
        before = self._seen.get(model, (0.0, 0.0))
        self._seen[model] = before[0] * KEPT + seconds, before[1] * KEPT + pixels

    def seconds(self, requests: Iterable[Request]) -> float | None:
        """About how long one worker needs for the pictures; `None` where a model has drawn nothing yet."""
        total = 0.0
        for request in requests:
            if request.model not in self._seen:
                return None
            seconds, pixels = self._seen[request.model]
            total += seconds / pixels * _work(request)
        return total


def _work(request: Request) -> int:
    """Evaluations times pixels, as far as a request tells: a second pass is not counted."""
    info = model_facts(request.model).info
    steps = request.steps or (FAST_STEPS if request.fast else info.defaults.steps)
    each = sampler_named(request.sampler or info.defaults.sampler).evaluations_per_step
    width, height = info.native_size
    return steps * each * math.prod((request.width or width, request.height or height))
