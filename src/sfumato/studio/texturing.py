"""Textures from a prompt: the views of a mesh, drawn one after another by a model."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import PIL.Image

from sfumato.control import Control
from sfumato.errors import UsageError
from sfumato.expansion import expand
from sfumato.inputs import InputImage
from sfumato.request import Request
from sfumato.space.distillation import view_of
from sfumato.space.shape import Shape
from sfumato.space.texturing import SIDES, Texturing, ViewOfMesh

if TYPE_CHECKING:
    from sfumato.studio.drawing import Studio

EDGES = "edges"
"""The name of a model's own ControlNet of edges, which are the structure where there is one."""
WEIGHT = 0.8
"""Of the edges."""
FIRST, STRENGTH, WITHOUT = 1.0, 0.7, 0.8
"""Of the first drawing over the shaded mesh, of the others over the colours so far, and of the first one
where the shaded mesh alone is the structure."""


class TextureDrawing:
    """The texture of a mesh, drawn view by view, at most `total` ones."""

    total = len(SIDES)

    def __init__(self, studio: "Studio", request: Request, shape: Shape, faces: int | None = None) -> None:
        """`faces`: simplify the mesh to about so many triangles first.

        Raises `UsageError` for a model that draws from more than a text, a size that is not square, and a
        mesh that can have no texture.
        """
        if studio.model.task != "text":
            raise UsageError(
                f"{studio.name} is an {studio.model.task} model: a texture needs one that draws from text"
            )
        self.studio = studio
        # every view has a seed of its own, and all have one text
        self.request = next(expand(studio.resolve(request))).request
        width, height = self.request.size
        if width != height:
            raise UsageError(f"the size is {width}×{height}: the views of a texture are square")
        mesh = shape.mesh if faces is None else shape.mesh.simplified(faces)
        self.texturing = Texturing(mesh, width)

    def views(self) -> Iterator[int]:
        """Draw and paint the views in turn, and give the number of each, from 0, when it is done."""
        for number, side in enumerate(SIDES):
            view = self.texturing.view(self.texturing.camera(*side))
            if view is not None:
                image = self.studio.generate(self.request_of(view, number))
                self.texturing.paint(view, image.pixels[..., :3])
                yield number

    def request_of(self, view: ViewOfMesh, number: int) -> Request:
        """How a view, the `number`-th from 0, is drawn."""
        assert self.request.seed is not None
        controls = list(self.request.controls)
        first = WITHOUT
        if EDGES in self.studio.model.controls:
            first = FIRST
            controls.append(
                Control(model=EDGES, image=InputImage.of(PIL.Image.fromarray(view.edges)), weight=WEIGHT)
            )
        return self.request.changed(
            prompt=f"{self.request.prompt}, {view_of(view.camera.azimuth)}",
            seed=self.request.seed + number,
            image=PIL.Image.fromarray(view.picture),
            mask=PIL.Image.fromarray(view.drawn.astype(np.uint8) * 255),
            strength=STRENGTH if number else first,
            controls=controls,
        )

    def finished(self) -> Shape:
        """The shape with its texture."""
        return Shape(self.texturing.finished())


def textured_shape(studio: "Studio", request: Request, shape: Shape, faces: int | None = None) -> Shape:
    """`shape` with a texture by a request, drawn in one go."""
    drawing = TextureDrawing(studio, request, shape, faces)
    for _ in drawing.views():
        pass
    return drawing.finished()
