"""Spacings: which levels of a path a sampler stops at.

A spacing is a function of a path and a number of steps n. It returns n + 1 levels, the noisiest first and
`CLEAN` last, strictly decreasing in noise; the network is asked at the first n.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sfumato.diffusion.level import CLEAN, Level, Path
from sfumato.errors import UsageError
from sfumato.names import spacing_name


def leading(path: Path, n: int, *, offset: float = 0, dropped: int = 0) -> list[Level]:
    """Every (T/n)-th time, counted from the least noisy one (Ho et al. 2020; Song et al. 2021).

    It never reaches the noisiest level; with few steps it begins far from it. `offset` is added to every time
    (Stable Diffusion's `steps_offset` is 1). `dropped` more points are laid out and left out at the least
    noisy end (diffusers' DPM-Solver, UniPC and DEIS drop one).
    """
    points = _steps(n) + dropped
    counted = _counted(path, points)
    stride = (path.last + 1) // points if counted else (path.last - path.first) / points
    top = path.first + (points - 1) * stride
    top += min(offset, path.last - top)
    return _at_times(path, (top - i * stride for i in range(n)))


def linspace(path: Path, n: int, *, dropped: int = 0, rounded: bool = True) -> list[Level]:
    """Times spread evenly from the noisiest to the least noisy, both included (Karras et al. 2022, table 1).

    `dropped` as in `leading`. Times are `rounded` to whole ones where the network was trained on those.
    """
    intervals = max(_steps(n) + dropped - 1, 1)
    stride = (path.last - path.first) / intervals
    times = [path.last, *(path.first + (intervals - i) * stride for i in range(1, n))]
    return _at_times(path, map(round, times) if rounded and _counted(path, intervals + 1) else times)


def trailing(path: Path, n: int) -> list[Level]:
    """Even strides that start at the noisiest level and end at the picture (Lin et al. 2023, §3.3)."""
    if not _counted(path, _steps(n)):
        return _at_times(path, (path.last - i * path.last / n for i in range(n)))
    count = path.last + 1
    return _at_times(path, (round(count - i * count / n) - 1 for i in range(n)))


def lcm(path: Path, n: int, *, origin: int = 50) -> list[Level]:
    """n of the `origin` times that a consistency model was distilled at, evenly chosen.

    A latent consistency model knows only those (Luo et al. 2023, §4.3): 4 of 50 are 999, 759, 499 and 259.
    They are whole strides apart: where `origin` does not divide the path, the first is less noisy than pure
    noise. With more steps than such times, the levels are `trailing`.
    """
    if origin < 1:
        raise UsageError(f"origin of the lcm spacing must be at least 1, not {origin}")
    if _steps(n) <= origin and _counted(path, origin):
        stride = (path.last + 1) // origin
        known = [path.level((origin - i) * stride - 1) for i in range(origin)]
    else:
        known = trailing(path, max(origin, n))[:-1]
    return [*(known[len(known) * i // n] for i in range(n)), CLEAN]


def karras(
    path: Path,
    n: int,
    *,
    rho: float = 7.0,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    ceiling: float = 80.0,
) -> list[Level]:
    """σ^(1/ρ) falls evenly from `sigma_max` to `sigma_min` (Karras et al. 2022, eq. 5), the path's own ends.

    Times are not rounded to the network's own. On a path that begins with pure noise the first level is just
    that, and the others are laid out as if it were `ceiling`.
    """
    return _at_sigmas(path, n, lambda x: x ** (1 / rho), lambda y: y**rho, sigma_min, sigma_max, ceiling)


def exponential(
    path: Path,
    n: int,
    *,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    ceiling: float = 80.0,
) -> list[Level]:
    """ln σ falls evenly, which is evenly in λ (Lu et al. 2022, §3.4). Its ends are those of `karras`."""
    return _at_sigmas(path, n, math.log, math.exp, sigma_min, sigma_max, ceiling)


def beta(path: Path, n: int, *, alpha: float = 0.6, beta: float = 0.6) -> list[Level]:
    """Times at even quantiles of a Beta distribution, dense at both ends (Lee et al. 2024, §4).

    `alpha` and `beta`, both positive: below 1 they draw times to the picture and to the noise.
    """
    if min(alpha, beta) <= 0:
        raise UsageError(f"alpha and beta of the beta spacing must be positive, not {alpha} and {beta}")
    quantiles = (beta_quantile(1 - i / n, alpha, beta) for i in range(_steps(n)))
    return _at_times(path, (path.first + (path.last - path.first) * q for q in quantiles))


def balanced(path: Path, n: int, *, alpha: float = 0.3) -> list[Level]:
    """The noise's share of the variance, s²/(a² + s²), at even quantiles of a Beta(α, α) distribution.

    With `alpha` ½ that is evenly in the angle between signal and noise, towards 0 evenly in λ: in between, as
    here, levels are dense where a picture is decided and shrink in proportion at both ends, which keeps a
    sampler's order from pure noise to no noise. The density over λ is cosh^(−2α) λ.
    """
    if alpha <= 0:
        raise UsageError(f"alpha of the balanced spacing must be positive, not {alpha}")
    noisiest, least = path.level(path.last), path.level(path.first)
    top, floor = _share_of_noise(noisiest, alpha), _share_of_noise(least, alpha)
    low, intervals = (0.0, n) if top / _steps(n) >= floor else (floor, n - 1)
    inner = (beta_quantile(top - i * (top - low) / intervals, alpha, alpha) for i in range(1, n))
    return [noisiest, *(path.at(math.sqrt(z / (1 - z))) for z in inner), CLEAN]


def _share_of_noise(level: Level, alpha: float) -> float:
    """The quantile at which `balanced` has this level."""
    total = level.a**2 + level.s**2
    z, rest = level.s**2 / total, level.a**2 / total
    if rest == 0:
        return 1.0
    share = math.exp(_log_beta_share(math.log(min(z, rest)), alpha, alpha)[0])
    return share if z <= rest else 1 - share


def beta_quantile(p: float, alpha: float, beta: float) -> float:
    """The x in [0, 1] below which a share `p` of a Beta(alpha, beta) distribution lies, to 1e-10."""
    if p <= 0 or p >= 1:
        return min(max(p, 0.0), 1.0)
    middle = math.log(0.5)
    if math.log(p) > _log_beta_share(middle, alpha, beta)[0] + 1e-12:
        return 1 - beta_quantile(1 - p, beta, alpha)
    y = middle
    for _ in range(100):  # Newton's method, which converges from one side, for ln I is concave in ln x
        share, slope = _log_beta_share(y, alpha, beta)
        step = (math.log(p) - share) / slope
        y = min(y + step, middle)
        if abs(step) < 1e-14 * max(1.0, -y):
            break
    return math.exp(y)


def _log_beta_share(y: float, alpha: float, beta: float) -> tuple[float, float]:
    """ln I_x(α, β), the regularised incomplete beta function, and its slope in y = ln x, for x ≤ ½.

    Abramowitz & Stegun 26.5.4.
    """
    x = math.exp(y)
    total = term = 1.0
    k = 0
    while term > 1e-17 * total:
        term *= x * (alpha + beta + k) / (alpha + 1 + k)
        total += term
        k += 1
    front = math.lgamma(alpha + beta) - math.lgamma(alpha) - math.lgamma(beta) - math.log(alpha)
    log_share = front + alpha * y + beta * math.log1p(-x) + math.log(total)
    return log_share, alpha / ((1 - x) * total)


def _steps(n: int) -> int:
    if n < 1:
        raise UsageError(f"steps must be at least 1, not {n}")
    return n


def _counted(path: Path, n: int) -> bool:
    """Whether strides are made of whole times: the network knows only those, and has at least n of them."""
    return path.whole and n <= path.last + 1


def _at_times(path: Path, times: Iterable[float]) -> list[Level]:
    return [*(path.level(t) for t in times), CLEAN]


def _at_sigmas(
    path: Path,
    n: int,
    bend: Callable[[float], float],
    unbend: Callable[[float], float],
    sigma_min: float | None,
    sigma_max: float | None,
    ceiling: float,
) -> list[Level]:
    """Levels whose bent σ are even, between the two ends of the path, or those given."""
    noisiest = path.level(path.last) if sigma_max is None else path.at(sigma_max)
    low = path.level(path.first).sigma if sigma_min is None else sigma_min
    top = bend(ceiling if noisiest.a == 0 else noisiest.sigma)
    stride = (top - bend(low)) / max(_steps(n) - 1, 1)
    return [noisiest, *(path.at(unbend(top - i * stride)) for i in range(1, n)), CLEAN]


@dataclass(frozen=True)
class Spacing:
    """A spacing under its name: `levels(path, n, **options)` gives n + 1 levels."""

    name: str
    levels: Callable[..., list[Level]]
    summary: str


SPACINGS = {
    spacing.name: spacing
    for spacing in (
        Spacing("leading", leading, "even strides from the picture; stops short of the noise"),
        Spacing("linspace", linspace, "even in time, both ends included"),
        Spacing("trailing", trailing, "even strides from noise to picture"),
        Spacing("lcm", lcm, "the times a latent consistency model was distilled at"),
        Spacing("karras", karras, "more levels near the picture (EDM)"),
        Spacing("exponential", exponential, "even in the logarithm of the noise"),
        Spacing("beta", beta, "more levels at both ends"),
        Spacing("balanced", balanced, "between even in log noise and even in angle; for adams"),
    )
}


def spacing_named(name: str) -> Spacing:
    """The spacing called `name` here, in A1111 or in diffusers; case, blanks and underscores don't matter."""
    return SPACINGS[spacing_name(name)]
