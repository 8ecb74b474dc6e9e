"""Pairs that the icons hold: a concept in two styles, two colours, on two backgrounds, with a thing on it."""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from functools import cached_property
from random import Random

import torch
from torch import Tensor
from torch.nn import functional as F

from sfumato.data.captions import TINTS
from sfumato.data.crops import Crop, Size
from sfumato.data.icons import Icons, tinted, to_signal
from sfumato.data.instructions import instructions
from sfumato.data.pairs import Pair, PairedPictures
from sfumato.data.recolour import coverage, on_ground, recoloured, with_small
from sfumato.data.sets import SETS

SHARES = {"colour": 0.4, "style": 0.25, "ground": 0.25, "addition": 0.06, "removal": 0.04}
"""How often pairs of each kind are shown."""
COLOURS = tuple(name for name in TINTS if name != "white")
"""What things are coloured in: on white, white ones are not seen."""
STYLED = (
    *("fluent-3d", "noto", "twemoji", "fluent-emoji", "fluent-emoji-flat", "noto-v1", "emojione"),
    *("fxemoji", "streamline-emojis", "fluent-emoji-high-contrast"),
)
"""Sets that draw the same concepts, each in its style."""
THINGS = (
    *("star", "red heart", "fire", "crown", "balloon", "four leaf clover", "snowflake", "gem stone"),
    *("rose", "sun", "bell", "ribbon"),
)
"""Labels of what is put on others."""
CORNERS = {"addition": ((0.98, 0.02), 0.4)}
"""Where such a thing is put, and at what scale."""
PHRASINGS_PER_PAIR = 3
_VERSION = "2"
"""Of the changes, in the digest."""


@dataclass(frozen=True)
class Variant:
    """A picture made of an icon."""

    row: int
    """Of `Icons.pictures`, or after those of `Icons.inks`."""
    colour: str = ""
    """Its new colour; of a one-colour drawing, its ink."""
    ground: str = "white"
    thing: int = -1
    """The row of what is put on it; −1 for nothing."""


@dataclass(frozen=True, eq=False)
class VariantDataset:
    """The pictures of a list of variants, as a dataset without captions."""

    icons: Icons
    variants: tuple[Variant, ...]

    @property
    def side(self) -> int:
        """Width and height of every picture in pixels."""
        return self.icons.pictures.shape[1]

    @property
    def sizes(self) -> tuple[Size, ...]:
        return ((self.side, self.side),) * len(self.variants)

    @property
    def captions(self) -> tuple[tuple[str, ...], ...]:
        return ((),) * len(self.variants)

    @property
    def weights(self) -> tuple[float, ...]:
        return (1.0,) * len(self.variants)

    @cached_property
    def digest(self) -> str:
        described = json.dumps([_VERSION, self.icons.digest, [astuple(each) for each in self.variants]])
        return hashlib.sha256(described.encode()).hexdigest()

    def load(self, rows: Sequence[int], crops: Sequence[Crop]) -> Tensor:
        """As every dataset does; the pictures are square and shown whole."""
        x = torch.stack([self._made(self.variants[row]) for row in rows])
        width, height = crops[0].size
        if (width, height) != (self.side, self.side):
            x = F.interpolate(x, (height, width), mode="bicubic", antialias=True).clamp(-1, 1)
        return x.to(self.icons.pictures.device)

    def _made(self, variant: Variant) -> Tensor:
        """One picture (3, S, S) in [−1, 1], in main memory."""
        count = len(self.icons.rows)
        ground = signal(variant.ground)
        if variant.row >= count:
            ink = self.icons.inks[[variant.row - count]].cpu()
            return tinted(ink, signal(variant.colour or "black")[None], ground[None])[0]
        picture = self._plain(variant.row)
        if variant.colour:
            picture = recoloured(picture, coverage(picture), signal(variant.colour))
        if variant.thing >= 0:
            corner, scale = CORNERS["addition"]
            picture = with_small(picture, self._plain(variant.thing), corner, scale)
        return picture if variant.ground == "white" else on_ground(picture, coverage(picture), ground)

    def _plain(self, row: int) -> Tensor:
        return to_signal(self.icons.pictures[[row]].cpu())[0]


def signal(name: str) -> Tensor:
    """The colour (3,) in [−1, 1] that `TINTS` calls `name`."""
    return torch.tensor(TINTS[name]).float() / 127.5 - 1


