"""Noise levels, and the paths that a latent takes from noise to picture.

A noisy latent is `x = a·x0 + s·eps`. A `Level` holds the two coefficients, as ordinary numbers also where the
latent is pure noise (`a = 0`) or clean (`s = 0`), and the time that the network is told. A path maps time to
level; `sfumato.diffusion.spacing` picks the levels at which a sampler stops.
"""

import bisect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol

import torch
from torch import Tensor
from typing_extensions import TypeVar

Number = TypeVar("Number", float, Tensor, default=float)
"""Of one level for all, a float; of a level for each row of a batch (or each frame), a tensor."""


@dataclass(frozen=True, slots=True)
class Level(Generic[Number]):
    """A noise level: `x = a·x0 + s·eps`, and `t`, the time as the network was trained to read it.

    Three numbers, or three tensors for a batch of levels: `a` and `s` (B, 1, …) broadcast over latents, (B,
    1, F, 1, 1) with a level for each frame; `t` (B,). `path` is the path it lies on, for samplers that stop
    between the levels they were given.
    """

    a: Number
    s: Number
    t: Number
    path: "Path | None" = field(default=None, compare=False, repr=False)

    @property
    def sigma(self) -> Number:
        """Noise-to-signal ratio s/a; infinite for pure noise (Karras et al. 2022 write σ for it)."""
        if isinstance(self.a, Tensor):
            return self.s / self.a
        return math.inf if self.a == 0 else self.s / self.a

    @property
    def lam(self) -> Number:
        """Half the log signal-to-noise ratio, λ = ln(a/s) (Lu et al. 2022, §3); ±∞ at the two ends."""
        if isinstance(self.a, Tensor):
            return self.a.log() - self.s.log()
        if self.a == 0:
            return -math.inf
        return math.inf if self.s == 0 else math.log(self.a) - math.log(self.s)

    def noisy(self, x0: Tensor, eps: Tensor) -> Tensor:
        """a·x0 + s·eps; latents (B, …)."""
        return self.a * x0 + self.s * eps


AnyLevel = Level[float] | Level[Tensor]

CLEAN = Level(a=1.0, s=0.0, t=0.0)
"""Where every drawing ends: no noise left."""


class Path(Protocol):
    """The way from picture to noise: a level for every time in [`first`, `last`]."""

    @property
    def first(self) -> float:
        """The time of the least noisy level that the network was trained on."""
        ...

    @property
    def last(self) -> float:
        """The time of the noisiest level, in the network's own units."""
        ...

    @property
    def whole(self) -> bool:
        """Whether the network was trained on whole times only."""
        ...

    def level(self, t: float) -> Level:
        """The level at time `t`; times between the network's own are interpolated."""
        ...

    def time(self, sigma: float) -> float:
        """The time at which s/a equals `sigma`, clamped to where the path reaches."""
        ...

    def at(self, sigma: float) -> Level:
        """The level with s/a = `sigma`, 0 < sigma < ∞; beyond the path's ends only its time is clamped."""
        ...


class VariancePreserving:
    """a² + s² = 1, from a table of cumulative products ᾱ_t (Ho et al. 2020, eq. 4): a = √ᾱ, s = √(1−ᾱ).

    Between two entries log σ is interpolated linearly; towards an entry of pure noise, a is.
    """

    first, whole = 0.0, True

    def __init__(self, alphas_cumprod: Sequence[float] | Tensor) -> None:
        """`alphas_cumprod`: (T,) strictly decreasing in [0, 1), the last may be 0 (zero terminal SNR)."""
        table = torch.as_tensor(alphas_cumprod, dtype=torch.float64)
        if table.ndim != 1 or len(table) < 2 or table[-1] < 0 or table[0] >= 1:
            raise ValueError("alphas_cumprod must be one row of at least 2 numbers in [0, 1)")
        if not bool((table.diff() < 0).all()):
            raise ValueError("alphas_cumprod must strictly decrease")
        self.alphas_cumprod = table
        self._levels = [
            Level(a=math.sqrt(ac), s=math.sqrt(1 - ac), t=float(t), path=self)
            for t, ac in enumerate(table.tolist())
        ]
        self._log_sigmas = [-level.lam for level in self._levels]

    @property
    def last(self) -> float:
        return float(len(self._levels) - 1)

    def level(self, t: float) -> Level:
        t = min(max(t, 0.0), self.last)
        low = min(int(t), len(self._levels) - 2)
        w = t - low
        if w == 0:
            return self._levels[low]
        if w == 1:
            return self._levels[low + 1]
        if self._levels[low + 1].a == 0:
            a = (1 - w) * self._levels[low].a
            return Level(a=a, s=math.sqrt(1 - a * a), t=t, path=self)
        log_sigma = (1 - w) * self._log_sigmas[low] + w * self._log_sigmas[low + 1]
        return self._level(math.exp(log_sigma), t)

    def time(self, sigma: float) -> float:
        if sigma <= 0:
            return 0.0
        log_sigma = math.log(sigma)
        high = bisect.bisect_left(self._log_sigmas, log_sigma)
        if high == 0:
            return 0.0
        if high == len(self._log_sigmas):
            return self.last
        below, above = self._log_sigmas[high - 1], self._log_sigmas[high]
        if math.isinf(above):
            a = 1 / math.hypot(1, sigma)
            return high - 1 + (1 - a / self._levels[high - 1].a)
        return high - 1 + (log_sigma - below) / (above - below)

    def at(self, sigma: float) -> Level:
        return self._level(sigma, self.time(sigma))

    def _level(self, sigma: float, t: float) -> Level:
        return Level(a=1 / math.hypot(1, sigma), s=1 / math.hypot(1, 1 / sigma), t=t, path=self)


