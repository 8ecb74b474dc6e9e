"""From fields that came over HTTP to a job, and from a job to its end: what every API does."""

import asyncio
import base64
import binascii
import json
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fastapi import HTTPException, Request
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from sfumato.errors import UsageError
from sfumato.request import Request as DrawRequest
from sfumato.server.admission import admitted
from sfumato.server.context import Server
from sfumato.server.errors import BUSY_SECONDS
from sfumato.server.events import Listener
from sfumato.server.jobs import ENDED, OPEN, Event, JobState, JobView, OnCrash, WaitingJob
from sfumato.server.order import Turn, expected_evaluations
from sfumato.server.store import NewJob
from sfumato.server.store.input_files import filled_in

ALPHA = "alpha"
MOST_OPEN = 1000
"""Jobs that are not over, of which a client that begins to listen is told."""
LOOK_SECONDS = 1.0
"""How often those who follow a job look into a database that servers share."""


def with_pictures(fields: Mapping[str, Any]) -> dict[str, Any]:
    """`fields` with base64 texts and data URLs as the bytes of pictures: no text is a path.

    Raises `UsageError` for a text that is no base64.
    """
    found = dict(fields)
    for name in ("image", "mask"):
        if not (name == "mask" and found.get(name) == ALPHA):
            found |= _decoded_in(found, name, name)
    if isinstance(found.get("controls"), list):
        found["controls"] = [
            {**each, **_decoded_in(each, "image", f"controls[{index}].image")}
            if isinstance(each, dict)
            else each
            for index, each in enumerate(found["controls"])
        ]
    return found


def _decoded_in(fields: Mapping[str, Any], key: str, name: str) -> dict[str, Any]:
    """The pictures of one field that are texts, decoded; one or a list."""
    given = fields.get(key)
    if isinstance(given, str):
        return {key: decoded(given, name)}
    if isinstance(given, list):
        return {key: [decoded(each, name) if isinstance(each, str) else each for each in given]}
    return {}


def decoded(text: str, name: str) -> bytes:
    """The bytes of a picture from base64, also as a data URL. Raises `UsageError`."""
    if text.startswith(("http://", "https://")):
        raise UsageError(f"{name} is a URL: pictures are sent, not fetched; give base64")
    data = text.partition(",")[2] if text.startswith("data:") else text
    try:
        return base64.b64decode("".join(data.split()), validate=True)
    except (binascii.Error, ValueError):
        raise UsageError(f"{name} is no picture in base64") from None


def submit(
    server: Server,
    fields: Mapping[str, Any],
    owner: str,
    *,
    priority: int = 0,
    on_crash: OnCrash = "retry",
    idempotency_key: str | None = None,
) -> JobView:
    """Accept a job for the request that `fields` make.

    A picture that the owner sent before may be named by its sha256 alone. The same `idempotency_key` is the
    same job. Raises `UsageError`, `PictureError`, `BusyError`, `OutputError`; `HTTPException` 409 where the
    key came before with another request.
    """
    request, count = admitted(sent(server, fields, owner), server.settings)
    new = new_job(server, request, count, priority=priority, on_crash=on_crash)
    job, fresh = accepted(server, new, owner, idempotency_key)
    if not fresh:
        seeded = fields.get("seed") is not None
        check_repeated(job.request, new.request, without=() if seeded else ("seed",))
    return job


def accepted(server: Server, new: NewJob, owner: str, idempotency_key: str | None) -> tuple[JobView, bool]:
    """A job that waits from now on, and whether it is new; as `sfumato.server.store.Store.submit`."""
    limits = server.settings.limits
    job, fresh = server.store.submit(new, owner=owner, limits=limits, idempotency_key=idempotency_key)
    if fresh:
        server.events.tell(Event(kind="state", job=job.id, state=job.state, priority=job.priority))
        server.dispatcher.wake()
    return job, fresh


def check_repeated(
    first: Mapping[str, Any], again: Mapping[str, Any], *, without: Sequence[str] = ()
) -> None:
    """Raise `HTTPException` 409 where `again` is not what came `first` with the same idempotency key.

    Fields are compared as JSON has them, those `without` not at all.
    """
    again = json.loads(json.dumps(again))
    different = [name for name in first if first[name] != again.get(name) and name not in without]
    if different:
        raise HTTPException(
            409,
            f"the Idempotency-Key came before with another request ({', '.join(different)} differed): "
            "a new request needs a new key",
        )


def unstored(server: Server, fields: Mapping[str, Any], owner: str, *, priority: int = 0) -> WaitingJob:
    """A job for the request that `fields` make, of which nothing is stored: `drawn` draws it.

    Raises as `submit` does.
    """
    request, count = admitted(sent(server, fields, owner), server.settings)
    others = server.dispatcher.unstored
    server.store.admit(owner=owner, count=count, limits=server.settings.limits, others=others)
    turn = Turn(server.store.clock, new_job(server, request, count).work)
    return WaitingJob(
        id=secrets.token_urlsafe(16),
        state=JobState.QUEUED,
        priority=priority,
        rank=turn.place,
        on_crash="fail",
        crashes=0,
        model=request.model,
        request=request.model_dump(mode="json"),
        count=count,
        group=None,
        place=None,
        skipped=(),
        created=time.time(),
        stored=False,
        turn=replace(turn, priority=priority).place,
        waited=0,
    )


