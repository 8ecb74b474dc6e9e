"""`sfumato models`: list, download, find and delete models."""

import sys
from dataclasses import asdict
from typing import Annotated

from sfumato.cli import console
from sfumato.cli.help import MODEL, OUTPUT
from sfumato.cli.options import Json, Program, argument, option
from sfumato.errors import UsageError

program = Program()
Name = Annotated[str, argument("NAME", "A name from sfumato models list.")]
_PLACES = {"folder": "your folder", "hub": "hub cache"}


@program.add("list")
def list_models(as_json: Json = False) -> None:
    """List the models in your folder and in the hub's cache."""
    from sfumato.checkpoint import library
    from sfumato.folders import folder

    models = library.installed()
    if as_json:
        for model in models:
            console.result(console.as_json({**asdict(model), "path": str(model.path)}))
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


@program.add()
def pull(
    repository: Annotated[str, argument("ORG/NAME", "A repository on the hub.")],
    revision: Annotated[
        str | None, option("--revision NAME", MODEL, "A branch, tag or commit. Default: main.")
    ] = None,
    variant: Annotated[
        str | None, option("--variant NAME", MODEL, "Of the weights, as fp16. Default: the full ones.")
    ] = None,
) -> None:
    """Download a model from the hub into its cache, never a pickle; print its folder."""
    from sfumato.checkpoint import source

    console.result(str(source.pull(repository, revision=revision, variant=variant)))


@program.add()
def path(name: Name) -> None:
    """Print where a model is."""
    from sfumato.checkpoint import library

    console.result(str(library.path(name)))


@program.add("rm")
def remove(name: Name, yes: Annotated[bool, option("-y, --yes", OUTPUT, "Do not ask.")] = False) -> int:
    """Delete a model after asking; exit status 1 if it was kept."""
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
