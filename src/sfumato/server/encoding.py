"""Kept pictures as the files that clients ask for."""

import io

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
