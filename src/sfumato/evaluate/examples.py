"""What an evaluation asks for, and the real pictures that it compares with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from torch import Tensor

from sfumato.data.captions import TINTS, caption, tint, tinted_caption
from sfumato.data.icons import Icons, Row, load, tinted, to_signal
from sfumato.data.pack import Drawing
from sfumato.data.sets import SETS
from sfumato.errors import UsageError
from sfumato.evaluate import colours


@dataclass(frozen=True, eq=False)
class Examples:
    """Real pictures in a mixed order, each with the prompt that asks for such a one."""

    prompts: tuple[str, ...]
    concepts: tuple[str, ...]
    """What each shows, whatever its style."""
    styles: tuple[str, ...]
    """The set that each comes from."""
    pictures: Callable[[Sequence[int]], Tensor]
    """Places to pictures (B, 3, S, S) in [−1, 1]."""

    def __len__(self) -> int:
        return len(self.prompts)


def icons(folder: Path, *, held_out: bool, seed: int, most: int) -> Examples:
    """At most `most` pictures of the icon set in `folder`: of the concepts held out for tests, or of others.

    What training shows more often is more likely to be among the first. Every prompt names a style;
    one-colour drawings have a tint, and prompts that name it. The order, prompts and tints depend on `seed`
    alone, so that fewer are the first of more. Raises `DataError`.
    """
    source = load(folder, held_out=held_out)
    rows, random = (*source.rows, *source.ink_rows), Random(seed)
    # a weighted draw without replacement (Efraimidis & Spirakis 2006)
    lots = [random.random() ** (1 / row.weight) for row in rows]
    places = sorted(range(len(rows)), key=lots.__getitem__, reverse=True)[:most]
    pairs = [tint(Random(f"{seed} {place} tint")) for place in places]
    prompts = [
        _said(rows[place], pair if place >= len(source.rows) else None, Random(f"{seed} {place} words"))
        for place, pair in zip(places, pairs, strict=True)
    ]

    def pictures(wanted: Sequence[int]) -> Tensor:
        return torch.cat([_picture(source, places[one], pairs[one]) for one in wanted])

    return Examples(
        tuple(prompts),
        tuple(_concept(rows[place]) for place in places),
        tuple(rows[place].set for place in places),
        pictures,
    )


def tinted_drawings(folder: Path, seed: int, most: int) -> list[tuple[str, Tensor]]:
    """At most `most` one-colour drawings of the icon set in `folder`, and the names of their colours."""
    source, random = load(folder, held_out=False), Random(seed)
    count = len(source.ink_rows)
    found = []
    for place in random.sample(range(count), min(most, count)):
        ink = random.choice(colours.NAMES)
        ground = random.choice([name for name in TINTS if name != ink])
        found.append((ink, _picture(source, len(source.rows) + place, (ink, ground))[0]))
    return found


def named_colours(folder: Path, seed: int, most: int) -> list[tuple[str, Tensor]]:
    """At most `most` pictures of the icon set in `folder` whose labels name a colour, and that colour."""
    source = load(folder, held_out=False)
    telling = [place for place, row in enumerate(source.rows) if colours.named(row.label)]
    chosen = Random(seed).sample(telling, min(most, len(telling)))
    return [
        (str(colours.named(source.rows[place].label)), to_signal(source.pictures[[place]])[0])
        for place in chosen
    ]


def at_size(pictures: Tensor, size: int) -> Tensor:
    """Pictures (B, 3, S, S) reduced to `size` pixels a side. Raises `UsageError` where they are smaller."""
    own = pictures.shape[-1]
    if own == size:
        return pictures
    if own < size:
        raise UsageError(
            f"pictures of {size}×{size} cannot be compared with data of {own}×{own}: draw {own} pixels a "
            f"side (--size {own}) or render the data larger"
        )
    reduced = torch.nn.functional.interpolate(pictures, (size, size), mode="bicubic", antialias=True)
    return reduced.clamp(-1, 1)


def _picture(source: Icons, place: int, pair: tuple[str, str]) -> Tensor:
    """(1, 3, S, S): the picture at `place` among those in colour and then those of one, in `pair`."""
    if place < len(source.rows):
        return to_signal(source.pictures[[place]])
    ink, ground = torch.tensor([TINTS[name] for name in pair]).float() / 127.5 - 1
    return tinted(source.inks[[place - len(source.rows)]], ink[None], ground[None])


def _said(row: Row, pair: tuple[str, str] | None, random: Random) -> str:
    """A caption that names a style of its set, as most do."""
    styles = SETS[row.set].styles
    while True:
        if pair is None:
            said = caption(row.label, row.tags, styles, random)
        else:
            said = tinted_caption(row.label, row.tags, styles, *pair, random)
        if any(style in said for style in styles):
            return said


def _concept(row: Row) -> str:
    return Drawing(row.set, row.label, row.tags, row.share).concept