async def drawn(server: Server, job: WaitingJob, *, previews: bool = False) -> AsyncIterator[Event]:
    """Draw a job that is not stored: what happens to it until it has ended or the server does.

    Who closes the iterator cancels it.
    """
    with server.events.listening(job.id) as listener:
        if previews:
            server.dispatcher.watch(job.id, True)
        server.dispatcher.draw(job)
        try:
            while (event := await listener.next()) is not None:
                yield event
                if event.state in ENDED:
                    return
        finally:
            server.dispatcher.drop(job)
            if previews:
                server.dispatcher.watch(job.id, False)


def sent(server: Server, fields: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """`fields` with the bytes of their pictures: as `with_pictures`, and of those that the owner sent before
    and names by their hashes.
    """
    found: dict[str, Any] = filled_in(with_pictures(fields), lambda digest: server.store.input(digest, owner))
    return found


def new_job(
    server: Server, request: DrawRequest, count: int, *, priority: int = 0, on_crash: OnCrash = "retry"
) -> NewJob:
    """A request that was admitted, as the store takes it."""
    view = server.models.get(request.model)
    usual = {} if view is None or view.defaults is None else vars(view.defaults)
    usual = {name: usual[name] for name in ("steps", "sampler") if name in usual}
    return NewJob(
        request.without_inputs().model_dump(mode="json"),
        count,
        priority,
        on_crash,
        expected_evaluations(request, count, **usual),
        {each.sha256: each.data for each in request.inputs.values() if each.data is not None},
    )


async def events_of(server: Server, job: str, *, previews: bool = False) -> AsyncIterator[Event]:
    """What happens to a job from now on, first where it stands, until it has ended or the server does."""
    with server.events.listening(job) as listener:
        view = await run_in_threadpool(server.store.job, job)
        if view is None:
            return
        if previews:
            server.dispatcher.watch(job, True)
        try:
            state = view.state
            yield Event(kind="state", job=job, state=state, error=view.error)
            known = set()
            for picture in view.pictures:
                known.add(picture.id)
                yield Event(kind="picture", job=job, picture=picture)
            while state not in ENDED:
                for event in await _next_events(server, listener, job, state):
                    if event is None:
                        return
                    if event.kind == "picture_changed":
                        continue
                    if event.picture is not None:
                        if event.picture.id in known:
                            continue
                        known.add(event.picture.id)
                    yield event
                    state = event.state or state
        finally:
            if previews:
                server.dispatcher.watch(job, False)


async def events_of_all(server: Server, owner: str, *, previews: bool = False) -> AsyncIterator[Event]:
    """What happens to all jobs of `owner` from now on, first where those stand that are not over."""
    watched: set[str] = set()

    def watch(job: str, state: JobState) -> None:
        """Previews of jobs that are not over."""
        on = state not in ENDED
        if previews and on != (job in watched):
            (watched.add if on else watched.discard)(job)
            server.dispatcher.watch(job, on)

    with server.events.listening() as listener:
        views = await run_in_threadpool(server.store.list_jobs, owner=owner, states=OPEN, limit=MOST_OPEN)
        own = {view.id: True for view in views}
        try:
            for view in reversed(views):
                watch(view.id, view.state)
                yield Event(kind="state", job=view.id, state=view.state, priority=view.priority)
            while True:
                event = await listener.next()
                if event is None:
                    return
                if event.job not in own:
                    own[event.job] = await run_in_threadpool(server.store.owns, owner, event.job)
                if not own[event.job]:
                    continue
                if event.state is not None:
                    watch(event.job, event.state)
                yield event
        finally:
            for job in watched:
                server.dispatcher.watch(job, False)


async def _next_events(
    server: Server, listener: Listener, job: str, state: JobState
) -> Sequence[Event | None]:
    """What happens next; where another server may draw the job, also what the database has of it."""
    try:
        return [await asyncio.wait_for(listener.next(), LOOK_SECONDS if server.store.shared else None)]
    except TimeoutError:
        view = await run_in_threadpool(server.store.job, job)
    assert view is not None
    events: list[Event | None] = [Event(kind="picture", job=job, picture=each) for each in view.pictures]
    if view.state != state:
        events.append(Event(kind="state", job=job, state=view.state, error=view.error))
    return events


async def finished(server: Server, job: str, request: Request) -> JobView:
    """The job when it has ended. If the client that waits for it goes away, it is cancelled.

    Raises `ClientDisconnect`, `UsageError` if it failed, `HTTPException` if the server stops before.
    """
    waiting = asyncio.ensure_future(_end(server, job))
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((waiting, gone), return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            raise ClientDisconnect
    finally:
        if not waiting.done():
            server.dispatcher.abandon(job)
        waiting.cancel()
        gone.cancel()
    view = await run_in_threadpool(server.store.job, job)
    assert view is not None
    if view.state not in ENDED and server.dispatcher.stopping:
        text = f"the server stops; job {job} goes on when it is started again"
        raise HTTPException(503, text, {"retry-after": str(BUSY_SECONDS)})
    if view.state is JobState.FAILED:
        raise UsageError(view.error or "the job failed")
    return view


async def _end(server: Server, job: str) -> None:
    async for _ in events_of(server, job):
        pass


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
