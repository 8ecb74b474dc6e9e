"""What a prompt says once its dialect has been read: the one form that every dialect is turned into."""

from dataclasses import dataclass

MAX_CHARACTERS = 100_000
"""How long a prompt may be."""


@dataclass(frozen=True)
class WeightedText:
    """A stretch of text with one weight: 1 as written, 0 as if it were not there, below that turned round."""

    text: str
    weight: float = 1.0


@dataclass(frozen=True)
class Break:
    """The rest of this chunk of tokens stays empty; what follows begins the next."""


@dataclass(frozen=True)
class Phrase:
    """What a text encoder reads as one text."""

    parts: tuple[WeightedText | Break, ...]


@dataclass(frozen=True)
class Blend:
    """Σ weight·states over the parts, the weights made to sum to 1 if `normalised` (compel's `.blend()`)."""

    parts: tuple["Content", ...]
    weights: tuple[float, ...]
    normalised: bool = True


@dataclass(frozen=True)
class Concatenation:
    """The parts' states one after another, each moved from the empty text's by its weight (`.and()`)."""

    parts: tuple["Content", ...]
    weights: tuple[float, ...]


Content = Phrase | Blend | Concatenation


@dataclass(frozen=True)
class Term:
    """One part of an `AND`: what it says at every step, and how much it counts.

    `at[i]` is the index, among `contents`, of what step i of the drawing reads; a term that does not change
    has one content and zeros. `weight` counts against the other terms: 1 is as much as a prompt alone.
    """

    contents: tuple[Content, ...]
    at: tuple[int, ...]
    weight: float = 1.0


@dataclass(frozen=True)
class AdapterCall:
    """`<lora:name:weight>` or `<lora:name:weight:text weight>`; `text_weight` is `weight` where not given."""

    name: str
    weight: float = 1.0
    text_weight: float | None = None
