import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from sfumato.errors import UsageError
from sfumato.evaluate import distances


def normal(count, width, seed, mean=0.0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=generator, dtype=torch.float64) * scale + mean


def with_moments(x, mean, root):
    """`x` moved and stretched so that its mean and covariance are exactly `mean` and `root` rootᵀ."""
    x = x - x.mean(0)
    whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(torch.cov(x.T)), x.T, upper=False).T
    return whitened @ root.T + mean


class Plain(torch.nn.Module):
    """Pictures that are features already, as torchmetrics wants an extractor to be."""

    num_features = 12

    def forward(self, x):
        return x.flatten(1)[:, :12]


def as_pictures(features):
    return torch.nn.functional.pad(features, (0, 3 * 4 * 4 - 12)).reshape(-1, 3, 4, 4)


def test_frechet_distance_of_gaussians_with_commuting_covariances_is_the_closed_form():
    mean = torch.linspace(-1, 1, 6, dtype=torch.float64)
    a = with_moments(normal(40, 6, 0), torch.zeros(6).double(), 2 * torch.eye(6).double())
    b = with_moments(normal(50, 6, 1), mean, torch.diag(torch.arange(1.0, 7.0)).double())
    due = float(mean @ mean) + sum((2 - n) ** 2 for n in range(1, 7))
    assert distances.frechet(a, b) == pytest.approx(due, rel=1e-10)


def test_frechet_distance_of_gaussians_in_two_dimensions_is_the_closed_form():
    r_a, r_b = torch.tensor([[1.0, 0], [0.7, 0.4]]).double(), torch.tensor([[0.3, 0], [-1.1, 2.0]]).double()
    a = with_moments(normal(30, 2, 2), torch.zeros(2).double(), r_a)
    b = with_moments(normal(30, 2, 3), torch.zeros(2).double(), r_b)
    s, t = r_a @ r_a.T, r_b @ r_b.T
    root = math.sqrt(torch.trace(s @ t) + 2 * math.sqrt(torch.det(s) * torch.det(t)))
    due = float(torch.trace(s) + torch.trace(t) - 2 * root)
    assert distances.frechet(a, b) == pytest.approx(due, rel=1e-10)


@settings(max_examples=25)
@given(n=st.integers(2, 30), m=st.integers(2, 30), d=st.integers(1, 12), seed=st.integers(0, 999))
def test_frechet_distance_is_symmetric_and_nothing_to_itself(n, m, d, seed):
    a, b = normal(n, d, seed), normal(m, d, seed + 1, mean=0.5)
    assert distances.frechet(a, a) == pytest.approx(0, abs=1e-9)
    assert distances.frechet(a, b) == pytest.approx(distances.frechet(b, a), rel=1e-9, abs=1e-9)
    assert distances.frechet(a, a + 3) == pytest.approx(9 * d, rel=1e-9)


@pytest.mark.parametrize(("n", "m"), [(200, 150), (9, 8)], ids=["more than numbers", "fewer than numbers"])
def test_frechet_distance_is_that_of_torchmetrics(n, m):
    a, b = normal(n, 12, 4), normal(m, 12, 5, mean=0.3, scale=1.5)
    peer = FrechetInceptionDistance(Plain(), input_img_size=(3, 4, 4), normalize=False).set_dtype(
        torch.float64
    )
    peer.update(as_pictures(a), real=True)
    peer.update(as_pictures(b), real=False)
    # torchmetrics takes the roots of eigenvalues, of which rounding makes 1e-17 a root of 3e-9
    assert distances.frechet(a, b) == pytest.approx(float(peer.compute()), rel=1e-6)


def test_kernel_distance_is_that_of_torchmetrics_with_its_subsets():
    a, b = normal(90, 12, 6), normal(70, 12, 7, mean=0.4)
    peer = KernelInceptionDistance(Plain(), subsets=100, subset_size=35, normalize=False)
    peer.update(as_pictures(a), real=True)
    peer.update(as_pictures(b), real=False)
    torch.manual_seed(11)
    mean, deviation = peer.compute()
    assert distances.kernel(a, b, 11) == pytest.approx((float(mean), float(deviation)), rel=1e-5)


def test_kernel_distance_is_not_biased_by_few_pictures():
    few = [distances.kernel(normal(8, 3, 2 * n), normal(8, 3, 2 * n + 1), 0)[0] for n in range(200)]
    spread = torch.tensor(few)
    assert abs(float(spread.mean())) < 4 * float(spread.std()) / math.sqrt(200)
    assert min(few) < 0 < max(few)


def test_kernel_distance_of_two_pairs_is_what_a_pencil_gives():
    a, b = torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [-1.0]])
    # k of 0 and 1: 1; of 2 and −1: (−1)³; of 0 with both: 1; of 1 with 2: 27; of 1 with −1: 0
    assert distances.kernel(a, b, 0) == pytest.approx((1 - 1 - 2 * (1 + 1 + 27 + 0) / 4, 0))


def test_kernel_distance_depends_on_which_subsets_the_seed_draws_but_little():
    a, b = normal(40, 4, 8), normal(30, 4, 9, mean=1)
    first, again, other = (distances.kernel(a, b, seed) for seed in (1, 1, 2))
    assert first == again != other
    assert first[0] == pytest.approx(other[0], abs=4 * first[1] / math.sqrt(distances.SUBSETS))
    assert first[1] > 0


def test_the_deviation_over_subsets_is_about_that_between_other_pictures():
    found = [distances.kernel(normal(60, 4, 2 * n), normal(60, 4, 2 * n + 1, mean=1), 0) for n in range(40)]
    means, deviations = torch.tensor(found).unbind(1)
    assert 0.7 < float(deviations.mean() / means.std()) < 1.5


def test_sets_that_are_blocks_of_rows_are_summed_whole(monkeypatch):
    a, b = normal(40, 4, 8), normal(30, 4, 9, mean=1)
    due = distances.kernel(a, b, 1)
    monkeypatch.setattr(distances, "_ROWS", 7)
    assert distances.kernel(a, b, 1) == pytest.approx(due, rel=1e-12)


@pytest.mark.parametrize("distance", [distances.frechet, lambda a, b: distances.kernel(a, b, 0)])
def test_a_single_picture_has_no_distance(distance):
    with pytest.raises(UsageError, match="at least 2 drawn pictures, and there are 1"):
        distance(normal(3, 2, 0), normal(1, 2, 0))
