"""Few steps instead of many: what a student is asked for, in the levels' own coordinates.

Three methods share three pieces. A *consistency function* f(x, t) names the picture at the end of the ODE
through x, by construction exactly where no noise is left. A *solver* walks a short way along the ODE, with a
teacher's clean estimates, or, where there is no teacher, with the picture itself (the unbiased estimate of
Song et al. 2023, §5: then distillation becomes consistency training). A *distance* compares two pictures.

Everything here is computed for rows of a batch at levels of their own, and for any path, pure noise included.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.diffusion.level import Level


@dataclass(frozen=True, eq=False)
class BatchLevel:
    """One level for each row of a batch: `x = a·x0 + s·eps` as the network is told at `t`."""

    a: Tensor
    """(B, 1, …), broadcastable to latents."""
    s: Tensor
    """(B, 1, …)."""
    t: Tensor
    """(B,)."""

    def noisy(self, x0: Tensor, eps: Tensor) -> Tensor:
        """a·x0 + s·eps; latents (B, …)."""
        return self.a * x0 + self.s * eps


DenoiseFn = Callable[[Tensor, BatchLevel], Tensor]
"""Clean estimates (B, …) of latents (B, …) at `BatchLevel`."""


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
        return BatchLevel(self.a[index].view(shape), self.s[index].view(shape), self.t[index])


@dataclass(frozen=True)
class Boundary:
    """f(x, t) = skip·x + out·x0: which share of the answer is the input itself.

    `scaling` = None: as Song et al. 2023, appendix C, in the noise-to-signal ratio σ, exact at `sigma_min`;
    for `sigma_min` 0 it is x0 itself. Else as Luo et al. 2023, §4.1, in τ = `scaling`·t, exact at t = 0.
    """

    sigma_data: float = 0.5
    sigma_min: float = 0.002
    scaling: float | None = None

    def weights(self, rows: BatchLevel) -> tuple[Tensor, Tensor]:
        """skip and out (B, 1, …)."""
        data = self.sigma_data
        if self.scaling is not None:
            tau = self.scaling * rows.t.view(rows.a.shape)
            root = (tau**2 + data**2).sqrt()
            return (data / root) ** 2, tau / root
        # the paper's c_skip·x + c_out·F, with the F behind a clean estimate by Karras et al. 2022, eq. 7, for
        # x/a and σ = s/a; nothing in it is infinite at pure noise (a = 0)
        off = rows.s - self.sigma_min * rows.a
        out = off / rows.s
        spread = (data * rows.a) ** 2
        skip = rows.a * data**2 * (1 / (off**2 + spread) - out / (rows.s**2 + spread))
        return skip, out

    def __call__(self, answer: DenoiseFn, x: Tensor, rows: BatchLevel) -> Tensor:
        """f(x, t) of latents (B, …)."""
        skip, out = self.weights(rows)
        return skip * x + out * answer(x, rows)


LATENT = Boundary(scaling=10.0)
"""That of latent consistency models, as their samplers apply it."""


def cfg(cond: DenoiseFn, uncond: DenoiseFn, scale: Tensor) -> DenoiseFn:
    """x0(∅) + g·(x0(c) − x0(∅)), with a guidance scale `scale` (B, 1, …) of its own for each row."""

    def answer(x: Tensor, rows: BatchLevel) -> Tensor:
        without = uncond(x, rows)
        return without + scale * (cond(x, rows) - without)

    return answer


def ddim(teacher: DenoiseFn, x: Tensor, here: BatchLevel, middle: BatchLevel, there: BatchLevel) -> Tensor:
    """One step of DDIM along the ODE (Song et al. 2021, eq. 12); `here` must not be clean."""
    return _step(x, teacher(x, here), here, there)


def dpmpp_2s(
    teacher: DenoiseFn, x: Tensor, here: BatchLevel, middle: BatchLevel, there: BatchLevel
) -> Tensor:
    """DPM-Solver++(2S) with r = ½ (Lu et al. 2022b, algorithm 1), `middle` at half the way in λ.

    The estimate of the whole step is then the midpoint's, which has a value from pure noise as well.
    """
    halfway = _step(x, teacher(x, here), here, middle)
    return _step(x, teacher(halfway, middle), here, there)


Solver = Callable[[DenoiseFn, Tensor, BatchLevel, BatchLevel, BatchLevel], Tensor]
"""`(teacher, x, here, middle, there)` to x at `there`, by a short walk along the teacher's ODE."""

SOLVERS: dict[str, Solver] = {"ddim": ddim, "dpmpp-2s": dpmpp_2s}


def halfway(here: Level, there: Level) -> Level:
    """The level of their path at half the way in λ; from pure noise or to the picture, in time."""
    if here.path is None:
        raise ValueError("these levels are on no path")
    if math.isinf(here.lam) or math.isinf(there.lam):
        return here.path.level((here.t + there.t) / 2)
    return here.path.at(math.exp(-(here.lam + there.lam) / 2))


def _step(x: Tensor, x0: Tensor, here: BatchLevel, there: BatchLevel) -> Tensor:
    keep = there.s / here.s
    return keep * x + (there.a - keep * here.a) * x0


def two_steps_as_one(
    teacher: DenoiseFn, x: Tensor, here: BatchLevel, middle: BatchLevel, there: BatchLevel
) -> Tensor:
    """The x0 with which one DDIM step `here` → `there` ends where two of the teacher's do.

    Salimans & Ho 2022, algorithm 2 and appendix G: x̃ = (z'' − (s''/s)·z)/(a'' − (s''/s)·a).
    """
    between = _step(x, teacher(x, here), here, middle)
    landed = _step(between, teacher(between, middle), middle, there)
    keep = there.s / here.s
    return (landed - keep * x) / (there.a - keep * here.a)


def pseudo_huber(x: Tensor, y: Tensor, c: float) -> Tensor:
    """√(‖x − y‖² + c²) − c over each row (Song & Dhariwal 2024, eq. 7); (B, …) to (B,)."""
    return ((x - y).float().square().flatten(1).sum(1) + c * c).sqrt() - c


def truncated_snr(rows: BatchLevel) -> Tensor:
    """max(a²/s², 1), the weight of an error in x0 (Salimans & Ho 2022, §4); (B,)."""
    return ((rows.a / rows.s) ** 2).clamp(min=1).flatten()


def snr_plus_one(rows: BatchLevel) -> Tensor:
    """1 + a²/s², the weight of an error in x0 that makes it one in v (Salimans & Ho 2022, §4); (B,)."""
    return (1 + (rows.a / rows.s) ** 2).flatten()


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
