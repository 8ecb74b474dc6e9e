"""Picture files opened within limits, wherever they come from: a hostile one costs an error, never memory."""

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeGuard

import numpy as np
import PIL.Image
from PIL import ExifTags, ImageOps

from sfumato import png_text
from sfumato.errors import PictureError, UnsupportedPictureError
from sfumato.files import open_file
from sfumato.formats import READ_FORMATS, READABLE, is_video

if TYPE_CHECKING:
    from PIL.ImageCms import ImageCmsTransform

MAX_PIXELS = 1 << 24
"""The most that is decoded, 4096 × 4096; read from the header, before any memory is spent."""
MAX_ENTRIES = 16 << 20
"""Bytes of a PNG that are read besides its pixels: text, profiles, previews."""
_TEXTS = "sfumato:texts"
"""Where the texts of a PNG are kept in Pillow's dictionary."""
_ENCODINGS = (b"UNICODE\0", b"ASCII\0\0\0", b"JIS\0\0\0\0\0", bytes(8))
"""How a UserComment of EXIF can begin."""

_SIGNATURES = (
    (4, b"ftyphe", "a HEIF picture"),
    (4, b"ftypmif1", "a HEIF picture"),
    (4, b"ftypmsf1", "a HEIF picture"),
    (0, b"\xff\x0a", "a JPEG XL picture"),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL picture"),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 picture"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (0, b"8BPS", "a Photoshop document"),
    (0, b"<svg", "a vector drawing"),
)
"""Where a file that is not read has which bytes, and what it is then."""
_ALMOST = 2
"""Of 255: how far a profile may be from sRGB to be taken for it."""


