"""A server that is told to stop: running jobs finish or are kept, and nothing is waited for twice."""

import os
import signal
import socket
import threading
from contextlib import closing

from test_durability import SLOW, running

from sfumato.server.store import Store

LONG = {**SLOW, "count": 40}
PATIENT = {"SFUMATO_SERVE_GRACE_SECONDS": "600"}


def terminate(server):
    server.process.send_signal(signal.SIGTERM)


def followed(server, job):
    """Follow a job from a thread; the lines that came, when the stream has ended."""
    lines, begun = [], threading.Event()

    def follow():
        with server.http.stream("GET", f"/api/v1/jobs/{job['id']}/events") as events:
            for line in events.iter_lines():
                lines.append(line)
                begun.set()

    thread = threading.Thread(target=follow)
    thread.start()
    begun.wait()
    return thread, lines


def kept(start, job):
    """What the folder of a server that has ended has of a job; test_durability.py starts one again."""
    with closing(Store(start.data)) as store:
        return store.job(job["id"]).state


def test_a_running_job_finishes_before_the_server_ends(start):
    server = start(env=PATIENT)
    server.wait_ready()
    job = server.submit(**{**SLOW, "steps": 60})
    running(server, job)
    thread, lines = followed(server, job)
    terminate(server)
    thread.join()
    assert server.process.wait() == 0
    assert '"done"' in " ".join(lines)


def test_who_follows_a_job_that_waits_is_let_go_when_the_running_ones_are_done(start):
    server = start(env=PATIENT)
    job = server.submit(**SLOW)  # no worker is ready yet
    thread, lines = followed(server, job)
    terminate(server)
    thread.join()
    assert server.process.wait() == 0
    assert '"done"' not in " ".join(lines)


def test_a_second_signal_ends_the_server_and_keeps_its_jobs(start):
    server = start(env=PATIENT)
    server.wait_ready()
    job = server.submit(**LONG)
    running(server, job)
    workers = server.workers()
    terminate(server)
    while socket.socket().connect_ex(("127.0.0.1", server.port)) == 0:
        pass  # until the first one was heard
    terminate(server)
    assert server.process.wait() == 0
    assert not [pid for pid in workers if os.path.exists(f"/proc/{pid}")]
    assert kept(start, job) in ("queued", "running")


def test_a_client_that_waits_for_its_picture_is_told_that_its_job_is_kept(start):
    server = start(env={"SFUMATO_SERVE_GRACE_SECONDS": "1"})
    server.wait_ready()
    answers = []

    def ask():
        body = {"prompt": "a cat", **{key: LONG[key] for key in ("steps", "sampler", "guidance")}, "n": 10}
        answers.append(server.http.post("/v1/images/generations", json=body))

    thread = threading.Thread(target=ask)
    thread.start()
    while not (jobs := server.jobs()):
        pass
    running(server, jobs[0])
    terminate(server)
    thread.join()
    assert answers[0].status_code == 503
    assert jobs[0]["id"] in answers[0].json()["error"]["message"]
    assert server.process.wait() == 0
    assert kept(start, jobs[0]) in ("queued", "running")
