"""Pictures that a request begins from, held as the bytes of their files, so that a record can carry them."""

import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from sfumato.errors import PictureError, SfumatoError, UsageError
from sfumato.files import read_file
from sfumato.validation import Matching, Validated

if TYPE_CHECKING:
    import numpy as np
    import PIL.Image
    from numpy.typing import NDArray

MAX_BYTES = 64 << 20
"""The most that is read of a picture's file."""


_BYTES_ONLY = ContextVar("_BYTES_ONLY", default=False)


@contextmanager
def bytes_only() -> Iterator[None]:
    """Within it no picture is read from a path, as where strangers may name files."""
    token = _BYTES_ONLY.set(True)
    try:
        yield
    finally:
        _BYTES_ONLY.reset(token)


class PixelArray(Protocol):
    """An array of numpy's, or a picture of Pillow's."""

    @property
    def __array_interface__(self) -> dict[str, Any]: ...


class Drawn(Protocol):
    """A picture that has been drawn, as a `sfumato.Image`."""

    @property
    def pil(self) -> PixelArray: ...


PictureSource = str | os.PathLike[str] | bytes | PixelArray | Drawn
"""What a picture may be given as: see `InputImage.of`."""


class InputImage(Validated):
    """A picture given to a request: `name` of its file, `sha256` of its bytes, and the bytes themselves.

    `data` is `None` in a record that leaves the bytes out; they are then looked for under `name`. Fields of a
    request take whatever `of` takes.
    """

    model_config = ConfigDict(
        ser_json_bytes="base64", val_json_bytes="base64", ignored_types=(cached_property,)
    )

    name: str = Field("", max_length=4096)
    sha256: Annotated[str, Matching("[0-9a-f]{64}", "64 digits, 0 to 9 and a to f")]
    data: bytes | None = Field(None, repr=False)

    @classmethod
    def of(cls, source: Any) -> Self:
        """From a path, the bytes of a picture file, a Pillow picture, an array (H, W), (H, W, 3) or
        (H, W, 4) of bytes, or a `sfumato.Image`.

        Raises `PictureError` for what is no such picture or too large, and `UsageError` for anything else.
        """
        if isinstance(source, cls):
            return source
        name, data = _content(source)
        made = cls(name=name, sha256=hashlib.sha256(data).hexdigest(), data=data)
        _ = made.rgba  # a file that is cut off is told of here
        return made

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.data is not None and hashlib.sha256(self.data).hexdigest() != self.sha256:
            raise ValueError("the bytes are not those of its sha256")
        return self

    def __eq__(self, other: object) -> bool:
        """By its content and name; what was computed from them does not count."""
        if not isinstance(other, InputImage):
            return NotImplemented
        return (self.sha256, self.name, self.data) == (other.sha256, other.name, other.data)

    def __hash__(self) -> int:
        return hash((self.sha256, self.name))

    def loaded(self) -> Self:
        """Itself, or with the bytes of the file `name` if it has none. Raises `PictureError` without them."""
        if self.data is not None:
            return self
        wanted = f"the picture {self.name!r} (sha256 {self.sha256[:12]}…), which this record only names"
        try:
            data = read_file(Path(self.name), MAX_BYTES)
        except OSError as error:
            raise PictureError(f"{wanted}, is not here: {error.strerror or error}") from None
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise PictureError(f"{wanted}, is not the file of that name here")
        return type(self)(name=self.name, sha256=self.sha256, data=data)

    def without_data(self) -> Self:
        """Its name and hash alone."""
        return type(self)(name=self.name, sha256=self.sha256, data=None)

    @cached_property
    def rgba(self) -> "NDArray[np.uint8]":
        """Pixels (H, W, 4), upright, sRGB. Raises `PictureError`."""
        import numpy as np

        from sfumato import pictures

        held = self.loaded().data
        assert held is not None
        with pictures.opened_content(io.BytesIO(held), self.name or "the picture") as picture:
            return np.asarray(pictures.rgba(picture))


def input_image(source: Any) -> Any:
    """Anything that `InputImage.of` takes as one; nothing, and what a record holds, as it is."""
    if source is None or isinstance(source, dict):
        return source
    try:
        return InputImage.of(source)
    except SfumatoError as error:
        raise ValueError(str(error)) from None


Picture = Annotated[InputImage, BeforeValidator(input_image)]
"""A field of a request that takes whatever `InputImage.of` takes."""


def _content(source: Any) -> tuple[str, bytes]:
    """The name of a picture's file, if it has one, and the bytes of it, or of a PNG with its pixels."""
    if isinstance(source, bytes):
        return "", source
    if isinstance(source, str | os.PathLike):
        if _BYTES_ONLY.get():
            raise UsageError("a picture is given as its bytes, in base64, and not by a path")
        if not str(source):
            raise UsageError("a picture is named by a path, and this is empty")
        path = Path(source)
        try:
            return path.name, read_file(path, MAX_BYTES)
        except OSError as error:
            raise PictureError(f"cannot read {path}: {error.strerror or error}") from None
    import numpy as np
    import PIL.Image

    picture = getattr(source, "pil", source)
    if isinstance(source, np.ndarray):
        shape = source.shape
        if source.dtype != np.uint8 or shape[2:] not in ((), (3,), (4,)) or len(shape) < 2:
            raise UsageError(
                f"an array of shape {shape} and type {source.dtype} is no picture: it must be (H, W), "
                "(H, W, 3) or (H, W, 4) of bytes (uint8)"
            )
        picture = PIL.Image.fromarray(source)
    if not isinstance(picture, PIL.Image.Image):
        raise UsageError(
            "a picture is a path, the bytes of a file, a Pillow picture, an array or a sfumato.Image; "
            f"this is {type(source).__name__}"
        )
    return "", _png(picture)


def _png(picture: "PIL.Image.Image") -> bytes:
    buffer = io.BytesIO()
    try:
        picture.save(buffer, "PNG", compress_level=1)
    except OSError:  # modes that PNG has not
        picture.convert("RGBA").save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
