"""Files of pictures, each once by its content, with a thumbnail beside it."""

import hashlib
import io
from pathlib import Path

import PIL.Image

from sfumato.files import make_folder, replace_atomically

THUMBNAIL_SIDE = 320
"""Of the longer side of a thumbnail, in pixels."""


class PictureFiles:
    """PNG files in `folder`, called by the SHA-256 of their bytes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, content: bytes) -> str:
        """Keep a PNG file and make its thumbnail; its SHA-256. Raises `OutputError`."""
        digest = hashlib.sha256(content).hexdigest()
        path = self.picture(digest)
        if not path.exists():
            make_folder(path.parent)
            with PIL.Image.open(io.BytesIO(content)) as picture:
                picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
                with replace_atomically(self.thumbnail(digest)) as file:
                    picture.save(file, "WEBP", quality=80)
            # last: where the picture is, its thumbnail is too
            with replace_atomically(path) as file:
                file.write(content)
        return digest

    def remove(self, digest: str) -> None:
        """Forget a picture."""
        self.picture(digest).unlink(missing_ok=True)
        self.thumbnail(digest).unlink(missing_ok=True)

    def picture(self, digest: str) -> Path:
        """Where the picture is."""
        return self.folder / digest[:2] / f"{digest}.png"

    def thumbnail(self, digest: str) -> Path:
        """Where its thumbnail is."""
        return self.folder / digest[:2] / f"{digest}.webp"
