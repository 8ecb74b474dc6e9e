"""Files of pictures and clips, each once by its content, with a thumbnail beside it."""

import io
from pathlib import Path

import PIL.Image

from sfumato.files import replace_atomically
from sfumato.server.store.content_files import ContentFiles

THUMBNAIL_SIDE = 320
"""Of the longer side of a thumbnail, in pixels."""


class PictureFiles(ContentFiles):
    """PNG files of pictures that were drawn."""

    suffix, media_type = ".png", "image/png"

    def prepare(self, digest: str, content: bytes) -> None:
        """Make the thumbnail, of a clip that of its first frame."""
        with PIL.Image.open(io.BytesIO(content)) as picture:
            picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
            with replace_atomically(self.thumbnail(digest)) as file:
                picture.save(file, "WEBP", quality=80)

    def remove(self, digest: str) -> None:
        """Forget a file and its thumbnail."""
        super().remove(digest)
        self.thumbnail(digest).unlink(missing_ok=True)

    def thumbnail(self, digest: str) -> Path:
        """Where the thumbnail is."""
        return self.folder / digest[:2] / f"{digest}.webp"


class ClipFiles(PictureFiles):
    """Animated WebP files of clips that were drawn."""

    suffix, media_type = ".clip.webp", "image/webp"
