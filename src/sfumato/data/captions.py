"""Words for drawings: names, labels and style in changing order, and the colours they were tinted with."""

from collections.abc import Sequence
from random import Random

TINTS: dict[str, tuple[int, int, int]] = {
    "red": (220, 38, 38),
    "green": (34, 160, 70),
    "blue": (37, 99, 235),
    "yellow": (250, 204, 21),
    "orange": (249, 115, 22),
    "purple": (147, 51, 234),
    "pink": (236, 72, 153),
    "brown": (133, 77, 14),
    "black": (15, 15, 15),
    "white": (255, 255, 255),
    "gray": (128, 128, 128),
    "teal": (13, 148, 136),
    "navy": (20, 30, 90),
    "gold": (212, 165, 20),
}
"""What captions call a colour, and its red, green and blue."""


def article(words: str) -> str:
    """`words` after "a" or "an"."""
    return f"{'an' if words.startswith(tuple('aeiou')) else 'a'} {words}"


def caption(label: str, tags: Sequence[str], styles: Sequence[str], random: Random) -> str:
    """One way to say what a drawing in one of `styles` shows."""
    style, what = random.choice(styles), label
    if tags and random.random() < 0.25:
        more = random.sample(tags, min(len(tags), random.randint(1, 3)))
        what = more[0] if random.random() < 0.3 else f"{label}, {', '.join(more)}"
    ways = (
        f"{what}, {style}",
        f"{what}, {style}",
        f"{article(what)}, {style}",
        f"{style} of {article(what)}",
        f"{what} {style}",
        what,
        article(what),
    )
    return random.choice(ways)


def tint(random: Random) -> tuple[str, str]:
    """The names of an ink and of a ground that differ; most often black, and on white."""
    ink = "black" if random.random() < 0.25 else random.choice([name for name in TINTS if name != "white"])
    ground = "white" if random.random() < 0.55 else random.choice([name for name in TINTS if name != ink])
    return ink, ground


def tinted_caption(
    label: str, tags: Sequence[str], styles: Sequence[str], ink: str, ground: str, random: Random
) -> str:
    """`caption` of a one-colour drawing: names its ink, unless it is black, and its ground, unless white."""
    text = caption(label, tags, styles, random)
    if ink != "black" or random.random() < 0.5:
        style = random.choice(styles)
        ways = (
            f"{ink} {label}, {style}",
            f"{article(ink)} {label}, {style}",
            f"{article(ink)} {label} {style}",
            f"{style} of {article(ink)} {label}",
            f"{label}, {ink} {style}",
        )
        text = random.choice(ways)
    if ground != "white" or random.random() < 0.2:
        text += random.choice((f" on {article(ground)} background", f", {ground} background"))
    return text
