"""A Gaussian mixture whose clean estimate is exact: the field's test bed, where errors can be measured.

For data p(x0) = Σ w_k N(m_k, τ_k²) every quantity that a network learns has a closed form, so a sampler's
error is its own and not the network's (Karras et al. 2022, appendix B; Lu et al. 2022, appendix).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.diffusion.level import CLEAN, Level


@dataclass(frozen=True, eq=False)
class Mixture:
    """Σ w_k N(means_k, diag(stds_k²)). `weights` (K,), `means` and `stds` (K, D), all float64."""

    weights: Tensor
    means: Tensor
    stds: Tensor

    def estimates(self, x: Tensor, a: float, s: float) -> tuple[Tensor, Tensor]:
        """E[x0 | x] and E[eps | x] of x = a·x0 + s·eps; (B, D) to twice (B, D). a and s: one may be 0."""
        variance = (a * self.stds) ** 2 + s * s
        off = x[:, None, :] - a * self.means
        pull = off / variance
        log_share = self.weights.log() - ((off * pull).sum(2) + variance.log().sum(1)) / 2
        share = log_share.softmax(1)[:, :, None]
        return (share * (self.means + a * self.stds**2 * pull)).sum(1), (share * (s * pull)).sum(1)

    def denoise(self, x: Tensor, level: Level) -> Tensor:
        """The exact clean estimate of `x` (B, D, …), D numbers to a row in any shape, at `level`."""
        return self.estimates(x.flatten(1), level.a, level.s)[0].view_as(x)

    def flow(self, x: Tensor, here: Level, there: Level = CLEAN, steps: int = 800) -> Tensor:
        """Where the exact ODE takes `x` (B, D) from one level to another; error below 1e-10 by default.

        In y = x/√(a² + s²) and the angle φ with tan φ = s/a the ODE is dy/dφ = cos φ·eps − sin φ·x0 on every
        path, with no singular point from pure noise (π/2) to picture (0). Integrated with the classical
        Runge–Kutta rule at two step widths, and extrapolated to width zero.
        """
        y = x / math.hypot(here.a, here.s)
        start, stop = math.atan2(here.s, here.a), math.atan2(there.s, there.a)
        coarse, fine = (self._march(y, start, stop, count) for count in (steps // 2, steps))
        return math.hypot(there.a, there.s) * (fine + (fine - coarse) / 15)

    def _slope(self, y: Tensor, angle: float) -> Tensor:
        a, s = math.cos(angle), math.sin(angle)
        x0, eps = self.estimates(y, a, s)
        return a * eps - s * x0

    def _march(self, y: Tensor, start: float, stop: float, steps: int) -> Tensor:
        h = (stop - start) / steps
        for i in range(steps):
            at = start + i * h
            k1 = self._slope(y, at)
            k2 = self._slope(y + h / 2 * k1, at + h / 2)
            k3 = self._slope(y + h / 2 * k2, at + h / 2)
            k4 = self._slope(y + h * k3, at + h)
            y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return y


def mixture(
    seed: int, dim: int, components: int, stds: tuple[float, float], fall: float = 0.0, rms: float = 0.85
) -> Mixture:
    """A random mixture of zero mean and root mean square `rms`, the same for the same `seed`.

    Standard deviations are log-uniform in `stds`. With `fall` > 0 the components' spread and the distance
    between them fall as i^−fall over the coordinates i, as a picture's frequencies do, and the whole is
    scaled to `rms`; with 0 the spread stays as given and the distances are scaled.
    """
    generator = torch.Generator().manual_seed(seed)
    low, high = (math.log(std) for std in stds)
    means = torch.randn(components, dim, generator=generator, dtype=torch.float64)
    spread = (low + (high - low) * torch.rand(components, 1, generator=generator, dtype=torch.float64)).exp()
    falling = torch.arange(1, dim + 1, dtype=torch.float64) ** -fall
    means, spread = (means - means.mean(0)) * falling, spread * falling
    within, between = spread.square().mean(), means.square().mean()
    if fall:
        scale = rms / (within + between).sqrt()
        means, spread = scale * means, scale * spread
    else:
        means = means * ((rms**2 - within) / between).sqrt()
    return Mixture(torch.full((components,), 1 / components, dtype=torch.float64), means, spread)
