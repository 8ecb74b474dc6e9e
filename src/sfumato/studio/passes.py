"""Pictures drawn in several passes: worked out beforehand with blank pixels, then drawn pass after pass."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sfumato.edit.composition import composed
from sfumato.edit.outpainting import extended
from sfumato.edit.passes import Pass, Passes
from sfumato.expansion import Prepared
from sfumato.image import Image
from sfumato.pictures import MAX_PIXELS
from sfumato.request import Request

if TYPE_CHECKING:
    from sfumato.studio.drawing import Step, Studio


def passes_of(request: Request, studio: "Studio") -> Passes | None:
    """The passes in which a resolved `request` is drawn; `None` if in one, as most are."""
    if request.extend is not None:
        return extended(request, studio.factor, MAX_PIXELS)
    if request.elements:
        return composed(request, studio.native_size)
    return None


def prepared(picture: Prepared, studio: "Studio") -> Prepared:
    """`picture` with the passes that it is drawn in as its `parts`, over blank pixels.

    Raises what preparing any of them does.
    """
    passes = passes_of(picture.request, studio)
    if passes is None:
        return picture
    parts: list[Prepared] = []
    try:
        asked = next(passes)
        while True:
            these = _prepared(asked, studio)
            parts += these
            asked = passes.send([np.zeros(each.shape, np.uint8) for each in these])
    except StopIteration:
        pass
    shared: dict[str, Any] = {
        name: {key: one for each in (picture, *parts) for key, one in getattr(each, name).items()}
        for name in ("loaded", "embeddings", "controls")
    }
    notes = dict.fromkeys(note for each in (picture, *parts) for note in each.notes)
    return replace(picture, parts=tuple(parts), notes=tuple(notes), **shared)


def drawn(picture: Prepared, studio: "Studio") -> Iterator["Step"]:
    """The steps of all passes of a picture with `parts`, counted through; the last has the image."""
    passes = passes_of(picture.request, studio)
    assert passes is not None
    kept = {part.layer: image for part in picture.parts if (image := _kept(part, studio)) is not None}
    total = sum(studio.evaluations(part) for part in picture.parts if part.layer not in kept)
    done, last, notes = 0, None, dict.fromkeys(picture.notes)
    try:
        asked = next(passes)
        while True:
            these = _prepared(asked, studio)
            images = {index: kept[part.layer] for index, part in enumerate(these) if part.layer in kept}
            notes |= dict.fromkeys(note for image in images.values() for note in image.record.notes)
            left = [index for index in range(len(these)) if index not in images]
            for step in studio.steps([these[index] for index in left]):
                if step.image is not None:
                    index = left[step.image_index]
                    images[index] = step.image
                    notes |= dict.fromkeys(step.image.record.notes)
                    if these[index].layer and studio.layers is not None:
                        studio.layers.keep(these[index].layer, step.image)
                if last is not None:
                    yield last
                done += step.index > 0
                last = replace(step, image_index=0, image_count=1, index=done, total=total, image=None)
            asked = passes.send([images[index].pixels for index in range(len(these))])
    except StopIteration as end:
        image = studio.finished(end.value, replace(picture, notes=tuple(notes)))
        yield studio.only_step(image, picture) if last is None else replace(last, image=image)


def _prepared(asked: Sequence[Pass], studio: "Studio") -> list[Prepared]:
    return [replace(studio.prepare(each.request)[0], layer=each.layer) for each in asked]


def _kept(part: Prepared, studio: "Studio") -> Image | None:
    """The picture of a layer, if it is in the studio's folder of layers as it would be drawn."""
    if studio.layers is None or not part.layer:
        return None
    return studio.layers.find(part.layer, part.request, studio.fingerprint)
