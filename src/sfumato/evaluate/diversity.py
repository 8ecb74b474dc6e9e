"""Diversity: distances between the features of pictures of one prompt, and of real pictures."""

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor


def spread(features: Tensor) -> float:
    """The mean distance of two different rows of `features` (N, D), N at least 2."""
    return float(torch.pdist(features.double()).mean())


def mean_spread(groups: Sequence[Tensor]) -> float | None:
    """The mean `spread` of the groups with at least two members, or `None` if none has."""
    spreads = [spread(group) for group in groups if len(group) > 1]
    return sum(spreads) / len(spreads) if spreads else None


def mean_distance(
    features: Tensor, *, same: Sequence[Hashable], different: Sequence[Hashable]
) -> float | None:
    """The mean distance of pairs of rows of `features` (N, D), or `None` where there are no such pairs.

    Each row has a label in `same`, which both of a pair share, and one in `different`, which they do not.
    """
    distances = torch.cdist(features.double(), features.double(), compute_mode="donot_use_mm_for_euclid_dist")
    pairs = _equal(same) & ~_equal(different)
    return float(distances[pairs].mean()) if pairs.any() else None


def _equal(labels: Sequence[Hashable]) -> Tensor:
    """(N, N): whether two labels are equal."""
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    row = torch.tensor([numbers[label] for label in labels])
    return row[:, None] == row[None]
