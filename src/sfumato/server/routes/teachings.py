"""Teaching: a subject or a style from pictures, as a job whose result can be drawn with."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Header, HTTPException, Query
from fastapi.responses import FileResponse, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import Field

from sfumato.server.context import Owner, Server, Shared
from sfumato.server.jobs import JobKind, JobView, OnCrash
from sfumato.server.routes.jobs import Priority, event_data
from sfumato.server.routes.pictures import FOREVER
from sfumato.server.submitting import events_of
from sfumato.server.teaching import TeachRequest, TeachView, submit_teaching, viewed

router = APIRouter(prefix="/api/v1", tags=["teaching"])


class TeachSubmission(TeachRequest):
    """What is to be learned, and how the job is to be treated."""

    priority: Priority = 0
    on_crash: OnCrash = Field("retry", description="What becomes of it if the process that learns it ends.")


@router.post("/teach", status_code=202)
def create_teaching(
    submission: TeachSubmission,
    server: Shared,
    owner: Owner,
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
) -> TeachView:
    """Submit a teaching. The same Idempotency-Key gives the same one."""
    return submit_teaching(
        server,
        submission,
        owner,
        priority=submission.priority,
        on_crash=submission.on_crash,
        idempotency_key=idempotency_key,
    )


@router.get("/teach")
def list_teachings(
    server: Shared,
    owner: Owner,
    before: Annotated[str | None, Query(max_length=32)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> list[TeachView]:
    """Teachings, the newest first; those after `before`."""
    found = server.store.list_jobs(owner=owner, before=before, limit=limit, kind=JobKind.TEACH)
    return [viewed(server, job) for job in found]


@router.get("/teach/{teaching}")
def get_teaching(teaching: str, server: Shared, owner: Owner) -> TeachView:
    """One teaching, and how far it is."""
    return viewed(server, _own(server, teaching, owner))


@router.delete("/teach/{teaching}")
def cancel_teaching(teaching: str, server: Shared, owner: Owner) -> TeachView:
    """Cancel one that is not over; what it learned so far is removed."""
    _own(server, teaching, owner)
    server.dispatcher.cancel(teaching)
    return viewed(server, _own(server, teaching, owner))


@router.get("/teach/{teaching}/samples/{number}", response_class=FileResponse)
def get_sample(teaching: str, number: int, server: Shared, owner: Owner) -> Response:
    """A sheet of samples that it drew, a WebP file; they count from 0."""
    job, teacher = _own(server, teaching, owner), server.dispatcher.teacher
    found = [] if teacher is None else teacher.samples(job.id)
    if not 0 <= number < len(found):
        raise HTTPException(404, f"there is no sheet {number} of {teaching!r}")
    return FileResponse(found[number], media_type="image/webp", headers=FOREVER)


def _existing(teaching: str, server: Shared, owner: Owner) -> str:
    """A teaching's name; one that is not there is told before the answer begins."""
    return _own(server, teaching, owner).id


@router.get("/teach/{teaching}/events", response_class=EventSourceResponse)
async def follow_teaching(
    teaching: Annotated[str, Depends(_existing)], server: Shared, previews: bool = False
) -> AsyncIterator[ServerSentEvent]:
    """What happens to it, as server-sent events `state` and `progress`, until it is over.

    With `previews` a `progress` holds each new sheet of samples, a WebP file in base64.
    """
    async for event in events_of(server, teaching, previews=previews):
        yield ServerSentEvent(event=event.kind, data=event_data(event, previews))


def _own(server: Server, teaching: str, owner: str) -> JobView:
    view = server.store.job(teaching, owner, JobKind.TEACH)
    if view is None:
        raise HTTPException(404, f"there is no teaching {teaching!r}")
    return view
