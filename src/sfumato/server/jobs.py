"""What a client submits and what it sees of it: jobs, pictures, and the events of both."""

from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, computed_field

from sfumato.server.error_codes import coded

OnCrash = Literal["retry", "fail"]
MAX_CRASHES = 3
"""How often the process that draws a job may end with it."""


class JobState(StrEnum):
    """Where a job is. The last three are ends: it never leaves them."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class JobKind(StrEnum):
    """What a job does: draw pictures, or teach a model a subject or a style."""

    DRAW = "draw"
    TEACH = "teach"


OPEN = (JobState.QUEUED, JobState.RUNNING)
ENDED = (JobState.DONE, JobState.FAILED, JobState.CANCELLED)


FRAMES = "Of a clip, how many it has: its file is an animated WebP. Null of a picture, whose file is a PNG."


class View(BaseModel):
    """A value that is shown to clients."""

    model_config = ConfigDict(frozen=True)


class Failing(View):
    """What may have failed."""

    error: str | None = None

    @computed_field(description="The error's name, for programs, where it has one.")  # type: ignore[prop-decorator]
    @property
    def error_code(self) -> str | None:
        found = coded(self.error or "")
        return found and found.code

    @computed_field(description="What the error names, by its code.")  # type: ignore[prop-decorator]
    @property
    def error_values(self) -> dict[str, str] | None:
        found = coded(self.error or "")
        return found and found.values


class PictureView(View):
    """A picture or a clip that was drawn. `created` and `deleted` are seconds since 1970, UTC."""

    id: str
    job: str
    number: int = Field(description="Which of its job's pictures, from 0.")
    sha256: str
    bytes: int
    width: int
    height: int
    frames: int | None = Field(None, description=FRAMES)
    seed: int
    prompt: str
    negative: str
    model: str
    favourite: bool
    tags: tuple[str, ...] = ()
    created: float
    deleted: float | None = None


class DrawnPicture(View):
    """A picture or a clip of a job that is not stored: all that there is of it. `content`: its file."""

    number: int = Field(description="Which of its job's pictures, from 0.")
    width: int
    height: int
    frames: int | None = Field(None, description=FRAMES)
    seed: int
    prompt: str
    negative: str
    model: str
    content: bytes = Field(exclude=True)


class JobView(Failing):
    """A job. `created`, `started` and `ended` are seconds since 1970, UTC."""

    id: str
    state: JobState
    priority: int
    rank: float = Field(
        description="Where it waits among jobs of its priority, lower first: the work it was submitted as, "
        "in network evaluations, and how late it came."
    )
    on_crash: OnCrash
    crashes: int = Field(description="How often the process that drew it ended.")
    model: str
    request: dict[str, Any]
    count: int = Field(description="Pictures that it was asked for.")
    group: str | None = Field(None, description="Which jobs it was submitted with, as those of a grid.")
    place: int | None = Field(None, description="Which of its group, from 0.")
    pictures: tuple[PictureView, ...] = ()
    skipped: tuple[int, ...] = Field((), description="Numbers of its pictures that are left out.")
    created: float
    started: float | None = None
    ended: float | None = None
    kind: JobKind = Field(default=JobKind.DRAW, exclude=True)
    stored: bool = Field(default=True, exclude=True)
    """Whether the database has it. One that is not is drawn for a client that waits, and leaves nothing."""


class JobGroup(View):
    """Jobs that were submitted together: their `kind`, and the `facts` that make them one thing."""

    id: str
    kind: str
    facts: dict[str, Any]
    created: float


class WaitingJob(JobView):
    """A job that waits: its place among others (`turn`), lower first, and how many evaluations of other jobs
    were done while it `waited`.
    """

    turn: float
    waited: int


class JobProgress(View):
    """How far a running job is: network evaluations `done` of `total`, of picture `number`; of one that
    teaches, steps.

    `layer`: which part of a scene the preview shows, `background` or the name of an element, `element-N`
    without one; left out where it shows the whole picture.
    """

    number: int
    done: int
    total: int
    layer: str | None = None
    loss: float | None = Field(default=None, description="Of a job that teaches.")
    seconds_left: float | None = Field(default=None, description="Of a job that teaches, about.")
    doing: str | None = Field(
        default=None, description="Of a job that teaches: what takes long besides steps."
    )
    preview: bytes | None = Field(None, exclude=True)


class Event(Failing):
    """What happened to a job, or to a picture of it.

    `state` also tells of another priority, and of a new job of a `group`. `picture_changed`: its tags,
    whether it is a favourite or deleted.
    `drawn`: the picture of a job that is not stored, and `count`: how many it was asked for.
    """

    kind: Literal["state", "progress", "picture", "picture_changed"]
    job: str
    group: str | None = None
    state: JobState | None = None
    priority: int | None = None
    progress: JobProgress | None = None
    picture: PictureView | None = None
    drawn: DrawnPicture | None = None
    count: int | None = None
    stored: bool = Field(default=True, exclude=True)


class ProgressData(JobProgress):
    """How far a running job is, as an event tells it."""

    preview: str | None = Field(None, description="A WebP file in base64.")  # type: ignore[assignment]


class DrawnPictureData(DrawnPicture):
    """A picture of a job that is not stored, as an event tells it."""

    content: str = Field(description="Its file in base64.")  # type: ignore[assignment]


class EventData(Failing):
    """The data of a server-sent event, JSON; what does not apply is left out."""

    job: str
    group: str | None = Field(None, description="Of a new job, which jobs it was submitted with.")
    state: JobState | None = None
    priority: int | None = None
    progress: ProgressData | None = None
    picture: PictureView | DrawnPictureData | None = None
    count: int | None = Field(None, description="Pictures that a job was asked for that is not stored.")
