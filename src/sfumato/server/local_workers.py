"""Workers that are processes of this machine, each connected by a pipe."""

import logging
import multiprocessing
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from threading import Event as Flag
from threading import Lock, Thread

from sfumato.options import DeviceOptions
from sfumato.server.questions import QuestionPipe
from sfumato.server.settings import MEBI, ServerSettings
from sfumato.server.worker import messages
from sfumato.server.worker.answering import Answer, Question
from sfumato.server.worker.process import main
from sfumato.server.workers import CRASHED, Hear, HeldWorker, Workers

log = logging.getLogger("sfumato.server")

MOST_SECONDS_BETWEEN_STARTS = 30.0


class LocalWorker(HeldWorker):
    """A process of this machine, told by a thread of its own."""

    def __init__(
        self, number: int, settings: ServerSettings, process: BaseProcess, connection: Connection
    ) -> None:
        super().__init__(f"worker {number}", settings)
        self.process, self.connection = process, connection
        self._unsent: SimpleQueue[messages.ToWorker | None] = SimpleQueue()
        Thread(target=self._send_all, name=f"to {self.name}", daemon=True).start()

    def send(self, message: messages.ToWorker) -> None:
        # not here: a worker that loads a model does not read, and large pictures fill the pipe
        self._unsent.put(message)

    def end_sending(self) -> None:
        self._unsent.put(None)

    def _send_all(self) -> None:
        for message in iter(self._unsent.get, None):
            try:
                self.connection.send(message)
            except OSError:
                return  # it is gone; who listens to it will say so


class LocalWorkers(Workers):
    """As many processes as the settings say, each of which is replaced when it ends."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self._running: dict[int, LocalWorker] = {}
        self._lock = Lock()
        self._questions = QuestionPipe()
        self._retired, self._stopped = Flag(), Flag()

    def start(self, hear: Hear) -> None:
        for number in range(self.settings.workers):
            Thread(target=self._supervise, args=(number, hear), name=f"worker-{number}", daemon=True).start()

    def answered(self, question: Question, seconds: float) -> Answer | None:
        return self._questions.answered(question, seconds)

    def retire(self) -> None:
        self._retired.set()

    def stop(self) -> None:
        self.retire()
        with self._lock:
            self._stopped.set()
        for worker in self._running.values():
            worker.process.kill()
            worker.process.join()

    def _supervise(self, number: int, hear: Hear) -> None:
        """In a thread of its own: one worker after another, as none ends by itself."""
        failures = 0
        while (worker := self._started(number)) is not None:
            ready = self._listen(worker, hear)
            worker.process.join()
            worker.end_sending()
            if self._stopped.is_set():
                return
            log.error("%s ended with status %s", worker.name, worker.process.exitcode)
            hear(worker, messages.Gone(CRASHED, crashed=True))
            # one that ends before it is ready is not started again and again
            failures = 0 if ready else failures + 1
            if self._retired.wait(min(2.0**failures, MOST_SECONDS_BETWEEN_STARTS) if failures else 0):
                return

    def _listen(self, worker: LocalWorker, hear: Hear) -> bool:
        """Pass on what a worker says until it is gone; whether it was ready."""
        ready = False
        while True:
            try:
                message = worker.connection.recv()
            except (EOFError, OSError):
                return ready
            ready = ready or isinstance(message, messages.Ready)
            hear(worker, message)

    def _started(self, number: int) -> LocalWorker | None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        asking, answering = context.Pipe()
        devices, memory = self.settings.devices, self.settings.memory
        device = DeviceOptions(device=devices[number % len(devices)] if devices else None)
        budget = None if memory is None else memory * MEBI
        process = context.Process(
            target=main,
            args=(
                theirs,
                answering,
                self.settings.models[0],
                device,
                budget,
                self.settings.rows,
                self.settings.safety,
            ),
            name=f"sfumato-worker-{number}",
            daemon=True,
        )
        with self._lock:
            if self._stopped.is_set():
                return None
            process.start()
            theirs.close()
            answering.close()
            self._questions.connect(asking)
            self._running[number] = LocalWorker(number, self.settings, process, ours)
        return self._running[number]
