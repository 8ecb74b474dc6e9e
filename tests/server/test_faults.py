"""What fails beneath the server: the disk, the database."""

import errno
import os
import sqlite3

import pytest
from running import TINY
from sqlalchemy.exc import OperationalError

from sfumato.server import dispatcher as dispatching
from sfumato.server.admission import admitted
from sfumato.server.dispatcher import Dispatcher
from sfumato.server.events import Events
from sfumato.server.jobs import ENDED, JobState
from sfumato.server.limits import Limits
from sfumato.server.local_workers import LocalWorkers
from sfumato.server.settings import ServerSettings
from sfumato.server.store import NewJob, Store

FULL = OperationalError("", {}, sqlite3.OperationalError("database or disk is full"))


@pytest.fixture
def drawing(tmp_path, monkeypatch):
    """A store, and a function that submits a job to it and has it drawn to its end."""
    monkeypatch.setattr(dispatching, "DATABASE_SECONDS", 0.01)
    settings = ServerSettings(data=tmp_path)
    store = Store(tmp_path)
    dispatcher = Dispatcher(store, Events(), settings, LocalWorkers(settings))
    dispatcher.start()

    def draw(**fields):
        request, count = admitted({**TINY, **fields}, settings)
        job, _ = store.submit(NewJob(request.model_dump(mode="json"), count), owner="me", limits=Limits(10))
        dispatcher.wake()
        while (view := store.job(job.id)).state not in ENDED:
            pass
        return view

    yield store, draw
    dispatcher.stop()
    store.close()


def failing(monkeypatch, store, name, times, error):
    """Have a method fail the first `times` it is called."""
    method, left = getattr(store, name), [error] * times

    def call(*args, **kwargs):
        if left:
            raise left.pop()
        return method(*args, **kwargs)

    monkeypatch.setattr(store, name, call)


def test_jobs_end_when_the_database_can_be_written_again(drawing, monkeypatch):
    store, draw = drawing
    draw()
    for name in ("waiting", "begin", "end"):
        failing(monkeypatch, store, name, 3, FULL)
    done = draw(count=2)
    assert (done.state, len(done.pictures)) == (JobState.DONE, 2)


def test_a_full_disk_fails_the_job_whose_picture_is_not_kept_and_no_other(drawing, monkeypatch):
    store, draw = drawing
    real = os.fsync

    def full(descriptor):
        if os.readlink(f"/proc/self/fd/{descriptor}").startswith(str(store.files(None).folder)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        failed = draw()
    assert failed.state is JobState.FAILED
    assert failed.error == "the picture cannot be kept: no space is left on the device"
    assert not [path for path in store.files(None).folder.rglob("*") if path.is_file()]
    assert draw().state is JobState.DONE


def test_a_picture_that_cannot_be_kept_for_a_reason_unforeseen_fails_its_job(drawing, monkeypatch):
    store, draw = drawing
    failing(monkeypatch, store.files(None), "add", 1, ValueError("no picture"))
    failed = draw()
    assert (failed.state, failed.error) == (JobState.FAILED, "the picture cannot be kept: no picture")
    assert draw().state is JobState.DONE
