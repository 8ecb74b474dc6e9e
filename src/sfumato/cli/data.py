"""`sfumato data`: training data, made from what others published or from pictures of one's own."""

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfumato.cli import console
from sfumato.errors import UsageError

if TYPE_CHECKING:
    from sfumato.data.folder import Found

_MOST_BROKEN = 20
"""Broken pictures that are named; --json names all."""


def icons(folder: Path, size: int, offline: bool, quiet: bool) -> int:
    """Fetch, pack and render the icon set into `folder`; the exit status."""
    from sfumato.data import pack, render

    meter = console.Meter(quiet)
    packed = folder / "pack"
    with meter.shown("icons"):
        if not offline and not (packed / pack.INDEX).is_file():
            pack.build(packed, folder / "npm", lambda doing: None if quiet else console.complain(doing))
        told = 0

        def progress(done: int, total: int) -> None:
            nonlocal told
            for _ in range(told, done):
                meter.advance("rendering", total)
            told = done

        rendered = render.render(packed, folder, size, progress)
    line = (
        f"{folder}: {rendered.pictures:,} pictures rendered, {rendered.broken:,} drawings left out as broken"
    )
    if rendered.missing:
        line += f", {len(rendered.missing)} parts of the pack are not there"
    console.result(line)
    return 0


def check(folder: Path, size: int, ratio: float, step: int, as_json: bool, quiet: bool) -> int:
    """Say what training would find in a folder of pictures; 1 if some are broken or there are none."""
    from sfumato.data.crops import nearest_size, sizes_near

    if size < 1 or not 1 <= ratio <= 8 or not 0 <= step <= size:
        raise UsageError(
            f"--size {size}, --ratio {ratio:g} and --step {step} must be at least 1, in [1, 8], and at most "
            "the size"
        )
    found = _found(folder, quiet)
    among = sizes_near(size, step or max(1, min(64, size // 8)), ratio)
    shown = {picture.name: nearest_size(picture.size, among) for picture in found.pictures}
    buckets = Counter(shown.values())
    told: dict[str, Any] = {
        "folder": str(folder),
        "pictures": len(found.pictures),
        "held_out": sum(picture.held_out for picture in found.pictures),
        "captions": sum(len(picture.captions) for picture in found.pictures),
        "without_caption": [picture.name for picture in found.unsaid],
        "enlarged": [
            picture.name
            for picture in found.pictures
            if any(own < to for own, to in zip(picture.size, shown[picture.name], strict=True))
        ],
        "buckets": {f"{width}x{height}": count for (width, height), count in sorted(buckets.items())},
        "broken": found.broken,
    }
    console.result(json.dumps(told, ensure_ascii=False) if as_json else "\n".join(_lines(told)))
    return 0 if found.pictures and not found.broken else 1


def pack(folder: Path, out: Path, megabytes: int, quiet: bool) -> int:
    """Write the pictures of a folder to shards in `out`; the exit status."""
    from sfumato.data import shards

    if megabytes < 1:
        raise UsageError(f"--megabytes {megabytes} must be at least 1")
    found = _found(folder, quiet)
    found.chosen(held_out=False, captioned=False)
    meter = console.Meter(quiet)
    with meter.shown("packing"):
        found.warn(captioned=False)
        paths = shards.pack(
            found, out, megabytes << 20, lambda done, total: meter.stand("packing", done, total, "")
        )
    held_out = sum(picture.held_out for picture in found.pictures)
    console.result(
        f"{out}: {len(found.pictures):,} pictures, {held_out:,} of them for tests, in {len(paths):,} shards"
    )
    return 0


def _found(folder: Path, quiet: bool) -> "Found":
    from sfumato.data.search import search

    meter = console.Meter(quiet)
    with meter.shown("searching"):
        return search(
            folder, progress=lambda done, total: meter.stand("looking at pictures", done, total, "")
        )


def _lines(told: dict[str, Any]) -> list[str]:
    broken, unsaid, small = told["broken"], told["without_caption"], told["enlarged"]
    lines = [
        f"{told['folder']}: {told['pictures']:,} pictures, {told['held_out']:,} of them for tests, with "
        f"{told['captions']:,} captions"
    ]
    if unsaid:
        lines.append(f"without a caption  {len(unsaid):,}, as {unsaid[0]}")
    if small:
        lines.append(f"to be enlarged     {len(small):,}, as {small[0]}")
    lines += [f"{size:18} {count:,}" for size, count in told["buckets"].items()]
    if broken:
        more = f", {_MOST_BROKEN} of them here" if len(broken) > _MOST_BROKEN else ""
        lines.append(f"broken             {len(broken):,}{more}")
        lines += [f"  {line}" for line in broken[:_MOST_BROKEN]]
    return lines
