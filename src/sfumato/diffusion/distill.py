"""The mathematics of distillation into few steps, for batches of levels on any path, pure noise included.

A *consistency function* f(x, t) maps a point of an ODE trajectory to its end, and is the identity where no
noise is left. A *solver* takes one step along the ODE, with a teacher's clean estimates or, without a
teacher, with the data itself (the unbiased estimate of Song et al. 2023, §5: distillation becomes consistency
training). A *distance* compares two estimates.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.diffusion.level import Level
from sfumato.diffusion.samplers.rules import step_to

BatchLevel = Level[Tensor]
"""One level for each row of a batch: a and s (B, 1, …), t (B,)."""
DenoiseFn = Callable[[Tensor, BatchLevel], Tensor]
"""Clean estimates (B, …) of latents (B, …) at a `BatchLevel`."""
Solver = Callable[[DenoiseFn, Tensor, BatchLevel, BatchLevel, BatchLevel], Tensor]
"""`(denoiser, x, here, middle, there)` to x at `there`, by one step along the ODE."""


class LevelTable:
    """Levels to choose from, the least noisy first, as tables on a device."""

    def __init__(self, levels: Sequence[Level], device: torch.device) -> None:
        table = torch.tensor([(level.a, level.s, level.t) for level in levels], dtype=torch.float64)
        self.a, self.s, self.t = table.float().to(device).unbind(1)

    def __len__(self) -> int:
        return len(self.t)

    def rows(self, index: Tensor, ndim: int = 4) -> BatchLevel:
        """The levels at `index` (B,), for latents of `ndim` dimensions."""
        shape = (-1,) + (1,) * (ndim - 1)
        return Level(self.a[index].view(shape), self.s[index].view(shape), self.t[index])


@dataclass(frozen=True)
class Boundary:
    """f(x, t) = c_skip·x + c_out·x̂0, the identity at the least noise.

    `scaling` = None: as Song et al. 2023, appendix C, in the noise-to-signal ratio σ, exact at `sigma_min`;
    for `sigma_min` 0 it is x̂0 itself. Else as Luo et al. 2023, §4.1, in τ = `scaling`·t, exact at t = 0.
    """

    sigma_data: float = 0.5
    sigma_min: float = 0.002
    scaling: float | None = None

    def weights(self, level: BatchLevel) -> tuple[Tensor, Tensor]:
        """c_skip and c_out (B, 1, …)."""
        data = self.sigma_data
        if self.scaling is not None:
            tau = self.scaling * level.t.view(level.a.shape)
            root = (tau**2 + data**2).sqrt()
            return (data / root) ** 2, tau / root
        # the paper's c_skip·x + c_out·F, with the F behind a clean estimate by Karras et al. 2022, eq. 7, for
        # x/a and σ = s/a; nothing in it is infinite at pure noise (a = 0)
        off = level.s - self.sigma_min * level.a
        out = off / level.s
        spread = (data * level.a) ** 2
        skip = level.a * data**2 * (1 / (off**2 + spread) - out / (level.s**2 + spread))
        return skip, out

    def __call__(self, denoiser: DenoiseFn, x: Tensor, level: BatchLevel) -> Tensor:
        """f(x, t) of latents (B, …)."""
        skip, out = self.weights(level)
        return skip * x + out * denoiser(x, level)


LATENT = Boundary(scaling=10.0)
"""That of latent consistency models, as their samplers apply it."""


def cfg(cond: DenoiseFn, uncond: DenoiseFn, scale: Tensor) -> DenoiseFn:
    """x̂0(∅) + g·(x̂0(c) − x̂0(∅)), with a guidance scale `scale` (B, 1, …) of its own for each row."""

    def denoise(x: Tensor, level: BatchLevel) -> Tensor:
        without = uncond(x, level)
        return without + scale * (cond(x, level) - without)

    return denoise


def ddim(denoiser: DenoiseFn, x: Tensor, here: BatchLevel, middle: BatchLevel, there: BatchLevel) -> Tensor:
    """One step of DDIM (Song et al. 2021, eq. 12); `here` must not be clean."""
    return step_to(x, denoiser(x, here), here, there)


def dpmpp_2s(
    denoiser: DenoiseFn, x: Tensor, here: BatchLevel, middle: BatchLevel, there: BatchLevel
) -> Tensor:
    """DPM-Solver++(2S) with r = ½ (Lu et al. 2022b, algorithm 1), `middle` at half the way in λ.

    The estimate of the whole step is then the midpoint's, which has a value from pure noise as well.
    """
    halfway = step_to(x, denoiser(x, here), here, middle)
    return step_to(x, denoiser(halfway, middle), here, there)


SOLVERS: dict[str, Solver] = {"ddim": ddim, "dpmpp-2s": dpmpp_2s}


def halfway(here: Level, there: Level) -> Level:
    """The level of their path at half the way in λ; from pure noise or to the picture, in time."""
    if here.path is None:
        raise ValueError("these levels are on no path")
    if math.isinf(here.lam) or math.isinf(there.lam):
        return here.path.level((here.t + there.t) / 2)
    return here.path.at(math.exp(-(here.lam + there.lam) / 2))


def two_steps_as_one(
    denoiser: DenoiseFn, x: Tensor, here: BatchLevel, middle: BatchLevel, there: BatchLevel
) -> Tensor:
    """The x0 with which one DDIM step `here` → `there` ends where two of the teacher's do.

    Salimans & Ho 2022, algorithm 2 and appendix G: x̃ = (z'' − (s''/s)·z)/(a'' − (s''/s)·a).
    """
    between = ddim(denoiser, x, here, here, middle)
    landed = ddim(denoiser, between, middle, middle, there)
    keep = there.s / here.s
    return (landed - keep * x) / (there.a - keep * here.a)


def pseudo_huber(x: Tensor, y: Tensor, c: float) -> Tensor:
    """√(‖x − y‖² + c²) − c over each row (Song & Dhariwal 2024, eq. 7); (B, …) to (B,)."""
    return ((x - y).float().square().flatten(1).sum(1) + c * c).sqrt() - c


def truncated_snr(level: BatchLevel) -> Tensor:
    """max(a²/s², 1), the weight of an error in x0 (Salimans & Ho 2022, §4); (B,)."""
    return ((level.a / level.s) ** 2).clamp(min=1).flatten()


def snr_plus_one(level: BatchLevel) -> Tensor:
    """1 + a²/s², the weight of an error in x0 that makes it one in v (Salimans & Ho 2022, §4); (B,)."""
    return (1 + (level.a / level.s) ** 2).flatten()


def discretization_steps(step: int, steps: int, first: int = 10, last: int = 1280) -> int:
    """Into how many intervals the path is cut at `step` of `steps`: doubled from `first` up to `last`.

    Song & Dhariwal 2024, §3.4: min(first·2^⌊k/K'⌋, last) with K' = ⌊K/(log₂⌊last/first⌋ + 1)⌋.
    """
    each = max(steps // (int(math.log2(last // first)) + 1), 1)
    return int(min(first * 2 ** (step // each), last))


def karras_sigmas(count: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Tensor:
    """`count` rising values of σ, evenly spaced in σ^(1/ρ) (Karras et al. 2022, eq. 5); float64."""
    return torch.linspace(sigma_min ** (1 / rho), sigma_max ** (1 / rho), count, dtype=torch.float64) ** rho


def lognormal_probabilities(sigmas: Tensor, mean: float = -1.1, std: float = 2.0) -> Tensor:
    """How often each interval of rising `sigmas` (N + 1,) is trained: that of a lognormal σ; (N,), sums to 1.

    Song & Dhariwal 2024, eq. 10: erf((ln σ' − mean)/(√2·std)) − erf((ln σ − mean)/(√2·std)).
    """
    edges = torch.erf((sigmas.double().log() - mean) / (math.sqrt(2) * std))
    shares = edges.diff()
    return shares / shares.sum()


def inverse_gaps(sigmas: Tensor) -> Tensor:
    """1/(σ' − σ), the weight of each interval of rising `sigmas` (Song & Dhariwal 2024, §3.1); (N,)."""
    return 1 / sigmas.double().diff()
