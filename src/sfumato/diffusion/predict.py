"""The one table of what networks predict. Everything downstream sees the clean estimate x0.

With x = a·x0 + s·eps, each row says how the network is shown x, how its answer becomes x0, and what its
training target is.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.diffusion.level import Level
from sfumato.errors import UsageError, nearest

Coefficients = Tensor
"""(B, 1, 1, 1) or broadcastable, one number for each row of the batch."""


@dataclass(frozen=True)
class Prediction:
    """One kind of answer: `x0(x, out, a, s)` reads it, `target(x0, eps, a, s)` is what training asks for.

    `input_scale(a, s)`: what x is multiplied by before the network sees it; `None` is 1.
    """

    name: str
    x0: Callable[[Tensor, Tensor, Coefficients, Coefficients], Tensor]
    target: Callable[[Tensor, Tensor, Coefficients, Coefficients], Tensor]
    singular_at_pure_noise: bool = False
    input_scale: Callable[[Coefficients, Coefficients], Tensor] | None = None

    def input(self, x: Tensor, a: Coefficients, s: Coefficients) -> Tensor:
        """`x` (B, …) in the scale in which the network was trained to see it."""
        return x if self.input_scale is None else self.input_scale(a, s) * x


SIGMA_DATA = 0.5
"""The standard deviation of the data that EDM's networks assume, unless they say another."""


def edm(name: str, sigma_data: float = SIGMA_DATA, sign: float = 1.0) -> Prediction:
    """EDM's preconditioning (Karras et al. 2022, eq. 7): x0 = c_skip·x + c_out·F(c_in·x), in any scale of x.

    `sign` of c_out: −1 for networks that predict v (diffusers' `v_prediction` of an EDM scheduler).
    """

    def total(a: Tensor, s: Tensor) -> Tensor:
        return s * s + sigma_data**2 * a * a

    def c_skip(a: Tensor, s: Tensor) -> Tensor:
        return sigma_data**2 * a / total(a, s)

    def c_out(a: Tensor, s: Tensor) -> Tensor:
        return sign * sigma_data * s / total(a, s).sqrt()

    return Prediction(
        name,
        x0=lambda x, out, a, s: c_skip(a, s) * x + c_out(a, s) * out,
        target=lambda x0, eps, a, s: (x0 - c_skip(a, s) * (a * x0 + s * eps)) / c_out(a, s),
        input_scale=lambda a, s: 1 / total(a, s).sqrt(),
    )


PREDICTIONS = {
    prediction.name: prediction
    for prediction in (
        # Ho et al. 2020, eq. 9
        Prediction(
            "epsilon",
            x0=lambda x, out, a, s: (x - s * out) / a,
            target=lambda x0, eps, a, s: eps,
            singular_at_pure_noise=True,
        ),
        # Salimans & Ho 2022, appendix D: v = a·eps − s·x0
        Prediction(
            "v",
            x0=lambda x, out, a, s: (a * x - s * out) / (a * a + s * s),
            target=lambda x0, eps, a, s: a * eps - s * x0,
        ),
        Prediction("x0", x0=lambda x, out, a, s: out, target=lambda x0, eps, a, s: x0),
        # Liu et al. 2023, eq. 1: the velocity eps − x0
        Prediction(
            "flow",
            x0=lambda x, out, a, s: (x - s * out) / (a + s),
            target=lambda x0, eps, a, s: eps - x0,
        ),
        edm("edm"),
        edm("edm-v", sign=-1.0),
    )
}


def prediction_named(name: str) -> Prediction:
    """The table's row, by our name or diffusers' (`v_prediction`, `sample`, `flow_prediction`).

    `edm` and `edm-v` may be followed by σ_data, as in "edm-v:1".
    """
    ours = {"v_prediction": "v", "sample": "x0", "flow_prediction": "flow"}.get(name, name)
    if match := re.fullmatch(r"edm(-v)?:(\d+(?:\.\d+)?(?:e-?\d+)?)", ours):
        return edm(name, float(match[2]), -1.0 if match[1] else 1.0)
    if ours not in PREDICTIONS:
        raise UsageError(f"unknown prediction {name!r}; {nearest(name, PREDICTIONS)}")
    return PREDICTIONS[ours]


def coefficients(levels: Sequence[Level], like: Tensor) -> tuple[Coefficients, Coefficients]:
    """a and s of one level for each row of `like` (B, …), as (B, 1, …) tensors of its dtype and device."""
    shape = (len(levels),) + (1,) * (like.ndim - 1)
    pairs = torch.tensor([(level.a, level.s) for level in levels], dtype=like.dtype).to(like.device)
    return pairs[:, 0].view(shape), pairs[:, 1].view(shape)


def network_input(prediction: Prediction, x: Tensor, levels: Sequence[Level]) -> Tensor:
    """What the network is shown of `x` (B, …), row i at `levels[i]`."""
    return x if prediction.input_scale is None else prediction.input(x, *coefficients(levels, x))


def clean_estimate(prediction: Prediction, x: Tensor, out: Tensor, levels: Sequence[Level]) -> Tensor:
    """x0 from the network's answer `out` (B, …) to `x` (B, …), row i at `levels[i]`.

    Raises `UsageError` for epsilon at pure noise, where (x − s·eps)/a has no value.
    """
    if prediction.singular_at_pure_noise and any(level.a == 0 for level in levels):
        raise UsageError(
            f"a network that predicts {prediction.name} cannot start at pure noise (a = 0): "
            "use a model with v or x0 prediction, or a schedule without zero terminal SNR"
        )
    a, s = coefficients(levels, x)
    return prediction.x0(x, out.to(x.dtype), a, s)
