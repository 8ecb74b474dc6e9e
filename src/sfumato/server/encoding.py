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
    content = server.store.files.picture(picture.sha256).read_bytes()
    if kind == "png":
        return content
    with pictures.opened_content(io.BytesIO(content), picture.id) as opened:
        return Image.decode(opened, picture.id).encoded(FORMATS[kind], quality)


def recoded(preview: bytes, kind: str = "png", quality: int = 95) -> bytes:
    """A preview, which is WebP, as a file of another format."""
    if kind == "webp":
        return preview
    buffer = io.BytesIO()
    with PIL.Image.open(io.BytesIO(preview)) as picture:
        picture.save(buffer, FORMATS[kind], quality=quality)
    return buffer.getvalue()
