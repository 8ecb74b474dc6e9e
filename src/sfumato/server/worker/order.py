"""Whose turn it is: the least work left first, so that short requests do not wait behind long ones, with
ageing, so that long ones do not wait for ever.
"""

from dataclasses import dataclass

AGEING = 0.05
"""Evaluations that a job's remaining work is taken to shrink by, for each that was done since it came."""
PRIORITY = 1000
"""Evaluations that one step of priority is worth."""


@dataclass
class Turn:
    """Where one job stands: the clock when it came, and the evaluations that are left of all its pictures."""

    came: int
    left: int
    priority: int = 0

    def rank(self, clock: int) -> float:
        """Lower goes first. `clock` counts the evaluations of all jobs."""
        return self.left - AGEING * (clock - self.came) - PRIORITY * self.priority
