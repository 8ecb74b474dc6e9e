"""Microsoft's animated emoji, from npm packages to one small folder: frames of every loop, and its name.

motion.json          frames, side, and what each clip shows
clips/CODE.webp      the frames of a clip side by side, by the code points of its emoji
ATTRIBUTION.md       who drew them, under which licence
"""

import hashlib
import io
import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from random import Random
from tarfile import TarFile
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from sfumato.data import npm
from sfumato.data.captions import caption
from sfumato.data.icons import to_signal
from sfumato.data.pack import Drawing, emoji_words
from sfumato.data.sets import EMOJI_WORDS, FLUENT_3D, SETS
from sfumato.errors import CheckpointError, DataError
from sfumato.files import check_made, make_folder, read_json, replace_atomically, write_json
from sfumato.pictures import opened, srgb

PACKAGES = tuple(f"@lobehub/fluent-emoji-anim-{number}" for number in range(1, 5))
LICENCE = "MIT"
INDEX, STRIPS = "motion.json", "clips"
FRAMES, SIDE = 16, 128
"""Of a clip, and the width and height of each in pixels."""
_TONE = re.compile(r"1f3f[b-f]")
_PERSON = re.compile(r"1f46[6-9]|1f9d1")
_SEVERAL = re.compile(r"family|couple|kiss|people|holding hands|with bunny ears|wrestling|handshake")
"""Labels of emoji of several persons, which Microsoft's own repository of animated emoji lacks."""


@dataclass(frozen=True)
class AnimatedEmoji:
    """What a clip shows. `code`: its code points in hexadecimal, which name its file."""

    code: str
    label: str
    tags: tuple[str, ...]
    held_out: bool


