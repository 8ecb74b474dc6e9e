"""The examples that a denoiser learns from: latents of captioned pictures with their texts' states."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Annotated, cast

import pydantic.dataclasses
import torch
from pydantic import Field
from torch import Tensor

from sfumato.adapt import embedding
from sfumato.adapt.embedding import Embedding
from sfumato.checkpoint import Model
from sfumato.data import kohya_config
from sfumato.data.caption_transform import CaptionTransform
from sfumato.data.crops import Crop, CropPolicy, Dataset, Size, bucket_sizes, nearest_bucket
from sfumato.data.folder import FolderContents, FolderDataset
from sfumato.data.icons import icon_dataset, load
from sfumato.data.search import search
from sfumato.devices import sent
from sfumato.errors import UsageError, warn
from sfumato.nets.inputs import SizeConditioning
from sfumato.prompt.encode import Vectors, size_ids
from sfumato.train.cache import (
    MAX_TEXT_BYTES,
    CaptionEncoder,
    CaptionStates,
    LatentEncoder,
    Latents,
    cache_captions,
    cache_latents,
    text_bytes,
)
from sfumato.train.context import StepContext
from sfumato.train.log import counts
from sfumato.train.loss_masks import LOSS_MASKS, LossMasks
from sfumato.train.order import CAPTIONS, CONDITIONS, CROPS, Epochs, Order, WeightedSampling, random_of
from sfumato.train.recipe import Count, DataSection, NotNegative, Recipe
from sfumato.train.word import NewWord
from sfumato.validation import one_of

INDEX, VALIDATION = "index.json", "validation"
"""What was found in a folder of pictures, and the latents of those that are held out, in the run's own."""


ENLARGED = 2
"""How much a picture may be enlarged without a warning."""


@pydantic.dataclasses.dataclass(frozen=True)
class CaptionedData(DataSection, CaptionTransform):
    """Pictures with captions, from a folder or the icon set."""

    caption_dropout: Annotated[float, Field(ge=0, le=1)] = 0.1
    hold_out: bool = True
    """Whether what is held out for tests is left out: a folder called "test", or one picture in forty."""
    cache_text_embeddings: bool | None = None
    """Whether all texts are encoded once and kept; by default, if that takes less than 1 GiB."""
    resolution: NotNegative = 0
    """Width and height in pixels of square pictures; others have about as many pixels. 0: the icons' own, or
    the base model's for other pictures."""
    max_aspect_ratio: Annotated[float, Field(ge=1, le=8)] = 2.0
    """Of the longer side to the shorter; 1: all pictures are cropped to squares."""
    bucket_step: NotNegative = 0
    """What widths and heights are multiples of, in pixels; 0: an eighth of the resolution, at most 64."""
    crop: Annotated[str, one_of(("center", "random"))] = "center"
    embeddings: tuple[str, ...] = ()
    """Files of learned words (textual inversion) that captions name, by their files' names."""
    horizontal_flip: bool = False
    """Whether one in two pictures is mirrored."""
    loss_mask: Annotated[str, one_of(LOSS_MASKS)] = "none"
    """What of a picture is learned: one of `LOSS_MASKS`."""
    unmasked_weight: Annotated[float, Field(ge=0, le=1)] = 0.1
    """What the rest of it counts beside."""
    captions_per_picture: Count = 6
    """Of icons, whose captions are composed."""
    tints_per_icon: Count = 3
    """Colourings of each one-colour icon."""

    @property
    def crop_policy(self) -> CropPolicy:
        return CropPolicy(random=self.crop == "random", horizontal_flip=self.horizontal_flip)

    def check(self) -> None:
        super().check()
        if self.cache_text_embeddings and self.changes_tags:
            raise ValueError("cache_text_embeddings is not possible while tags are shuffled or dropped")


