"""Jobs: submitted, seen, followed, moved in the queue, cancelled; and those of which nothing is stored."""

import base64
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, HTTPException, Query
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, ConfigDict, Field

from sfumato.server.context import Owner, Server, Shared
from sfumato.server.jobs import Event, JobKind, JobState, JobView, OnCrash, WaitingJob
from sfumato.server.submitting import drawn, events_of, events_of_all, submit, unstored

router = APIRouter(prefix="/api/v1", tags=["jobs"])


MOST_ORDERED = 10_000
"""Jobs whose priorities one request changes."""
Priority = Annotated[int, Field(ge=-10, le=10, description="Higher is drawn first.")]


class Submission(BaseModel):
    """A request to draw, and how it is to be treated."""

    model_config = ConfigDict(extra="forbid")

    request: dict[str, Any]
    priority: Priority = 0
    on_crash: OnCrash = Field("retry", description="What becomes of it if the process that draws it ends.")


class UnstoredSubmission(BaseModel):
    """A request to draw, of which nothing is stored."""

    model_config = ConfigDict(extra="forbid")

    request: dict[str, Any]
    priority: Priority = 0
    previews: bool = Field(False, description="Whether some `progress` events hold a WebP picture.")


class JobChange(BaseModel):
    """What may be changed of a job that is not over."""

    model_config = ConfigDict(extra="forbid")

    priority: Priority


class JobOrder(BaseModel):
    """Priorities of jobs by their names: the order in which they are drawn."""

    model_config = ConfigDict(extra="forbid")

    priorities: dict[str, Priority] = Field(max_length=MOST_ORDERED)


@router.post("/jobs", status_code=202)
def create_job(
    submission: Submission,
    server: Shared,
    owner: Owner,
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
) -> JobView:
    """Submit a job. The same Idempotency-Key gives the same job."""
    return submit(
        server,
        submission.request,
        owner,
        priority=submission.priority,
        on_crash=submission.on_crash,
        idempotency_key=idempotency_key,
    )


@router.get("/jobs")
def list_jobs(
    server: Shared,
    owner: Owner,
    state: Annotated[list[JobState] | None, Query()] = None,
    before: Annotated[str | None, Query(max_length=32)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> list[JobView]:
    """Jobs, the newest first; those after the job `before`."""
    return server.store.list_jobs(owner=owner, states=state or (), before=before, limit=limit)


@router.get("/jobs/{job}")
def get_job(job: str, server: Shared, owner: Owner) -> JobView:
    """One job."""
    return _own(server, job, owner)


@router.patch("/jobs/{job}")
def change_job(job: str, change: JobChange, server: Shared, owner: Owner) -> JobView:
    """Give a job that waits or is drawn another priority; 409 for one that is over."""
    _own(server, job, owner)
    if not server.dispatcher.prioritise({job: change.priority}, owner):
        raise HTTPException(409, f"job {job!r} is over")
    return _own(server, job, owner)


@router.patch("/jobs")
def order_jobs(order: JobOrder, server: Shared, owner: Owner) -> list[str]:
    """Give several jobs other priorities at once; the names of those that were not over."""
    return sorted(server.dispatcher.prioritise(order.priorities, owner))


@router.delete("/jobs/{job}")
def cancel_job(job: str, server: Shared, owner: Owner) -> JobView:
    """Cancel a job that is not over; it stops within one evaluation."""
    _own(server, job, owner)
    server.dispatcher.cancel(job)
    return _own(server, job, owner)


def _existing(job: str, server: Shared, owner: Owner) -> str:
    """A job's name; one that is not there is told before the answer begins."""
    return _own(server, job, owner).id


@router.get("/jobs/{job}/events", response_class=EventSourceResponse)
async def follow_job(
    job: Annotated[str, Depends(_existing)], server: Shared, previews: bool = False
) -> AsyncIterator[ServerSentEvent]:
    """What happens to a job, as server-sent events `state`, `progress` and `picture`, until it is over.

    With `previews` some `progress` events hold a WebP picture in base64.
    """
    async for event in events_of(server, job, previews=previews):
        yield ServerSentEvent(event=event.kind, data=event_data(event, previews))


@router.get("/events", response_class=EventSourceResponse)
async def follow_all(server: Shared, owner: Owner, previews: bool = False) -> AsyncIterator[ServerSentEvent]:
    """What happens to all jobs and pictures of the key, so that several windows stay in step.

    First a `state` for each job that is not over, then `state`, `progress`, `picture` and `picture_changed`
    as they come. Ends only with the connection; one that begins anew is told where everything stands.
    """
    async for event in events_of_all(server, owner, previews=previews):
        yield ServerSentEvent(event=event.kind, data=event_data(event, previews))


def _unstored(submission: UnstoredSubmission, server: Shared, owner: Owner) -> WaitingJob:
    """A job that is accepted; one that is not is told before the answer begins."""
    return unstored(server, submission.request, owner, priority=submission.priority)


@router.post("/draw", response_class=EventSourceResponse)
async def draw(
    job: Annotated[WaitingJob, Depends(_unstored)], submission: UnstoredSubmission, server: Shared
) -> AsyncIterator[ServerSentEvent]:
    """Draw a request and store nothing: neither a job nor a picture is left.

    Server-sent events as of a job; a `picture` holds its file in base64 as `content`. Who closes the
    connection cancels the drawing within one evaluation.
    """
    async for event in drawn(server, job, previews=submission.previews):
        yield ServerSentEvent(event=event.kind, data=event_data(event, submission.previews))


def event_data(event: Event, previews: bool) -> dict[str, Any]:
    """An event as the data of a server-sent one."""
    found: dict[str, Any] = event.model_dump(mode="json", exclude_none=True, exclude={"kind"})
    preview = event.progress and event.progress.preview
    if preview and previews:
        found["progress"]["preview"] = base64.b64encode(preview).decode()
    if event.drawn is not None:
        content = base64.b64encode(event.drawn.content).decode()
        found["picture"] = {**found.pop("drawn"), "content": content}
    return found


def _own(server: Server, job: str, owner: str) -> JobView:
    view = server.store.job(job, owner, JobKind.DRAW)
    if view is None:
        raise HTTPException(404, f"there is no job {job!r}")
    return view
