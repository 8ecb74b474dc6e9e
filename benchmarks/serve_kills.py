"""Kill a server and its workers again and again under submissions, and see that every accepted job ends once.

    python benchmarks/serve_kills.py [50] [--seed 0] [--write docs/serving.md]

The real `sfumato serve`, one folder throughout. Each round submits jobs of one to three pictures, some with
an idempotency key that is submitted again after the kill, cancels some, and at a random moment ends by
SIGKILL either the server with its workers, as a power cut does, or a worker alone. A job fails only if it
said so (`on_crash`) or its worker was killed three times; every other one that was not cancelled must be
done.
"""

import argparse
import os
import random
import signal
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx2
from measuring import LOAD, Table, load, machine, say
from running import ENDED, TINY, RunningServer


class Submitting:
    """Submits jobs of all kinds, and knows what became of each submission."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.accepted: dict[str, dict[str, Any]] = {}
        self.open_keys: dict[str, dict[str, Any]] = {}
        """Submissions with a key whose answer never came."""
        self.again = 0
        self.count = 0

    def submit(self, server: RunningServer) -> None:
        """One job; sometimes one is cancelled at once."""
        self.count += 1
        body = {
            "request": {
                **TINY,
                "seed": 1000 * self.count,
                "steps": self.chance.choice((1, 4, 20)),
                "count": self.chance.randint(1, 3),
            },
            "on_crash": "fail" if self.chance.random() < 0.2 else "retry",
        }
        key = f"key-{self.count}" if self.chance.random() < 0.5 else None
        if key is not None:
            self.open_keys[key] = body
        job = self._post(server, body, key)
        if self.chance.random() < 0.1:
            server.http.delete(f"/api/v1/jobs/{job['id']}").raise_for_status()

    def submit_again(self, server: RunningServer) -> None:
        """What was submitted with a key and not answered; and one more time what was."""
        for key, body in list(self.open_keys.items()):
            first = self._post(server, body, key)
            assert self._post(server, body, key)["id"] == first["id"]
            self.again += 1

    def _post(self, server: RunningServer, body: dict[str, Any], key: str | None) -> dict[str, Any]:
        headers = {} if key is None else {"idempotency-key": key}
        answer = server.http.post("/api/v1/jobs", json=body, headers=headers)
        answer.raise_for_status()
        job = answer.json()
        self.accepted[job["id"]] = job
        if key is not None:
            self.open_keys.pop(key, None)
        return job


def faults(server: RunningServer, submitting: Submitting) -> list[str]:
    """What is wrong with the jobs and the files, if anything."""
    found = []
    jobs = {job["id"]: job for job in server.jobs()}
    for identifier in submitting.accepted:
        if identifier not in jobs:
            found.append(f"{identifier} was accepted and is lost")
    seeds = Counter(job["request"]["seed"] for job in jobs.values())
    found += [f"the request of seed {seed} is {count} jobs" for seed, count in seeds.items() if count > 1]
    for job in jobs.values():
        numbers = [each["number"] for each in job["pictures"]]
        whole = numbers == list(range(job["count"]))
        may_fail = job["on_crash"] == "fail" or job["crashes"] >= 3
        if len(set(numbers)) != len(numbers) or job["state"] not in ENDED:
            found.append(f"{job['id']} is {job['state']} with the pictures {numbers}")
        elif job["state"] == "done" and not whole:
            found.append(f"{job['id']} is done with {len(numbers)} pictures of {job['count']}")
        elif job["state"] == "failed" and not may_fail:
            found.append(f"{job['id']} failed: {job['error']}")
        for each in job["pictures"]:
            content = server.http.get(f"/api/v1/pictures/{each['id']}/file").content
            if len(content) != each["bytes"]:
                found.append(f"{each['id']} is a file of {len(content)} bytes, not {each['bytes']}")
    kept = {each["sha256"] for job in jobs.values() for each in job["pictures"]}
    for path in (server.data / "pictures").rglob("*"):
        if path.is_file() and path.stem not in kept:
            found.append(f"left over: {path.relative_to(server.data)}")
    return found


def kill(server: RunningServer, whole: bool) -> str:
    """End the server and its workers, or a worker alone; what that was."""
    workers = server.workers()
    if whole or not workers:
        server.kill()
        return "server"
    os.kill(workers[0], signal.SIGKILL)
    return "worker"


def round_of(server: RunningServer, submitting: Submitting, pause: float, whole: bool) -> str:
    """Submit until something is killed after `pause` seconds, and a little longer."""
    done: list[str] = []
    timer = threading.Timer(pause, lambda: done.append(kill(server, whole)))
    timer.start()
    try:
        while not done:
            submitting.submit(server)
            time.sleep(submitting.chance.uniform(0, 0.2))
    except httpx2.HTTPError:
        timer.join()  # the server went in the middle of an answer
    if not done:
        raise SystemExit(f"the server refused:\n{server.read_log()[-2000:]}")
    return done[0]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kills", type=int, nargs="?", default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", type=Path, help="the page to write the table into")
    options = parser.parse_args()
    submitting, killed = Submitting(options.seed), Counter()
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        server = RunningServer(data)
        try:
            server.wait_ready()
            for number in range(options.kills):
                phase = chance.random()
                if phase < 0.8:
                    server.wait_ready()  # the others are killed while their worker starts
                what = round_of(server, submitting, chance.uniform(0, 3), chance.random() < 0.5)
                killed[what] += 1
                say(
                    f"kill {number + 1} of {options.kills}: {what}, {len(submitting.accepted)} accepted, "
                    f"{LOAD} {load()}"
                )
                if what == "server":
                    server.stop()
                    server = RunningServer(data)
                    submitting.submit_again(server)
            for identifier in submitting.accepted:
                server.wait(identifier)
            wrong = faults(server, submitting)
            states = Counter(job["state"] for job in server.jobs())
            crashes = Counter(job["crashes"] for job in server.jobs())
        finally:
            server.stop()
    table = Table(
        "serve_kills",
        [
            f"{machine('cpu')}. Seed {options.seed}.",
            "",
            "| kills of the server, of a worker | accepted | done, failed as declared, cancelled | "
            f"submitted again | lost or doubled | {LOAD} |",
            "|---|---|---|---|---|---|",
        ],
        options.write,
    )
    table.add(
        f"| {killed['server']}, {killed['worker']} | {len(submitting.accepted)} | {states['done']}, "
        f"{states['failed']}, {states['cancelled']} | {submitting.again} | {len(wrong) or 'none'} | "
        f"{load()} |"
    )
    say(f"jobs by how often their worker ended: {dict(sorted(crashes.items()))}")
    if wrong:
        raise SystemExit("FAILED:\n" + "\n".join(wrong))


if __name__ == "__main__":
    main()