@dataclass(frozen=True, eq=False)
class LatentBatch:
    """A batch."""

    x0: Tensor
    """Latents (B, C, h, w)."""
    states: Tensor
    """(B, T, D)."""
    added: SizeConditioning | None = None
    """For SDXL: the texts' pooled embeddings (B, P) and each picture's sizes and crop (B, 6)."""
    step: int = 0
    """Of the run."""
    condition: Tensor | None = None
    """What a control is shown of the pictures (B, 3, H, W), in [0, 1], if one is trained."""
    channels: Tensor | None = None
    """What the network reads beside the noisy latents (B, C', h, w), if it does."""
    weights: Tensor | None = None
    """How much each example counts (B,); 1 unless given."""
    cells: Tensor | None = None
    """How much each cell of an example counts in its mean (B, 1, h, w); all the same unless given."""


@dataclass(frozen=True, eq=False)
class CaptionedBatches:
    """Batches of captioned pictures of one size each."""

    dataset: Dataset
    order: Order
    captions: CaptionTransform
    crops: CropPolicy
    latents: Latents
    states: CaptionStates
    device: torch.device
    condition: Callable[[Tensor, Random], Tensor] | None = None
    """From pictures (B, 3, H, W) in [−1, 1] to what a control is shown of them."""
    sizes: tuple[Size, ...] = ()
    """Of the buckets, in pixels."""
    masks: LossMasks | None = None
    """What of the pictures counts, unless all does."""
    held_out: "CaptionedBatches | None" = None
    """Batches of the pictures that are measured and not learned from, if there are any."""

    def __call__(self, context: StepContext, count: int) -> LatentBatch:
        """`count` examples."""
        size, rows = self.order(context, count)
        random = random_of(context, CAPTIONS)
        texts = [self.captions.text(self.dataset.captions[row], random) for row in rows]
        random = random_of(context, CROPS)
        crops = [self.crops.crop(self.dataset.sizes[row], size, random) for row in rows]
        x0 = self.latents(rows, crops).contiguous(memory_format=torch.channels_last)
        states, pooled = self.states(texts)
        condition = None
        if self.condition is not None:
            pictures = self.dataset.load(rows, crops)
            condition = sent(self.condition(pictures, random_of(context, CONDITIONS)), self.device)
        cells = None if self.masks is None else self.masks(rows, crops)
        added = size_conditioning(pooled, crops)
        return LatentBatch(x0, states, added, context.step, condition, cells=cells)


def size_conditioning(pooled: Tensor | None, crops: Sequence[Crop]) -> SizeConditioning | None:
    """What SDXL is told of `crops`, beside its texts' `pooled` embeddings (B, P); nothing without those."""
    if pooled is None:
        return None
    ids = [size_ids(crop.size, original=crop.original, crop=crop.visible_corner) for crop in crops]
    return SizeConditioning(pooled, sent(torch.cat(ids), pooled.device))


