"""At most half of diffusers' error for the same number of evaluations: the benchmark's claim, in small."""

import accuracy
import pytest

# diffusers' best few at each number of evaluations, out of some 600 combinations of options in the benchmark
THEIR_BEST = {
    5: (
        "SA-2/3 tau 0 nois, leading",
        "UniPC-1 bh1 eps, karras, sigma_min, lower_final",
        "UniPC-2 bh1 eps, leading, sigma_min",
    ),
    10: (
        "DEIS-3, karras",
        "UniPC-3 bh1 eps, karras, sigma_min, lower_final",
        "DPM-Solver++ 3M midpoint zero, euler_final, lu",
    ),
    20: ("SA-3/3 tau 0 nois, karras, lower_final", "UniPC-3 bh2 eps, karras, sigma_min, lower_final"),
    50: ("LMS, exponential of trailing", "LMS, karras of trailing", "LMS, karras"),
}


@pytest.fixture(scope="module")
def on():
    return accuracy.ground(["blobs"], accuracy.ORDINARY)


@pytest.mark.parametrize("budget", THEIR_BEST)
def test_the_best_sampler_makes_at_most_half_the_error_of_diffusers_best(budget, on):
    theirs = list(accuracy.theirs(on, budget, among=THEIR_BEST[budget].__contains__))
    assert {row.name for row in theirs} == set(THEIR_BEST[budget])
    ours = list(accuracy.ours(on, budget, among="adams".__eq__))
    assert all(row.evaluations <= budget for row in (*theirs, *ours))
    assert min(row.rms for row in ours) <= min(row.rms for row in theirs) / 2
