"""Distances between two sets of pictures, from their features, in float64 throughout."""

import math

import torch
from torch import Tensor

from sfumato.errors import UsageError

SUBSETS, SUBSET = 100, 1000
_ROWS = 1024


def frechet(real: Tensor, drawn: Tensor) -> float:
    """The squared Fréchet distance of the Gaussians with the means and covariances of two sets of features.

        |μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁ Σ₂)^½)

    (Dowson & Landau 1982; Heusel et al. 2017, eq. 6.) Features are (N, D) and (M, D). It falls as the sets
    grow, so that only figures from sets of the same sizes can be compared. Raises `UsageError` for fewer than
    two pictures.

    With centred features A, B and their triangular factors R (A = Q R), tr (Σ₁ Σ₂)^½ is the sum of the
    singular values of R_A R_Bᵀ / √((N − 1)(M − 1)): no root of a matrix that may be singular is taken.
    """
    _check(real, drawn)
    a, b = real.double(), drawn.double()
    gap = a.mean(0) - b.mean(0)
    a, b = ((x - x.mean(0)) / math.sqrt(len(x) - 1) for x in (a, b))
    r_a, r_b = (torch.linalg.qr(x, mode="r").R for x in (a, b))
    overlap = torch.linalg.svdvals(r_a @ r_b.T).sum()
    return max(0.0, float(gap @ gap + a.square().sum() + b.square().sum() - 2 * overlap))


def kernel(real: Tensor, drawn: Tensor, seed: int) -> tuple[float, float]:
    """The squared kernel distance of two sets of features, and its deviation over subsets.

    The unbiased estimate of the squared maximum mean discrepancy (Gretton et al. 2012, eq. 3) under the
    kernel k(x, y) = (x·y / D + 1)³ (Bińkowski et al. 2018, §4), averaged over 100 pairs of random subsets,
    each of half as many pictures as the smaller set has, at least 2 and at most 1,000. Up to there halves
    differ about as much as whole sets of other pictures would (McCarthy 1969). Features are (N, D) and
    (M, D). The estimate is not biased by how many pictures there are, and can be less than 0. Raises
    `UsageError` for fewer than two.
    """
    _check(real, drawn)
    a, b = real.double(), drawn.double()
    m = max(2, min(SUBSET, len(a) // 2, len(b) // 2))
    generator = torch.Generator().manual_seed(seed)
    in_a, in_b = torch.zeros(SUBSETS, len(a)).to(a), torch.zeros(SUBSETS, len(b)).to(b)
    for subset in range(SUBSETS):
        in_a[subset, torch.randperm(len(a), generator=generator)[:m].to(a.device)] = 1
        in_b[subset, torch.randperm(len(b), generator=generator)[:m].to(b.device)] = 1
    within = _sums(a, a, in_a, in_a) - in_a @ _own(a) + _sums(b, b, in_b, in_b) - in_b @ _own(b)
    values = within / (m * (m - 1)) - 2 * _sums(a, b, in_a, in_b) / m**2
    return float(values.mean()), float(values.std(correction=0))


def _sums(a: Tensor, b: Tensor, in_a: Tensor, in_b: Tensor) -> Tensor:
    """Of every subset, given as rows of 0 and 1, the sum of k over its pairs; (SUBSETS,)."""
    total = torch.zeros(len(in_a)).to(a)
    for start in range(0, len(a), _ROWS):
        rows = slice(start, start + _ROWS)
        k = (a[rows] @ b.T / a.shape[1] + 1) ** 3
        total += ((in_a[:, rows] @ k) * in_b).sum(1)
    return total


def _own(x: Tensor) -> Tensor:
    """k of everything with itself (N,)."""
    return (x.square().sum(1) / x.shape[1] + 1) ** 3


def _check(real: Tensor, drawn: Tensor) -> None:
    for name, features in (("real", real), ("drawn", drawn)):
        if len(features) < 2:
            raise UsageError(f"a distance needs at least 2 {name} pictures, and there are {len(features)}")
