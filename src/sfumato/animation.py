"""Files of frames, written and read: animated WebP, GIF and PNG, MP4 and WebM, with a text in them."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from sfumato import pictures
from sfumato.errors import PictureError, UnsupportedPictureError, UsageError, warn
from sfumato.files import open_file
from sfumato.formats import ANIMATIONS, MAX_SIDES, VIDEOS, is_video

FPS = 12
"""Frames a second where nothing else is said."""
MAX_FPS = 50
"""What a GIF can say, whose frames last so many hundredths of a second."""
MAX_READ = 1 << 27
"""The most pixels of all frames together that are read: 512 of 512 × 512."""
_GIF_SIDE = 65_535
_OPAQUE = 128
"""The least alpha of a pixel that is drawn in a GIF, which has no half-transparent ones."""
_CODECS: dict[str, tuple[str, str, dict[str, str]]] = {
    "MP4": ("libx264", "yuv420p", {"crf": "16"}),
    "WEBM": ("libvpx-vp9", "yuv420p", {"crf": "20", "b": "0", "row-mt": "1"}),
}


@dataclass(frozen=True)
class Animation:
    """The `frames` of a file, "RGB" or "RGBA", the seconds that each is shown, and whether it plays on."""

    frames: tuple[PIL.Image.Image, ...]
    seconds: tuple[float, ...]
    loop: bool

    def resampled(self, count: int) -> tuple[PIL.Image.Image, ...]:
        """The frames that are shown at `count` moments at equal distances.

        A writer may have joined equal frames to one that is shown longer; so they are taken apart again.
        """
        ends = np.cumsum(self.seconds)
        moments = (np.arange(count) + 0.5) * ends[-1] / count
        shown = np.minimum(np.searchsorted(ends, moments, side="right"), len(ends) - 1)
        return tuple(self.frames[index] for index in shown)

    @property
    def fps(self) -> float:
        """Frames a second on average."""
        return len(self.frames) / sum(self.seconds)


def animation_format(path: Path, *, besides: Sequence[str] = ()) -> str:
    """The format that the suffix of `path` names, "PNG" for an animated one.

    `besides`: what else the caller writes, for the error. Raises `UsageError` for any other suffix, and for a
    video where PyAV is not installed.
    """
    kind = ANIMATIONS.get(path.suffix.lower())
    if kind is None:
        wrong = f"unknown suffix {path.suffix!r}" if path.suffix else "no suffix"
        known = ", ".join((*ANIMATIONS, *besides))
        raise UsageError(f"{str(path)!r} has {wrong}; frames are written as {known}")
    if kind in VIDEOS:
        video_library()
    return kind


def check_fps(fps: Any) -> None:
    """Raise `UsageError` unless `fps` is a number of frames a second that every format can have."""
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not 1 <= fps <= MAX_FPS:
        raise UsageError(f"fps is {fps}: must be 1 to {MAX_FPS}")


def check_size(size: tuple[int, int], kind: str) -> None:
    """Raise `UsageError` for a width and height that the format `kind` cannot have."""
    most = {**MAX_SIDES, "GIF": _GIF_SIDE, "MP4": 16_384, "WEBM": 16_384}[kind]
    if max(size) > most:
        raise UsageError("{}×{} pixels are too many for a {}: at most {} a side".format(*size, kind, most))


def encoded(
    frames: Sequence[PIL.Image.Image], kind: str, fps: float, held: dict[str, Any], *, loop: bool = True
) -> bytes:
    """A file of the format `kind` with `frames` ("RGB" or "RGBA", all of one size), `fps` a second.

    `held`: what the file says besides, as `metadata.held` gives it, or nothing. `loop`: whether it plays
    for ever or once, of which videos say nothing. Raises `UsageError` for no frames, and for a size that
    the format cannot have.
    """
    if not frames:
        raise UsageError("there are no frames to write")
    check_size(frames[0].size, kind)
    buffer = io.BytesIO()
    if kind in VIDEOS:
        _write_video(buffer, frames, kind, fps, held.get("comment", ""))
        return buffer.getvalue()
    settings: dict[str, Any] = {"save_all": True, **held}
    if kind == "GIF":
        frames, transparent = _with_one_palette(frames)
        settings |= {"disposal": 2, "transparency": transparent} if transparent is not None else {}
    settings["duration"] = _durations(len(frames), fps, 10 if kind == "GIF" else 1)
    if kind == "WEBP":
        settings |= {"quality": 90, "method": 4}
    # a GIF says how often it is repeated after the first time, and nothing for once
    if loop or kind != "GIF":
        settings["loop"] = 0 if loop else 1
    frames[0].save(buffer, kind, append_images=frames[1:], **settings)
    return buffer.getvalue()


def read(path: str | Path) -> Animation:
    """The frames of the file at `path`; a picture is one frame. Sound in it is passed over.

    Raises `PictureError` for whatever cannot be read, `UsageError` for a video where PyAV is not installed.
    """
    if is_video(path):
        return _read_video(path)
    with pictures.opened(path, animated=True) as picture:
        return decoded(picture, path)


def decoded(picture: PIL.Image.Image, path: str | Path) -> Animation:
    """The frames of what `pictures.opened(path, animated=True)` gives. Raises `PictureError`."""
    count = getattr(picture, "n_frames", 1)
    width, height = picture.size
    _check_read(width * height * count, path)
    loop = picture.info.get("loop", 1 if picture.format == "GIF" else 0) == 0
    frames, seconds = [], []
    for index in range(count):
        picture.seek(index)
        picture.load()
        # browsers show a frame that says less than 20 ms for 100
        duration = float(picture.info.get("duration", 0))
        seconds.append(duration / 1000 if duration >= 20 else 0.1)
        frames.append(_plain(picture))
    return Animation(tuple(frames), tuple(seconds), loop)


def comment(path: str | Path) -> str:
    """The comment in the video at `path`, or nothing. Raises as `read`."""
    with _opened_video(path) as container:
        found = {name.lower(): text for name, text in container.metadata.items()}
        return str(found.get("comment", ""))


def video_library() -> Any:
    """PyAV. Raises `UsageError` where it is not installed."""
    try:
        import av
    except ImportError:
        raise UsageError(
            "MP4 and WebM need PyAV: pip install 'sfumato[video]', or write .webp, .gif or .apng"
        ) from None
    return av


def _durations(count: int, fps: float, unit: int) -> list[int]:
    """Milliseconds of each frame, in multiples of `unit`, so that every frame begins when it should."""
    begins = [round(index * 1000 / (fps * unit)) * unit for index in range(count + 1)]
    return [after - before for before, after in pairwise(begins)]


def _with_one_palette(
    frames: Sequence[PIL.Image.Image],
) -> tuple[list[PIL.Image.Image], int | None]:
    """Frames of 256 colours, the same for all and undithered, so that what stands still does not flicker.

    The index of the transparent colour, if there is one, is the second result.
    """
    flat = [pictures.srgb(frame) for frame in frames]
    width, height = flat[0].size
    # every pixel of a short clip; of a long one as many
    step = max(1, round((width * height * len(flat) / 2**22) ** 0.5))
    sample = np.concatenate([np.asarray(frame)[::step, ::step] for frame in flat])
    palette = PIL.Image.fromarray(sample).quantize(255, method=PIL.Image.Quantize.FASTOCTREE)
    none = PIL.Image.Dither.NONE
    drawn = [frame.quantize(palette=palette, dither=none) for frame in flat]
    if min(map(_least_alpha, frames)) >= _OPAQUE:
        return drawn, None
    colours = [*(palette.getpalette() or [])[: 3 * 255]]
    colours += [255] * (3 * 256 - len(colours))
    for frame, indices in zip(frames, drawn, strict=True):
        indices.putpalette(colours)
        clear = frame.convert("RGBA").getchannel("A").point([255] * _OPAQUE + [0] * (256 - _OPAQUE), "1")
        indices.paste(255, (0, 0), clear)
    return drawn, 255


def _write_video(
    file: io.BytesIO, frames: Sequence[PIL.Image.Image], kind: str, fps: float, text: str
) -> None:
    """H.264 or VP9 with halved colours, which need an even width and height.

    The last row or column is doubled where it is odd.
    """
    av = video_library()
    codec, colours, options = _CODECS[kind]
    width, height = frames[0].size
    edge = ((0, height % 2), (0, width % 2), (0, 0))
    if width % 2 or height % 2:
        warn(
            f"{width}×{height} becomes {width + width % 2}×{height + height % 2}: {kind} needs an even width "
            "and height, so the last row or column is doubled"
        )
    if any("A" in frame.getbands() for frame in frames):
        warn(f"{kind} is not transparent: the frames stand on white; .webp, .gif and .apng are")
    with av.open(file, "w", format=kind.lower()) as container:
        container.metadata["comment"] = text
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1000))
        stream.width, stream.height = width + width % 2, height + height % 2
        stream.pix_fmt, stream.options = colours, options
        for frame in frames:
            pixels = np.pad(np.asarray(pictures.srgb(frame)), edge, mode="edge")
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def _opened_video(path: str | Path) -> Any:
    av = video_library()
    try:
        with open_file(path):
            return av.open(str(path))
    except (OSError, av.FFmpegError) as error:
        raise PictureError(f"cannot read {path}: {error.strerror or error}") from None


def _read_video(path: str | Path) -> Animation:
    av = video_library()
    frames: list[PIL.Image.Image] = []
    with _opened_video(path) as container:
        if not container.streams.video:
            raise PictureError(f"{path} holds sound, but no pictures")
        stream = container.streams.video[0]
        rate = stream.average_rate
        if not rate:
            raise PictureError(f"{path} does not say how many frames a second it has")
        _check_read(stream.codec_context.width * stream.codec_context.height, path)
        try:
            for frame in container.decode(stream):
                frames.append(PIL.Image.fromarray(frame.to_ndarray(format="rgb24")))
                _check_read(frame.width * frame.height * len(frames), path)
        except av.FFmpegError as error:
            raise PictureError(f"{path} is damaged: {error.strerror or error}") from None
    if not frames:
        raise PictureError(f"{path} has no frames")
    return Animation(tuple(frames), (1 / float(rate),) * len(frames), loop=False)


def _plain(picture: PIL.Image.Image) -> PIL.Image.Image:
    """A frame as "RGB", or as "RGBA" where it is transparent somewhere."""
    drawn = pictures.rgba(picture)
    return drawn if _least_alpha(drawn) < 255 else drawn.convert("RGB")


def _least_alpha(frame: PIL.Image.Image) -> int:
    return int(np.asarray(frame.getchannel("A")).min()) if "A" in frame.getbands() else 255


def _check_read(pixels: int, path: str | Path) -> None:
    if pixels > MAX_READ:
        raise UnsupportedPictureError(
            f"the frames of {path} have more than {MAX_READ:,} pixels together, the most that is read"
        )
