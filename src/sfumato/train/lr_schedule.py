"""How fast to learn at which step."""

import math


def warmup_stable_decay(step: int, steps: int, warmup: int, decay: int) -> float:
    """Up, level, and down in the last `decay` steps (Hu et al. 2024, §4): the end may be put off at will."""
    return min(_up(step, warmup), (steps - step) / decay if decay else 1.0, 1.0)


def cosine(step: int, steps: int, warmup: int, decay: int) -> float:
    """Up, then half a cosine down to nothing (Loshchilov & Hutter 2017, eq. 5)."""
    if step < warmup:
        return _up(step, warmup)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))


def linear(step: int, steps: int, warmup: int, decay: int) -> float:
    """Up, then evenly down to nothing at the last step."""
    return min(_up(step, warmup), (steps - step) / max(steps - warmup, 1))


def constant(step: int, steps: int, warmup: int, decay: int) -> float:
    """Up, then level."""
    return _up(step, warmup)


def _up(step: int, warmup: int) -> float:
    return min(1.0, (step + 1) / (warmup + 1))


LR_SCHEDULES = {
    "warmup-stable-decay": warmup_stable_decay,
    "cosine": cosine,
    "linear": linear,
    "constant": constant,
}
"""Each gives the share of the highest rate in (0, 1] for `step` of `steps`, counted from 0."""