def scaled_linear_betas(start: float = 0.00085, end: float = 0.012, count: int = 1000) -> Tensor:
    """Stable Diffusion's betas: linear in √β. Returns (count,) float64."""
    return torch.linspace(start**0.5, end**0.5, count, dtype=torch.float64) ** 2


def linear_betas(start: float = 0.0001, end: float = 0.02, count: int = 1000) -> Tensor:
    """Linear betas (Ho et al. 2020, §4). Returns (count,) float64."""
    return torch.linspace(start, end, count, dtype=torch.float64)


def cosine_betas(count: int = 1000, max_beta: float = 0.999) -> Tensor:
    """Betas of ᾱ(t) = cos²((t + 0.008)/1.008 · π/2) (Nichol & Dhariwal 2021, eq. 17); (count,) float64."""
    t = torch.arange(count + 1, dtype=torch.float64) / count
    bar = torch.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
    return (1 - bar[1:] / bar[:-1]).clamp(max=max_beta)


def exponential_betas(count: int = 1000, rate: float = 12.0, max_beta: float = 0.999) -> Tensor:
    """Betas of ᾱ(t) = e^(−rate·t), all alike, as Shap-E's (Jun & Nichol 2023). Returns (count,) float64."""
    beta = -math.expm1(-rate / count)
    return torch.full((count,), min(beta, max_beta), dtype=torch.float64)


def alphas_cumprod(betas: Tensor) -> Tensor:
    """ᾱ_t = ∏(1 − β) (Ho et al. 2020, eq. 4). (T,) to (T,) float64."""
    return torch.cumprod(1 - betas.to(torch.float64), dim=0)


def zero_terminal_snr(table: Tensor) -> Tensor:
    """Shift and stretch √ᾱ so that the last level is pure noise (Lin et al. 2023, algorithm 1). (T,)."""
    root = table.to(torch.float64).sqrt()
    return ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2


class Flow:
    """The straight path x = (1 − u)·x0 + u·eps of flow matching (Lipman et al. 2023; Liu et al. 2023).

    The network reads u·`scale`; `shift` moves levels towards noise, u' = shift·u / (1 + (shift − 1)·u)
    (Esser et al. 2024, eq. 23).
    """

    whole = False

    def __init__(self, scale: float = 1000.0, shift: float = 1.0) -> None:
        self.scale, self.shift = scale, shift

    @property
    def first(self) -> float:
        return self.scale / 1000

    @property
    def last(self) -> float:
        return self.scale

    def level(self, t: float) -> Level:
        u = min(max(t / self.scale, 0.0), 1.0)
        u = self.shift * u / (1 + (self.shift - 1) * u)
        return Level(a=1 - u, s=u, t=u * self.scale, path=self)

    def time(self, sigma: float) -> float:
        u = 1.0 if math.isinf(sigma) else sigma / (1 + sigma)
        return self.scale * u / (self.shift - (self.shift - 1) * u)

    def at(self, sigma: float) -> Level:
        u = sigma / (1 + sigma)
        return Level(a=1 / (1 + sigma), s=u, t=u * self.scale, path=self)


@dataclass(frozen=True)
class DynamicFlow:
    """A flow whose shift depends on the picture's size (Esser et al. 2024, §5.3.2): e^μ, or μ itself.

    μ is linear in the number of latent positions: `base_shift` at `base_positions`, `max_shift` at
    `max_positions`.
    """

    scale: float = 1000.0
    base_shift: float = 0.5
    max_shift: float = 1.15
    base_positions: int = 256
    max_positions: int = 4096
    exponential: bool = True

    def at(self, positions: int) -> Flow:
        """The path of a picture with so many latent positions."""
        slope = (self.max_shift - self.base_shift) / (self.max_positions - self.base_positions)
        mu = self.base_shift + slope * (positions - self.base_positions)
        shift = math.exp(min(mu, 7.0)) if self.exponential else mu
        return Flow(self.scale, min(max(shift, 0.001), 1000.0))


class VarianceExploding:
    """a = 1, s = σ (Song et al. 2021); networks read c_noise(σ), by default ln σ/4 (Karras et al. 2022)."""

    def __init__(
        self,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        c_noise: Callable[[float], float] = lambda sigma: math.log(sigma) / 4,
    ) -> None:
        if not 0 < sigma_min < sigma_max:
            raise ValueError("0 < sigma_min < sigma_max must hold")
        self.sigma_min, self.sigma_max, self.c_noise = sigma_min, sigma_max, c_noise

    first, last, whole = 0.0, 1.0, False

    def level(self, t: float) -> Level:
        t = min(max(t, 0.0), 1.0)
        return self.at(self.sigma_min ** (1 - t) * self.sigma_max**t)

    def time(self, sigma: float) -> float:
        sigma = min(max(sigma, self.sigma_min), self.sigma_max)
        return math.log(sigma / self.sigma_min) / math.log(self.sigma_max / self.sigma_min)

    def at(self, sigma: float) -> Level:
        clamped = min(max(sigma, self.sigma_min), self.sigma_max)
        return Level(a=1.0, s=sigma, t=self.c_noise(clamped), path=self)
