"""Picture files opened within limits, wherever they come from: a hostile one costs an error, never memory."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import PIL.Image

from sfumato.errors import PictureError
from sfumato.files import open_file
from sfumato.formats import FORMATS

MAX_PIXELS = 1 << 24
"""The most that is decoded, 4096 × 4096; read from the header, before any memory is spent."""
MAX_ENTRIES = 16 << 20
"""Bytes of a PNG that are read besides its pixels: text, profiles, previews."""
_MOST_CHUNKS = 1 << 17
_PNG = b"\x89PNG\r\n\x1a\n"


@contextmanager
def opened(path: str | Path, *, most: int = MAX_PIXELS) -> Iterator[PIL.Image.Image]:
    """A picture file opened by Pillow, its header read and within limits, its pixels not decoded yet.

    `most`: pixels that it may have. Raises `PictureError`, also for what goes wrong while the block decodes
    it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with open_file(path) as file:
                # pixels of four channels in 16 bits take no more, even uncompressed
                if (size := os.fstat(file.fileno()).st_size) > 8 * most + MAX_ENTRIES:
                    raise PictureError(f"{path} takes {size:,} bytes, too many for a picture; {_limit(most)}")
                with opened_content(file, path, most=most) as picture:
                    yield picture
        except OSError as error:
            raise PictureError(f"cannot read {path}: {error.strerror or error}") from error


@contextmanager
def opened_content(
    content: BinaryIO, name: str | Path, *, most: int = MAX_PIXELS
) -> Iterator[PIL.Image.Image]:
    """As `opened`, of a file that is open and called `name` in errors.

    Pillow's warnings are the caller's to silence: that is done for all threads at once.
    """
    _refuse_large_entries(content, name)
    try:
        with PIL.Image.open(content, formats=sorted(set(FORMATS.values()))) as picture:
            width, height = picture.size
            if width * height > most:
                raise PictureError(f"{name} has {width}×{height} pixels; {_limit(most)}")
            # cameras put previews behind a JPEG, which Pillow then calls an MPO of several frames
            if getattr(picture, "n_frames", 1) != 1 and picture.format != "MPO":
                raise PictureError(f"{name} is an animation; only single pictures are read")
            yield picture
    except (PictureError, MemoryError):
        raise
    except PIL.Image.DecompressionBombError:
        raise PictureError(f"{name} has far too many pixels; {_limit(most)}") from None
    except PIL.UnidentifiedImageError:
        raise PictureError(f"{name} is not a PNG, JPEG or WebP picture") from None
    except OSError as error:
        raise PictureError(f"cannot read {name}: {error.strerror or error}") from error
    except Exception as error:  # Pillow's decoders raise nearly every kind on damaged files
        raise PictureError(f"{name} is damaged: {error}") from error


def _refuse_large_entries(content: BinaryIO, name: str | Path) -> None:
    """Raise `PictureError` for a PNG with more besides its pixels than is read: Pillow would read it all."""
    png, taken = content.read(len(_PNG)) == _PNG, 0
    for _ in range(_MOST_CHUNKS):
        head = content.read(8) if png else b""
        if len(head) < 8 or head[4:] == b"IEND":
            content.seek(0)
            return
        size = int.from_bytes(head[:4], "big")
        if head[4:] != b"IDAT" and (taken := taken + size) > MAX_ENTRIES:
            break
        content.seek(size + 4, os.SEEK_CUR)
    raise PictureError(
        f"{name} holds more than {MAX_ENTRIES:,} bytes besides its pixels, the most that is read"
    )


def _limit(most: int) -> str:
    return f"the most that is read is {most:,} pixels"
