"""The prediction table reads what its targets write."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from paths import PATHS

from sfumato.diffusion.level import Level
from sfumato.diffusion.predict import (
    PREDICTIONS,
    clean_estimate,
    coefficients,
    network_input,
    prediction_named,
)
from sfumato.diffusion.samplers.rules import noise_in
from sfumato.errors import UsageError

X0 = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
EPS = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.mark.parametrize("prediction", PREDICTIONS.values(), ids=PREDICTIONS.keys())
@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
@given(shares=st.tuples(st.floats(0.001, 0.99), st.floats(0.001, 0.99)))
def test_the_perfect_answer_gives_back_x0_and_eps_row_by_row(path, prediction, shares):
    levels = [path.level(path.first + share * (path.last - path.first)) for share in shares]
    a, s = coefficients(levels, X0)
    x = a * X0 + s * EPS
    x0 = clean_estimate(prediction, x, prediction.target(X0, EPS, a, s), levels)
    torch.testing.assert_close(x0, X0, rtol=1e-6, atol=1e-6)
    eps = noise_in(x[:1], X0[:1], levels[0])
    torch.testing.assert_close(eps, EPS[:1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in PREDICTIONS if name != "epsilon"])
def test_every_prediction_but_epsilon_reads_pure_noise(name):
    level = Level(a=0.0, s=1.0, t=999.0)
    a, s = coefficients([level] * 2, X0)
    answer = PREDICTIONS[name].target(X0, EPS, a, s)
    torch.testing.assert_close(clean_estimate(PREDICTIONS[name], EPS, answer, [level] * 2), X0)


def test_epsilon_at_pure_noise_is_refused_with_the_way_out():
    with pytest.raises(UsageError, match="v or x0 prediction"):
        clean_estimate(PREDICTIONS["epsilon"], EPS, EPS, [Level(0.6, 0.8, 1.0), Level(0.0, 1.0, 999.0)])


def test_coefficients_fit_video_latents_and_keep_their_dtype():
    a, s = coefficients([Level(0.6, 0.8, 1.0)] * 2, torch.zeros(2, 3, 5, 4, 4, dtype=torch.bfloat16))
    assert a.shape == s.shape == (2, 1, 1, 1, 1)
    assert a.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("theirs", "ours"), [("v_prediction", "v"), ("sample", "x0"), ("flow_prediction", "flow"), ("edm", "edm")]
)
def test_diffusers_names_are_understood(theirs, ours):
    assert prediction_named(theirs).name == ours


def test_an_unknown_prediction_names_the_nearest():
    with pytest.raises(UsageError, match="epsilon"):
        prediction_named("epsilom")


def test_a_network_of_edm_is_shown_its_input_with_unit_variance_and_the_others_theirs_as_it_is():
    """c_in = 1/√(σ² + σ_data²) (Karras et al. 2022, table 1), x being x0 + σ·eps scaled by a."""
    levels = [Level(1.0, 2.0, 1.0), Level(0.6, 0.8, 1.0)]
    shown = network_input(prediction_named("edm:1.5"), X0, levels)
    for row, level in enumerate(levels):
        sigma = level.s / level.a
        torch.testing.assert_close(shown[row], X0[row] / level.a / (sigma**2 + 1.5**2) ** 0.5)
    a, s = coefficients(levels, X0)
    for name, prediction in PREDICTIONS.items():
        assert torch.equal(prediction.input(X0, a, s), X0) == (not name.startswith("edm"))
        torch.testing.assert_close(network_input(prediction, X0, levels), prediction.input(X0, a, s))