def captioned_batches(
    recipe: Recipe,
    base: Model,
    device: torch.device,
    report: Callable[[str], None] = lambda _: None,
    *,
    from_student: bool = False,
    condition: Callable[[Tensor, Random], Tensor] | None = None,
    word: NewWord | None = None,
) -> tuple[Model, CaptionedBatches]:
    """The base model, its native size that of the data and its other networks on `device`, and the batches.

    `report(message)` is called every few seconds while pictures are looked at and encoded. Raises
    `UsageError` for a base model that reads more than captions; `from_student`: it may read the guidance
    scale. `condition`: see `CaptionedBatches`. `word`: what is being
    learned of the text encoders, so that texts are read anew at each step.
    """
    check_fits(recipe, base, from_student=from_student)
    config = base.unet.config
    type(config).from_dict({**config.to_dict(), **recipe.network}, "[network]")
    data = cast(CaptionedData, recipe.data)
    for part in (base.vae, *base.text_encoders):
        part.to(device)
    base.vae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    dataset, sizes, side = _pictures(recipe, data, base, device, report)
    info = replace(base.info, native_size=(side, side))
    base = replace(base, info=info, own={**base.own, "native_size": [side, side]})
    embeddings: dict[str, Vectors] = {**embeddings_of(data, base)}
    if word is not None:
        states: CaptionStates = CaptionEncoder(base, device, {**embeddings, word.token: word})
    elif recipe.adapter and recipe.adapter.text_encoders:
        states = CaptionEncoder(base, device, embeddings, trained=True)
    else:
        encoder = CaptionEncoder(base, device, embeddings)
        states = _states(Path(recipe.run), data, encoder, dataset, report)
    make = partial(_batches, recipe, base, states, device, report, condition)
    if not recipe.validation.every:
        own = make(dataset, sizes, Path(recipe.run))
        return base, _checked(own, sizes, report)
    if not isinstance(dataset, FolderDataset):
        raise UsageError("[validation] goes with pictures of one's own, not with the icon set")
    count, total = recipe.validation.pictures, len(dataset.pictures)
    if count >= total:
        raise UsageError(f"validation.pictures is {count}: must be fewer than the pictures, {total}")
    measured = [(2 * place + 1) * total // (2 * count) for place in range(count)]
    learned = [row for row in range(total) if row not in measured]
    own, held_out = (
        make(dataset.some(rows), [sizes[row] for row in rows], Path(recipe.run, *folder))
        for rows, folder in ((learned, ()), (measured, (VALIDATION,)))
    )
    own = _checked(own, [sizes[row] for row in learned], report)
    return base, replace(own, held_out=held_out)


def _checked(
    batches: CaptionedBatches, sizes: Sequence[Size], report: Callable[[str], None]
) -> CaptionedBatches:
    """`batches`, whose masks have been found, if they have any. Raises as `LossMasks.check`."""
    if batches.masks is not None:
        folder = batches.masks.dataset.folder
        batches.masks.check(sizes, counts(report, f"{folder}: finding the subject"))
    return batches


def _batches(
    recipe: Recipe,
    base: Model,
    states: CaptionStates,
    device: torch.device,
    report: Callable[[str], None],
    condition: Callable[[Tensor, Random], Tensor] | None,
    dataset: Dataset,
    sizes: Sequence[Size],
    folder: Path,
) -> CaptionedBatches:
    """Batches of `dataset`, its pictures at their `sizes`, whose latents are kept in `folder`."""
    data = cast(CaptionedData, recipe.data)
    encoder, policy = LatentEncoder(dataset, base, device, recipe.dtype(device)), data.crop_policy
    latents: Latents = cache_latents(folder, encoder, sizes, report) if policy.is_fixed else encoder
    buckets, masks = tuple(sorted(set(sizes))), None
    order: Order
    if isinstance(dataset, FolderDataset):
        order = Epochs(sizes, dataset.weights, recipe.batch_size, recipe.seed)
    else:
        order = WeightedSampling.of(dataset.weights, buckets[0])
    if data.loss_mask != "none":
        if not isinstance(dataset, FolderDataset):
            raise UsageError("data.loss_mask goes with pictures of one's own, not with the icon set")
        masks = LossMasks(dataset, data.loss_mask, data.unmasked_weight, base.factor, device)
    return CaptionedBatches(dataset, order, data, policy, latents, states, device, condition, buckets, masks)


def embeddings_of(data: CaptionedData, base: Model) -> dict[str, Embedding]:
    """The learned words that `data` names, by their names. Raises `CheckpointError` for what does not fit."""
    found = [embedding.read(path) for path in data.embeddings]
    for each in found:
        each.check_fits([encoder.config.hidden_size for encoder in base.text_encoders])
    return {each.name: each for each in found}


def has_icons(folder: Path) -> bool:
    """Whether `sfumato data icons` made what is in `folder`."""
    return any(folder.glob("part-*.jsonl"))


def folder_contents(
    recipe: Recipe, report: Callable[[str], None], *, captioned: bool, masked: bool = False
) -> FolderContents:
    """What is in the recipe's folder of pictures; warns of what is left out."""
    folder = recipe.data.folder
    found = search(Path(folder), Path(recipe.run) / INDEX, counts(report, f"{folder}: looking at pictures"))
    found.warn(captioned=captioned, masked=masked)
    if kohya_config.is_config(Path(folder)):
        _warn_of_other_settings(recipe.data, Path(folder))
    return found


def _warn_of_other_settings(data: DataSection, config: Path) -> None:
    """Warn of what kohya's dataset config says otherwise than the recipe, which counts."""
    other = {
        f"{key} = {value!r}"
        for key, value in kohya_config.read(config).data.items()
        if hasattr(data, key) and getattr(data, key) != value
    }
    if other:
        warn(
            f"{config} says, in the words of [data], {', '.join(sorted(other))}; the recipe, which counts, "
            "says otherwise"
        )


def side_of(model: Model, resolution: int) -> int:
    """`resolution`, or the model's own for 0. Raises `UsageError` for one that makes no whole latents."""
    side = resolution or round(math.sqrt(math.prod(model.native_size)))
    if side % model.factor:
        raise UsageError(f"resolution = {side} must be a multiple of {_cell(model)}")
    return side


def _pictures(
    recipe: Recipe,
    data: CaptionedData,
    base: Model,
    device: torch.device,
    report: Callable[[str], None],
) -> tuple[Dataset, list[Size], int]:
    """The pictures, the bucket of each, and the side of the square bucket."""
    folder = Path(data.folder)
    if has_icons(folder):
        icons = icon_dataset(
            load(folder, held_out=False, device=device),
            seed=recipe.seed,
            captions=data.captions_per_picture,
            tints=data.tints_per_icon,
        )
        side = side_of(base, data.resolution or icons.side)
        return icons, [(side, side)] * len(icons), side
    captioned = data.needs_captions
    found = folder_contents(recipe, report, captioned=captioned, masked=data.loss_mask == "files")
    own = found.chosen(held_out=False if data.hold_out else None, captioned=captioned)
    side = side_of(base, data.resolution)
    buckets = bucket_sizes(side, _bucket_step(data, base, side), data.max_aspect_ratio)
    sizes = [nearest_bucket(size, buckets) for size in own.sizes]
    _warn_of_small(own, sizes)
    return own, sizes, side


def _warn_of_small(dataset: FolderDataset, sizes: Sequence[Size]) -> None:
    """Warn of pictures that are enlarged so much that they are learned as blurred ones."""
    small = [
        f"{picture.name} ({picture.size[0]}×{picture.size[1]})"
        for picture, (width, height) in zip(dataset.pictures, sizes, strict=True)
        if max(width / picture.size[0], height / picture.size[1]) > ENLARGED
    ]
    if small:
        more = f" and {len(small) - 1:,} more" if len(small) > 1 else ""
        warn(
            f"{dataset.folder}: {small[0]}{more}: enlarged more than {ENLARGED} times, and learned blurred; "
            "larger pictures, or a smaller resolution, are learned sharp"
        )


def check_fits(
    recipe: Recipe, base: Model, *, tasks: Sequence[str] = ("text",), from_student: bool = False
) -> None:
    """Raise `UsageError` for a model that is not of `tasks`, or reads more than such a one does."""
    student = base.unet.reads_guidance and not from_student
    for what, it_is in (
        ("an inpainting model", base.task == "inpaint" and "inpaint" not in tasks),
        ("an instruction model", base.task == "instruct" and "instruct" not in tasks),
        ("SDXL's refiner, which reads an aesthetic score", base.kind == "sdxl-refiner"),
        ("a student, which reads the guidance scale", student),
    ):
        if it_is:
            raise UsageError(
                f"the base model {recipe.base} is {what}; this objective learns from text-to-image models"
            )


def _bucket_step(data: CaptionedData, base: Model, side: int) -> int:
    """What the sides of buckets are multiples of, in pixels."""
    if data.bucket_step % base.factor:
        raise UsageError(f"bucket_step = {data.bucket_step} must be a multiple of {_cell(base)}")
    return data.bucket_step or max(base.factor, min(64, side // 8) // base.factor * base.factor)


def _cell(model: Model) -> str:
    return f"{model.factor}, the pixels to one latent along each side"


def _states(
    run: Path,
    data: CaptionedData,
    encoder: CaptionEncoder,
    dataset: Dataset,
    report: Callable[[str], None],
) -> CaptionStates:
    """Text states, cached if the recipe or their size says so."""
    if data.cache_text_embeddings is False or data.changes_tags:
        return encoder
    texts = dict.fromkeys(text for own in dataset.captions for text in data.texts(own))
    if data.cache_text_embeddings is None and text_bytes(encoder.base, len(texts)) > MAX_TEXT_BYTES:
        return encoder
    return cache_captions(run, encoder, list(texts), report)
