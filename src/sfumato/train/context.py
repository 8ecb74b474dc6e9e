"""The context of a training step, which alone determines its examples and its random numbers."""

import hashlib
from dataclasses import dataclass

import torch


@dataclass(frozen=True, eq=False)
class StepContext:
    """Part `part` of `parts` of the batch of step `step`, counted from 0 over all processes of a run.

    No example may depend on anything else: a run that is stopped anywhere and resumed, by any number of
    processes, is then the run that was not.
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
