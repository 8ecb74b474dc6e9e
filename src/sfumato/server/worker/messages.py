"""What the server and a worker tell each other, and what is told of a worker."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Draw:
    """To the worker: draw a job's request."""

    job: str
    request: dict[str, Any]
    priority: int = 0
    done: frozenset[int] = frozenset()
    """The pictures of it that exist already, or are left out."""
    waited: int = 0
    """Evaluations of other jobs that were done while it waited."""


@dataclass(frozen=True)
class Cancel:
    """To the worker: drop a job before its next evaluation."""

    job: str


@dataclass(frozen=True)
class Skip:
    """To the worker: leave out a picture of a job, and go on with the next."""

    job: str
    number: int


@dataclass(frozen=True)
class Watch:
    """To the worker: send previews of a job, or no more."""

    job: str
    previews: bool


@dataclass(frozen=True)
class Prioritise:
    """To the worker: a job has another priority from now on."""

    job: str
    priority: int


@dataclass(frozen=True)
class Stop:
    """To the worker: end."""


ToWorker = Draw | Cancel | Skip | Watch | Prioritise | Stop


@dataclass(frozen=True)
class Ready:
    """The worker has started."""


@dataclass(frozen=True)
class Loading:
    """A model is being loaded for a job."""

    job: str
    model: str


@dataclass(frozen=True)
class Loaded:
    """The models that the worker holds now."""

    models: frozenset[str]


@dataclass(frozen=True)
class JobEvaluated:
    """A network evaluation of a job: `done` of `total` of its picture `number`.

    `preview` is a WebP file of it, or of the one `layer` of it that is named.
    """

    job: str
    number: int
    done: int
    total: int
    preview: bytes | None = None
    layer: str | None = None


@dataclass(frozen=True)
class JobTrained:
    """A job that teaches did `step` of `steps`. `doing`: what takes long besides. `sample`: a WebP file of
    what it draws by now, where there is a new one.
    """

    job: str
    step: int
    steps: int
    loss: float | None = None
    seconds_left: float | None = None
    doing: str | None = None
    sample: bytes | None = None


@dataclass(frozen=True)
class BatchEvaluated:
    """So many points were evaluated together, of pictures of `model` with so many pixels in all."""

    points: int
    seconds: float
    model: str
    pixels: int


@dataclass(frozen=True)
class PictureDrawn:
    """A picture of a job, a PNG file, or a clip, an animated WebP, and the facts that are kept of it."""

    job: str
    number: int
    content: bytes
    facts: dict[str, Any]


@dataclass(frozen=True)
class JobFinished:
    """A job is over: drawn if `error` is `None`. `usage`: whether the request was at fault."""

    job: str
    error: str | None = None
    usage: bool = False
    details: str | None = None
    """The traceback of an error that is none of a user's."""


FromWorker = (
    Ready | Loading | Loaded | BatchEvaluated | JobEvaluated | JobTrained | PictureDrawn | JobFinished
)


@dataclass(frozen=True)
class Leaving:
    """Of a worker: it takes no more jobs, and finishes those that it has."""


@dataclass(frozen=True)
class Gone:
    """Of a worker: it ended, and draws none of its jobs any more. `crashed`: perhaps for one of them."""

    reason: str
    crashed: bool


OfWorker = FromWorker | Leaving | Gone
