"""Kept pictures and previews as the files that clients ask for."""

import io

import PIL.Image

from sfumato import pictures
from sfumato.image import Image
from sfumato.server.context import Server
from sfumato.server.jobs import PictureView

FORMATS = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP"}


def encoded(server: Server, picture: PictureView, kind: str = "png", quality: int = 95) -> bytes:
    """The file of a picture, as PNG just as it was drawn."""
    if kind == "png":
        return _content(server, picture)
    return opened(server, picture).encoded(FORMATS[kind], quality)


def opened(server: Server, picture: PictureView) -> Image:
    """A picture with its record, of a clip its first frame."""
    content = io.BytesIO(_content(server, picture))
    with pictures.opened_content(content, picture.id, animated=picture.frames is not None) as found:
        return Image.decode(found, picture.id)


def _content(server: Server, picture: PictureView) -> bytes:
    return server.store.files(picture.frames).path(picture.sha256).read_bytes()


def recoded(preview: bytes, kind: str = "png", quality: int = 95) -> bytes:
    """A preview, which is WebP, as a file of another format."""
    if kind == "webp":
        return preview
    buffer = io.BytesIO()
    with PIL.Image.open(io.BytesIO(preview)) as picture:
        picture.save(buffer, FORMATS[kind], quality=quality)
    return buffer.getvalue()
