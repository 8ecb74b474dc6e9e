"""The gallery: pictures that were drawn, found by their words, kept, deleted, brought back."""

import io
import json
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query
from fastapi import Path as PathParameter
from fastapi.responses import FileResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from sfumato.contact_sheet import caption, contact_sheet, shrunk
from sfumato.pictures import opened_content, rgba
from sfumato.request import MAX_COUNT, MAX_SEED
from sfumato.server.context import Owner, Server, Shared
from sfumato.server.encoding import opened
from sfumato.server.jobs import Event, PictureView
from sfumato.server.store.picture_files import THUMBNAIL_SIDE

router = APIRouter(prefix="/api/v1", tags=["pictures"])

FOREVER = {"cache-control": "private, max-age=31536000, immutable"}
"""For content that never changes under its name."""


class PictureChange(BaseModel):
    """What may be changed of a picture."""

    model_config = ConfigDict(extra="forbid")

    favourite: bool | None = None
    tags: list[Annotated[str, Field(min_length=1, max_length=100)]] | None = Field(None, max_length=50)


class SheetOptions(BaseModel):
    """Which pictures stand on a contact sheet, in this order, in how many columns."""

    model_config = ConfigDict(extra="forbid")

    pictures: list[Annotated[str, Field(max_length=32)]] = Field(min_length=1, max_length=MAX_COUNT)
    columns: int | None = Field(None, ge=1, le=MAX_COUNT, description="Default: about as many as rows.")
    captions: bool = Field(True, description="Whether seeds, and prompts that differ, stand under them.")


@router.post("/pictures/sheet", response_class=Response)
def make_sheet(sheet: SheetOptions, server: Shared, owner: Owner) -> Response:
    """One PNG file with several pictures, of clips their first frames, as `generate --sheet` makes it."""
    views = [_own(server, picture, owner) for picture in sheet.pictures]
    several = len({view.prompt for view in views}) > 1
    texts = [caption(view.prompt, view.seed, several=several) for view in views] if sheet.captions else ()
    cells = [shrunk(opened(server, view).pil, len(views), sheet.columns) for view in views]
    buffer = io.BytesIO()
    contact_sheet(cells, texts, columns=sheet.columns).save(buffer, "PNG")
    return Response(buffer.getvalue(), media_type="image/png")


@router.get("/pictures")
def list_pictures(
    server: Shared,
    owner: Owner,
    search: Annotated[str, Query(max_length=1000)] = "",
    tag: Annotated[str | None, Query(max_length=100)] = None,
    favourite: bool | None = None,
    deleted: bool = False,
    model: Annotated[str | None, Query(max_length=1000)] = None,
    seed: Annotated[int | None, Query(ge=0, le=MAX_SEED)] = None,
    sampler: Annotated[str | None, Query(max_length=100)] = None,
    style: Annotated[str | None, Query(max_length=100)] = None,
    since: Annotated[float | None, Query(ge=0, le=1e11)] = None,
    until: Annotated[float | None, Query(ge=0, le=1e11)] = None,
    before: Annotated[str | None, Query(max_length=32)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> list[PictureView]:
    """Pictures, the newest first, whose prompts hold all words of `search`; those after `before`.

    `since` and `until`: when they were drawn, in seconds since 1970, UTC.
    """
    return server.store.search(
        search,
        owner=owner,
        tag=tag,
        favourite=favourite,
        deleted=deleted,
        model=model,
        seed=seed,
        sampler=sampler,
        style=style,
        since=since,
        until=until,
        before=before,
        limit=limit,
    )


@router.get("/pictures/{picture}")
def get_picture(picture: str, server: Shared, owner: Owner) -> PictureView:
    """One picture."""
    return _own(server, picture, owner)


@router.get("/pictures/{picture}/record")
def get_record(picture: str, server: Shared, owner: Owner) -> dict[str, Any]:
    """How it was drawn."""
    found: dict[str, Any] = json.loads(server.store.record(_own(server, picture, owner).id))
    return found


@router.get("/pictures/{picture}/file", response_class=FileResponse)
def get_file(picture: str, server: Shared, owner: Owner) -> Response:
    """Its file, which carries its record: a PNG, of a clip an animated WebP."""
    view = _own(server, picture, owner)
    files = server.store.files(view.frames)
    return FileResponse(files.path(view.sha256), media_type=files.media_type, headers=FOREVER)


@router.get("/pictures/{picture}/thumbnail", response_class=FileResponse)
def get_thumbnail(picture: str, server: Shared, owner: Owner) -> Response:
    """A small WebP file, of a clip its first frame."""
    view = _own(server, picture, owner)
    path = server.store.files(view.frames).thumbnail(view.sha256)
    return FileResponse(path, media_type="image/webp", headers=FOREVER)


@router.get("/inputs/{digest}/thumbnail", response_class=Response)
def get_input_thumbnail(
    digest: Annotated[str, PathParameter(pattern="^[0-9a-f]{64}$")], server: Shared, owner: Owner
) -> Response:
    """A small WebP file of a picture that one of the jobs began from, by its sha256."""
    content = server.store.input(digest, owner)
    if content is None:
        raise HTTPException(404, f"there is no picture {digest!r}")
    buffer = io.BytesIO()
    with opened_content(io.BytesIO(content), "the picture") as picture:
        small = rgba(picture)
        small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
        small.save(buffer, "WEBP", quality=80)
    return Response(buffer.getvalue(), media_type="image/webp", headers=FOREVER)


@router.patch("/pictures/{picture}")
def change_picture(picture: str, change: PictureChange, server: Shared, owner: Owner) -> PictureView:
    """Make it a favourite or not, or give it other tags."""
    view = _own(server, picture, owner)
    server.store.change_picture(view.id, favourite=change.favourite, names=change.tags)
    return _changed(server, picture, owner)


@router.delete("/pictures/{picture}")
def delete_picture(picture: str, server: Shared, owner: Owner) -> PictureView:
    """Delete it; for a day it can be brought back."""
    server.store.delete_picture(_own(server, picture, owner).id)
    return _changed(server, picture, owner)


@router.post("/pictures/{picture}/restore")
def restore_picture(picture: str, server: Shared, owner: Owner) -> PictureView:
    """Bring a deleted picture back."""
    server.store.restore_picture(_own(server, picture, owner).id)
    return _changed(server, picture, owner)


def _changed(server: Server, picture: str, owner: str) -> PictureView:
    """The picture as it is now, told to all that listen."""
    view = _own(server, picture, owner)
    server.events.tell(Event(kind="picture_changed", job=view.job, picture=view))
    return view


def _own(server: Server, picture: str, owner: str) -> PictureView:
    view = server.store.picture(picture, owner)
    if view is None:
        raise HTTPException(404, f"there is no picture {picture!r}")
    return view
