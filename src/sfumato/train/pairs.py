"""The examples that an editor learns from: latents of pictures before and after, and what was asked for.

(Brooks et al. 2023, §3.2.)
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Annotated, cast

import pydantic.dataclasses
import torch
from pydantic import Field
from torch import Tensor

from sfumato.checkpoint import Model
from sfumato.data.crops import Crop, Size
from sfumato.data.icon_pairs import icon_pairs
from sfumato.data.icons import load
from sfumato.data.pairs import PairedPictures, folder_pairs
from sfumato.train.cache import (
    CaptionEncoder,
    CaptionStates,
    LatentEncoder,
    Latents,
    cache_captions,
    cache_latents,
)
from sfumato.train.context import StepContext
from sfumato.train.examples import LatentBatch, check_fits, has_icons, side_of, size_conditioning
from sfumato.train.log import counts
from sfumato.train.order import CAPTIONS, Order, WeightedSampling, random_of
from sfumato.train.recipe import Count, DataSection, NotNegative, Recipe


@pydantic.dataclasses.dataclass(frozen=True)
class PairData(DataSection):
    """Pairs of pictures with instructions, from a folder or made of the icon set."""

    resolution: NotNegative = 0
    """Width and height in pixels that pictures are scaled and cropped to; 0: the base model's."""
    text_dropout: Annotated[float, Field(ge=0, le=1)] = 0.05
    """How often the instruction is left out, for guidance."""
    image_dropout: Annotated[float, Field(ge=0, le=1)] = 0.05
    """How often the picture is."""
    both_dropout: Annotated[float, Field(ge=0, le=1)] = 0.05
    """How often both are."""
    max_pictures: Count = 8192
    """Pictures made of icons, before and after, at most."""

    def check(self) -> None:
        super().check()
        if self.text_dropout + self.image_dropout + self.both_dropout > 1:
            raise ValueError("text_dropout, image_dropout and both_dropout must not sum to more than 1")

    def dropped(self, random: Random) -> tuple[bool, bool]:
        """Whether the instruction and whether the picture of an example is left out."""
        u = random.random()
        text = u < self.text_dropout or u >= 1 - self.both_dropout
        image = self.text_dropout <= u < self.text_dropout + self.image_dropout or u >= 1 - self.both_dropout
        return text, image


@dataclass(frozen=True, eq=False)
class PairBatches:
    """Batches of edits, all of one size."""

    paired: PairedPictures
    data: PairData
    order: Order
    latents: Latents
    states: CaptionStates
    unscale: Callable[[Tensor], Tensor]
    """From the latents that are drawn to those that the network is given of a picture."""

    def __call__(self, context: StepContext, count: int) -> LatentBatch:
        """`count` examples."""
        size, rows = self.order(context, count)
        pairs = [self.paired.pairs[row] for row in rows]
        random = random_of(context, CAPTIONS)
        texts, kept = [], []
        for pair in pairs:
            text, (no_text, no_image) = random.choice(pair.instructions), self.data.dropped(random)
            texts.append("" if no_text else text)
            kept.append(not no_image)
        before, after = [pair.source for pair in pairs], [pair.target for pair in pairs]
        crops = self._crops(after, size)
        x0 = self.latents(after, crops)
        channels = self.unscale(self.latents(before, self._crops(before, size)))
        channels = channels * torch.tensor(kept, device=channels.device).view(-1, 1, 1, 1)
        states, pooled = self.states(texts)
        x0, channels = (each.contiguous(memory_format=torch.channels_last) for each in (x0, channels))
        return LatentBatch(x0, states, size_conditioning(pooled, crops), context.step, channels=channels)

    def _crops(self, rows: list[int], size: Size) -> list[Crop]:
        return [Crop(self.paired.pictures.sizes[row], size) for row in rows]


def pair_batches(
    recipe: Recipe, base: Model, device: torch.device, report: Callable[[str], None] = lambda _: None
) -> tuple[Model, PairBatches]:
    """The base model, its native size that of the data and its other networks on `device`, and the batches.

    `report(message)` is called every few seconds while pictures are encoded. Raises `UsageError` and
    `DataError`.
    """
    check_fits(recipe, base, tasks=("text", "instruct"))
    data, run = cast(PairData, recipe.data), Path(recipe.run)
    for part in (base.vae, *base.text_encoders):
        part.to(device)
    base.vae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    side = side_of(base, data.resolution)
    paired = _paired(recipe, data, report)
    base = replace(
        base,
        info=replace(base.info, native_size=(side, side)),
        own={**base.own, "native_size": [side, side]},
    )
    encoder = LatentEncoder(paired.pictures, base, device, recipe.dtype(device))
    latents = cache_latents(run, encoder, [(side, side)] * len(paired.pictures.sizes), report)
    texts = ["", *(text for pair in paired.pairs for text in pair.instructions)]
    states = cache_captions(run, CaptionEncoder(base, device), texts, report)
    order = WeightedSampling.of([pair.weight for pair in paired.pairs], (side, side))
    return base, PairBatches(paired, data, order, latents, states, base.vae.unscale)


def _paired(recipe: Recipe, data: PairData, report: Callable[[str], None]) -> PairedPictures:
    folder = Path(data.folder)
    if has_icons(folder):
        return icon_pairs(load(folder, held_out=False), seed=recipe.seed, most=data.max_pictures)
    return folder_pairs(folder, counts(report, f"{folder}: looking at pictures"))
