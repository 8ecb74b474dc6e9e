"""The evaluation set: real pictures, and the prompts that ask for such ones."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Protocol

import torch
from torch import Tensor

from sfumato.data.captions import TINTS, caption, tint, tinted_caption
from sfumato.data.crops import CropPolicy
from sfumato.data.folder import check_is_there
from sfumato.data.icons import Icons, Row, load, rows, tinted, to_signal
from sfumato.data.pack import Drawing
from sfumato.data.search import search
from sfumato.data.sets import SETS
from sfumato.errors import UsageError
from sfumato.evaluate import colours

Coloured = list[tuple[str, Tensor]]
"""Pairs of a colour's name and a picture (3, S, S) of a thing of that colour."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Real pictures in random order, each with a prompt that asks for it."""

    prompts: tuple[str, ...]
    concepts: tuple[str, ...]
    """What each shows, in whatever style."""
    styles: tuple[str, ...]
    """A label that pictures of one style share."""
    pictures: Callable[[Sequence[int]], Tensor]
    """Indices to pictures (B, 3, S, S) in [−1, 1]."""

    def __len__(self) -> int:
        return len(self.prompts)


class Data(Protocol):
    """Captioned pictures, some of them held out for tests."""

    styles: tuple[str, ...]
    """Styles that prompts may name."""

    def examples(self, *, held_out: bool, seed: int, most: int) -> Examples:
        """At most `most` of the pictures held out, or of the others.

        Sampled without replacement, by the weights that training samples with. Order and prompts depend on
        `seed` alone, so that a smaller set is the beginning of a larger one.
        """
        ...

    def coloured(self, seed: int, most: int) -> dict[str, Coloured]:
        """Pictures whose colours are known, at most `most` of each kind, by the name of the kind."""
        ...


def data(folder: Path, size: int, index: Path) -> Data:
    """The icon set or the captioned pictures in `folder`, at `size` pixels a side.

    `index`: a file in which to keep what was found there. Raises `DataError`, and `UsageError` for smaller
    pictures.
    """
    check_is_there(folder)
    return IconData(folder, size) if rows(folder) else FolderData(folder, size, index)


class IconData:
    """The icon and emoji set. Every prompt names a style; one-colour drawings have a tint."""

    styles: tuple[str, ...] = colours.STYLES

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self.size = folder, size

    def examples(self, *, held_out: bool, seed: int, most: int) -> Examples:
        source = load(self.folder, held_out=held_out)
        known = (*source.rows, *source.ink_rows)
        places = _sampled([row.weight for row in known], seed, most)
        pairs = [tint(Random(f"{seed} {place} tint")) for place in places]

        def prompt(place: int, pair: tuple[str, str]) -> str:
            return _caption(
                known[place], pair if place >= len(source.rows) else None, Random(f"{seed} {place} words")
            )

        def pictures(wanted: Sequence[int]) -> Tensor:
            return torch.cat([self._picture(source, places[one], pairs[one]) for one in wanted])

        return Examples(
            tuple(map(prompt, places, pairs)),
            tuple(_concept(known[place]) for place in places),
            tuple(known[place].set for place in places),
            pictures,
        )

    def coloured(self, seed: int, most: int) -> dict[str, Coloured]:
        source, random = load(self.folder, held_out=False), Random(seed)
        count = len(source.ink_rows)
        drawn = []
        for place in random.sample(range(count), min(most, count)):
            ink = random.choice(colours.NAMES)
            ground = random.choice([name for name in TINTS if name != ink])
            drawn.append((ink, self._picture(source, len(source.rows) + place, (ink, ground))[0]))
        named = [(colours.named(row.label), place) for place, row in enumerate(source.rows)]
        telling = [(name, place) for name, place in named if name is not None]
        called = [
            (name, self._picture(source, place)[0])
            for name, place in random.sample(telling, min(most, len(telling)))
        ]
        return {"tinted": drawn, "named by colour": called}

    def _picture(self, source: Icons, place: int, pair: tuple[str, str] = ("black", "white")) -> Tensor:
        """(1, 3, S, S): the picture at `place` among those in colour and then those of one, in `pair`."""
        if place < len(source.rows):
            return at_size(to_signal(source.pictures[[place]]), self.size)
        ink, ground = torch.tensor([TINTS[name] for name in pair]).float() / 127.5 - 1
        return at_size(tinted(source.inks[[place - len(source.rows)]], ink[None], ground[None]), self.size)


class FolderData:
    """One's own pictures with captions, cropped to squares."""

    styles: tuple[str, ...] = ()

    def __init__(self, folder: Path, size: int, index: Path) -> None:
        self.size = size
        self.found = search(folder, index)
        self.found.warn(captioned=True)

    def examples(self, *, held_out: bool, seed: int, most: int) -> Examples:
        source = self.found.chosen(held_out=held_out, captioned=True)
        large = [place for place, each in enumerate(source.sizes) if min(each) >= self.size]
        if source.sizes and not large:
            largest = max(min(each) for each in source.sizes)
            raise UsageError(_too_small(self.size, largest))
        chosen = _sampled([source.weights[place] for place in large], seed, most)
        places = [large[one] for one in chosen]
        prompts = tuple(Random(f"{seed} {place}").choice(source.captions[place]) for place in places)

        def pictures(wanted: Sequence[int]) -> Tensor:
            shown = [places[one] for one in wanted]
            size = (self.size, self.size)
            crops = [CropPolicy().crop(source.sizes[place], size, Random(0)) for place in shown]
            return source.load(shown, crops)

        return Examples(prompts, prompts, ("",) * len(prompts), pictures)

    def coloured(self, seed: int, most: int) -> dict[str, Coloured]:
        return {}


def at_size(pictures: Tensor, size: int) -> Tensor:
    """Pictures (B, 3, S, S) reduced to `size` pixels a side. Raises `UsageError` where they are smaller."""
    own = pictures.shape[-1]
    if own == size:
        return pictures
    if own < size:
        raise UsageError(_too_small(size, own))
    reduced = torch.nn.functional.interpolate(pictures, (size, size), mode="bicubic", antialias=True)
    return reduced.clamp(-1, 1)


def _too_small(size: int, own: int) -> str:
    return (
        f"pictures of {size}×{size} cannot be compared with data of {own}×{own}: draw {own} pixels a side "
        f"(--size {own}), or bring larger pictures"
    )


def _sampled(weights: Sequence[float], seed: int, most: int) -> list[int]:
    """At most `most` indices, sampled by weight without replacement (Efraimidis & Spirakis 2006)."""
    random = Random(seed)
    keys = [random.random() ** (1 / weight) if weight else 0.0 for weight in weights]
    return sorted(range(len(weights)), key=keys.__getitem__, reverse=True)[:most]


def _caption(row: Row, pair: tuple[str, str] | None, random: Random) -> str:
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
