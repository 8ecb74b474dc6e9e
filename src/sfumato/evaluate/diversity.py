"""How much pictures of one prompt differ from seed to seed, beside how much real pictures differ."""

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor


def spread(features: Tensor) -> float:
    """The mean distance of two different rows of `features` (N, D), N at least 2."""
    return float(torch.pdist(features.double()).mean())


def mean_spread(groups: Sequence[Tensor]) -> float | None:
    """The mean `spread` of the groups with at least two members, or `None` if none has."""
    own = [spread(group) for group in groups if len(group) > 1]
    return sum(own) / len(own) if own else None


def apart(features: Tensor, styles: Sequence[Hashable], concepts: Sequence[Hashable]) -> float | None:
    """The mean distance of two real pictures of one style that show different concepts; `None` if none do.

    `features` (N, D); style and concept of each.
    """
    distances = torch.cdist(features.double(), features.double(), compute_mode="donot_use_mm_for_euclid_dist")
    wanted = _equal(styles) & ~_equal(concepts)
    return float(distances[wanted].mean()) if wanted.any() else None


def alike(features: Tensor, styles: Sequence[Hashable], concepts: Sequence[Hashable]) -> float | None:
    """The mean distance of two real pictures of one concept in different styles; `None` if there are none."""
    distances = torch.cdist(features.double(), features.double(), compute_mode="donot_use_mm_for_euclid_dist")
    wanted = ~_equal(styles) & _equal(concepts)
    return float(distances[wanted].mean()) if wanted.any() else None


def _equal(names: Sequence[Hashable]) -> Tensor:
    """(N, N): whether two have the same name."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    row = torch.tensor([numbers[name] for name in names])
    return row[:, None] == row[None]
