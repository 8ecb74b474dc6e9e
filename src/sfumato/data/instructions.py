"""Words for edits of a picture: each kind of instruction in several phrasings."""

from random import Random

from sfumato.data.captions import article

COLOUR = (
    "make it {colour}",
    "make it {colour}",
    "turn it {colour}",
    "paint it {colour}",
    "change the color to {colour}",
    "change its colour to {colour}",
    "recolor it {colour}",
    "make the {label} {colour}",
    "turn the {label} {colour}",
    "{colour}",
)
STYLE = (
    "make it {style}",
    "make it {a_style}",
    "turn it into {a_style}",
    "as {a_style}",
    "draw it as {a_style}",
    "redraw it in the style of {a_style}",
    "make it look like {a_style}",
    "turn the {label} into {a_style}",
    "{style}",
)
GROUND = (
    "put it on {a_ground} background",
    "put it on {a_ground} background",
    "on {a_ground} background",
    "make the background {ground}",
    "change the background to {ground}",
    "give it {a_ground} background",
    "put the {label} on {a_ground} background",
    "{ground} background",
)
ADDITION = (
    "add {a_thing}",
    "put {a_thing} on it",
    "put {a_thing} on top",
    "give it {a_thing}",
    "add {a_thing} to the {label}",
    "with {a_thing}",
)
REMOVAL = (
    "remove the {thing}",
    "take the {thing} away",
    "delete the {thing}",
    "without the {thing}",
)
PHRASINGS = {"colour": COLOUR, "style": STYLE, "ground": GROUND, "addition": ADDITION, "removal": REMOVAL}
"""By kind."""


def instructions(kind: str, what: str, label: str, random: Random, count: int) -> tuple[str, ...]:
    """`count` different ways, or all there are, to ask for an edit of `kind`, a key of `PHRASINGS`.

    `what`: the colour, style, background or thing; `label`: what the picture shows.
    """
    words = {"label": label}
    word = {"addition": "thing", "removal": "thing"}.get(kind, kind)
    words |= {word: what, f"a_{word}": article(what)}
    ways = list(dict.fromkeys(way.format(**words) for way in PHRASINGS[kind]))
    return tuple(random.sample(ways, min(count, len(ways))))
