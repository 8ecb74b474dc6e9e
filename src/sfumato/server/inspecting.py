"""How a picture that a client sends was drawn, by whatever program, as a request to draw its like here."""

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pydantic import Field

from sfumato import folders, foreign, metadata, pictures
from sfumato.control import Control
from sfumato.names import UPSCALERS
from sfumato.prompt.meaning import AdapterWeight
from sfumato.request import Request
from sfumato.server.admission import SERVER_SIDE
from sfumato.server.jobs import View

OURS = "Sfumato"


class InspectionView(View):
    """What a picture says of how it was drawn."""

    program: str | None = Field(description="The program that drew it; null where it does not say.")
    format: str
    width: int
    height: int
    model: str | None = Field(description="What its record calls the model.")
    request: dict[str, Any] | None = Field(description="Fields of a request that this server can draw.")
    left_out: tuple[str, ...] = Field(description="A line for everything that could not be taken over.")
    embeddings: tuple[str, ...]
    parameters: str | None = Field(description="The line of settings as A1111 writes it.")
    record: dict[str, Any] | None = Field(description="Our own record, whole, but for pictures' bytes.")


def inspected(
    content: bytes, models: tuple[str, ...], controls: Callable[[str], tuple[str, ...]]
) -> InspectionView:
    """What the file of a picture or a clip says.

    `models`: those that can be drawn with. `controls`: the networks that the controls of one may name.

    Raises `PictureError`.
    """
    with pictures.opened_content(io.BytesIO(content), "image", animated=True) as opened:
        texts = pictures.texts(opened)
        facts: dict[str, Any] = {
            "format": (opened.format or "").lower(),
            "width": opened.width,
            "height": opened.height,
            "parameters": texts.get("parameters") or texts.get("UserComment"),
        }
        record = metadata.record_of(opened, "image") if metadata.holds_record(texts) else None
        if record is None:
            found = foreign.record_of(opened)
        else:
            found = foreign.ForeignRecord(OURS, record.request, record.model)
    if found is None:
        nothing: dict[str, Any] = dict.fromkeys(("program", "model", "request", "record"))
        return InspectionView(**facts, **nothing, left_out=(), embeddings=())
    fitting = _served(found, models, controls)
    request = fitting.request.model_dump(mode="json", exclude_defaults=True)
    ours = None if record is None else record.for_file("PNG", embed=False).model_dump(mode="json")
    return InspectionView(
        **facts,
        program=found.program,
        model=found.model,
        request={"prompt": "", "model": fitting.request.model, **request},
        left_out=fitting.left_out,
        embeddings=found.embeddings,
        record=ours,
    )


def _served(
    found: foreign.ForeignRecord, models: tuple[str, ...], controls: Callable[[str], tuple[str, ...]]
) -> foreign.ForeignRecord:
    """`found` with what this server draws with; noted what is not here."""
    notes, request = list(found.left_out), found.request
    named = request.model if found.program == OURS else found.model
    if named is not None and named not in models:
        notes.insert(0, f"the model {named}: it is not served; drawn with {models[0]}")
    changes: dict[str, Any] = {"model": named if named in models else models[0]}
    changes |= dict.fromkeys(SERVER_SIDE)
    notes += [f"{name} {value}" for name in SERVER_SIDE if (value := getattr(request, name)) is not None]
    if request.upscaler not in (None, *UPSCALERS):
        notes.append(f"the upscaler {request.upscaler}")
        changes["upscaler"] = None
    changes["adapters"] = _adapters(request, notes)
    if request.controls:
        changes["controls"] = _controls(request, controls(changes["model"]), notes)
    embeddings = folders.found("embeddings")
    notes += [
        f"the embedding {name}: it is not in the server's folder"
        for name in found.embeddings
        if name not in embeddings
    ]
    return replace(found, request=request.filled(**changes), left_out=tuple(notes))


def _adapters(request: Request, notes: list[str]) -> tuple[AdapterWeight, ...]:
    """Those of a request's adapters that are in the server's folder, by whichever of their names."""
    files = folders.found("adapters")
    kept = []
    for use in request.adapters:
        name = next((each for each in (use.name, use.name.rpartition("/")[2]) if each in files), None)
        if name is None:
            notes.append(f"the LoRA {use.name}: it is not in the server's folder")
        else:
            kept.append(replace(use, name=name))
    return tuple(kept)


def _controls(request: Request, known: tuple[str, ...], notes: list[str]) -> tuple[Control, ...]:
    """Those of a request's controls whose networks are `known`."""
    kept = []
    for each in request.controls:
        if each.model.removesuffix(".safetensors") in known:
            kept.append(each)
        else:
            notes.append(f"the control {each.model}: it is not in the server's folder")
    return tuple(kept)
