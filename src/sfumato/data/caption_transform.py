"""What a picture is called in one batch: templates around captions, tags in changing order, or nothing.

Everything is drawn from the `Random` that is passed, so that a moment of training has its words for good.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

CAPTION = "{caption}"
_BRACES = re.compile(r"\{[^{}]*\}")


@dataclass(frozen=True)
class CaptionTransform:
    """How captions become texts."""

    templates: tuple[str, ...] = (CAPTION,)
    """One of them is chosen; `{caption}` stands for the picture's own."""
    drop_text: float = 0.0
    """How often the text is left empty, so that guidance has an unconditional answer (Ho & Salimans 2021)."""
    shuffle_tags: bool = False
    """Whether the parts of a caption between commas change their order."""
    drop_tags: float = 0.0
    """How often each of them is left out; one always stays."""
    keep_tags: int = 0
    """How many at the beginning stay where they are."""

    @property
    def needs_captions(self) -> bool:
        """Whether a picture without a caption is of no use."""
        return any(CAPTION in template for template in self.templates)

    @property
    def changes_tags(self) -> bool:
        """Whether there are more texts than can be listed."""
        return self.shuffle_tags or self.drop_tags > 0

    def check(self) -> None:
        """Raise `ValueError` where it says nothing sensible."""
        if not self.templates:
            raise ValueError("caption_template must hold at least one template")
        for template in self.templates:
            for found in _BRACES.findall(template):
                if found != CAPTION:
                    raise ValueError(f"caption_template {template!r}: {found} is not known, only {CAPTION}")
        for key in ("drop_text", "drop_tags"):
            if not 0 <= getattr(self, key) <= 1:
                raise ValueError(f"{key} = {getattr(self, key)} must be in [0, 1]")
        if self.keep_tags < 0:
            raise ValueError(f"keep_tags = {self.keep_tags} must not be negative")

    def text(self, captions: Sequence[str], random: Random) -> str:
        """One text for a picture that may be called any of `captions`."""
        # always as many draws, so that one key of a recipe does not change what another has chosen
        template, said, dropped = random.random(), random.random(), random.random() < self.drop_text
        order = Random(random.getrandbits(64))
        if dropped:
            return ""
        caption = captions[int(said * len(captions))] if captions else ""
        if self.changes_tags:
            caption = self._tags(caption, order)
        return self.templates[int(template * len(self.templates))].replace(CAPTION, caption)

    def texts(self, captions: Sequence[str]) -> list[str]:
        """All that `text` may answer, unless it changes tags; the empty text first."""
        every = [template.replace(CAPTION, one) for one in captions or ("",) for template in self.templates]
        return ["", *every]

    def _tags(self, caption: str, random: Random) -> str:
        tags = [tag.strip() for tag in caption.split(",") if tag.strip()]
        first, others = tags[: self.keep_tags], tags[self.keep_tags :]
        if self.shuffle_tags:
            random.shuffle(others)
        kept = [tag for tag in others if random.random() >= self.drop_tags]
        return ", ".join([*first, *kept] or others[:1])
