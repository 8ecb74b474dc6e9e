"""From the queue to the workers and back: gives them jobs, keeps what they draw.

One thread decides; everything that happens reaches it through one queue.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from threading import Event as Flag
from threading import Thread, Timer
from time import monotonic

from sfumato.errors import OutputError, PictureError
from sfumato.server.events import Events
from sfumato.server.jobs import DrawnPicture, Event, JobKind, JobProgress, JobState, JobView, WaitingJob
from sfumato.server.metrics import ServerMetrics
from sfumato.server.order import PRIORITY
from sfumato.server.pace import Pace
from sfumato.server.questions import Questions
from sfumato.server.settings import ServerSettings
from sfumato.server.store import LEASE_SECONDS, UNAVAILABLE, Store
from sfumato.server.teaching_worker import TeachingWorker
from sfumato.server.worker import messages
from sfumato.server.workers import HeldWorker, Workers

log = logging.getLogger("sfumato.server")

DATABASE_SECONDS = 1.0
"""After which it is tried again to write to a database that could not be written to."""
TICK_SECONDS = 1.0
"""How often a server that shares its database looks at what the others did."""
TIDY_SECONDS = 600.0
LOST = "the server ended while it was drawn"


class Dispatcher:
    """Carries out the jobs of `store` by `workers`, those that teach by `teacher`; tells `events` of it."""

    def __init__(
        self,
        store: Store,
        events: Events,
        settings: ServerSettings,
        workers: Workers,
        teacher: TeachingWorker | None = None,
    ) -> None:
        self.store, self.events, self.settings = store, events, settings
        self.workers, self.teacher = workers, teacher
        self.metrics = ServerMetrics()
        self.pace = Pace()
        self.questions = Questions(workers.answered)
        events.observers.append(self.metrics.see)
        self._inbox: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._workers: list[HeldWorker] = []
        self._progress: dict[str, JobProgress] = {}
        self._previews: dict[str, bytes] = {}
        self._peeked: set[str] = set()
        """Jobs that are watched because somebody once asked for a preview."""
        self._watchers: dict[str, int] = {}
        self._unstored: dict[str, WaitingJob] = {}
        """Jobs that are not stored and wait, the oldest first."""
        self._stopping = False
        self._over = Flag()
        """Nothing is drawn any more, or nobody waits for it."""
        self._ticked = self._living_since = self._tidied = 0.0
        self._thread = Thread(target=self._run, name="dispatcher")

    def start(self) -> None:
        """Take up what a former run left, and begin."""
        self.store.beat()
        for job in self.store.give_up(self.store.lost(), LOST):
            log.info("job %s: %s after a restart", job.id, job.state)
        for each in (self.workers, self.teacher):
            if each is not None:
                each.start(lambda worker, message: self._do(lambda: self._hear(worker, message)))
        self._thread.start()

    def begin_stop(self) -> None:
        """Begin no more jobs. The running ones have `grace_seconds` from now."""
        if not self._stopping:
            self._stopping = True
            self.workers.retire()
            if self.teacher is not None:
                self.teacher.retire()
            self._do(lambda: None)
            timer = Timer(self.settings.grace_seconds, self.hurry)
            timer.daemon = True
            timer.start()

    def hurry(self) -> None:
        """Wait for no running job any longer: they are kept."""
        self._over.set()
        self.events.close()

    @property
    def stopping(self) -> bool:
        """Whether no more jobs are begun."""
        return self._stopping

    def stop(self) -> None:
        """Begin no more jobs, let the running ones finish, and end the workers."""
        self.begin_stop()
        self._over.wait()
        self._inbox.put(None)
        self._thread.join()
        self.workers.stop()
        if self.teacher is not None:
            self.teacher.stop()
        with suppress(*UNAVAILABLE):  # then the next server gives them up
            self.store.give_up(self.store.running(), "the server was stopped while it was drawn")

    def wake(self) -> None:
        """There are new jobs."""
        self._do(self._fill)

    def draw(self, job: WaitingJob) -> None:
        """Draw a job that is not stored. `events` have its pictures, and nothing else has."""
        self._unstored[job.id] = job
        self.events.tell(Event(kind="state", job=job.id, state=job.state, count=job.count, stored=False))
        self.wake()

    def drop(self, job: JobView) -> None:
        """Nobody waits for a job that is not stored any more. Its worker drops it within one evaluation."""
        self._do(lambda: self._drop(job))

    @property
    def unstored(self) -> int:
        """How many jobs that are not stored wait."""
        return len(self._unstored)

    def cancel(self, job: str) -> bool:
        """End a job that is not over; whether it was not. Its worker drops it within one evaluation."""
        if not self.store.end(job, JobState.CANCELLED):
            return False
        self._do(lambda: self._forget(job, tell_worker=True))
        self.events.tell(Event(kind="state", job=job, state=JobState.CANCELLED))
        return True

    def skip(self, job: str) -> None:
        """Leave out the picture of a running job that is being drawn, and go on with its next one."""
        number = self.store.skip(job)
        if number is not None:
            self._do(lambda: self._pass_on(job, messages.Skip(job, number)))

    def abandon(self, job: str) -> None:
        """Nobody waits for a job any more: cancel it soon, unless the server is what ends. Never blocks."""
        if not self._stopping:
            self._do(lambda: self.cancel(job))

    def prioritise(self, priorities: Mapping[str, int], owner: str) -> set[str]:
        """Give jobs of a key other priorities, waiting or running, and tell of it; those not over."""
        states = self.store.prioritise(priorities, owner)
        for job, state in states.items():
            self._do(partial(self._prioritise, job, priorities[job]))
            self.events.tell(Event(kind="state", job=job, state=state, priority=priorities[job]))
        return set(states)

    def watch(self, job: str, on: bool) -> None:
        """Somebody looks at the previews of a job, or no longer does."""
        self._do(lambda: self._watch(job, on))

    def preview(self, job: str) -> bytes | None:
        """The last preview of a running job, a WebP file; asking for one has more of them made."""
        if job in self._progress and job not in self._peeked:
            self._peeked.add(job)
            self.watch(job, True)
        return self._previews.get(job)

    def progress(self, job: str) -> JobProgress | None:
        """How far a running job is."""
        return self._progress.get(job)

    @property
    def ready(self) -> bool:
        """Whether a worker can draw."""
        return any(not worker.leaving for worker in self._of_kind(JobKind.DRAW))

    # -- within the dispatcher's thread

    def _do(self, action: Callable[[], object]) -> None:
        self._inbox.put(action)

    def _run(self) -> None:
        self._insist(self._fill)
        while (action := self._next()) is not None:
            self._insist(action)
            if monotonic() >= self._ticked + TICK_SECONDS:
                self._insist(self._tick)
            if self._stopping and not any(worker.jobs for worker in self._workers):
                break
        self.hurry()

    def _next(self) -> Callable[[], object] | None:
        try:
            return self._inbox.get(timeout=TICK_SECONDS)
        except Empty:
            return self._tick

    def _tick(self) -> None:
        """What has to be done from time to time."""
        now, before = monotonic(), self._ticked
        if self.store.shared:
            self._compare(now, before)
        self._ticked = now
        if now >= self._tidied + TIDY_SECONDS:
            self.store.tidy(self.settings.limits)
            self.store.forget()
            if self.teacher is not None:
                self.teacher.tidy(lambda job: self.store.job(job) is not None)
            self._tidied = now

    def _compare(self, now: float, before: float) -> None:
        """Take up what other servers accepted or lost, and drop what they cancelled."""
        self.store.beat()
        if now > before + LEASE_SECONDS / 2:
            # the database was away: the others have as much time to be heard of again as they had at first
            self._living_since = now
        if now > self._living_since + LEASE_SECONDS:
            self._give_up(self.store.lost(), LOST)
        held = {job.id for worker in self._workers for job in worker.jobs.values() if job.stored}
        running = self.store.running()
        for job in held - running:
            self._forget(job, tell_worker=True)
        self._give_up(running - held, LOST)
        self._fill()

    def _give_up(self, jobs: Iterable[str], reason: str, *, crashed: bool = False) -> None:
        for job in self.store.give_up(jobs, reason, crashed=crashed):
            self._progress.pop(job.id, None)
            self.events.tell(Event(kind="state", job=job.id, state=job.state, error=job.error))

    def _insist(self, action: Callable[[], object]) -> None:
        """Do something; where the database cannot be written, as on a full disk, again until it can be.

        Every action may be begun anew: what it did already is not done twice.
        """
        while True:
            try:
                action()
            except UNAVAILABLE as error:
                log.error("the database cannot be written: %s", getattr(error, "orig", None) or error)
                if not self._over.wait(DATABASE_SECONDS):
                    continue
            except Exception:
                log.exception("the dispatcher failed")
            return

    def _fill(self) -> None:
        """Give waiting jobs to the workers where they begin soonest. Full ones take a job that goes before
        those that they hold.
        """
        self._workers = [worker for worker in self._workers if worker.jobs or not worker.leaving]
        for job in list(self._unstored.values()):
            free = [] if self._stopping else [each for each in self._workers if each.takes(job)]
            if not free:
                break
            del self._unstored[job.id]
            self._give(min(free, key=lambda each: each.burden(job)), job)
            self._tell(job, JobState.RUNNING)
        for kind in JobKind:
            self._fill_kind(kind)

    def _fill_kind(self, kind: JobKind) -> None:
        """Give waiting jobs of a kind to the workers that carry them out."""
        while (workers := self._of_kind(kind)) and not self._stopping:
            asked = max(sum(worker.room for worker in workers), 1)
            waiting = self.store.waiting(asked, kind)
            placed = self._placed(waiting)
            if not placed:
                return
            begun: set[str] = set()
            try:
                begun = self.store.begin([*placed])
            finally:
                for name, worker in placed.items():
                    if name not in begun:
                        del worker.jobs[name]
            for job in waiting:
                if job.id in begun:
                    self._give(placed[job.id], job)
                    self._tell(job, JobState.RUNNING)
            if not begun or len(placed) < len(waiting) or len(waiting) < asked:
                return

    def _of_kind(self, kind: JobKind) -> list[HeldWorker]:
        return [worker for worker in self._workers if worker.kind is kind]

    def _placed(self, waiting: Iterable[WaitingJob]) -> dict[str, HeldWorker]:
        """By the names of the jobs, the workers that hold them from now on: where they begin soonest, as long
        as there is room.
        """
        placed: dict[str, HeldWorker] = {}
        for job in waiting:
            free = [each for each in self._workers if each.takes(job)]
            if not free:
                break
            placed[job.id] = min(free, key=lambda each: each.burden(job))
            placed[job.id].jobs[job.id] = job
        return placed

    def _tell(self, job: JobView, state: JobState, error: str | None = None) -> None:
        self.events.tell(Event(kind="state", job=job.id, state=state, error=error, stored=job.stored))

    def _give(self, worker: HeldWorker, job: WaitingJob) -> None:
        worker.jobs[job.id] = job
        try:
            request = self.store.whole(job.request)
        except PictureError as error:
            failed = messages.JobFinished(job.id, str(error))
            self._do(lambda: self._hear(worker, failed))
            return
        done = frozenset((*job.skipped, *(picture.number for picture in job.pictures)))
        worker.send(messages.Draw(job.id, request, job.priority, done, job.waited))
        if self._watchers.get(job.id):
            worker.send(messages.Watch(job.id, True))

    def _welcome(self, fresh: HeldWorker) -> None:
        """A worker can draw: it gets its part of what others hold and have not begun, and then what waits."""
        if fresh not in self._workers:
            self._workers.append(fresh)
        while True:
            fullest = max(self._of_kind(fresh.kind), key=lambda each: len(each.jobs))
            movable = [job for job in fullest.jobs if job not in self._progress]
            if not movable or len(fullest.jobs) <= len(fresh.jobs) + 1:
                break
            job = fullest.jobs.pop(movable[-1])
            fullest.send(messages.Cancel(job.id))
            self._give(fresh, job)
        self._fill()

    def _part(self, worker: HeldWorker, message: messages.Gone) -> None:
        """A worker ended: its jobs wait again or fail."""
        if worker in self._workers:
            self._workers.remove(worker)
            log.error("%s is gone, with %d jobs: %s", worker.name, len(worker.jobs), message.reason)
        self._give_up(worker.jobs, message.reason, crashed=message.crashed)
        for job in worker.jobs.values():
            if not job.stored:
                self._progress.pop(job.id, None)
                self._tell(job, JobState.FAILED, message.reason)
        worker.jobs.clear()
        if message.crashed:
            self.metrics.see_crash()
        self._fill()

    def _hear(self, worker: HeldWorker, message: messages.OfWorker) -> None:
        if isinstance(message, messages.Ready):
            self._welcome(worker)
        elif isinstance(message, messages.Leaving):
            worker.leaving = True
        elif isinstance(message, messages.Gone):
            self._part(worker, message)
        elif isinstance(message, messages.Loaded):
            worker.models = message.models
        elif isinstance(message, messages.BatchEvaluated):
            self.metrics.see_batch(message.points, message.seconds)
            self.pace.see(message.model, message.pixels, message.seconds)
        elif isinstance(message, messages.Loading):
            log.info("job %s: loading %s", message.job, message.model)
        elif (job := worker.jobs.get(message.job)) is None:
            return  # it was cancelled while the message was on its way
        elif isinstance(message, messages.JobEvaluated):
            self.store.evaluated()
            progress = JobProgress(
                number=message.number,
                done=message.done,
                total=message.total,
                layer=message.layer,
                preview=message.preview,
            )
            self._see_progress(job, progress)
        elif isinstance(message, messages.JobTrained):
            progress = JobProgress(
                number=0,
                done=message.step,
                total=message.steps,
                loss=message.loss,
                seconds_left=message.seconds_left,
                doing=message.doing,
                preview=message.sample,
            )
            self._see_progress(job, progress)
        elif isinstance(message, messages.JobFinished):
            self._end(job, message)
        elif job.stored:
            self._keep(message)
        else:
            drawn = DrawnPicture(number=message.number, content=message.content, **message.facts)
            self.events.tell(Event(kind="picture", job=job.id, drawn=drawn, stored=False))

    def _see_progress(self, job: JobView, progress: JobProgress) -> None:
        self._progress[job.id] = progress
        if progress.preview is not None:
            self._previews[job.id] = progress.preview
        self.events.tell(Event(kind="progress", job=job.id, progress=progress, stored=job.stored))

    def _keep(self, message: messages.PictureDrawn) -> None:
        try:
            picture = self.store.add_picture(message.job, message.number, message.content, message.facts)
        except UNAVAILABLE:
            raise
        except Exception as error:  # a full disk fails the job, not the server
            known = isinstance(error, OutputError)
            log.error("job %s: %s", message.job, error, exc_info=None if known else error)
            # the path is the server's own affair
            text = f"the picture cannot be kept: {str(error).rpartition(': ')[2]}"
            ended = self.store.end(message.job, JobState.FAILED, text, drawn=True)
            self._forget(message.job, tell_worker=True)
            if ended:
                self.events.tell(Event(kind="state", job=message.job, state=JobState.FAILED, error=text))
            return
        if picture is not None:
            self.events.tell(Event(kind="picture", job=message.job, picture=picture))

    def _end(self, job: JobView, message: messages.JobFinished) -> None:
        state = JobState.DONE if message.error is None else JobState.FAILED
        if message.details:
            log.error("job %s failed", job.id, extra={"facts": {"traceback": message.details}})
        ended = not job.stored or self.store.end(job.id, state, message.error, drawn=True)
        self._forget(job.id)
        if ended:
            self._tell(job, state, message.error)
        limits = self.settings.limits
        if job.stored and (limits.disk is not None or limits.disk_per_key is not None):
            self.store.tidy(limits)
        self._fill()

    def _drop(self, job: JobView) -> None:
        held = any(job.id in worker.jobs for worker in self._workers)
        if self._unstored.pop(job.id, None) is not None or held:
            self._forget(job.id, tell_worker=True)
            self._tell(job, JobState.CANCELLED)

    def _forget(self, job: str, tell_worker: bool = False) -> None:
        self._progress.pop(job, None)
        self._previews.pop(job, None)
        if job in self._peeked:
            self._peeked.discard(job)
            self._watch(job, False)
        for worker in self._workers:
            if worker.jobs.pop(job, None) is not None and tell_worker:
                worker.send(messages.Cancel(job))
        self._fill()

    def _prioritise(self, job: str, priority: int) -> None:
        for worker in self._workers:
            if held := worker.jobs.get(job):
                turn = held.turn + PRIORITY * (held.priority - priority)
                worker.jobs[job] = held.model_copy(update={"priority": priority, "turn": turn})
        self._pass_on(job, messages.Prioritise(job, priority))

    def _watch(self, job: str, on: bool) -> None:
        count = self._watchers.get(job, 0) + (1 if on else -1)
        self._watchers[job] = count
        if not count:
            del self._watchers[job]
        self._pass_on(job, messages.Watch(job, count > 0))

    def _pass_on(self, job: str, message: messages.ToWorker) -> None:
        """Send a message to the worker that draws a job, if one does."""
        for worker in self._workers:
            if job in worker.jobs:
                worker.send(message)
