"""Whose turn it is: the least work left first, so that short requests do not wait behind long ones, with
ageing, so that long ones do not wait for ever. Jobs that wait in the store and those that a worker holds are
ranked alike.
"""

from dataclasses import dataclass

from sfumato.request import Request

AGEING = 0.05
"""Evaluations that a job's remaining work is taken to shrink by, for each that was done since it came."""
PRIORITY = 10**9
"""Evaluations that one step of priority is worth: more than any job has."""
USUAL_STEPS = 20
"""Of a model whose own are not known yet."""
FAST_STEPS = 4
"""Of a request with `fast` that says none."""
TWO_A_STEP = frozenset({"heun", "dpm2", "dpm2-a", "dpmpp-2s-a", "dpmpp-sde"})
"""Samplers that evaluate the network twice a step."""


@dataclass
class Turn:
    """Where one job stands: the clock when it came, and the evaluations that are left of all its pictures."""

    came: int
    left: int
    priority: int = 0

    @property
    def place(self) -> float:
        """Its place among other jobs, lower goes first. As all age alike, the clock is not needed to say it.

        Of a clock that counts the evaluations of all jobs, the rank is `left - AGEING (clock - came)`.
        """
        return self.left + AGEING * self.came - PRIORITY * self.priority


def expected_evaluations(
    request: Request, count: int, steps: int = USUAL_STEPS, sampler: str | None = None
) -> int:
    """About how many evaluations `count` pictures of `request` take, where its model has these defaults."""
    each = request.steps or (FAST_STEPS if request.fast else steps)
    taken = each if request.strength is None else max(int(each * request.strength), 1)
    if request.upscale is not None and request.upscale != 1:
        strength = 1 if request.upscale_strength is None else request.upscale_strength
        taken += int((request.upscale_steps or each) * strength)
    return count * taken * (2 if (request.sampler or sampler) in TWO_A_STEP else 1)
