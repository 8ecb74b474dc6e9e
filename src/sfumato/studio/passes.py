"""Pictures drawn in several passes: worked out beforehand with blank pixels, then drawn pass after pass."""

from collections.abc import Generator, Iterator, Sequence
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
    from sfumato.studio.drawing import Studio
    from sfumato.studio.step import Step


def passes_of(request: Request, studio: "Studio") -> Passes | None:
    """The passes in which a resolved `request` is drawn; `None` if in one, as most are."""
    if request.extend is not None:
        on_plain = bool(studio.model.own.get("plain_background"))
        return extended(request, studio.factor, MAX_PIXELS, on_plain=on_plain)
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
        for name in ("loaded", "embeddings", "controls", "upscalers")
    }
    notes = dict.fromkeys(note for each in (picture, *parts) for note in each.notes)
    return replace(picture, parts=tuple(parts), notes=tuple(notes), **shared)


def rounds(picture: Prepared, studio: "Studio") -> Generator[list[Prepared], Sequence[Image], Image]:
    """What is drawn for a picture, round by round: yields pictures that can be drawn together, is sent their
    images, and returns that of the whole. Without `parts` the picture itself is the one round; layers that
    are kept are not drawn.
    """
    passes = passes_of(picture.request, studio)
    if passes is None:
        (image,) = yield [picture]
        return image
    notes = dict.fromkeys(picture.notes)
    try:
        asked = next(passes)
        while True:
            these = _prepared(asked, studio)
            images = {number: kept for number, part in enumerate(these) if (kept := _kept(part, studio))}
            left = [number for number in range(len(these)) if number not in images]
            made = (yield [these[number] for number in left]) if left else ()
            for number, image in zip(left, made, strict=True):
                images[number] = image
                if these[number].layer and studio.layers is not None:
                    studio.layers.keep(these[number].layer, image)
            notes |= dict.fromkeys(note for image in images.values() for note in image.record.notes)
            asked = passes.send([images[number].pixels for number in range(len(these))])
    except StopIteration as end:
        return studio.finished(end.value, replace(picture, notes=tuple(notes)))


def drawn(picture: Prepared, studio: "Studio") -> Iterator["Step"]:
    """The steps of all passes of a picture with `parts`, counted through; the last has the image."""
    total = sum(studio.evaluations(part) for part in picture.parts if _kept(part, studio) is None)
    done, last, course = 0, None, rounds(picture, studio)
    images: dict[int, Image] = {}
    try:
        asked = next(course)
        while True:
            for step in studio.steps(asked):
                if step.image is not None:
                    images[step.image_index] = step.image
                if last is not None:
                    yield last
                done += step.index > 0
                last = replace(step, image_index=0, image_count=1, index=done, total=total, image=None)
            asked = course.send([images[number] for number in range(len(asked))])
    except StopIteration as end:
        image = end.value
        yield studio.only_step(image, picture) if last is None else replace(last, image=image)


def _prepared(asked: Sequence[Pass], studio: "Studio") -> list[Prepared]:
    return [replace(studio.prepare(each.request)[0], layer=each.layer) for each in asked]


def _kept(part: Prepared, studio: "Studio") -> Image | None:
    """The picture of a layer, if it is in the studio's folder of layers as it would be drawn."""
    if studio.layers is None or not part.layer:
        return None
    return studio.layers.find(part.layer, part.request, studio.fingerprint)
