"""A Gaussian mixture whose clean estimate is exact: the field's test bed, where errors can be measured.

For data p(x0) = Σ w_k N(m_k, τ_k²) every quantity that a network learns has a closed form, so a sampler's
error is its own and not the network's (Karras et al. 2022, appendix B; Lu et al. 2022, appendix).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.diffusion.level import Level


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

    def flow(self, x: Tensor, noisiest: Level, angles: Sequence[float], steps: int = 4000) -> list[Tensor]:
        """The exact ODE's latents, started from `x` (B, D) at `noisiest`, wherever tan φ = s/a; error ~1e-9.

        In y = x/√(a² + s²) and the angle φ the ODE is dy/dφ = cos φ·eps − sin φ·x0 on every path, with no
        singular point between pure noise (π/2) and picture (0). `angles` fall; y is returned at each.
        Integrated with the classical Runge–Kutta rule at two step widths, extrapolated to width zero.
        """
        coarse = self._march(x, noisiest, angles, steps // 2)
        fine = self._march(x, noisiest, angles, steps)
        return [f + (f - c) / 15 for f, c in zip(fine, coarse, strict=True)]

    def end(self, x: Tensor, noisiest: Level, steps: int = 4000) -> Tensor:
        """Where the exact ODE takes `x` (B, D) from level `noisiest` when all noise is gone; (B, D)."""
        return self.flow(x, noisiest, [0.0], steps)[0]

    def _slope(self, y: Tensor, angle: float) -> Tensor:
        a, s = math.cos(angle), math.sin(angle)
        x0, eps = self.estimates(y, a, s)
        return a * eps - s * x0

    def _march(self, x: Tensor, noisiest: Level, angles: Sequence[float], steps: int) -> list[Tensor]:
        y = x / math.hypot(noisiest.a, noisiest.s)
        start = here = math.atan2(noisiest.s, noisiest.a)
        reached = []
        for stop in angles:
            count = max(1, math.ceil(steps * (here - stop) / start))
            h = (stop - here) / count
            for i in range(count):
                at = here + i * h
                k1 = self._slope(y, at)
                k2 = self._slope(y + h / 2 * k1, at + h / 2)
                k3 = self._slope(y + h / 2 * k2, at + h / 2)
                k4 = self._slope(y + h * k3, at + h)
                y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
            here = stop
            reached.append(y)
        return reached


def mixture(
    seed: int, dim: int, components: int, stds: tuple[float, float], fall: float = 0.0, rms: float = 0.85
) -> Mixture:
    """A random mixture of zero mean and root mean square `rms`, the same for the same `seed`.

    Standard deviations are log-uniform in `stds`. With `fall` > 0 the components' spread and the distance
    between them fall as i^−fall over the coordinates i, as a picture's frequencies do, and the whole is scaled
    to `rms`; with 0 the spread stays as given and the distances are scaled.
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
