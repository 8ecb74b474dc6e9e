"""How a field is distilled. Data only, so that the command reads it without torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sfumato.errors import UsageError
from sfumato.validation import shown

METHODS = ("puff", "field")
FACES = 20_000
"""Triangles unless another number is given."""
OBJECTIVES = ("sds", "sjc", "vsd", "reconstruction")


@dataclass(frozen=True)
class FieldSettings:
    """How a field of `side`³ voxels is distilled in so many `steps`.

    `objective`: of `sfumato.diffusion.score_distillation`, with so much `guidance`. `elevations`: the range
    of the cameras in degrees. `samples`: along each ray. `roughness` and `sparsity`: the weights of the
    field's roughness and of its mean opacity. `density_lr`, `feature_lr` and, of the student
    of "vsd", `student_lr`: of Adam. `painted`: the surface
    is given a texture by the prompt at last, as in `sfumato.space.texturing`.
    """

    steps: int = 240
    side: int = 40
    samples: int = 48
    objective: str = "sds"
    guidance: float = 15.0
    elevations: tuple[float, float] = (-10.0, 45.0)
    roughness: float = 1.0
    sparsity: float = 0.0
    density_lr: float = 0.15
    feature_lr: float = 0.05
    student_lr: float = 1e-3
    painted: bool = False
    seed: int = 0


QUALITIES: Mapping[str, FieldSettings] = {
    "draft": FieldSettings(),
    "good": FieldSettings(steps=800, side=56, samples=64, roughness=2.0, painted=True),
}


def check_method(method: Any, quality: Any, objective: Any, thickness: float, back: str) -> None:
    """Raise `UsageError` for a method of making shapes, or a quality or objective of fields, that is none,
    and for an option of the other method that is not its default.
    """
    if method not in METHODS:
        raise UsageError(f"method is {shown(method)}: must be puff or field")
    if quality not in QUALITIES:
        raise UsageError(f"quality is {shown(quality)}: must be draft or good")
    if objective not in OBJECTIVES:
        raise UsageError(f"objective is {shown(objective)}: must be sds, sjc, vsd or reconstruction")
    given: tuple[tuple[str, str, object, object], ...] = (
        ("field", "quality", quality, "draft"),
        ("field", "objective", objective, "sds"),
        ("puff", "thickness", thickness, 1),
        ("puff", "back", back, "inpaint"),
    )
    for owner, name, value, default in given:
        if method != owner and value != default:
            raise UsageError(f"{name} is {value}: it belongs to the method {owner}, not to {method}")
