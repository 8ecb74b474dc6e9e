"""Pictures that steer a drawing, each through a network of its own, such as a ControlNet."""

from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from sfumato.inputs import InputImage, input_image
from sfumato.names import PREPROCESSORS
from sfumato.validation import Validated, one_of

Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class Control(Validated):
    """A picture, and the network through which it steers the drawing: a ControlNet (Zhang et al. 2023), a
    T2I-Adapter (Mou et al. 2023) or an IP-Adapter (Ye et al. 2023).

    `model`: a folder in the diffusers layout, a `.safetensors` file, a hub id, the name of one in the user's
    folder `controls`, or of one that the drawing's model brings with it, as "edges" of the embedded one.
    `image`: what the network reads, given as anything that `InputImage.of` takes. It is resized to the
    drawing's size, whatever its proportions, as diffusers does. An IP-Adapter sees its middle square, and may
    be given several pictures, which it reads together. `preprocessor`: what is made of it then, a name of
    `sfumato.names.PREPROCESSORS`. `weight`: 1 is as trained. `start` and `end`: in which part of the steps it
    counts, as fractions of their number.
    """

    model: str = Field(min_length=1, max_length=1000)
    image: InputImage | tuple[InputImage, ...]
    preprocessor: Annotated[str, one_of(PREPROCESSORS)] = "none"
    weight: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] = 1.0
    start: Fraction = 0.0
    end: Fraction = 1.0

    @property
    def images(self) -> tuple[InputImage, ...]:
        """Its pictures, of which there is mostly one."""
        return (self.image,) if isinstance(self.image, InputImage) else self.image

    @field_validator("image", mode="before")
    @classmethod
    def _pictures(cls, source: Any) -> Any:
        if not isinstance(source, list | tuple):
            return input_image(source)
        if not source:
            raise ValueError("must be a picture, or several")
        return tuple(map(input_image, source))

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
