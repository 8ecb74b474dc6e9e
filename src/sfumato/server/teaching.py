"""Teaching over HTTP: pictures and a name, accepted as a job, whose result can be drawn with."""

import hashlib
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from sfumato import folders, pictures
from sfumato.errors import UsageError
from sfumato.formats import READ_FORMATS
from sfumato.server.admission import served_model
from sfumato.server.context import Server
from sfumato.server.jobs import OPEN, Failing, JobKind, JobProgress, JobState, JobView, OnCrash
from sfumato.server.store import NewJob
from sfumato.server.store.quota import BusyError
from sfumato.server.submitting import accepted, check_repeated, decoded

MOST_PICTURES = 200
MOST_OPEN = 8
"""Teachings of one key that are not over."""
BUSY_SECONDS = 60
_OF_JOB = ("id", "state", "priority", "on_crash", "crashes", "error", "created", "started", "ended")
_PLANNED = ("kind", "all_steps", "notes")
"""What a job's request has besides what was asked."""
_NAME = re.compile(r"[\w][\w.-]{0,63}")


class TeachRequest(BaseModel):
    """What is to be learned from which pictures, as `sfumato teach`."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(
        max_length=1000, description='What prompts call it: a rare word and its class, "sks mug".'
    )
    of_class: str | None = Field(
        None, alias="class", max_length=1000, description="What it is one of, as mug."
    )
    method: str = Field("lora", max_length=100, description="lora, dreambooth, inversion or pivotal.")
    model: str | None = Field(None, max_length=1000, description="What learns it. Default: the server's.")
    mask: str | None = Field(
        None, max_length=100, description="What of the pictures is learned: none (all), alpha or background."
    )
    steps: int | None = Field(None, ge=1, description="Steps. Default: the method's.")
    adapter: str | None = Field(
        None, max_length=64, description="What the result is called. Default: as `name`, with hyphens."
    )
    pictures: list[str] = Field(
        min_length=1, max_length=MOST_PICTURES, description="Their bytes in base64, or data URLs."
    )


class TeachView(Failing):
    """A subject or a style that is learned. `created`, `started` and `ended`: seconds since 1970, UTC."""

    id: str
    state: JobState
    name: str
    of_class: str | None = Field(serialization_alias="class")
    method: str
    model: str
    steps: int = Field(description="Of all its stages.")
    adapter: str = Field(description="What the result is called.")
    kind: str = Field(description="Where it is: adapters, or embeddings.")
    prompt: str = Field(description="One that draws it, once it is learned.")
    pictures: int
    notes: tuple[str, ...] = Field(description="What may go wrong with so few pictures, or this name.")
    samples: int = Field(description="Sheets of samples that are there, each newer than the one before.")
    progress: JobProgress | None
    priority: int
    on_crash: OnCrash
    crashes: int
    created: float
    started: float | None
    ended: float | None


@dataclass(frozen=True)
class PlannedTeaching:
    """What a teaching leaves, and how long it takes: a file called `name` in the folder of its `kind`."""

    name: str
    kind: str
    steps: int
    notes: tuple[str, ...]


def planned(fields: Mapping[str, Any], count: int) -> PlannedTeaching:
    """What a teaching by `count` pictures would leave. For a worker, which has torch. Raises `UsageError`."""
    from sfumato.data.folder import FolderContents
    from sfumato.server.worker.teaching import teaching_of
    from sfumato.train.teach import advice, recipes

    teaching = teaching_of(fields, Path("teach"))
    learns_word = teaching.method == "inversion"
    asked = fields["adapter"]
    if learns_word and asked not in (None, teaching.token):
        raise UsageError(
            f"adapter is {asked!r}: must be {teaching.token!r}, the word that is learned; prompts name it so"
        )
    found = recipes(teaching, FolderContents(Path("teach"), (), ())).values()
    return PlannedTeaching(
        name=asked or replace(teaching, pictures=()).result_name,
        kind="embeddings" if learns_word else "adapters",
        steps=sum(each["steps"] for each in found if "stages" not in each),
        notes=tuple(advice(teaching, count)),
    )


def submit_teaching(
    server: Server,
    asked: TeachRequest,
    owner: str,
    *,
    priority: int = 0,
    on_crash: OnCrash = "retry",
    idempotency_key: str | None = None,
) -> TeachView:
    """Accept a teaching. Raises as `sfumato.server.submitting.submit` does."""
    settings = server.settings
    if not settings.max_teach_steps:
        raise UsageError("nothing is taught on this server")
    fields = {
        **asked.model_dump(by_alias=True, exclude={"pictures"}),
        "model": served_model(asked.model, settings),
    }
    named = [_picture(text, index) for index, text in enumerate(asked.pictures)]
    kept = [{"name": name, "sha256": digest, "data": None} for name, digest, _ in named]
    if idempotency_key is not None and (known := server.store.submitted(owner, idempotency_key)) is not None:
        found = (*_PLANNED, *(() if asked.adapter else ("adapter",)))
        check_repeated(known.request, {**fields, "pictures": kept}, without=found)
        return viewed(server, known)
    plan = server.dispatcher.questions.ask(planned, fields, len(named))
    if plan.steps > settings.max_teach_steps:
        raise UsageError(f"steps are {plan.steps:,} in all: at most {settings.max_teach_steps:,} here")
    if not _NAME.fullmatch(plan.name):
        raise UsageError(f"adapter is {plan.name!r}: must be letters, digits, '.', '_' and '-', 64 at most")
    _check_free(server, plan, owner)
    request = {
        **fields,
        "adapter": plan.name,
        "kind": plan.kind,
        "all_steps": plan.steps,
        "notes": plan.notes,
        "pictures": kept,
    }
    new = NewJob(
        request,
        count=0,
        priority=priority,
        on_crash=on_crash,
        work=plan.steps,
        contents={digest: content for _, digest, content in named},
        kind=JobKind.TEACH,
    )
    job, _ = accepted(server, new, owner, idempotency_key)
    return viewed(server, job)


def viewed(server: Server, job: JobView) -> TeachView:
    """A teaching as it stands."""
    asked = job.request
    teacher = server.dispatcher.teacher
    return TeachView(
        **{name: asked[name] for name in ("name", "method", "model", "adapter", "kind", "notes")},
        **{name: getattr(job, name) for name in _OF_JOB},
        of_class=asked["class"],
        steps=asked["all_steps"],
        prompt=f"{asked['name']} on the moon",
        pictures=len(asked["pictures"]),
        samples=0 if teacher is None else len(teacher.samples(job.id)),
        progress=server.dispatcher.progress(job.id),
    )


def _check_free(server: Server, plan: PlannedTeaching, owner: str) -> None:
    """Raise `UsageError` for a name that is taken, `BusyError` where the owner has too many that wait."""
    found = server.store.list_jobs(states=OPEN, limit=server.settings.queue, kind=JobKind.TEACH)
    taken = {job.request["adapter"] for job in found if job.request["kind"] == plan.kind}
    if plan.name in folders.found(plan.kind) or plan.name in taken:
        raise UsageError(f"adapter {plan.name!r} is there already: call this one otherwise")
    own = server.store.list_jobs(owner=owner, states=OPEN, limit=MOST_OPEN, kind=JobKind.TEACH)
    if len(own) >= MOST_OPEN:
        raise BusyError(f"{MOST_OPEN} teachings of this key are not over; try again later", BUSY_SECONDS)


def _picture(text: str, index: int) -> tuple[str, str, bytes]:
    """A picture as it is kept: its file's name, its hash, its bytes. Raises `UsageError`, `PictureError`."""
    place = f"pictures[{index}]"
    content = decoded(text, place)
    with pictures.opened_content(io.BytesIO(content), place) as opened:
        kind = opened.format
        opened.load()
    suffix = next(each for each, name in READ_FORMATS.items() if name == kind)
    return f"{index:03}{suffix}", hashlib.sha256(content).hexdigest(), content
