"""How long drawing takes here, from how long it took lately."""

from collections.abc import Callable, Iterable

from sfumato.request import Request
from sfumato.server.model_facts import ModelView
from sfumato.server.order import expected_evaluations

KEPT = 0.9
"""How much of what is known counts when a batch is added: about the last ten batches are what counts."""


class Pace:
    """Seconds that an evaluation of a pixel takes, for each model. One thread writes, others may read."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[float, float]] = {}

    def see(self, model: str, pixels: int, seconds: float) -> None:
        """A batch: `pixels` of the pictures whose points were evaluated, all together."""
        before = self._seen.get(model, (0.0, 0.0))
        self._seen[model] = before[0] * KEPT + seconds, before[1] * KEPT + pixels

    def seconds(self, requests: Iterable[Request], model: Callable[[str], ModelView]) -> float | None:
        """About how long one worker needs for the pictures; `None` where a model has drawn nothing yet.

        `model`: what is known of one by its name.
        """
        total = 0.0
        for request in requests:
            if request.model not in self._seen:
                return None
            seconds, pixels = self._seen[request.model]
            total += seconds / pixels * _work(request, model(request.model))
        return total


def _work(request: Request, model: ModelView) -> int:
    """Evaluations times pixels, as far as a request tells."""
    usual = model.defaults
    if usual is None:
        return 0
    pixels = (request.width or usual.width) * (request.height or usual.height)
    return pixels * expected_evaluations(request, 1, usual.steps, usual.sampler)
