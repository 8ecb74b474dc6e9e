"""Elements of a scene: objects that are drawn for themselves, cut out and put in front of a background."""

from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from sfumato.control import Fraction
from sfumato.inputs import Picture
from sfumato.prompt.meaning import MAX_CHARACTERS
from sfumato.validation import Matching, Validated

Box = tuple[Fraction, Fraction, Fraction, Fraction]
"""Left, top, right, bottom, as fractions of the picture."""


def check_box(box: Box) -> None:
    """Raise `ValueError` for a box without an area."""
    left, top, right, bottom = box
    if left >= right or top >= bottom:
        raise ValueError(f"box {box} is empty: it must be left < right and top < bottom")


class Element(Validated):
    """One object of a scene: what it is, and where it stands.

    It is drawn at the model's own size, cut out of its background, and made to fit into `box`, or into what
    is white of `mask`, which also cuts it off; into the whole picture if neither is given. Elements of larger
    `depth` are in front; of equal ones the later. What is `None` is as in the request, `seed` the request's
    and as many more as the element's number, from 1. `shadow`: how dark a soft shadow below it is.
    """

    prompt: str = Field(min_length=1, max_length=MAX_CHARACTERS)
    name: Annotated[str, Matching(r"[\w -]*", "of letters, digits, spaces, - and _")] = Field(
        "", max_length=80
    )
    box: Box | None = None
    mask: Picture | None = None
    depth: int = Field(0, ge=-1000, le=1000)
    seed: int | None = Field(None, ge=0, le=2**63 - 1)
    steps: int | None = Field(None, ge=1, le=1000)
    guidance: float | None = Field(None, ge=0, le=100, allow_inf_nan=False)
    negative: str = Field("", max_length=MAX_CHARACTERS)
    style: tuple[str, ...] = Field((), max_length=16)
    shadow: Fraction = 0.0

    @field_validator("style", mode="before")
    @classmethod
    def _one_style(cls, style: object) -> object:
        return (style,) if isinstance(style, str) else style

    @model_validator(mode="after")
    def _stands_somewhere(self) -> Self:
        if self.box is not None:
            check_box(self.box)
        if self.box is not None and self.mask is not None:
            raise ValueError("box and mask both say where it stands; give one of the two")
        return self
