"""Score distillation: gradients for what renders a picture x, from the clean estimate x̂0 of its noised self.

With x_t = a·x + s·ε the network's noise is ε̂ = (x_t − a·x̂0)/s, so that every method is a weight times x − x̂0,
or x̂0_φ − x̂0 where a student φ has learned what is rendered:

    SDS             w·(ε̂ − ε) = w·(a/s)·(x − x̂0), w = s²     Poole et al. 2022, eq. 3
    SJC             −(D(y, σ) − x)/σ² = (a/s)²·(x − x̂0), σ = s/a, y = x_t/a     Wang et al. 2023, eq. 8
    VSD             w·(ε̂ − ε̂_φ) = w·(a/s)·(x̂0_φ − x̂0), w = s²     Wang et al. 2023 (ProlificDreamer), eq. 9
    reconstruction  ∇½‖x − x̂0‖² = x − x̂0, x̂0 held fixed     Shi et al. 2023, appendix A.3
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sfumato.diffusion.level import Level, Path
from sfumato.errors import UsageError, nearest

WEIGHTS: dict[str, Callable[[Level], float]] = {
    "sds": lambda level: level.s * level.a,
    "sjc": lambda level: (level.a / level.s) ** 2,
    "vsd": lambda level: level.s * level.a,
    "reconstruction": lambda level: 1.0,
}
"""What x − x̂0 is multiplied by, for each method; of VSD x̂0_φ − x̂0."""


def distillation_gradient(
    method: str, x: Tensor, x0: Tensor, level: Level, student: Tensor | None = None
) -> Tensor:
    """The gradient at `x` (B, …) by the clean estimates `x0` (B, …) of `x` noised to `level`.

    `student` (B, …): those of the student, for "vsd". Raises `UsageError` for a method that is not in
    `WEIGHTS`, and for "vsd" without a student.
    """
    if method not in WEIGHTS:
        raise UsageError(f"unknown method of score distillation {method!r}; {nearest(method, WEIGHTS)}")
    if method == "vsd":
        if student is None:
            raise UsageError("vsd needs the clean estimates of a student")
        x = student
    return WEIGHTS[method](level) * (x - x0).detach()


def student_loss(x: Tensor, estimate: Tensor, level: Level) -> Tensor:
    """How wrong the student's noise is: the mean of ‖ε̂_φ − ε‖² = (a/s)²·‖x̂0_φ − x‖² (ProlificDreamer, eq. 8).

    `estimate`: its clean estimate of `x` noised to `level`.
    """
    return (level.a / level.s) ** 2 * (estimate - x.detach()).square().mean()


def as_loss(x: Tensor, gradient: Tensor) -> Tensor:
    """A number whose derivative by `x` is `gradient`, for what made `x`."""
    return (x * gradient.detach()).sum()


def annealed_level(
    path: Path,
    progress: float,
    generator: torch.Generator,
    *,
    least: float = 0.02,
    most: tuple[float, float] = (0.98, 0.5),
) -> Level:
    """A random level of `path`, its time uniform between `least` and an upper bound, as shares of the path.

    The bound falls linearly between the two of `most` with the `progress`, 0 to 1 (Shi et al. 2023, §3.4).
    """
    upper = most[0] + (most[1] - most[0]) * min(max(progress, 0.0), 1.0)
    share = least + (upper - least) * float(torch.rand((), generator=generator))
    return path.level(math.floor(share * path.last) if path.whole else share * path.last)