def icon_pairs(icons: Icons, *, seed: int, most: int) -> PairedPictures:
    """Pairs of about `most` pictures made of `icons`, concept by concept in an order of chance.

    Each kind of edit is weighted to be shown as often as `SHARES` says. Raises `DataError` as `load` does.
    """
    random = Random(seed)
    maker = _Maker(icons, random)
    concepts = list(maker.concepts)
    random.shuffle(concepts)
    for concept in concepts:
        if len(maker.numbers) >= most:
            break
        maker.add(concept)
    counts = Counter(pair.kind for pair in maker.pairs)
    pairs = [replace(pair, weight=SHARES[pair.kind] / counts[pair.kind]) for pair in maker.pairs]
    return PairedPictures(VariantDataset(icons, tuple(maker.numbers)), tuple(pairs))


class _Maker:
    """Collects variants and the pairs between them."""

    def __init__(self, icons: Icons, random: Random) -> None:
        self.random = random
        self.rows = (*icons.rows, *icons.ink_rows)
        self.concepts: dict[str, list[int]] = defaultdict(list)
        """The rows of each label that one of the `STYLED` sets draws in colour; no skin tones and flags."""
        for number, row in enumerate(self.rows):
            if row.set in STYLED and ":" not in row.label:
                self.concepts[row.label].append(number)
        drawn = {label for label, rows in self.concepts.items() if not all(map(self._is_ink, rows))}
        self.concepts = {label: rows for label, rows in self.concepts.items() if label in drawn}
        self.things = [number for label in THINGS for number in self.concepts.get(label, ())]
        self.things = [number for number in self.things if not self._is_ink(number)]
        self.numbers: dict[Variant, int] = {}
        """Rows of the dataset by variant."""
        self.pairs: list[Pair] = []

    def add(self, label: str) -> None:
        """Some pictures of a concept, and their pairs."""
        random = self.random
        # one drawing of each set
        of_set = {self.rows[number].set: number for number in self.concepts[label]}
        chosen = random.sample(sorted(of_set), min(4, len(of_set)))
        plain = [Variant(of_set[name]) for name in chosen]
        for source in plain:
            for target in plain:
                if target != source:
                    self._pair("style", random.choice(self._styles(target)), label, source, target)
        for place, base in enumerate(plain):
            if self._is_ink(base.row):
                self._colours(label, base, replace(base, colour=random.choice(COLOURS)))
            elif place % 2:
                self._grounds(label, base)
            else:
                self._colours(label, base, base)
        coloured = [each for each in plain if not self._is_ink(each.row)]
        if self.things and random.random() < 0.3:
            self._addition(label, random.choice(coloured))

    def _colours(self, label: str, base: Variant, first: Variant) -> None:
        """From `first`, which may be `base`, to two other colours, and from one of those to the other."""
        one, two = self.random.sample([name for name in COLOURS if name != first.colour], 2)
        variants = [replace(base, colour=name) for name in (one, two)]
        for source, target in ((first, variants[0]), (first, variants[1]), (variants[0], variants[1])):
            self._pair("colour", target.colour, label, source, target)

    def _grounds(self, label: str, base: Variant) -> None:
        """From white to another background and from there to a third, and back."""
        variants = [replace(base, ground=name) for name in self.random.sample(COLOURS, 2)]
        for source, target in (
            (base, variants[0]),
            (base, variants[1]),
            (variants[0], variants[1]),
            (variants[1], base),
        ):
            self._pair("ground", target.ground, label, source, target)

    def _addition(self, label: str, base: Variant) -> None:
        """With a thing on it, in its own style where there is one, and without it again."""
        own = [number for number in self.things if self.rows[number].set == self.rows[base.row].set]
        thing = self.random.choice(own or self.things)
        name = self.rows[thing].label
        if name != label:
            with_it = replace(base, thing=thing)
            self._pair("addition", name, label, base, with_it)
            self._pair("removal", name, label, with_it, base)

    def _pair(self, kind: str, what: str, label: str, source: Variant, target: Variant) -> None:
        rows = [self.numbers.setdefault(each, len(self.numbers)) for each in (source, target)]
        ways = instructions(kind, what, label, self.random, PHRASINGS_PER_PAIR)
        self.pairs.append(Pair(rows[0], rows[1], ways, kind=kind, what=what))

    def _styles(self, variant: Variant) -> tuple[str, ...]:
        return SETS[self.rows[variant.row].set].styles

    def _is_ink(self, number: int) -> bool:
        return SETS[self.rows[number].set].tinted
