"""The desktop's own viewer of pictures, where there is a desktop."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from sfumato.errors import OutputError


def why_none() -> str | None:
    """Why no picture can be shown here, as "there is no display", or `None` where it can."""
    if sys.platform == "win32":
        return None
    if sys.platform != "darwin" and not any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")):
        return "there is no display"
    return None if shutil.which(_opener()) else f"{_opener()} is not installed"


def show(path: Path) -> None:
    """Open the picture at `path` in the desktop's viewer, and go on. Raises `OutputError` where none is."""
    if why := why_none():
        raise OutputError(f"cannot show {path}: {why}")
    try:
        if sys.platform == "win32":
            os.startfile(path)
        else:
            no = subprocess.DEVNULL
            line = [_opener(), os.path.abspath(path)]
            subprocess.Popen(line, stdin=no, stdout=no, stderr=no, start_new_session=True)
    except OSError as error:
        raise OutputError(f"cannot show {path}: {error.strerror}") from error


def _opener() -> str:
    return "open" if sys.platform == "darwin" else "xdg-open"
