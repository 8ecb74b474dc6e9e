"""`sfumato inspect`: what a checkpoint is and why it is held to be that, or what a picture carries."""

import json
from pathlib import Path

from sfumato.cli import console
from sfumato.errors import PictureError
from sfumato.formats import FORMATS


def inspect(source: str, as_json: bool) -> int:
    """Print the report on `source`; the exit status, 1 for a checkpoint that has problems."""
    path = Path(source)
    if path.suffix.lower() in FORMATS and not path.is_dir():
        _picture(path, as_json)
        return 0
    from sfumato import checkpoint

    report = checkpoint.inspect(source)
    console.result(json.dumps(report.to_dict(), ensure_ascii=False) if as_json else "\n".join(report.lines()))
    return 1 if report.problems else 0


def _picture(path: Path, as_json: bool) -> None:
    from sfumato import metadata, pictures

    with pictures.opened(path) as picture:
        size, kind, line = picture.size, picture.format, metadata.a1111_text(picture)
        try:
            record = metadata.record_of(picture, path).model_dump(mode="json")
        except PictureError:
            if line is None:
                raise
            record = None
    if as_json:
        told = {"path": str(path), "format": kind, "width": size[0], "height": size[1], "record": record}
        console.result(json.dumps({**told, "parameters": line}, ensure_ascii=False))
        return
    console.result(f"{path}: {kind}, {size[0]}×{size[1]}")
    if record is None:
        console.result(f"no Sfumato record; its A1111 line:\n{line}")
        return
    request = record.pop("request")
    files = {f"{name[:-1]} files": record.pop(name) for name in ("adapters", "embeddings")}
    for name, value in {**request, **files, **record}.items():
        if value not in (None, "", [], {}):
            console.result(f"{name:18} {value}")
