"""DreamBooth: a subject is learned, and its class is kept as the model knew it (Ruiz et al. 2023, eq. 2).

    loss = |f(x_t, t, text) − target|² + λ·|f(x'_t, t, class) − target'|²

The second term, prior preservation, is over pictures x' of the class that the model itself has drawn before.
Half of each batch are such pictures; the mean over the batch is half the sum above.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Annotated

import pydantic.dataclasses
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from sfumato.checkpoint import Model
from sfumato.data.crops import Crop, Size
from sfumato.data.folder import FolderDataset
from sfumato.data.search import search
from sfumato.files import make_folder, read_json, replace_atomically, write_json
from sfumato.train import sample_grid
from sfumato.train.cache import CaptionEncoder, LatentEncoder, cache_latents
from sfumato.train.context import StepContext
from sfumato.train.examples import CaptionedBatches, LatentBatch, size_conditioning
from sfumato.train.objectives.denoiser import Denoising
from sfumato.train.order import PRIOR, random_of
from sfumato.train.recipe import Count, Recipe

CLASS_PICTURES = "class"
"""In the run's folder: the pictures of the class, and the latents of them."""
_DRAWN = "drawn.json"
"""What they were drawn by: others are drawn where that changes."""
_AT_ONCE = 8


@pydantic.dataclasses.dataclass(frozen=True)
class DreamBooth(Denoising):
    """Trains the denoiser on a subject."""

    NAME, STARTS = "dreambooth", ("base",)

    class_prompt: str = ""
    """What draws the class, such as "mug"."""
    class_pictures: Count = 50
    """How many of it are drawn, once."""
    prior_weight: Annotated[float, Field(gt=0, le=100)] = 1.0
    """λ."""

    def check(self) -> None:
        if not self.class_prompt.strip():
            raise ValueError("class_prompt must say what draws the class, such as 'mug'")

    def check_recipe(self, recipe: Recipe) -> None:
        super().check_recipe(recipe)
        if recipe.batch_size % (2 * recipe.gradient_accumulation):
            raise ValueError(
                f"batch_size is {recipe.batch_size}: half of each of {recipe.gradient_accumulation} parts "
                "are pictures of the class, so that it must be a multiple of twice that"
            )

    def own_recipe(self, recipe: Recipe) -> Recipe:
        """`recipe`, its batch the half that is of the subject."""
        return replace(recipe, objective=Denoising(), batch_size=recipe.batch_size // 2)

    def batches(
        self,
        recipe: Recipe,
        base: Model,
        own: CaptionedBatches,
        device: torch.device,
        report: Callable[[str], None],
    ) -> Callable[[StepContext, int], LatentBatch]:
        folder = Path(recipe.run) / CLASS_PICTURES
        draw_class(self, base, folder, device, report)
        found = search(folder).chosen(held_out=None, captioned=False)
        for part in (base.vae, *base.text_encoders):
            part.to(device)
        encoder = LatentEncoder(found, base, device, recipe.dtype(device))
        latents = {
            size: cache_latents(folder, encoder, [size] * len(found.pictures), report) for size in own.sizes
        }
        trained = bool(recipe.adapter and recipe.adapter.text_encoders)
        read = partial(CaptionEncoder(base, device, trained=trained), [self.class_prompt])
        text = read if trained else cache(read)
        return PriorBatches(own, found, latents, text, self.prior_weight, base.factor)


@dataclass(frozen=True, eq=False)
class PriorBatches:
    """Batches of which the first half is of the subject, the second of its class."""

    own: CaptionedBatches
    dataset: FolderDataset
    latents: Mapping[Size, Callable[[list[int], list[Crop]], Tensor]]
    """Of the pictures of the class, at the size of each bucket."""
    read: Callable[[], tuple[Tensor, Tensor | None]]
    """The states (1, T, D) of the class, and its pooled row."""
    weight: float
    factor: int
    """Pixels to one latent, along each side."""

    def __call__(self, context: StepContext, count: int) -> LatentBatch:
        """`count` examples."""
        half = count // 2
        own = self.own(context, half)
        size = own.x0.shape[3] * self.factor, own.x0.shape[2] * self.factor
        random = random_of(context, PRIOR)
        rows = [random.randrange(len(self.dataset.pictures)) for _ in range(half)]
        crops = [Crop(self.dataset.sizes[row], size) for row in rows]
        x0 = torch.cat([own.x0, self.latents[size](rows, crops)])
        read, row = self.read()
        pooled = None if row is None else row.expand(half, -1)
        added, other = own.added, size_conditioning(pooled, crops)
        if added is not None and other is not None:
            joined = (torch.cat([getattr(added, part), getattr(other, part)]) for part in ("pooled", "ids"))
            added = type(added)(*joined)
        weights = torch.cat([x0.new_ones(half), x0.new_full((half,), self.weight)])
        states = torch.cat([own.states, read.expand(half, -1, -1)])
        x0 = x0.contiguous(memory_format=torch.channels_last)
        cells = None if own.cells is None else torch.cat([own.cells, torch.ones_like(own.cells)])
        return LatentBatch(x0, states, added, context.step, weights=weights, cells=cells)


def draw_class(
    objective: DreamBooth, base: Model, folder: Path, device: torch.device, report: Callable[[str], None]
) -> None:
    """Have the pictures of the class in `folder`: those that are missing are drawn, each by its number."""
    by = {"base": base.fingerprint, "prompt": objective.class_prompt}
    make_folder(folder)
    if not (folder / _DRAWN).is_file() or read_json(folder / _DRAWN) != by:
        for old in folder.iterdir():
            old.unlink()
        write_json(folder / _DRAWN, by)
    names = [folder / f"{number:04}.png" for number in range(objective.class_pictures)]
    missing = [number for number, path in enumerate(names) if not path.is_file()]
    for start in range(0, len(missing), _AT_ONCE):
        report(f"{folder}: drawing {objective.class_prompt!r}, {start:,}/{len(missing):,}")
        some = missing[start : start + _AT_ONCE]
        drawn = sample_grid.draw(base, [objective.class_prompt] * len(some), device, seeds=some)
        for number, picture in zip(some, drawn, strict=True):
            pixels = ((picture + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()
            with replace_atomically(names[number]) as file:
                Image.fromarray(pixels).save(file, format="PNG")
