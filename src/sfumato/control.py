"""Pictures that steer a drawing, each through a network of its own, such as a ControlNet."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from sfumato.inputs import Picture
from sfumato.names import PREPROCESSORS
from sfumato.validation import Validated, one_of

Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class Control(Validated):
    """A picture, and the network through which it steers the drawing (Zhang et al. 2023).

    `model`: a folder in the diffusers layout, a `.safetensors` file, a hub id, the name of one in the user's
    folder `controls`, or of one that the drawing's model brings with it, as "edges" of the embedded one.
    `image`: what the network reads; it is resized to the drawing's size, whatever its proportions, as
    diffusers does. `preprocessor`: what is made of it then, a name of `sfumato.names.PREPROCESSORS`.
    `weight`: 1 is as trained. `start` and `end`: in which part of the steps it counts, as fractions of their
    number.
    """

    model: str = Field(min_length=1, max_length=1000)
    image: Picture
    preprocessor: Annotated[str, one_of(PREPROCESSORS)] = "none"
    weight: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] = 1.0
    start: Fraction = 0.0
    end: Fraction = 1.0

    @model_validator(mode="after")
    def _starts_before_its_end(self) -> Self:
        if self.start >= self.end:
            raise ValueError(f"start {self.start:g} is not before end {self.end:g}")
        return self

    def counts_in(self, step: int, steps: int) -> bool:
        """Whether it counts in `step`, from 0, of `steps`: where that lies within start and end, as in
        diffusers.
        """
        return step / steps >= self.start and (step + 1) / steps <= self.end
