"""Where a run is: what alone decides which examples and which random numbers come next."""

import hashlib
from dataclasses import dataclass

import torch


@dataclass(frozen=True, eq=False)
class StepContext:
    """Part `part` of `parts` of the batch of step `step`, counted from 0 over all processes of a run.

    Nothing that is learned from may depend on anything else, so that a run that was stopped anywhere and
    resumed, by as many processes as before or by more, is the run that was not.
    """

    step: int
    part: int
    parts: int
    generator: torch.Generator
    """On the device, seeded by the recipe's seed, `step` and `part`."""


def seed_of(*numbers: int) -> int:
    """A seed in [0, 2⁶³) that depends on every one of `numbers` and on nothing else."""
    digest = hashlib.blake2b(",".join(map(str, numbers)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
