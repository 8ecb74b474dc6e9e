"""The calls that draw, the same for a studio here and for one behind a server."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, Unpack, overload

import PIL.Image

from sfumato import expansion
from sfumato.edit.instruction import edit_request
from sfumato.errors import UsageError
from sfumato.image import Image
from sfumato.inputs import InputImage, PictureSource
from sfumato.request import (
    PictureOptions,
    Request,
    RequestFields,
    RequestOptions,
    Requests,
    request_of,
    requests_of,
)
from sfumato.series.interpolation import FRAMES, Interpolation
from sfumato.series.upscaling import SCALE, upscaling
from sfumato.series.variation import AMOUNT, variation
from sfumato.space.puff import Back
from sfumato.space.settings import FACES, check_method
from sfumato.space.shape import Shape, check_puffing
from sfumato.video import Video


class DrawnStep(Protocol):
    """A step of picture `image_index`; on its last one the finished `image` or `video`, else `None`."""

    @property
    def image_index(self) -> int: ...

    @property
    def image(self) -> Image | None: ...

    @property
    def video(self) -> Video | None: ...


class DrawingCalls(ABC):
    """Everything that draws pictures, by what `stream` draws."""

    @abstractmethod
    def stream(self, request: Requests | None = None, **fields: Unpack[RequestFields]) -> Iterator[DrawnStep]:
        """Draw, one step for each evaluation of the network; closing the iterator cancels the rest."""

    @abstractmethod
    def enlargement(self, request: Request) -> Request:
        """`request` for the enlargement of a picture, with a size that its model can draw and an upscaler."""

    @abstractmethod
    def check_edit(self, request: Request) -> None:
        """Raise `UsageError` for an edit that its model cannot carry out in the way that is asked for."""

    @overload  # a str is an Iterable[str] too, and means one request
    def generate(  # type: ignore[overload-overlap]
        self, request: Request | str | None = None, **fields: Unpack[RequestFields]
    ) -> Image: ...

    @overload
    def generate(self, request: Iterable[Request | str], **fields: Unpack[RequestFields]) -> list[Image]: ...

    def generate(
        self, request: Requests | None = None, **fields: Unpack[RequestFields]
    ) -> Image | list[Image]:
        """Draw one picture, or a list of them for a list of requests: see `generate_batch`.

        `fields` are those of `Request`: `studio.generate("a red apple", seed=7)`. Raises `UsageError` for one
        that is wrong, and for a single request that asks for several pictures.
        """
        requests = requests_of(request, fields)
        if request is None or isinstance(request, Request | str):
            return self.generate_batch(one_picture(requests, "generate draws one; use generate_batch"))[0]
        return self.generate_batch(requests)

    def generate_batch(self, request: Requests | None = None, **fields: Unpack[RequestFields]) -> list[Image]:
        """Draw every picture that a request asks for, with seeds that count up from its own, or several do.

        In the order of the requests.
        """
        requests = requests_of(request, fields)
        if any(each.frames for each in requests):
            raise UsageError("frames is given: generate draws pictures, and animate draws clips")
        drawn = {step.image_index: step.image for step in self.stream(requests) if step.image}
        return [drawn[index] for index in sorted(drawn)]

    @abstractmethod
    def clip_frames(self, model: str | None = None) -> int:
        """Frames of a clip that does not say, by `model`, the usual one if `None`: as many as a model of
        clips draws at once, else 16.
        """

    def animate(self, request: Request | str | None = None, **fields: Unpack[RequestFields]) -> Video:
        """Draw a clip: `studio.animate("a red apple bouncing", frames=16, fps=8, loop=True)`.

        `fields` are those of `Request`; `frames` is `clip_frames` unless given. With `image` every frame
        begins with that picture, and `strength` says how much is drawn anew. Raises `UsageError` for a
        request that is wrong, for one of several clips, and for a model that has no motion adapter where
        `motion` is not given.
        """
        own = request if isinstance(request, Request) else None
        if fields.get("frames") is None and (own is None or own.frames is None):
            named = own.model if own is not None and "model" in own.model_fields_set else None
            fields["frames"] = self.clip_frames(fields.get("model", named))
        requests = one_picture(requests_of(request, fields), "animate draws one clip")
        (drawn,) = (step.video for step in self.stream(requests) if step.video is not None)
        return drawn

    def vary(
        self, picture: Image | PictureSource, *, amount: float = AMOUNT, **fields: Unpack[RequestFields]
    ) -> list[Image]:
        """Draw variations of `picture`: `amount`, 0 to 1, of other noises mixed into its own.

        A `sfumato.Image` is drawn by its request. Any other picture is drawn from (img2img) with the strength
        `amount`. `fields` replace those of the request: `count`, 4 unless given, and `variation_seed`, the
        first of the other seeds, random unless given.
        """
        return self.generate_batch(variation(picture, amount, **fields))

    def interpolate(
        self,
        prompts: str | Sequence[str],
        seeds: int | Sequence[int] = (),
        *,
        frames: int = FRAMES,
        loop: bool = False,
        constant_speed: bool = True,
        **fields: Unpack[PictureOptions],
    ) -> list[Image]:
        """Draw `frames` pictures from prompt to prompt, from seed to seed, or both, `fields` being common.

        With `loop` the last leads back to the first. `constant_speed`: from frame to frame the picture
        changes equally much, as measured in fewer steps; else the weights do. Raises `UsageError` for fewer
        than two prompts and seeds. See `sfumato.series.interpolation.Interpolation`.
        """
        way = Interpolation.of(prompts, seeds, loop=loop, **fields)

        def draw(requests: list[Request]) -> list[PIL.Image.Image]:
            return [image.pil for image in self.generate(requests)]

        if constant_speed:
            places = way.even_places(frames, draw, self.quickest_decoder)
        else:
            places = way.places(frames)
        return self.generate([way.at(place) for place in places])

    def upscale(
        self, picture: Image | PictureSource, scale: float = SCALE, **fields: Unpack[RequestFields]
    ) -> Image:
        """Draw `picture` `scale` times larger: enlarged by `upscaler`, and refined with a low `strength`.

        At `strength` 0 it is enlarged and no more. A `sfumato.Image` is refined under its own prompt.
        `fields` replace those of the request. Width and height are rounded to what the model can draw.
        """
        return self.generate(self.enlargement(upscaling(picture, scale, **fields)))

    def edit(
        self, image: PictureSource | InputImage, instruction: str, /, **fields: Unpack[RequestOptions]
    ) -> Image:
        """A picture changed as `instruction` says, by a model that edits so, such as "embedded-instruct".

        A text-to-image model edits by inversion: `source` is a prompt for what the picture shows, and
        `instruction` one for what it is to show. `fields` are those of `Request`. Raises `UsageError`.
        """
        request = edit_request(instruction, {**fields, "image": image})
        self.check_edit(request)
        return self.generate(request)

    def shape(
        self,
        request: Request | str,
        *,
        method: str = "puff",
        quality: str = "draft",
        objective: str = "sds",
        thickness: float = 1.0,
        back: Back = "inpaint",
        faces: int = FACES,
        **fields: Unpack[RequestOptions],
    ) -> Shape:
        """A closed, textured mesh of what a prompt says.

        `method`: "puff" draws one object, cuts it out and inflates it, with `thickness` and `back`: see
        `Shape.of_picture`. "field" distils a field of latents from all sides in `quality` "draft" or
        "good": see `sfumato.space.distillation`; `objective` is "sds", "sjc", "vsd" or "reconstruction",
        `steps` and `guidance` are the distillation's.

        `fields` are those of `Request`. Warns where the background is not plain, and raises `UsageError`
        where nothing stands out from it.
        """
        check_puffing(thickness, back, faces)
        check_method(method, quality, objective, thickness, back)
        if method == "field":
            return self._field_shape(request_of(request, fields), quality, objective, faces)
        drawn = self.generate(request_of(request, {**fields, "transparent": True}))
        return Shape.of_picture(drawn, thickness=thickness, back=back, faces=faces)

    def texture(
        self,
        shape: Shape | str | Path,
        request: Request | str,
        *,
        faces: int | None = None,
        **fields: Unpack[RequestOptions],
    ) -> Shape:
        """`shape`, or the one in a file, with a texture that looks as a prompt says; its form stays.

        Views from all around are drawn over what is there already, with the mesh's edges as structure where
        the model has a ControlNet "edges": see `sfumato.space.texturing`. `faces`: simplify the mesh to about
        so many triangles first. `fields` are those of `Request`. Raises `UsageError` for a mesh that cannot
        be read, is too large, or has no area.
        """
        if faces is not None:
            check_puffing(1.0, "inpaint", faces)
        opened = shape if isinstance(shape, Shape) else Shape.open(shape)
        return self._textured_shape(request_of(request, fields), opened, faces)

    def _textured_shape(self, request: Request, shape: Shape, faces: int | None) -> Shape:
        """A shape with a texture that is drawn: only where the model itself is."""
        raise UsageError("a server draws pictures and no textures: load the model here")

    def _field_shape(self, request: Request, quality: str, objective: str, faces: int) -> Shape:
        """The shape of a field that is distilled: only where the model itself is."""
        raise UsageError("a server draws pictures and no fields: use method='puff', or load the model here")

    @property
    def quickest_decoder(self) -> str:
        """The decoder for pictures that are only measured."""
        return "full"


def one_picture(requests: list[Request], rule: str) -> list[Request]:
    """The one request, for one picture. Raises `UsageError` with the `rule` for more."""
    if (count := sum(map(expansion.count, requests))) != 1:
        raise UsageError(f"the request is for {count} pictures: {rule}")
    return requests
