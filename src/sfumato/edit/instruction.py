"""Editing a picture: by an instruction, or by two prompts and the picture's own noise."""

from collections.abc import Mapping
from typing import Any

from sfumato.errors import UsageError
from sfumato.request import Request


def edit_request(prompt: str, fields: Mapping[str, Any]) -> Request:
    """The request for an edit; with `source` among the `fields` of `Request`, by inversion.

    `prompt`: the instruction; by inversion what the picture is to show, as `source` is what it shows, and
    `inversion` is "ddpm" unless given. Raises `UsageError`.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    if given.get("image") is None:
        raise UsageError("there is no picture to edit: give image")
    if given.get("source"):
        given = {"inversion": "ddpm", **given}
    return Request.build(prompt=prompt, **given)


def check_edit(request: Request, name: str, task: str) -> None:
    """Raise `UsageError` for an edit that a model of that `name` and `task` cannot carry out as asked for."""
    if task == "instruct":
        if request.inversion:
            raise UsageError(
                f"{name} edits by instruction: leave source and inversion out, or edit with a "
                "text-to-image model"
            )
    elif task == "inpaint":
        raise UsageError(f"{name} is an {task} model, which draws into a mask: see generate")
    elif not request.source:
        raise UsageError(
            f"{name} reads no instructions; it edits by two prompts: source is what the picture shows, "
            'as "a red cat, 3d render", and the prompt what it is to show, as "a blue cat, 3d render"'
        )
