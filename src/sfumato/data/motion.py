"""Captions of clips that say exactly how something moves."""

from random import Random

from sfumato.data.captions import article
from sfumato.edit.motion import MOTIONS


def caption(subject: str, motion: str, style: str, random: Random) -> str:
    """One way to say that `subject`, as "red apple", moves so, drawn in `style`, which may be empty."""

    words = MOTIONS[motion]
    verb = words[0] if random.random() < 0.7 else random.choice(words)
    ways = [f"{article(subject)} {verb}", f"{subject} {verb}", f"{subject}, {verb}"]
    text = random.choice(ways)
    if not style:
        return text
    return random.choice((f"{text}, {style}", f"{text}, {style}", f"{style} of {text}"))
