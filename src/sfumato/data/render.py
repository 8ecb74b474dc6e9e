"""Drawings to pixels, on all processors at once; what cannot be drawn is left out and counted."""

import base64
import importlib.util
import io
import json
import math
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sfumato.data import pack
from sfumato.data.pack import Drawing
from sfumato.data.sets import SETS
from sfumato.errors import DataError, UsageError
from sfumato.files import check_made, make_folder, regular, replace_atomically

Pixels = NDArray[np.uint8]

MARGIN = 0.06
"""Of the drawing's size, left free around it."""
LEAST_CONTRAST = 3.0
"""Standard deviation of the pixels below which a drawing counts as blank."""


_LACKING = "rendering needs resvg-py: pip install 'sfumato[train]'"


@dataclass(frozen=True)
class Rendered:
    """What became of a pack: pictures made, drawings that failed or came out blank, and parts not there."""

    pictures: int
    broken: int
    missing: tuple[str, ...]


def make(
    folder: Path,
    size: int = pack.SIZE,
    *,
    offline: bool = False,
    report: Callable[[str], None] = lambda _: None,
    progress: Callable[[int, int], None] = lambda *_: None,
    seconds: float = math.inf,
) -> Rendered:
    """Make what is missing of the icon set in `folder`: fetch and pack it in `folder/pack`, render it.

    `offline`: take the pack as it is. `report(message)` says what is fetched; the rest is as for `render`.
    """
    _check_size(folder, size)
    check_made(folder)
    packed = folder / pack.FOLDER
    if not (offline or _renders()):
        raise UsageError(_LACKING)
    if not (packed / pack.INDEX).is_file():
        if offline:
            raise UsageError(f"there is no pack in {packed}, and offline none is fetched")
        pack.build(packed, folder / "npm", report)
    return render(packed, folder, size, progress, seconds)


def render(
    packed: Path,
    folder: Path,
    size: int = pack.SIZE,
    progress: Callable[[int, int], None] = lambda *_: None,
    seconds: float = math.inf,
) -> Rendered:
    """Render the parts of the pack in `packed` that are there and not rendered yet to `folder`.

    Each part becomes `part-NN.npy`, uint8 (N, size, size, 3), or (N, size, size) for drawings of one colour
    (255 where the ink is), and `part-NN.jsonl`, what each picture shows. `progress(done, total)` counts
    drawings. After `seconds` no further part is begun. Raises `DataError` for a damaged pack and a folder
    with pictures of another size, and `UsageError` where resvg-py is not installed.
    """
    ends = time.monotonic() + seconds
    _check_size(folder, size)
    work = [(path, pack.drawings(path)) for path in waiting(packed, folder)]
    total, done, made = sum(len(drawings) for _, drawings in work), 0, 0
    if work and not _renders():
        raise UsageError(_LACKING)
    make_folder(folder)
    # a child that is forked from a process with torch's threads may hang
    context = get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context, initializer=_hush) as pool:
        for path, drawings in work:
            drawn: list[tuple[Drawing, Pixels]] = []
            for drawing, pixels in zip(
                drawings, pool.map(partial(pixels_of, size=size), drawings, chunksize=16), strict=True
            ):
                if done % 64 == 0:
                    progress(done, total)
                done += 1
                if pixels is not None:
                    drawn.append((drawing, pixels))
            made += len(drawn)
            _write(path, folder, drawn, size)
            if time.monotonic() >= ends:
                break
    return Rendered(made, done - made, tuple(pack.parts(packed)[1]))


def _renders() -> bool:
    return importlib.util.find_spec("resvg_py") is not None


def waiting(packed: Path, folder: Path) -> list[Path]:
    """The parts of the pack in `packed` that are there and not rendered to `folder` yet."""
    return [path for path in pack.parts(packed)[0] if not _rows_of(path, folder).is_file()]


def _check_size(folder: Path, size: int) -> None:
    if not 8 <= size <= 4096:
        raise UsageError(f"size is {size}: must be in [8, 4096] pixels")
    for path in sorted(folder.glob("part-*.npy"))[:1]:
        try:
            side = np.load(regular(path), mmap_mode="r").shape[1]
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read: {error}") from error
        if side != size:
            raise DataError(f"{folder} holds pictures of {side} pixels, not of {size}")


def _hush() -> None:
    """A panic in the Rust library prints pages; that the drawing failed is counted anyway."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def pixels_of(drawing: Drawing, size: int) -> Pixels | None:
    """The picture (size, size, 3), or the ink (size, size), of a drawing; `None` if it fails or is blank."""
    try:
        content = _raster(drawing, size)
        picture = Image.open(io.BytesIO(content)).convert("RGB").resize((size, size))
    except Exception:
        return None
    pixels = np.asarray(picture)
    if pixels.std() < LEAST_CONTRAST:
        return None
    return 255 - pixels[..., 1] if SETS[drawing.set].tinted else pixels


def _raster(drawing: Drawing, size: int) -> bytes:
    if drawing.webp:
        return base64.b64decode(drawing.webp)
    import resvg_py

    try:
        return bytes(
            resvg_py.svg_to_bytes(
                svg_string=document(drawing, size),
                width=size,
                height=size,
                background="#ffffff",
                skip_system_fonts=True,
            )
        )
    except BaseException as error:  # a panic in the Rust library is not an Exception
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        raise DataError(str(error)) from error


def document(drawing: Drawing, size: int) -> str:
    """The whole SVG of a drawing, square, with a margin around it."""
    left, top, width, height = drawing.box
    side = max(width, height) * (1 + 2 * MARGIN)
    x, y = left - (side - width) / 2, top - (side - height) / 2
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{x} {y} {side} {side}" width="{size}" height="{size}">'
        f"{drawing.svg.replace('currentColor', '#000')}</svg>"
    )


def _rows_of(part: Path, folder: Path) -> Path:
    return folder / f"{part.name.removesuffix('.jsonl.xz')}.jsonl"


def _write(part: Path, folder: Path, drawn: Sequence[tuple[Drawing, Pixels]], size: int) -> None:
    """The pixels first, then the rows, whose presence says that the part is whole."""
    from sfumato.data.icons import Row  # imports torch, which the processes that render do without

    rows = _rows_of(part, folder)
    empty = np.zeros((0, size, size, 3), np.uint8)
    with replace_atomically(rows.with_suffix(".npy")) as file:
        np.save(file, np.stack([pixels for _, pixels in drawn]) if drawn else empty)
    with replace_atomically(rows) as file:
        for drawing, _ in drawn:
            row = {each.name: getattr(drawing, each.name) for each in fields(Row)}
            file.write((json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8"))
