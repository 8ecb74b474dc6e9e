"""Which picture files are written, told by their suffix. Data only, so that a bad one is refused at once."""

from pathlib import Path

from sfumato.errors import UsageError

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
LOSSY = frozenset({"JPEG", "WEBP"})


def picture_format(path: Path) -> str:
    """Pillow's name of the format that `path` asks for. Raises `UsageError` for any other suffix."""
    suffix = path.suffix.lower()
    if suffix in FORMATS:
        return FORMATS[suffix]
    wrong = f"unknown suffix {path.suffix!r}" if suffix else "no suffix"
    raise UsageError(f"{str(path)!r} has {wrong}; a picture is written as {', '.join(FORMATS)}")
