"""Workers as the dispatcher sees them: each holds jobs and is told of them, wherever it draws."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from sfumato.server.jobs import JobKind, WaitingJob
from sfumato.server.settings import ServerSettings
from sfumato.server.worker import messages
from sfumato.server.worker.answering import Answer, Question

JOBS_AT_ONCE = 64
"""Jobs that a worker holds, so that it can choose whose turn it is and fill its batches."""
MOST_JOBS = 4 * JOBS_AT_ONCE
"""Jobs that it holds where those that come later go before the ones it has."""
UNSTORED_AT_ONCE = 16
"""Jobs besides that are not stored: they do not wait until one of the others is over."""
LOAD_JOBS = 4
"""Jobs that take as long as loading a model, about."""
CRASHED = "the process that drew it ended"


class HeldWorker(ABC):
    """A worker that can draw, with the jobs that it holds. Only the dispatcher's thread changes those."""

    kind = JobKind.DRAW
    """Of the jobs that it carries out."""

    def __init__(self, name: str, settings: ServerSettings) -> None:
        self.name = name
        self.jobs: dict[str, WaitingJob] = {}
        self.models = frozenset(settings.models[:1])
        self.leaving = False

    @property
    def room(self) -> int:
        """How many more jobs it holds whatever they are."""
        return 0 if self._alone or self.leaving else max(JOBS_AT_ONCE - len(self.jobs), 0)

    def takes(self, job: WaitingJob) -> bool:
        """Whether it may hold a job besides its own: of those that go before it there must be room.

        One whose worker ended is drawn alone, so that one that ends every worker takes no other with it.
        """
        if job.kind is not self.kind or self.leaving or self._alone or (job.crashes and self.jobs):
            return False
        if not job.stored:
            return sum(not each.stored for each in self.jobs.values()) < UNSTORED_AT_ONCE
        return len(self.jobs) < MOST_JOBS and self._ahead(job) < JOBS_AT_ONCE

    def burden(self, job: WaitingJob) -> tuple[int, int]:
        """What a job would wait for here, in jobs, and how many it would be among."""
        return self._ahead(job) + (0 if job.model in self.models else LOAD_JOBS), len(self.jobs)

    def _ahead(self, job: WaitingJob) -> int:
        return sum(each.turn <= job.turn for each in self.jobs.values())

    @property
    def _alone(self) -> bool:
        return any(job.crashes for job in self.jobs.values())

    @abstractmethod
    def send(self, message: messages.ToWorker) -> None:
        """Tell it. Never raises: a worker that is gone is told of."""


Hear = Callable[[HeldWorker, messages.OfWorker], None]
"""Called from any thread with a worker and what it says, or what is said of it; with `Ready` first."""


class Workers(ABC):
    """Starts workers, and others for those that end."""

    @abstractmethod
    def start(self, hear: Hear) -> None:
        """Begin; returns before any is ready."""

    @abstractmethod
    def answered(self, question: Question, seconds: float) -> Answer | None:
        """The answer of some worker; `None` where none answers in this time. Called from any thread."""

    @abstractmethod
    def retire(self) -> None:
        """Start no more of them."""

    @abstractmethod
    def stop(self) -> None:
        """End all of them, whatever they do."""
