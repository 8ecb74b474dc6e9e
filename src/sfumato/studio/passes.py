"""Pictures drawn in several passes: worked out beforehand with blank pixels, then drawn pass after pass."""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sfumato.edit.outpainting import extended
from sfumato.edit.passes import Passes
from sfumato.expansion import Prepared
from sfumato.pictures import MAX_PIXELS
from sfumato.request import Request

if TYPE_CHECKING:
    from sfumato.studio.drawing import Step, Studio


def passes_of(request: Request, factor: int) -> Passes | None:
    """The passes in which a resolved `request` is drawn; `None` if in one, as most are."""
    if request.extend is not None:
        return extended(request, factor, MAX_PIXELS)
    return None


def prepared(picture: Prepared, studio: "Studio") -> Prepared:
    """`picture` with the passes that it is drawn in as its `parts`, over blank pixels.

    Raises what preparing any of them does.
    """
    passes = passes_of(picture.request, studio.factor)
    if passes is None:
        return picture
    parts: list[Prepared] = []
    try:
        asked = next(passes)
        while True:
            these = [studio.prepare(each.request)[0] for each in asked]
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
    passes = passes_of(picture.request, studio.factor)
    assert passes is not None
    total = sum(map(studio.evaluations, picture.parts))
    done, last, notes = 0, None, dict.fromkeys(picture.notes)
    try:
        asked = next(passes)
        while True:
            images = {}
            for step in studio.steps([studio.prepare(each.request)[0] for each in asked]):
                if step.image is not None:
                    images[step.image_index] = step.image
                    notes |= dict.fromkeys(step.image.record.notes)
                if last is not None:
                    yield last
                done += step.index > 0
                last = replace(step, image_index=0, image_count=1, index=done, total=total, image=None)
            asked = passes.send([images[index].pixels for index in range(len(asked))])
    except StopIteration as end:
        assert last is not None
        yield replace(last, image=studio.finished(end.value, replace(picture, notes=tuple(notes))))
