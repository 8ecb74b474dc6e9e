"""Picture files opened within limits, wherever they come from: a hostile one costs an error, never memory."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import PIL.Image

from sfumato.errors import PictureError
from sfumato.formats import FORMATS

MAX_PIXELS = 1 << 24
"""The most that is decoded, 4096 × 4096; read from the header, before any memory is spent."""


@contextmanager
def opened(path: str | Path, *, most: int = MAX_PIXELS) -> Iterator[PIL.Image.Image]:
    """A picture file opened by Pillow, its header read and within limits, its pixels not decoded yet.

    `most`: pixels that it may have. Raises `PictureError`, also for what goes wrong while the block decodes
    it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with open(path, "rb") as file, opened_content(file, path, most=most) as picture:
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


def _limit(most: int) -> str:
    return f"the most that is read is {most:,} in all"
