"""Frames in one file: an animation as GIF, WebP or MP4, or a strip as PNG, with their records."""

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from sfumato.contact_sheet import contact_sheet
from sfumato.errors import UsageError
from sfumato.series.record import SetRecord, video_library

FORMATS = {".gif": "GIF", ".webp": "WEBP", ".mp4": "MP4", ".png": "PNG"}
FPS = 12
MAX_FPS = 50
"""What a GIF can say, whose frames last so many hundredths of a second."""


def animation_format(path: Path) -> str:
    """The format that the suffix of `path` names.

    Raises `UsageError` for any other, and for MP4 where PyAV is not installed.
    """
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        wrong = f"unknown suffix {path.suffix!r}" if path.suffix else "no suffix"
        raise UsageError(f"{str(path)!r} has {wrong}; frames are written as {', '.join(FORMATS)}")
    if kind == "MP4":
        video_library()
    return kind


def check_fps(fps: Any) -> None:
    """Raise `UsageError` unless `fps` is a number of frames a second that every format can have."""
    if not isinstance(fps, int | float) or not 1 <= fps <= MAX_FPS:
        raise UsageError(f"fps is {fps}: must be 1 to {MAX_FPS}")


def encoded(frames: Sequence[PIL.Image.Image], kind: str, fps: float, record: SetRecord) -> bytes:
    """A file of the format `kind` with `frames` (RGB, of one size), `fps` a second, repeated for ever."""
    buffer, first, rest = io.BytesIO(), frames[0], list(frames[1:])
    if kind == "PNG":
        strip = contact_sheet(frames, columns=len(frames))
        strip.save(buffer, "PNG", **record.held(kind))
    elif kind == "MP4":
        _write_mp4(buffer, frames, fps, record.text)
    elif kind == "GIF":
        # colours of its own for each frame, undithered: nothing flickers
        first, *rest = [frame.quantize(256, dither=PIL.Image.Dither.NONE) for frame in frames]
        duration = round(100 / fps) * 10
        first.save(
            buffer, kind, save_all=True, append_images=rest, duration=duration, loop=0, **record.held(kind)
        )
    else:
        duration = round(1000 / fps)
        first.save(
            buffer, kind, save_all=True, append_images=rest, duration=duration, loop=0, quality=90,
            **record.held(kind),
        )  # fmt: skip
    return buffer.getvalue()


def _write_mp4(file: io.BytesIO, frames: Sequence[PIL.Image.Image], fps: float, text: str) -> None:
    """H.264, which needs an even width and height: the last row or column is doubled where it is odd."""
    av = video_library()
    with av.open(file, "w", format="mp4") as container:
        container.metadata["comment"] = text
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        width, height = frames[0].size
        stream.width, stream.height = width + width % 2, height + height % 2
        stream.pix_fmt, stream.options = "yuv420p", {"crf": "16"}
        for frame in frames:
            edge = ((0, height % 2), (0, width % 2), (0, 0))
            pixels = np.pad(np.asarray(frame), edge, mode="edge")
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