@contextmanager
def opened(path: str | Path, *, most: int = MAX_PIXELS, animated: bool = False) -> Iterator[PIL.Image.Image]:
    """A picture file opened by Pillow, its header read and within limits, its pixels not decoded yet.

    `most`: pixels that it may have. `animated`: whether it may have several frames, of which the first is
    read. Raises `PictureError`, also for what goes wrong while the block decodes it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with reading(path), open_file(path) as file:
            # pixels of four channels in 16 bits take no more, even uncompressed
            if (size := os.fstat(file.fileno()).st_size) > 8 * most + MAX_ENTRIES:
                raise PictureError(f"{path} takes {size:,} bytes, too many for a picture; {_limit(most)}")
            with opened_content(file, path, most=most, animated=animated) as picture:
                yield picture


@contextmanager
def opened_content(
    content: BinaryIO, name: str | Path, *, most: int = MAX_PIXELS, animated: bool = False
) -> Iterator[PIL.Image.Image]:
    """As `opened`, of a file that is open and called `name` in errors.

    Pillow's warnings are the caller's to silence: that is done for all threads at once.
    """
    try:
        _refuse_large_entries(content, name)
        _refuse_by_signature(content, name)
        drawn, found = png_text.split(content)
        with PIL.Image.open(drawn, formats=sorted(set(READ_FORMATS.values()))) as picture:
            width, height = picture.size
            if width * height > most:
                raise UnsupportedPictureError(f"{name} has {width}×{height} pixels; {_limit(most)}")
            # cameras put previews behind a JPEG, which Pillow then calls an MPO of several frames
            if not animated and getattr(picture, "n_frames", 1) != 1 and picture.format != "MPO":
                several = "has several pages" if picture.format == "TIFF" else "is an animation"
                raise UnsupportedPictureError(f"{name} {several}; only single pictures are read")
            if picture.mode in ("F", "I", "LAB"):
                raise UnsupportedPictureError(f"{name} has pixels of the kind {picture.mode}: make it RGB")
            if png_text.XMP in found:
                picture.info["xmp"] = found[png_text.XMP].encode()
            picture.info[_TEXTS] = found
            yield picture
    except (PictureError, MemoryError):
        raise
    except PIL.Image.DecompressionBombError:
        raise UnsupportedPictureError(f"{name} has far too many pixels; {_limit(most)}") from None
    except PIL.UnidentifiedImageError:
        if is_video(name):
            raise UnsupportedPictureError(
                f"{name} is a video; only single pictures are read: of a clip give one frame"
            ) from None
        raise PictureError(f"{name} is not a {READABLE} picture") from None
    except OSError as error:
        raise PictureError(f"cannot read {name}: {error.strerror or error}") from error
    except Exception as error:  # Pillow's decoders raise nearly every kind on damaged files
        raise PictureError(f"{name} is damaged: {error}") from error


def texts(picture: PIL.Image.Image) -> dict[str, str]:
    """The texts in a picture that was opened here, or by Pillow, which knows fewer.

    Those of a PNG are called by their keywords, those of EXIF by their tags' names; "comment" and "xmp".
    """
    found: dict[str, str] = {}
    exif = picture.getexif()
    for tags in (exif, exif.get_ifd(ExifTags.IFD.Exif)):
        for tag, value in tags.items():
            if _is_text(value) and (name := ExifTags.TAGS.get(tag)):
                found[name] = _exif_text(value)
    for name in ("comment", "xmp"):
        if _is_text(value := picture.info.get(name)):
            found[name] = value if isinstance(value, str) else value.decode("utf-8", "replace")
    plain = {key: text for key, text in picture.info.items() if isinstance(text, str)}
    return {**found, **picture.info.get(_TEXTS, plain)}


def _is_text(value: object) -> TypeGuard[bytes | str]:
    return isinstance(value, bytes | str) and len(value) <= png_text.MAX_TEXT


def _exif_text(value: bytes | str) -> str:
    """A text of EXIF; a comment names its encoding in its first eight bytes, not always rightly."""
    if isinstance(value, str):
        try:
            return value.encode("latin-1").decode("utf-8")
        except UnicodeError:
            return value
    if not value.startswith(_ENCODINGS):
        return value.decode("utf-8", "replace")
    code, text = value[:8], value[8:]
    if code != b"UNICODE\0" or 0 not in text:
        return text.decode("utf-8", "replace")
    little = text.startswith(b"\xff\xfe") or text[1::2].count(0) > text[::2].count(0)
    return text.decode("utf-16-le" if little else "utf-16-be", "replace").removeprefix("\ufeff")


@contextmanager
def reading(name: str | Path) -> Iterator[None]:
    """Turn what the file system refuses while `name` is read into a `PictureError`."""
    try:
        yield
    except OSError as error:
        raise PictureError(f"cannot read {name}: {error.strerror or error}") from error


def _refuse_large_entries(content: BinaryIO, name: str | Path) -> None:
    """Raise `PictureError` for a PNG with more besides its pixels than is read: Pillow would read it all."""
    taken = sum(length for kind, _, length in png_text.chunks(content) if kind != b"IDAT")
    if taken > MAX_ENTRIES:
        raise PictureError(
            f"{name} holds more than {MAX_ENTRIES:,} bytes besides its pixels, the most that is read"
        )


def rgba(picture: PIL.Image.Image) -> PIL.Image.Image:
    """A picture as programs show it, mode "RGBA": upright, in sRGB by its ICC profile.

    A profile that is damaged, or of other colours than the picture has, is ignored, as browsers do.
    """
    profile = picture.info.get("icc_profile")
    upright = _eight_bits(ImageOps.exif_transpose(picture))
    if "A" not in upright.getbands() and "transparency" not in upright.info:
        return _by_profile(upright, profile).convert("RGBA")
    drawn = upright.convert("RGBA")
    if profile:
        alpha = drawn.getchannel("A")
        drawn = _by_profile(drawn if upright.mode in ("P", "PA") else upright, profile)
        drawn.putalpha(alpha)
    return drawn


def srgb(picture: PIL.Image.Image) -> PIL.Image.Image:
    """The same in mode "RGB", transparency on white."""
    drawn = rgba(picture)
    if drawn.getchannel("A").getextrema()[0] == 255:
        return drawn.convert("RGB")
    white = PIL.Image.new("RGBA", drawn.size, "white")
    return PIL.Image.alpha_composite(white, drawn).convert("RGB")


def _by_profile(picture: PIL.Image.Image, profile: bytes | None) -> PIL.Image.Image:
    plain = picture.convert("RGB")
    if not profile:
        return plain
    from PIL import ImageCms

    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = own.profile.xcolor_space.strip()
        grey = picture.mode in ("1", "L", "LA")
        if space == "CMYK" and picture.mode == "CMYK":
            source = picture
        elif space == "GRAY" and grey:
            source = picture.convert("L")
        elif space == "RGB" and picture.mode != "CMYK":
            source = plain
        else:
            return plain
        transform = ImageCms.buildTransform(own, ImageCms.createProfile("sRGB"), source.mode, "RGB")
        if source is plain and _changes_nothing(transform):
            return plain
        return ImageCms.applyTransform(source, transform) or plain
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return plain


def _changes_nothing(transform: "ImageCmsTransform") -> bool:
    """Whether a transform of RGB leaves grey and pure colours where they are: its profile is sRGB itself."""
    from PIL import ImageCms

    ramp = np.arange(256, dtype=np.uint8)[:, None] * np.array([(1, 1, 1), *np.eye(3)], np.uint8)[:, None]
    turned = ImageCms.applyTransform(PIL.Image.fromarray(ramp), transform)
    return int(np.abs(np.asarray(turned).astype(int) - ramp).max()) <= _ALMOST


def _eight_bits(picture: PIL.Image.Image) -> PIL.Image.Image:
    """A grey picture of 16 bits as one of 8; any other as it is."""
    if not picture.mode.startswith("I;16"):
        return picture
    values = np.asarray(picture).astype(np.uint32)
    return PIL.Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))


def _refuse_by_signature(content: BinaryIO, name: str | Path) -> None:
    """Raise `UnsupportedPictureError` for a kind of picture that is known, but not read."""
    start = content.tell()
    head = content.read(64)
    content.seek(start)
    if head[8:12] in (b"mif1", b"msf1") and b"avif" in head:
        return
    for place, mark, kind in _SIGNATURES:
        if head[place:].startswith(mark):
            raise UnsupportedPictureError(f"{name} is {kind}; {READABLE} is read: convert it")


def _limit(most: int) -> str:
    return f"the most that is read is {most:,} pixels"
