"""A server as a user starts one, and the parts of one in this process."""

import os
import signal
import subprocess
import sys
import time

import httpx2
import pytest


class RunningServer:
    """`sfumato serve` in a process of its own."""

    def __init__(self, data, *options, env=None):
        self.data = data
        command = [sys.executable, "-m", "sfumato", "serve", "--port", "0", "--data", str(data), *options]
        self.log = open(data.parent / f"{data.name}.log", "ab")  # noqa: SIM115
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
        line = self.process.stdout.readline()
        assert line.startswith("serving at "), (line, self.read_log())
        self.url = line.removeprefix("serving at ").strip()
        self.port = int(self.url.rpartition(":")[2])
        self.http = httpx2.Client(base_url=self.url, timeout=300)

    def read_log(self):
        return (self.data.parent / f"{self.data.name}.log").read_text()

    def wait_ready(self):
        while self.http.get("/readyz").status_code != 200:
            assert self.process.poll() is None, self.read_log()
            time.sleep(0.2)

    def submit(self, headers=None, **fields):
        options = {name: fields.pop(name) for name in ("priority", "on_crash") if name in fields}
        answer = self.http.post("/api/v1/jobs", json={"request": fields, **options}, headers=headers)
        assert answer.status_code == 202, answer.text
        return answer.json()

    def job(self, identifier):
        return self.http.get(f"/api/v1/jobs/{identifier}").json()

    def wait(self, identifier, *states):
        while (job := self.job(identifier))["state"] not in (states or ("done", "failed", "cancelled")):
            time.sleep(0.05)
        return job

    def workers(self):
        """Process ids of the processes that draw."""
        import psutil

        children = psutil.Process(self.process.pid).children(recursive=True)
        return [each.pid for each in children if "spawn_main" in " ".join(each.cmdline())]

    def kill(self):
        """As by a power cut: the server and its workers at once."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait()
        self.http.close()
        self.process.stdout.close()
        self.log.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A server with the embedded model."""
    found = RunningServer(tmp_path_factory.mktemp("server") / "data")
    found.wait_ready()
    yield found
    found.stop()


@pytest.fixture
def start(tmp_path):
    """Starts servers that keep their jobs in one folder, one after another."""
    started = []

    def begin(*options, **settings):
        started.append(RunningServer(tmp_path / "data", *options, **settings))
        return started[-1]

    yield begin
    for each in started:
        each.stop()
