"""What was accepted ends exactly once, whatever dies in between."""

import os
import signal
import socket
import time
from contextlib import suppress

SLOW = {"prompt": "a red apple", "steps": 100, "sampler": "euler", "width": 64, "height": 64, "guidance": 1}


def running(server, job):
    """Wait until a job is under way."""
    with server.http.stream("GET", f"/api/v1/jobs/{job['id']}/events") as events:
        for line in events.iter_lines():
            if '"progress"' in line:
                return


def test_a_job_whose_worker_is_killed_is_drawn_again(start):
    server = start()
    server.wait_ready()
    job = server.submit(**SLOW)
    running(server, job)
    os.kill(server.workers()[0], signal.SIGKILL)
    done = server.wait(job["id"])
    assert (done["state"], done["crashes"], len(done["pictures"])) == ("done", 1, 1)


def test_a_job_that_may_not_be_drawn_again_fails_with_its_worker(start):
    server = start()
    server.wait_ready()
    job = server.submit(**SLOW, on_crash="fail")
    running(server, job)
    os.kill(server.workers()[0], signal.SIGKILL)
    done = server.wait(job["id"])
    assert (done["state"], done["error"]) == ("failed", "the process that drew it ended")


def test_jobs_of_a_killed_server_end_once_after_a_restart(start):
    server = start()
    server.wait_ready()
    jobs = [server.submit(**{**SLOW, "seed": seed}) for seed in range(3)]
    running(server, jobs[0])
    server.kill()
    server = start()
    done = [server.wait(job["id"]) for job in jobs]
    assert [each["state"] for each in done] == ["done"] * 3
    assert [len(each["pictures"]) for each in done] == [1] * 3
    pictures = server.http.get("/api/v1/pictures").json()
    assert sorted(each["seed"] for each in pictures) == [0, 1, 2]


def test_a_stop_lets_no_worker_live_and_keeps_what_was_begun(start):
    server = start(env={"SFUMATO_SERVE_GRACE_SECONDS": "0"})
    server.wait_ready()
    job = server.submit(**SLOW)
    running(server, job)
    workers = server.workers()
    server.stop()
    assert server.process.returncode == 0
    assert not [pid for pid in workers if os.path.exists(f"/proc/{pid}")]
    server = start()
    assert server.job(job["id"])["state"] in ("queued", "running")


def test_sockets_that_drip_are_closed_while_others_are_answered(start):
    server = start(env={"SFUMATO_SERVE_RECEIVE_SECONDS": "1"})
    address = ("127.0.0.1", server.port)
    silent = [socket.create_connection(address) for _ in range(20)]
    dripping = [socket.create_connection(address) for _ in range(20)]
    for each in [*silent, *dripping]:
        each.settimeout(60)
    closed = False
    while not closed:
        assert server.http.get("/healthz").status_code == 200
        for each in dripping:
            try:
                each.sendall(b"X")
            except OSError:
                closed = True
        time.sleep(0.1)
    for each in silent:
        with suppress(ConnectionResetError):
            assert each.recv(100) == b""
        each.close()
    for each in dripping:
        each.close()
