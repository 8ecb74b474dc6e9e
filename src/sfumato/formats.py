"""Which files of pictures and frames are read and written, told by their suffix. Data only, so that a bad one
is refused at once."""

from pathlib import Path

from sfumato.errors import UsageError

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
READ_FORMATS = FORMATS | {
    ".jfif": "JPEG",
    ".jpe": "JPEG",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".avif": "AVIF",
}
READABLE = "PNG, JPEG, WebP, BMP, GIF, TIFF or AVIF"
"""What is read, in words."""
MAX_SIDES = {"PNG": 2**31 - 1, "JPEG": 65_500, "WEBP": 16_383}
"""Pixels a side that each of the formats can have."""
LOSSY = frozenset({"JPEG", "WEBP"})
ANIMATIONS = {".webp": "WEBP", ".gif": "GIF", ".apng": "PNG", ".mp4": "MP4", ".webm": "WEBM"}
"""How frames are written; "PNG" is an animated one."""
VIDEOS = frozenset({"MP4", "WEBM"})
"""Those that PyAV writes and reads; Pillow does the others."""
FRAMES_RECORD = "video.json"
"""The file in a folder of frames that holds their record."""


def picture_format(path: Path) -> str:
    """Pillow's name of the format that `path` asks for. Raises `UsageError` for any other suffix."""
    suffix = path.suffix.lower()
    if suffix in FORMATS:
        return FORMATS[suffix]
    wrong = f"unknown suffix {path.suffix!r}" if suffix else "no suffix"
    raise UsageError(f"{str(path)!r} has {wrong}; a picture is written as {', '.join(FORMATS)}")


def is_video(path: str | Path) -> bool:
    """Whether the suffix of `path` is that of a video, which Pillow does not read."""
    return ANIMATIONS.get(Path(path).suffix.lower()) in VIDEOS
