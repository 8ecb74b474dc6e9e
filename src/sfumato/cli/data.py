"""`sfumato data`: training data, made from published icons or from one's own pictures."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from sfumato.cli import console
from sfumato.cli.console import counted
from sfumato.cli.help import OUTPUT, PICTURE, RUN
from sfumato.cli.options import Json, Program, Quiet, argument, option
from sfumato.data.caption_files import LOOKED_FOR
from sfumato.errors import UsageError

if TYPE_CHECKING:
    from sfumato.data.folder import FolderContents

program = Program()
Pictures = Annotated[Path, argument("FOLDER", "Pictures, with captions beside them.")]
_MOST_NAMED = 20
"""Broken pictures that are named; --json names all."""


@program.add(examples="sfumato data icons data/icons         (npm fetches the sets)")
def icons(
    folder: Annotated[Path, argument("FOLDER", "Where to keep it.")] = Path("data/icons"),
    size: Annotated[
        int, option("--size PX", PICTURE, "Width and height of the pictures. Default: 256.")
    ] = 256,
    offline: Annotated[
        bool, option("--offline", RUN, "Render the parts of the pack that are here; fetch nothing.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Fetch, pack and render the icons and emoji that the embedded model learns from."""
    from sfumato.data import render

    meter = console.Meter(quiet)
    with meter.shown("icons"):
        rendered = render.make(
            folder,
            size,
            offline=offline,
            report=meter.begin,
            progress=lambda done, total: meter.update("rendering", done, total),
        )
    line = (
        f"{folder}: {rendered.pictures:,} pictures rendered, {rendered.broken:,} drawings left out as broken"
    )
    if rendered.missing:
        line += f", {len(rendered.missing)} parts of the pack are not there"
    console.result(line)


@program.add(examples="sfumato data motion data/motion       (npm fetches 730 MB, which stay in its npm/)")
def motion(
    folder: Annotated[Path, argument("FOLDER", "Where to keep it.")] = Path("data/motion"),
    quiet: Quiet = False,
) -> None:
    """Fetch and pack animated emoji, 16 frames of each, for the training of motion modules."""
    from sfumato.data import animated

    meter = console.Meter(quiet)
    with meter.shown("animated emoji"):
        count = animated.make(
            folder, meter.begin, lambda done, total: meter.update("reading frames", done, total)
        )
    console.result(f"{folder}: {counted(count, 'clip')} of {animated.FRAMES} frames")


@program.add(examples="sfumato data check photos             (what training would find)")
def check(
    folder: Pictures,
    resolution: Annotated[
        int, option("--resolution PX", PICTURE, "The side of square pictures. Default: 512.")
    ] = 512,
    max_aspect_ratio: Annotated[
        float, option("--max-aspect-ratio R", PICTURE, "Of the longer side to the shorter. Default: 2.")
    ] = 2.0,
    bucket_step: Annotated[
        int,
        option(
            "--bucket-step PX", PICTURE, "Sides are multiples of it. Default: resolution / 8, at most 64."
        ),
    ] = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Report captions, size buckets and broken files of a folder; exit status 1 if some are broken."""
    from sfumato.data.crops import bucket_sizes, nearest_bucket
    from sfumato.data.icons import rows

    if resolution < 1:
        raise UsageError(f"--resolution {resolution} must be at least 1")
    if not 1 <= max_aspect_ratio <= 8:
        raise UsageError(f"--max-aspect-ratio {max_aspect_ratio:g} must be in [1, 8]")
    if not 0 <= bucket_step <= resolution:
        raise UsageError(f"--bucket-step {bucket_step} must be in [0, {resolution}], the resolution")
    if described := rows(folder):
        held_out = sum(row.held_out for part in described.values() for row in part)
        icons = {"folder": str(folder), "icons": sum(map(len, described.values())), "held_out": held_out}
        line = f"{folder}: icons of `sfumato data icons`, {icons['icons']:,}, {held_out:,} of them held out"
        console.result(console.as_json(icons) if as_json else line)
        return 0
    found = _found(folder, quiet)
    among = bucket_sizes(resolution, bucket_step or max(1, min(64, resolution // 8)), max_aspect_ratio)
    shown = {picture.name: nearest_bucket(picture.size, among) for picture in found.pictures}
    buckets = Counter(shown.values())
    report: dict[str, Any] = {
        "folder": str(folder),
        "pictures": len(found.pictures),
        "held_out": sum(picture.held_out for picture in found.pictures),
        "captions": sum(len(picture.captions) for picture in found.pictures),
        "without_caption": [picture.name for picture in found.uncaptioned],
        "enlarged": [
            picture.name
            for picture in found.pictures
            if any(own < to for own, to in zip(picture.size, shown[picture.name], strict=True))
        ],
        "buckets": {f"{width}x{height}": count for (width, height), count in sorted(buckets.items())},
        "masks": found.masks,
        "unsupported": found.unsupported,
        "broken": found.broken,
    }
    console.result(console.as_json(report) if as_json else "\n".join(_lines(report)))
    return 0 if found.pictures and not found.broken else 1


@program.add(examples="sfumato data pack photos photos-packed")
def pack(
    folder: Pictures,
    out: Annotated[Path, argument("OUT", "Where to put the shards.")],
    megabytes: Annotated[
        int, option("--megabytes N", OUTPUT, "Size of a shard in megabytes. Default: 256.")
    ] = 256,
    quiet: Quiet = False,
) -> None:
    """Pack a folder of pictures into shards: a few large files, which travel well."""
    from sfumato.data import shards

    if megabytes < 1:
        raise UsageError(f"--megabytes {megabytes} must be at least 1")
    shards.check_place(out)
    if out.resolve().is_relative_to(folder.resolve()):
        raise UsageError(f"{out} lies in {folder}, whose pictures would be there twice: name another folder")
    found = _found(folder, quiet)
    found.chosen(held_out=False, captioned=False)
    meter = console.Meter(quiet)
    with meter.shown("packing"):
        found.warn(captioned=False)
        paths = shards.pack(
            found, out, megabytes << 20, lambda done, total: meter.update("packing", done, total)
        )
    held_out = sum(picture.held_out for picture in found.pictures)
    console.result(
        f"{out}: {counted(len(found.pictures), 'picture')}, {held_out:,} of them held out for tests, in "
        f"{counted(len(paths), 'shard')}"
    )


def _found(folder: Path, quiet: bool) -> "FolderContents":
    from sfumato.data.search import search

    meter = console.Meter(quiet)
    with meter.shown("searching"):
        return search(folder, progress=lambda done, total: meter.update("looking at pictures", done, total))


def _lines(report: dict[str, Any]) -> list[str]:
    lines = [
        f"{report['folder']}: {counted(report['pictures'], 'picture')}, {report['held_out']:,} of them held "
        f"out for tests, with {counted(report['captions'], 'caption')}"
    ]
    if report["pictures"] and not report["captions"]:
        lines.append(LOOKED_FOR)
    for title, key in (
        ("without a caption", "without_caption"),
        ("to be enlarged", "enlarged"),
        ("masks", "masks"),
    ):
        if names := report[key]:
            lines.append(f"{title:18} {len(names):,}, as {names[0]}")
    lines += [f"{size:18} {count:,}" for size, count in report["buckets"].items()]
    for title, key in (("kinds not read", "unsupported"), ("broken", "broken")):
        if found := report[key]:
            more = f", {_MOST_NAMED} of them here" if len(found) > _MOST_NAMED else ""
            lines.append(f"{title:18} {len(found):,}{more}")
            lines += [f"  {line}" for line in found[:_MOST_NAMED]]
    return lines
