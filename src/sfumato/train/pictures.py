"""Pictures without their captions: what autoencoders learn from and are measured with."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from torch import Tensor

from sfumato.checkpoint import Model
from sfumato.data.crops import Crop, CropPolicy, Dataset
from sfumato.data.folder import FolderDataset
from sfumato.data.icons import Icons, load, tinted, to_signal
from sfumato.devices import sent
from sfumato.train.context import StepContext, seed_of
from sfumato.train.examples import folder_contents, has_icons, side_of
from sfumato.train.order import CROPS, Epochs, Order, random_of
from sfumato.train.recipe import Recipe

TEST_PICTURES = 1024
"""Pictures that metrics and the statistics of latents are taken from, of 256 × 256 or as many pixels."""
SHIFT = 1 / 16
"""Of an icon's side, by which it is rolled around its edges at most."""
PictureBatches = Callable[[StepContext, int], Tensor]
"""`(context, count)` to pictures (count, 3, H, W) in [−1, 1], as channels_last."""


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures to learn from, and to measure with."""

    batches: PictureBatches
    seen: Callable[[], Tensor]
    """(B, 3, S, S) in [−1, 1]: some of them, whole."""
    held_out: Callable[[], Tensor] | None
    """The same of those that are not learned from, if there are any."""

    def tests(self) -> Tensor:
        """Those that are held out; where there are none, those that are seen."""
        return self.held_out() if self.held_out else self.seen()


def pictures_of(
    recipe: Recipe,
    model: Model,
    resolution: int,
    device: torch.device,
    report: Callable[[str], None] = lambda _: None,
) -> Pictures:
    """The pictures in the recipe's folder: icons at their own size, others at `resolution`, 0 the model's.

    `report(message)` is called every few seconds while they are looked at.
    """
    folder = Path(recipe.data.folder)
    if has_icons(folder):
        icons, others = (load(folder, held_out=held_out, device=device) for held_out in (False, True))
        return Pictures(IconBatches(icons), lambda: _some_icons(icons), lambda: _some_icons(others))
    side, found = side_of(model, resolution), folder_contents(recipe, report, captioned=False)
    own, tests = (found.chosen(held_out=held_out, captioned=False) for held_out in (False, True))
    order = Epochs([(side, side)] * len(own.pictures), own.weights, recipe.batch_size, recipe.seed)
    return Pictures(
        CropBatches(own, order, device),
        lambda: _some_squares(own, side, device),
        (lambda: _some_squares(tests, side, device)) if tests.pictures else None,
    )


@dataclass(frozen=True, eq=False)
class IconBatches:
    """Batches of icons, rolled and mirrored, the one-colour ones in random colours."""

    icons: Icons

    def __call__(self, context: StepContext, count: int) -> Tensor:
        icons, generator, device = self.icons, context.generator, context.generator.device
        drawings, pictures = len(icons.ink_rows), len(icons.rows)
        own = round(count * pictures / (pictures + drawings))
        rows = torch.randint(max(pictures, 1), (own,), generator=generator, device=device)
        parts = [to_signal(icons.pictures[rows])] if own else []
        if own < count:
            rows = torch.randint(drawings, (count - own,), generator=generator, device=device)
            colours = torch.rand(2, count - own, 3, generator=generator, device=device) * 2 - 1
            white = torch.rand(count - own, 1, generator=generator, device=device) < 0.5
            parts.append(tinted(icons.inks[rows], colours[0], torch.where(white, 1.0, colours[1])))
        x = torch.cat(parts)
        # not from the generator itself: the device would have to be waited for
        random = Random(generator.initial_seed())
        most = max(1, int(x.shape[2] * SHIFT))
        right, down = random.randrange(most), random.randrange(most)
        mirrored = torch.rand(count, 1, 1, 1, generator=generator, device=device) < 0.5
        x = torch.roll(x, (down, right), (2, 3))
        return torch.where(mirrored, x.flip(3), x).contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True, eq=False)
class CropBatches:
    """Batches of random square crops of pictures of any size, at random scales, one in two mirrored."""

    dataset: Dataset
    order: Order
    device: torch.device

    def __call__(self, context: StepContext, count: int) -> Tensor:
        size, rows = self.order(context, count)
        policy = CropPolicy(random=True, horizontal_flip=True, random_zoom=True)
        random = random_of(context, CROPS)
        crops = [policy.crop(self.dataset.sizes[row], size, random) for row in rows]
        x = sent(self.dataset.load(rows, crops), self.device)
        return x.contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True, eq=False)
class RandomCrops:
    """Random crops of `side` pixels of the pictures of other batches."""

    pictures: PictureBatches
    side: int

    def __call__(self, context: StepContext, count: int) -> Tensor:
        x = self.pictures(context, count)
        random = Random(seed_of(context.generator.initial_seed(), self.side))
        height, width = (max(length - self.side, 0) for length in x.shape[2:])
        parts = []
        for picture in x:
            top, left = random.randint(0, height), random.randint(0, width)
            parts.append(picture[:, top : top + self.side, left : left + self.side])
        return torch.stack(parts).contiguous(memory_format=torch.channels_last)


def _some_squares(dataset: FolderDataset, side: int, device: torch.device) -> Tensor:
    """The centres of some pictures, evenly chosen: (B, 3, side, side) in [−1, 1]."""
    most = max(32, TEST_PICTURES * 256**2 // side**2)
    rows = _evenly(len(dataset.pictures), min(1.0, most / len(dataset.pictures)))
    return dataset.load(rows, [Crop(dataset.sizes[row], (side, side)) for row in rows]).to(device)


def _some_icons(icons: Icons) -> Tensor:
    """Some icons, evenly chosen, one-colour ones in black on white; (B, 3, S, S) in [−1, 1]."""
    share = min(1.0, TEST_PICTURES / (len(icons.rows) + len(icons.ink_rows)))
    parts = []
    if icons.rows:
        parts.append(to_signal(icons.pictures[_evenly(len(icons.rows), share)]))
    if icons.ink_rows:
        inks = icons.inks[_evenly(len(icons.ink_rows), share)]
        black = torch.full((len(inks), 3), -1.0, device=inks.device)
        parts.append(tinted(inks, black, -black))
    return torch.cat(parts)


def _evenly(count: int, share: float) -> list[int]:
    kept = max(1, int(count * share))
    return [place * count // kept for place in range(kept)]
