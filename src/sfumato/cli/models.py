"""`sfumato models`: listing, bringing, finding and deleting models; `sfumato convert` of pickles."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from sfumato.cli import console
from sfumato.errors import UsageError

_PLACES = {"folder": "your folder", "hub": "hub cache"}


def list_models(as_json: bool) -> None:
    """Print every model that is here: a table, or a line of JSON each."""
    from sfumato.checkpoint import library
    from sfumato.folders import folder

    models = library.installed()
    if as_json:
        for model in models:
            console.result(json.dumps({**asdict(model), "path": str(model.path)}, ensure_ascii=False))
        return
    if not models:
        console.result(
            f"no models yet: put checkpoints into {folder('models')}, or sfumato models pull org/name"
        )
        return
    width = max(len("model"), *(len(model.name) for model in models))
    console.result(f"{'model':{width}}  {'kind':16}  {'layout':11}  {'MB':>8}  where")
    for model in models:
        size = f"{model.bytes / 1e6:,.0f}"
        place = _PLACES[model.place]
        console.result(f"{model.name:{width}}  {model.kind:16}  {model.layout:11}  {size:>8}  {place}")


def pull(repository: str, revision: str | None, variant: str | None) -> None:
    """Bring a model from the hub into the cache and print the folder it is in."""
    from sfumato.checkpoint import source

    console.result(str(source.pull(repository, revision=revision, variant=variant)))


def path(name: str) -> None:
    """Print where a model is."""
    from sfumato.checkpoint import library

    console.result(str(library.path(name)))


def remove(name: str, yes: bool) -> int:
    """Delete a model, after asking unless `yes`; the exit status, 1 if it was kept."""
    from sfumato.checkpoint import library

    where = library.path(name)
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError(f"nobody can be asked whether to delete {where}: say --yes")
        print(f"delete {where}? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            console.complain("kept")
            return 1
    removed = library.remove(name)
    console.complain(f"deleted {removed.path} ({removed.bytes / 1e6:,.0f} MB)")
    return 0


def convert_pickle(source: Path, target: Path, overwrite: bool, as_json: bool) -> None:
    """Convert a pickle to safetensors and say what was trusted and what was left out."""
    from sfumato.checkpoint import unpickle

    summary = unpickle.convert(source, target, overwrite=overwrite)
    if as_json:
        told = {**asdict(summary), "source": str(source), "target": str(target)}
        console.result(json.dumps(told, ensure_ascii=False))
        return
    console.result("\n".join(summary.lines()))
