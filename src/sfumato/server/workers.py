"""Workers as the dispatcher sees them: each holds jobs and is told of them, wherever it draws."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from sfumato.server.jobs import JobView
from sfumato.server.settings import ServerSettings
from sfumato.server.worker import messages

JOBS_AT_ONCE = 64
"""Jobs that a worker holds, so that it can choose whose turn it is and fill its batches."""
UNSTORED_AT_ONCE = 16
"""Jobs besides that are not stored: they do not wait until one of the others is over."""
LOAD_JOBS = 4
"""Jobs that take as long as loading a model, about."""
CRASHED = "the process that drew it ended"


class HeldWorker(ABC):
    """A worker that can draw, with the jobs that it holds. Only the dispatcher's thread changes those."""

    def __init__(self, name: str, settings: ServerSettings) -> None:
        self.name = name
        self.jobs: dict[str, JobView] = {}
        self.models = frozenset(settings.models[:1])
        self.leaving = False

    def room(self, stored: bool = True) -> int:
        """How many more jobs it may hold, of those that are stored or of the others."""
        if self.leaving or any(job.crashes for job in self.jobs.values()):
            return 0
        most = JOBS_AT_ONCE if stored else UNSTORED_AT_ONCE
        return most - sum(job.stored == stored for job in self.jobs.values())

    def burden(self, model: str) -> int:
        """What a job of a model would wait for here, in jobs."""
        return len(self.jobs) + (0 if model in self.models else LOAD_JOBS)

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
    def retire(self) -> None:
        """Start no more of them."""

    @abstractmethod
    def stop(self) -> None:
        """End all of them, whatever they do."""
