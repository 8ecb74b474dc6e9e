"""A clip and how it was drawn: shown, laid out on a sheet, saved, and read back."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Self

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from sfumato import animation, metadata
from sfumato.contact_sheet import contact_sheet
from sfumato.errors import CheckpointError, OutputError, PictureError, UsageError
from sfumato.files import check_file, check_folder, read_json, replace_atomically, replace_folder, write_json
from sfumato.formats import FRAMES_RECORD, is_video
from sfumato.image import Image, record_for
from sfumato.metadata import Record, pixel_digest
from sfumato.request import Request
from sfumato.validation import as_path


@dataclass(frozen=True, eq=False)
class Video:
    """The `frames` of a clip, `fps` of them a second; `loop`: whether the last leads back to the first.

    Each frame has the clip's record, with the hash of its own pixels; see `Video.of`.
    """

    frames: tuple[Image, ...]
    fps: float = animation.FPS
    loop: bool = True

    def __post_init__(self) -> None:
        if not self.frames:
            raise UsageError("a clip needs one frame or more")
        sizes = sorted({frame.size for frame in self.frames})
        if len(sizes) > 1:
            told = " and ".join(f"{width}×{height}" for width, height in sizes[:2])
            raise UsageError(f"the frames of a clip have one size, not {told}")
        animation.check_fps(self.fps)

    @classmethod
    def of(
        cls,
        pixels: Sequence[NDArray[np.uint8]] | NDArray[np.uint8],
        record: Record,
        *,
        fps: float = animation.FPS,
        loop: bool = True,
    ) -> Self:
        """A clip that was just drawn: `pixels` `(F, H, W, 3)` or, with alpha, `(F, H, W, 4)` in 0..255, sRGB.

        `record`: how it was drawn, the resolved request in it; the hashes of the frames are filled in.
        """
        digests = tuple(pixel_digest(frame) for frame in pixels)
        records = (
            record.model_copy(update={"pixels": digest, "frame_pixels": digests}) for digest in digests
        )
        return cls(tuple(map(Image, pixels, records)), fps, loop)

    @property
    def record(self) -> Record:
        """How the clip was drawn; `frame_pixels` has the hash of every frame."""
        return self.frames[0].record

    @property
    def request(self) -> Request:
        """The request that draws exactly this clip: every field filled in."""
        return self.record.request

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.frames[0].size

    @property
    def seconds(self) -> float:
        """How long it takes to be shown once."""
        return len(self.frames) / self.fps

    def __len__(self) -> int:
        return len(self.frames)

    def __repr__(self) -> str:
        width, height = self.size
        prompt = shorten(self.request.prompt, 60, placeholder=" …")
        how = f"{len(self)} frames, {self.fps:g} a second{', loop' if self.loop else ''}"
        how += f", seed {self.request.seed}, model {self.record.model}"
        return f"<Video {width}×{height}: {prompt!r}, {how}>"

    @property
    def as_drawn(self) -> bool:
        """Whether every pixel is as it was drawn: none compressed with loss, nor edited since."""
        found = tuple(pixel_digest(frame.pixels) for frame in self.frames)
        return found == (self.record.frame_pixels or (self.record.pixels,))

    def sheet(self, *, columns: int | None = None) -> PIL.Image.Image:
        """All frames on one page, row by row, `columns` in each; by default as many as make it square."""
        return contact_sheet([frame.pil for frame in self.frames], columns=columns)

    def save(self, path: str | Path, *, overwrite: bool = True, embed: bool = True) -> Path:
        """Write the clip with its record, whole or not at all, as `path` says.

        | path | what is written |
        |---|---|
        | `.webp` | animated WebP, quality 90, transparent |
        | `.gif` | one palette of 256 colours for the whole clip, pixels transparent or not |
        | `.apng` | animated PNG: every pixel, transparent |
        | `.mp4`, `.webm` | H.264, VP9, with `sfumato[video]`: an even size, on white; no loop |
        | a folder, `clip/` or without suffix | a PNG for every frame, and `video.json` |

        The record holds pictures that the request began from as well, unless they are large or `embed` is
        false. A folder is replaced only if it holds a clip. Raises `UsageError` for another suffix, for a
        size that the format cannot have and for a video without PyAV, and `OutputError` where the file cannot
        be written.
        """
        is_folder = is_frames_folder(path)
        path = as_path(path)
        if is_folder:
            return self._save_folder(path, overwrite, embed)
        kind = animation.animation_format(path, besides=("a folder/",))
        animation.check_size(self.size, kind)
        if not overwrite and path.exists():
            raise OutputError(f"will not replace {path}: it exists")
        encoded = self.encoded(kind, embed)
        with replace_atomically(path) as file:
            file.write(encoded)
        return path

    def encoded(self, kind: str, embed: bool = True) -> bytes:
        """The bytes of a file of format `kind`: "WEBP", "GIF", "PNG", "MP4" or "WEBM"; see `save`."""
        held = metadata.held(record_for(self.record, kind, embed), kind)
        frames = [frame.pil for frame in self.frames]
        return animation.encoded(frames, kind, self.fps, held, loop=self.loop)

    def _save_folder(self, path: Path, overwrite: bool, embed: bool) -> Path:
        record = record_for(self.record, "PNG", embed)
        with replace_folder(path, marker=FRAMES_RECORD, overwrite=overwrite) as folder:
            for number, frame in enumerate(self.frames, start=1):
                with replace_atomically(folder / f"{number:04}.png") as file:
                    file.write(frame.encoded("PNG", embed=False))
            facts = {"fps": self.fps, "loop": self.loop, "frames": len(self)}
            write_json(folder / FRAMES_RECORD, {**facts, "record": record.model_dump(mode="json")})
        return path

    def _repr_html_(self) -> str:
        width, height = self.size
        content = base64.b64encode(self.encoded("WEBP", embed=False)).decode("ascii")
        return f'<img src="data:image/webp;base64,{content}" width="{width}" height="{height}">'

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """The clip at `path`, a file or a folder that `save` wrote, and its record.

        Raises `PictureError` for whatever cannot be had, also a file without our record, which
        `sfumato.animation.read` reads; `UsageError` for a video where PyAV is not installed.
        """
        path = as_path(path)
        record = metadata.read(path)
        if path.is_dir():
            return cls._open_folder(path, record)
        return cls._shown(animation.read(path), record, again=is_video(path))

    @classmethod
    def decode(cls, picture: PIL.Image.Image, path: str | Path) -> Self:
        """What `pictures.opened(path, animated=True)` gives, with its record. Raises `PictureError`."""
        record = metadata.record_of(picture, path)
        return cls._shown(animation.decoded(picture, path), record)

    @classmethod
    def _shown(cls, found: animation.Animation, record: Record, *, again: bool = False) -> Self:
        """The clip of `record` as a file shows it; `again`: it is taken to be a loop."""
        digests = record.frame_pixels or (record.pixels,)
        width, height = record.request.size
        frames = []
        for shown, digest in zip(found.resampled(len(digests)), digests, strict=True):
            # what a video's even size added
            cut = shown.crop((0, 0, min(width, shown.width), min(height, shown.height)))
            pixels = np.asarray(cut.convert("RGBA" if record.request.has_alpha else "RGB"))
            frames.append(Image(pixels, record.model_copy(update={"pixels": digest})))
        fps = _fps(len(digests), sum(found.seconds))
        return cls(tuple(frames), fps, found.loop or again)

    @classmethod
    def _open_folder(cls, path: Path, record: Record) -> Self:
        try:
            facts = read_json(path / FRAMES_RECORD, metadata.MAX_RECORD)
        except CheckpointError as error:
            raise PictureError(str(error)) from None
        frames = []
        for number, digest in enumerate(record.frame_pixels or (record.pixels,), start=1):
            drawn = Image.open(path / f"{number:04}.png")
            frames.append(Image(drawn.pixels, record.model_copy(update={"pixels": digest})))
        return cls(tuple(frames), facts.get("fps", animation.FPS), bool(facts.get("loop", True)))


def is_frames_folder(path: str | Path) -> bool:
    """Whether `path` names a folder to save frames in: one that is there, ends in "/", or has no suffix."""
    return str(path).endswith(("/", "\\")) or not Path(path).suffix or Path(path).is_dir()


def check_writable(path: str | Path) -> None:
    """Raise what saving a clip at `path` would, where that is known before it is drawn."""
    if is_frames_folder(path):
        check_folder(as_path(path), marker=FRAMES_RECORD, overwrite=True)
    else:
        animation.animation_format(as_path(path), besides=("a folder/",))
        check_file(as_path(path))


def _fps(count: int, seconds: float) -> float:
    """Frames a second: a whole number where the unit of time, 10 ms at most, cannot tell it from one."""
    whole = max(round(count / seconds), 1)
    return whole if abs(count / whole - seconds) <= 0.01 else count / seconds
