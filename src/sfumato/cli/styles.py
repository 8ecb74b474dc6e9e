"""`sfumato styles`: the presets, shipped and the user's own, and what each adds."""

import dataclasses
from typing import Annotated

from sfumato.cli import console
from sfumato.cli.help import PROMPT
from sfumato.cli.options import Json, Program, option
from sfumato.errors import UsageError, nearest

program = Program()


@program.add()
def styles(
    model: Annotated[
        str | None, option("--model KIND", PROMPT, "Only the styles for this kind of model. Default: all.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print the styles for a kind of model, else all of them; in JSON one line each, with their words.

    Raises `UsageError` for an unknown kind, and for a style file that cannot be read.
    """
    from sfumato.prompt.styles import MODELS, SHIPPED, load_styles

    if model is not None and model not in MODELS:
        raise UsageError(f"unknown kind of model {model!r}; {nearest(model, MODELS)}")
    with console.Meter().shown("reading styles"):
        known = load_styles().values()
    listed = [one for one in known if model is None or not one.models or model in one.models]
    if as_json:
        for one in listed:
            console.result(console.as_json(dataclasses.asdict(one)))
        return
    width = max(map(len, ["style", *(one.name for one in listed)]))
    groups: dict[str, list[str]] = {}
    for one in listed:
        own = "" if one.source == SHIPPED else f" ({one.source})"
        kinds = ", ".join(one.models) or "any model"
        groups.setdefault(kinds, []).append(f"{one.name:{width}}  {one.description}{own}".rstrip())
    for kinds, lines in groups.items():
        console.result("\n".join([f"{'style':{width}}  for {kinds}", *lines, ""]))
    console.result("sfumato generate 'a red apple' --style NAME; several are applied in turn")
