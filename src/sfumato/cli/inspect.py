"""`sfumato inspect`: what a checkpoint or an adapter is and how that was inferred, what a picture or clip
carries."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from sfumato import folders
from sfumato.cli import console, like
from sfumato.cli.options import Json, Program, argument
from sfumato.errors import CheckpointError, PictureError
from sfumato.formats import ANIMATIONS, FRAMES_RECORD, READ_FORMATS, is_video

if TYPE_CHECKING:
    from sfumato.series.record import SetRecord

program = Program()


@program.add(
    examples="""sfumato inspect apple.png
sfumato inspect apple.png ink.safetensors --json"""
)
def inspect(
    sources: Annotated[
        list[str],
        argument(
            "MODEL|ADAPTER|IMAGE...",
            "A model's folder or file, a hub id, embedded; a LoRA, an embedding or a motion adapter; "
            "a picture or a clip.",
        ),
    ],
    as_json: Json = False,
) -> int:
    """Print the report on each, with --json as a line; 2 for a checkpoint that has problems."""
    statuses = []
    for number, source in enumerate(sources):
        if number and not as_json:
            console.result("")
        statuses.append(_inspect(source, as_json))
    return max(statuses)


def _inspect(source: str, as_json: bool) -> int:
    """Print the report on one source; its exit status."""
    path = Path(source)
    if (path / FRAMES_RECORD).is_file():
        _clip(path, as_json)
        return 0
    if path.suffix.lower() in (*READ_FORMATS, *ANIMATIONS) and not path.is_dir():
        _picture(path, as_json)
        return 0
    from sfumato import checkpoint
    from sfumato.adapt.description import describe
    from sfumato.checkpoint.motion import inspect_motion

    file = _beside_models(path)
    motion = inspect_motion(file)
    if motion is None and (described := describe(file)):
        console.result(console.as_json(described.to_dict()) if as_json else "\n".join(described.lines()))
        return 0
    report = motion or checkpoint.inspect(source)
    if as_json:
        console.result(console.as_json(report.to_dict()))
    elif report.components:
        console.result("\n".join(report.lines(problems=False)))
    for problem in report.problems:
        console.complain(f"error: {problem}")
    return CheckpointError.exit_status if report.problems else 0


def _beside_models(path: Path) -> Path:
    """What has that name in the user's folders of adapters of any kind, if it is no path or model's name."""
    if os.path.exists(path) or str(path) in folders.found("models"):
        return path
    return next(
        (
            found[str(path)]
            for kind in ("adapters", "embeddings", "motion")
            if str(path) in (found := folders.found(kind))
        ),
        path,
    )


def _several(path: Path, found: "SetRecord", as_json: bool) -> None:
    """What a grid or an animation says: its axes, what its pictures share, and what each has of its own."""
    records = [each.for_file("PNG", embed=False).model_dump(mode="json") for each in found.records]
    if as_json:
        facts = {"path": str(path), "kind": found.kind, "axes": found.axes}
        console.result(console.as_json({**facts, "pictures": records}))
        return
    console.result(f"{path}: {found.kind} of {len(records)} pictures")
    for direction, (field, values) in zip(("columns", "rows", "pages"), found.axes.items(), strict=False):
        console.result(f"{direction:18} {field}: {', '.join(values)}")
    for name, value in records[0]["request"].items():
        if value not in (None, "", [], {}):
            own = {str(each["request"][name]) for each in records}
            console.result(f"{name:18} {value if len(own) == 1 else f'{len(own)} values'}")


def _picture(path: Path, as_json: bool) -> None:
    from sfumato import foreign, metadata, pictures

    if (several := like.several(path)) is not None:
        _several(path, several, as_json)
        return
    if is_video(path):
        _clip(path, as_json)
        return
    theirs = None
    with pictures.opened(path, animated=True) as picture:
        size, kind, texts = picture.size, picture.format, pictures.texts(picture)
        moves = getattr(picture, "n_frames", 1) > 1
        try:
            ours = metadata.record_of(picture, path)
            record = ours.for_file("PNG", embed=False).model_dump(mode="json")
        except PictureError:
            theirs = foreign.record_of(picture)
            if theirs is None:
                raise
            settings = theirs.request.model_dump(mode="json", exclude_defaults=True)
            record = {"program": theirs.program, "model": theirs.model, "request": settings}
    if theirs is None and moves:
        _clip(path, as_json)
        return
    line = texts.get("parameters") or texts.get("UserComment")
    if as_json:
        found = {"path": str(path), "format": kind, "width": size[0], "height": size[1], "parameters": line}
        whose = {"record": record} if theirs is None else {"record": None, "foreign": record}
        left_out = {} if theirs is None else {"left_out": theirs.left_out}
        console.result(console.as_json({**found, **whose, **left_out}))
        return
    console.result(f"{path}: {kind}, {size[0]}×{size[1]}")
    _record_lines(record)
    for note in theirs.left_out if theirs else ():
        console.result(f"{'not taken over':18} {note}")


def _clip(path: Path, as_json: bool) -> None:
    """What a clip of ours says. Raises `PictureError` for any other."""
    from sfumato.video import Video

    clip = Video.open(path)
    width, height = clip.size
    kind = "PNG" if path.is_dir() else ANIMATIONS[path.suffix.lower()]
    record = clip.record.for_file("PNG", embed=False).model_dump(mode="json")
    if as_json:
        found = {"path": str(path), "format": kind, "width": width, "height": height, "frames": len(clip)}
        console.result(console.as_json({**found, "fps": clip.fps, "loop": clip.loop, "record": record}))
        return
    console.result(f"{path}: {kind}, {width}×{height}, {len(clip)} frames, {clip.fps:g} a second")
    _record_lines(record)


def _record_lines(record: "dict[str, Any]") -> None:
    request = record.pop("request")
    record.pop("frame_pixels", None)
    files = {f"{name[:-1]} files": record.pop(name, None) for name in ("adapters", "embeddings")}
    for name, value in {**request, **files, **record}.items():
        if value not in (None, "", [], {}):
            console.result(f"{name:18} {value}")
