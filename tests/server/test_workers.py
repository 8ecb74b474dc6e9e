"""Which worker draws a job: the dispatcher with workers that only note what they are told."""

import time
from multiprocessing import Pipe

import pytest
from running import TINY

from sfumato.server.dispatcher import Dispatcher
from sfumato.server.events import Events
from sfumato.server.jobs import JobState
from sfumato.server.limits import Limits
from sfumato.server.local_workers import LocalWorker
from sfumato.server.settings import ServerSettings
from sfumato.server.store import NewJob, Store
from sfumato.server.worker import messages
from sfumato.server.workers import HeldWorker, Workers


class NotedWorker(HeldWorker):
    """Notes the jobs that it was told to draw, and to drop."""

    def __init__(self, name, settings):
        super().__init__(name, settings)
        self.sent, self.drawn, self.dropped = [], [], []

    def send(self, message):
        self.sent.append(message)
        if isinstance(message, messages.Draw):
            self.drawn.append(message.job)
        elif isinstance(message, messages.Cancel):
            self.dropped.append(message.job)


class NotedWorkers(Workers):
    def start(self, hear):
        self.hear = hear

    def answered(self, question, seconds):
        return None

    def retire(self):
        pass

    def stop(self):
        pass


class Drawing:
    """A dispatcher, what its workers say, and the jobs that are submitted to it."""

    def __init__(self, folder):
        self.settings = ServerSettings(data=folder, models=("one", "two"), grace_seconds=0)
        self.store, self.workers = Store(folder), NotedWorkers()
        self.dispatcher = Dispatcher(self.store, Events(), self.settings, self.workers)
        self.dispatcher.start()

    def worker(self, name):
        found = NotedWorker(name, self.settings)
        self.say(found, messages.Ready())
        return found

    def say(self, worker, message):
        self.workers.hear(worker, message)
        self.settle()

    def submit(self, model="one", **options):
        new = NewJob({**TINY, "model": model}, **options)
        job, _ = self.store.submit(new, owner="me", limits=Limits(1000))
        self.dispatcher.wake()
        self.settle()
        return job.id

    def settle(self):
        """Everything that the dispatcher was told has been done."""
        done = []
        self.dispatcher._do(lambda: done.append(True))
        while not done:
            time.sleep(0.001)

    def evaluated(self, worker, job):
        self.say(worker, messages.JobEvaluated(job, 0, 1, 9))


@pytest.fixture
def drawing(tmp_path):
    found = Drawing(tmp_path)
    yield found
    found.dispatcher.stop()
    found.store.close()


def test_jobs_go_to_the_worker_that_holds_the_fewest(drawing):
    workers = [drawing.worker("a"), drawing.worker("b")]
    for _ in range(4):
        drawing.submit()
    assert [len(each.drawn) for each in workers] == [2, 2]


def test_a_job_goes_to_the_worker_that_has_its_model_until_that_one_has_too_many(drawing):
    first, second = drawing.worker("a"), drawing.worker("b")
    drawing.say(second, messages.Loaded(frozenset({"one", "two"})))
    jobs = [drawing.submit("two") for _ in range(6)]
    assert second.drawn == [*jobs[:4], jobs[5]]
    assert first.drawn == [jobs[4]]


def test_a_worker_that_starts_takes_its_part_of_the_jobs_that_have_not_begun(drawing):
    first = drawing.worker("a")
    jobs = [drawing.submit() for _ in range(5)]
    drawing.evaluated(first, jobs[4])
    second = drawing.worker("b")
    assert second.drawn == first.dropped == [jobs[3], jobs[2]]
    drawing.say(first, messages.JobFinished(jobs[3]))
    assert drawing.store.job(jobs[3]).state is JobState.RUNNING
    drawing.say(second, messages.JobFinished(jobs[3]))
    assert drawing.store.job(jobs[3]).state is JobState.DONE


def test_jobs_that_have_begun_stay_where_they_are_drawn(drawing):
    first = drawing.worker("a")
    for job in [drawing.submit() for _ in range(3)]:
        drawing.evaluated(first, job)
    assert drawing.worker("b").drawn == []


def test_a_worker_that_leaves_takes_no_more_jobs_and_ends_those_that_it_has(drawing):
    leaving = drawing.worker("a")
    job = drawing.submit()
    drawing.say(leaving, messages.Leaving())
    other = drawing.submit()
    assert not drawing.dispatcher.ready
    assert (leaving.drawn, drawing.store.job(other).state) == ([job], JobState.QUEUED)
    drawing.say(leaving, messages.JobFinished(job))
    assert drawing.store.job(job).state is JobState.DONE


