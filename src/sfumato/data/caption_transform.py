"""From captions to the text of one training example: templates, tag shuffling and dropout, caption dropout.

Everything is drawn from the `Random` that is passed, so that the text of a step is a function of its seed.
"""

import re
from collections.abc import Sequence
from random import Random
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from sfumato.config.base import Config
from sfumato.errors import UsageError

CAPTION, TRIGGER = "{caption}", "[trigger]"
"""What stands for a picture's own caption in templates, and for the trigger word in captions (ai-toolkit)."""
_BRACES = re.compile(r"\{[^{}]*\}")
Probability = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class CaptionTransform(Config):
    """How captions become texts."""

    ERROR = UsageError

    caption_template: str | Annotated[tuple[str, ...], Field(min_length=1)] = CAPTION
    """The text, `{caption}` being the picture's own caption; of several templates one is drawn each time."""
    caption_dropout: Probability = 0.0
    """How often the text is left empty, for classifier-free guidance (Ho & Salimans 2021)."""
    shuffle_tags: bool = False
    """Whether the parts of a caption between commas change their order."""
    tag_dropout: Probability = 0.0
    """How often each of them is left out; one always stays."""
    keep_tags: Annotated[int, Field(ge=0)] = 0
    """How many at the beginning stay where they are."""
    trigger: str = ""
    """What is learned is called so: it takes the place of "[trigger]" in captions, stands before those that
    do not name it, and is the caption of pictures without one."""

    @property
    def templates(self) -> tuple[str, ...]:
        template = self.caption_template
        return (template,) if isinstance(template, str) else template

    @property
    def needs_captions(self) -> bool:
        """Whether a picture without a caption is of no use."""
        return not self.trigger and any(CAPTION in template for template in self.templates)

    @property
    def changes_tags(self) -> bool:
        """Whether there are more texts than can be listed."""
        return self.shuffle_tags or self.tag_dropout > 0

    def check(self) -> None:
        super().check()
        for template in self.templates:
            for found in _BRACES.findall(template):
                if found != CAPTION:
                    raise ValueError(f"caption_template {template!r}: {found} is not known, only {CAPTION}")

    def text(self, captions: Sequence[str], random: Random) -> str:
        """One text for a picture that has `captions`."""
        # always as many draws, so that one key of a recipe does not change what another has chosen
        template, choice, dropped = random.random(), random.random(), random.random() < self.caption_dropout
        order = Random(random.getrandbits(64))
        if dropped:
            return ""
        caption = captions[int(choice * len(captions))] if captions else ""
        if self.changes_tags:
            caption = self._tags(caption, order)
        caption = self._named(caption)
        return self.templates[int(template * len(self.templates))].replace(CAPTION, caption)

    def texts(self, captions: Sequence[str]) -> list[str]:
        """All that `text` may answer, unless it changes tags; the empty text first."""
        named = [self._named(one) for one in captions or ("",)]
        return ["", *(template.replace(CAPTION, one) for one in named for template in self.templates)]

    def _named(self, caption: str) -> str:
        """A caption that names what is learned, if that has a name."""
        caption = caption.replace(TRIGGER, self.trigger) if self.trigger else caption
        if not self.trigger or self.trigger.lower() in caption.lower():
            return caption
        return f"{self.trigger}, {caption}" if caption else self.trigger

    def _tags(self, caption: str, random: Random) -> str:
        tags = [tag.strip() for tag in caption.split(",") if tag.strip()]
        first, others = tags[: self.keep_tags], tags[self.keep_tags :]
        if self.shuffle_tags:
            random.shuffle(others)
        kept = [tag for tag in others if random.random() >= self.tag_dropout]
        return ", ".join([*first, *kept] or others[:1])
