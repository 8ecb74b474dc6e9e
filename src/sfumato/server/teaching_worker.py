"""The process that teaches: one job at a time, started for it and ended with it, beside those that draw."""

import multiprocessing
import shutil
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Thread

from sfumato.server.jobs import JobKind, WaitingJob
from sfumato.server.settings import ServerSettings
from sfumato.server.worker import messages
from sfumato.server.worker.teaching import SAMPLES, main
from sfumato.server.workers import Hear, HeldWorker

CRASHED = "the process that learned it ended"
STOPPED = "the server was stopped while it learned"


class TeachingWorker(HeldWorker):
    """Carries out the jobs that teach. Their runs are kept in the folder `teach` beside the database, so that
    one that was cut off goes on where it was; of one that is over its samples are left.
    """

    kind = JobKind.TEACH

    def __init__(self, settings: ServerSettings) -> None:
        super().__init__("teacher", settings)
        self.folder = settings.data / "teach"
        self._device = settings.devices[0] if settings.devices else None
        self._inbox: SimpleQueue[messages.Draw | None] = SimpleQueue()
        self._lock = Lock()
        self._process: BaseProcess | None = None
        self._job: str | None = None
        self._dropped: set[str] = set()
        self._retired = False

    @property
    def room(self) -> int:
        return 0 if self.jobs or self.leaving else 1

    def takes(self, job: WaitingJob) -> bool:
        return job.kind is self.kind and bool(self.room)

    def send(self, message: messages.ToWorker) -> None:
        if isinstance(message, messages.Draw):
            self._inbox.put(message)
        elif isinstance(message, messages.Cancel):
            with self._lock:
                self._dropped.add(message.job)
                if self._job == message.job and self._process is not None:
                    self._process.kill()

    def start(self, hear: Hear) -> None:
        """Begin; `hear` is told of what happens, as of any worker."""
        Thread(target=self._run, args=(hear,), name="teacher", daemon=True).start()

    def retire(self) -> None:
        """Teach no more: what is being learned is kept as of its next step, and the process ends."""
        with self._lock:
            self._retired = True
            if self._process is not None:
                self._process.terminate()

    def stop(self) -> None:
        """End the process, whatever it does."""
        self.retire()
        with self._lock:
            process = self._process
        if process is not None:
            process.kill()
            process.join()
        self._inbox.put(None)

    def samples(self, job: str) -> list[Path]:
        """The sheets of samples that a job has drawn, the newest last."""
        found = (self.folder / job).rglob(f"{SAMPLES}/*.webp")
        return sorted(found, key=lambda path: (path.stat().st_mtime_ns, path))

    def tidy(self, known: Callable[[str], bool]) -> None:
        """Remove what is left of jobs that are not `known` any more."""
        for folder in self.folder.iterdir() if self.folder.is_dir() else ():
            if not known(folder.name):
                shutil.rmtree(folder, ignore_errors=True)

    def _run(self, hear: Hear) -> None:
        """In a thread of its own: one job after another."""
        hear(self, messages.Ready())
        while (message := self._inbox.get()) is not None:
            self._teach(message, hear)

    def _teach(self, message: messages.Draw, hear: Hear) -> None:
        folder = self.folder / message.job
        process, connection = self._started(message)
        finished = None if process is None else self._listen(connection, hear)
        if process is not None:
            process.join()
        with self._lock:
            self._process = self._job = None
            dropped = message.job in self._dropped
            self._dropped.discard(message.job)
        if dropped or (finished is not None and finished.error is not None):
            shutil.rmtree(folder, ignore_errors=True)
        if finished is not None:
            hear(self, finished)
        elif not dropped:
            hear(self, messages.Gone(STOPPED if self._retired else CRASHED, crashed=not self._retired))
            hear(self, messages.Ready())

    def _started(self, message: messages.Draw) -> tuple[BaseProcess | None, Connection]:
        """The process that carries out a job, unless that was cancelled or the server stops."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=main,
            args=(theirs, self.folder / message.job, self._device),
            name="sfumato-teacher",
            daemon=True,
        )
        with self._lock:
            if message.job in self._dropped or self._retired:
                return None, ours
            process.start()
            theirs.close()
            self._process, self._job = process, message.job
        with suppress(OSError):  # it is gone already, which who listens sees
            ours.send(message)
        return process, ours

    def _listen(self, connection: Connection, hear: Hear) -> messages.JobFinished | None:
        """Pass on what the process says; how the job ended, if it did."""
        while True:
            try:
                message = connection.recv()
            except (EOFError, OSError):
                return None
            if isinstance(message, messages.JobFinished):
                return message
            hear(self, message)