def test_jobs_of_a_lost_machine_are_drawn_elsewhere_and_those_of_a_crash_alone(drawing):
    lost, crashed, last = drawing.worker("a"), drawing.worker("b"), drawing.worker("c")
    jobs = [drawing.submit() for _ in range(3)]
    drawing.say(lost, messages.Gone("lost", crashed=False))
    assert (drawing.store.job(jobs[0]).crashes, jobs[0] in crashed.drawn) == (0, True)
    drawing.say(crashed, messages.Gone("it crashed", crashed=True))
    assert {drawing.store.job(job).crashes for job in jobs[:2]} == {1}
    assert last.drawn == [jobs[2]]
    drawing.say(last, messages.JobFinished(jobs[2]))
    assert last.drawn == [jobs[2], jobs[0]]


def test_a_job_that_is_drawn_alone_does_not_keep_another_worker_from_jobs(drawing):
    crashed = drawing.worker("a")
    job = drawing.submit()
    drawing.say(crashed, messages.Gone("it crashed", crashed=True))
    alone, other = drawing.worker("b"), drawing.worker("c")
    jobs = [drawing.submit() for _ in range(3)]
    assert (alone.drawn, other.drawn) == ([job], jobs)


def test_a_picture_that_is_skipped_is_not_drawn_by_the_next_worker_either(drawing):
    crashed = drawing.worker("a")
    job = drawing.submit(count=3)
    drawing.dispatcher.skip(job)
    drawing.settle()
    drawing.say(crashed, messages.Gone("it crashed", crashed=True))
    other = drawing.worker("b")
    assert messages.Skip(job, 0) in crashed.sent
    assert [each.done for each in other.sent if isinstance(each, messages.Draw)] == [{0}]


def test_jobs_that_wait_are_begun_in_one_transaction(drawing, monkeypatch):
    begun = []
    begin = drawing.store.begin
    monkeypatch.setattr(drawing.store, "begin", lambda jobs: begun.append(jobs) or begin(jobs))
    jobs = [drawing.submit() for _ in range(60)]
    assert drawing.worker("a").drawn == jobs
    assert begun == [jobs]


def test_what_a_worker_says_that_is_gone_changes_nothing(drawing):
    gone = drawing.worker("a")
    job = drawing.submit()
    drawing.say(gone, messages.Gone("lost", crashed=False))
    drawing.say(gone, messages.JobFinished(job))
    assert drawing.store.job(job).state is JobState.QUEUED


def test_telling_a_worker_that_does_not_read_keeps_nobody_waiting():
    ours, theirs = Pipe()
    loading = LocalWorker(0, ServerSettings(), None, ours)
    large = [messages.Skip("one", 0), "x" * (4 << 20)]
    for message in large:
        loading.send(message)  # would wait for ever where it wrote itself
    assert [theirs.recv() for _ in large] == large
    loading.end_sending()


def test_how_far_a_training_is_is_what_its_worker_says(drawing):
    worker = drawing.worker("a")
    job = drawing.submit()
    said = messages.JobTrained(job, 30, 80, 0.25, 12.5, "training", b"a sample")
    drawing.say(worker, said)
    found = drawing.dispatcher.progress(job)
    assert (found.done, found.total, found.loss) == (30, 80, 0.25)
    assert (found.seconds_left, found.doing) == (12.5, "training")
    assert drawing.dispatcher.preview(job) == b"a sample"


def test_a_job_that_is_cancelled_is_dropped_and_told_and_another_takes_its_place(drawing, monkeypatch):
    told = []
    monkeypatch.setattr(drawing.dispatcher.events, "tell", told.append)
    worker = drawing.worker("a")
    job = drawing.submit()
    drawing.evaluated(worker, job)
    told.clear()
    assert drawing.dispatcher.cancel(job)
    drawing.settle()
    assert [(each.kind, each.job, each.state) for each in told] == [("state", job, JobState.CANCELLED)]
    assert drawing.store.job(job).state is JobState.CANCELLED
    assert worker.dropped == [job]
    assert drawing.dispatcher.progress(job) is None
    assert not drawing.dispatcher.cancel(job)


def test_why_a_job_failed_is_told_to_its_owner_and_where_to_the_log(drawing, caplog):
    worker = drawing.worker("a")
    job = drawing.submit()
    drawing.say(worker, messages.JobFinished(job, "out of memory", details="Traceback: in conv2d"))
    assert (drawing.store.job(job).state, drawing.store.job(job).error) == (JobState.FAILED, "out of memory")
    (logged,) = (each for each in caplog.records if each.levelname == "ERROR")
    assert logged.getMessage() == f"job {job} failed"
    assert logged.facts == {"traceback": "Traceback: in conv2d"}