def make(
    folder: Path,
    report: Callable[[str], None] = lambda _: None,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> int:
    """Fetch the animated emoji and pack them into `folder`, one clip for each idea: how many there are.

    Left out are skin tones, emoji of several persons, and those that do not move. What was packed before is
    kept. `report(message)` is called before each download, `progress(done, total)` while frames are read.
    Raises `UsageError` without npm and `DataError` for packages that are not what they were, above all where
    the licence has changed.
    """
    check_made(folder)
    archives = folder / "npm"
    report("fetching the names of emoji")
    words = emoji_words(npm.fetch(EMOJI_WORDS, archives))
    make_folder(folder / STRIPS)
    clips: list[AnimatedEmoji] = []
    for number, package in enumerate(PACKAGES):
        report(f"fetching {package}")
        path = npm.fetch(package, archives)
        with npm.opened(path) as tar:
            licence = npm.member_json(tar, "package.json").get("license")
            if licence != LICENCE:
                raise DataError(f"{package} is under {licence} now, not {LICENCE}: leave it out")
            names = sorted(name for name in tar.getnames() if name.endswith(".webp"))
            for done, name in enumerate(names):
                progress(number * len(names) + done, len(PACKAGES) * len(names))
                code = Path(name).stem
                known = words.get(code) or words.get(code.replace("-fe0f", ""))
                if known and _is_wanted(code, known[0]) and _strip(tar, name, folder / STRIPS):
                    held_out = Drawing(FLUENT_3D, *known, 1.0).held_out
                    clips.append(AnimatedEmoji(code, *known, held_out))
    if not clips:
        raise DataError("the packages hold no animated emoji")
    with replace_atomically(folder / "ATTRIBUTION.md") as file:
        file.write(attribution().encode("utf-8"))
    facts = {"frames": FRAMES, "side": SIDE}
    write_json(folder / INDEX, {**facts, "clips": [asdict(clip) for clip in clips]})
    return len(clips)


def attribution() -> str:
    """Who drew the emoji and under which licence, as Markdown."""
    packages = ", ".join(f"`{package}`" for package in PACKAGES)
    return f"""# Where the clips come from

Microsoft's animated Fluent emoji, © Microsoft Corporation, {LICENCE} licence
(`microsoft/fluentui-emoji-animated`), from the npm packages {packages}. Labels and tags of emoji:
`{EMOJI_WORDS}`, Miles Johnson, MIT.

Changes: {FRAMES} frames of each loop at {SIDE} pixels, on white.
"""


def _is_wanted(code: str, label: str) -> bool:
    return not (_TONE.search(code) or _SEVERAL.search(label) or len(_PERSON.findall(code)) > 1)


def _strip(tar: TarFile, name: str, folder: Path) -> bool:
    """Whether a file of the package moves: its frames are in `folder` then."""
    path = folder / Path(name).name
    if path.is_file():
        return True
    try:
        content = npm.member(tar, name.removeprefix("package/"))
        with Image.open(io.BytesIO(content), formats=["WEBP"]) as picture:
            count = getattr(picture, "n_frames", 1)
            if count < FRAMES:
                return False
            strip = Image.new("RGB", (SIDE * FRAMES, SIDE), "white")
            for place in range(FRAMES):
                picture.seek(place * count // FRAMES)
                frame = srgb(picture).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
                strip.paste(frame, (SIDE * place, 0))
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{name} of {Path(str(tar.name)).name} cannot be read: {error}") from error
    with replace_atomically(path) as file:
        strip.save(file, "WEBP", quality=80, method=6)
    return True


@dataclass(frozen=True, eq=False)
class AnimatedClips:
    """Clips (F, 3, S, S) of animated emoji, whose captions say what they show and nothing of how it moves."""

    folder: Path
    emoji: tuple[AnimatedEmoji, ...]
    captions: tuple[tuple[str, ...], ...]
    frames: int
    side: int

    @property
    def weights(self) -> tuple[float, ...]:
        return (1.0,) * len(self.emoji)

    @cached_property
    def digest(self) -> str:
        files = [(self.folder / STRIPS / f"{each.code}.webp").stat() for each in self.emoji]
        own = [self.frames, self.side, [[each.st_size, each.st_mtime_ns] for each in files]]
        return hashlib.sha256(json.dumps([*own, [each.code for each in self.emoji]]).encode()).hexdigest()

    def load(self, row: int) -> Tensor:
        path = self.folder / STRIPS / f"{self.emoji[row].code}.webp"
        with opened(path) as picture:
            pixels = np.asarray(srgb(picture))
        if pixels.shape != (SIDE, SIDE * FRAMES, 3):
            raise DataError(f"{path} is no clip of {FRAMES} frames of {SIDE} pixels")
        strip = torch.from_numpy(pixels.reshape(SIDE, FRAMES, SIDE, 3).copy()).transpose(0, 1)
        x = to_signal(strip[[place * FRAMES // self.frames for place in range(self.frames)]])
        if self.side != SIDE:
            x = F.interpolate(x, (self.side, self.side), mode="bicubic", antialias=True).clamp(-1, 1)
        return x


def load(
    folder: Path, *, held_out: bool, seed: int, frames: int, side: int, captions: int = 4
) -> AnimatedClips:
    """The clips that `make` packed into `folder`, for training or those held out, with `captions` each.

    Raises `DataError` where there are none.
    """
    if not (folder / INDEX).is_file():
        raise DataError(f"{folder} holds no clips; `sfumato data motion` makes them")
    try:
        rows: list[dict[str, Any]] = read_json(folder / INDEX, 16 << 20)["clips"]
        emoji = [AnimatedEmoji(**{**row, "tags": tuple(row["tags"])}) for row in rows]
    except (CheckpointError, KeyError, TypeError) as error:
        raise DataError(f"{folder / INDEX} lists no clips: {error}") from error
    emoji = [each for each in emoji if each.held_out == held_out]
    if not emoji:
        raise DataError(f"{folder} holds no clips {'held out' if held_out else 'to train with'}")
    random, styles = Random(seed), SETS[FLUENT_3D].styles
    texts = tuple(
        tuple(caption(each.label, each.tags, styles, random) for _ in range(captions)) for each in emoji
    )
    return AnimatedClips(folder, tuple(emoji), texts, frames, side)
