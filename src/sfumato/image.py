"""A picture and how it was drawn: shown, compared, saved, and read back from a file that may be hostile."""

import io
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from textwrap import shorten
from typing import Any, Self

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from sfumato import metadata, pictures, viewer
from sfumato.errors import OutputError, UsageError, warn
from sfumato.files import replace_atomically
from sfumato.formats import picture_format
from sfumato.metadata import Record, pixel_digest
from sfumato.request import Request
from sfumato.validation import as_path, shown


@dataclass(frozen=True, eq=False)
class Image:
    """`pixels` in 0..255, sRGB, and the `record` of how they came about.

    They are `(H, W, 3)`, or `(H, W, 4)` with alpha if the request has it.
    """

    pixels: NDArray[np.uint8]
    record: Record

    @property
    def request(self) -> Request:
        """The request that draws exactly this picture: every field filled in, its own seed."""
        return self.record.request

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.pixels.shape[1], self.pixels.shape[0]

    @cached_property
    def pil(self) -> PIL.Image.Image:
        """As a picture of Pillow's."""
        return PIL.Image.fromarray(self.pixels)

    def __repr__(self) -> str:
        width, height = self.size
        request = self.request
        prompt = shorten(request.prompt, 60, placeholder=" …")
        how = f"seed {request.seed}, steps {request.steps}, {request.sampler}, guidance {request.guidance}"
        return f"<Image {width}×{height}: {prompt!r}, {how}, model {self.record.model}>"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.pixels, dtype, copy=copy)

    def show(self) -> None:
        """Open the picture in the desktop's viewer. Raises `OutputError` where there is none.

        The viewer reads a temporary file, which stays for it.
        """
        if why := viewer.why_none():
            raise OutputError(f"cannot show the picture: {why}")
        viewer.show(self.save(Path(tempfile.mkdtemp(prefix="sfumato-")) / "picture.png"))

    @property
    def as_drawn(self) -> bool:
        """Whether the pixels are those that were drawn: not compressed with loss, nor edited since."""
        return pixel_digest(self.pixels) == self.record.pixels

    def save(
        self, path: str | Path, *, quality: int = 95, overwrite: bool = True, embed: bool = True
    ) -> Path:
        """Write the picture with its record, whole or not at all, in the format that the suffix names.

        The record holds pictures that the request began from as well, unless they are large or `embed` is
        false; it then has their names and hashes, and a replay needs the files. PNG keeps every pixel; JPEG
        and WebP lose a little by `quality` (1 to 100). Raises `UsageError` for another suffix and
        `OutputError` where the file cannot be written.
        """
        path = as_path(path)
        kind = picture_format(path)
        if not isinstance(quality, int) or not 1 <= quality <= 100:
            raise UsageError(f"quality is {shown(quality)}: must be 1 to 100")
        if not overwrite and path.exists():
            raise OutputError(f"will not replace {path}: it exists")
        self.record.check_fits(path)
        encoded = self.encoded(kind, quality, embed)
        with replace_atomically(path) as file:
            file.write(encoded)
        return path

    def png(self) -> bytes:
        """The picture as a PNG file, record included."""
        return self.encoded("PNG", 100, embed=True)

    def _repr_png_(self) -> bytes:
        return self.png()

    def encoded(self, kind: str, quality: int = 95, embed: bool = True) -> bytes:
        """The bytes of a file of format `kind`, "PNG", "JPEG" or "WEBP", record included; see `save`."""
        record, buffer = record_for(self.record, kind, embed), io.BytesIO()
        held = metadata.held(record, kind)
        if kind == "JPEG":
            held["subsampling"] = 0
        if kind != "PNG":
            held["quality"] = quality
        self.pil.save(buffer, kind, **held)
        return buffer.getvalue()

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """The picture at `path` and its record. Raises `PictureError` for whatever cannot be had."""
        path = as_path(path)
        with pictures.opened(path) as picture:
            return cls.decode(picture, path)

    @classmethod
    def decode(cls, picture: PIL.Image.Image, path: str | Path) -> Self:
        """What `pictures.opened(path)` gives, with its record. Raises `PictureError`."""
        record = metadata.record_of(picture, path)
        read = pictures.rgba if record.request.has_alpha else pictures.srgb
        return cls(np.asarray(read(picture), dtype=np.uint8), record)

    def differs(self, other: "Image") -> str | None:
        """How the pixels of `other` differ, as "at most 3/255 in 120 of 65536 pixels", or `None`."""
        if self.size != other.size:
            return "size {}×{} instead of {}×{}".format(*other.size, *self.size)
        apart = np.abs(self.pixels.astype(np.int16) - other.pixels).max(axis=2)
        count = int(np.count_nonzero(apart))
        return f"at most {int(apart.max())}/255 in {count} of {apart.size} pixels" if count else None


def record_for(record: Record, kind: str, embed: bool) -> Record:
    """What a file of the format `kind` holds of `record`; warns where pictures are left out unasked."""
    held = record.for_file(kind, embed)
    if embed and held is not record:
        names = " and ".join(each.name or field for field, each in held.request.inputs.items())
        warn(f"the record names {names} without the content, which is too large: a replay needs the file")
    return held
