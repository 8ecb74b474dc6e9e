"""A parsed prompt's content: the one form that every dialect is turned into."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field

MAX_CHARACTERS = 100_000
"""How long a prompt may be."""
Strength = Annotated[float, Field(ge=-10, le=10, allow_inf_nan=False)]
"""The weight of an adapter in a request."""


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


@dataclass(frozen=True)
class Travel:
    """A content for every frame of a clip: `parts[i]` at frame `keys[i]`, mixed evenly in between.

    Before the first key and after the last one nothing changes; in a `loop` of so many `frames` the last
    leads back to the first.
    """

    parts: tuple["Content", ...]
    keys: tuple[int, ...]
    frames: int
    loop: bool = False

    def shares(self) -> list[list[float]]:
        """(F, K): how much every part counts in each frame; each row sums to 1."""
        rows = []
        for frame in range(self.frames):
            after = bisect_right(self.keys, frame)
            low, high = after - 1, after % len(self.keys)
            row = [0.0] * len(self.keys)
            if self.loop or 0 < after < len(self.keys):
                begin, end = self.keys[low], self.keys[high]
                length = (end - begin) % self.frames or self.frames
                share = (frame - begin) % self.frames / length
            else:
                low, share = min(max(low, 0), len(self.keys) - 1), 0.0
            row[low] += 1 - share
            row[high] += share
            rows.append(row)
        return rows


Content = Phrase | Blend | Concatenation | Travel


@dataclass(frozen=True)
class PromptTerm:
    """One part of an `AND`: what it says at every step, and how much it counts.

    `at[i]` is the index, among `contents`, of what step i of the drawing reads; a term that does not change
    has one content and zeros. `weight` counts against the other terms: 1 is as much as a prompt alone.
    """

    contents: tuple[Content, ...]
    at: tuple[int, ...]
    weight: float = 1.0


@dataclass(frozen=True)
class AdapterWeight:
    """One adapter, such as a LoRA, and how strongly it counts: 1 is as it was trained.

    `weight` in the denoiser, `text_weight` in the text encoders, or `weight` there too. `blocks`: factors of
    these in parts of the networks, by the names of `sfumato.adapt.blocks` or as a list such as A1111 users
    have; 1 elsewhere. A prompt calls it by `<lora:name:weight>` or `<lora:name:weight:text weight>`. The
    bounds are those of a request.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=1000)]
    weight: Strength = 1.0
    text_weight: Strength | None = None
    blocks: Mapping[str, Strength] | Sequence[Strength] = field(default_factory=dict)
