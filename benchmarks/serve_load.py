"""Submit thousands of small requests from hundreds of clients at once, and see that none is lost or doubled.

    python benchmarks/serve_load.py [--requests 10000] [--clients 200] [--write docs/serving.md]

Each client submits one request after another and, when it is told 429, waits as long as Retry-After says.
Each request is one step of 64 × 64. At the end every job is looked up: each ended once, with the picture it
was asked for. Meanwhile another connection asks for `/healthz` ten times a second. Memory is the server's,
without the process that draws.
"""

import argparse
import asyncio
import http.client
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

import httpx2
from measuring import LOAD, Table, load, machine, say
from running import TINY, RunningServer, resident

WARM_UP = 500
"""Jobs that are drawn before memory is first measured."""


class Load:
    """What the clients saw."""

    def __init__(self, server: RunningServer) -> None:
        self.server = server
        self.accepted: dict[int, str] = {}
        """Job by number of request."""
        self.refused = 0

    async def run(self, numbers: Iterator[int], clients: int) -> None:
        """Submit `numbers` from so many clients."""
        limits = httpx2.Limits(max_connections=clients, max_keepalive_connections=clients)
        async with httpx2.AsyncClient(base_url=self.server.url, timeout=120, limits=limits) as http:
            await asyncio.gather(*(self._client(http, numbers) for _ in range(clients)))

    async def _client(self, http: httpx2.AsyncClient, numbers: Iterator[int]) -> None:
        for number in numbers:
            while not await self._submitted(http, number):
                self.refused += 1

    async def _submitted(self, http: httpx2.AsyncClient, number: int) -> bool:
        """Whether a request was accepted; if not, after the time that the server said to wait."""
        answer = await http.post("/api/v1/jobs", json={"request": {**TINY, "seed": number}})
        if answer.status_code == 429:
            await asyncio.sleep(float(answer.headers["retry-after"]))
            return False
        if answer.status_code != 202:
            raise SystemExit(f"request {number}: {answer.status_code} {answer.text[:300]}")
        self.accepted[number] = answer.json()["id"]
        if len(self.accepted) % 500 == 0:
            say(
                f"{len(self.accepted):,} accepted, {self.refused:,} times 429, "
                f"{resident(self.server.process.pid):.0f} MiB, {LOAD} {load()}"
            )
        return True


class Health(Thread):
    """Asks whether the server is well; how long each answer took, in seconds."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.port, self.seconds, self._over = port, [], Event()

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        while not self._over.wait(0.1):
            began = time.perf_counter()
            connection.request("GET", "/healthz")
            assert connection.getresponse().read() == b'{"status":"ok"}'
            self.seconds.append(time.perf_counter() - began)

    def stop(self) -> list[float]:
        """The figures, in order of size."""
        self._over.set()
        self.join()
        return sorted(self.seconds)


def drained(server: RunningServer) -> None:
    """Wait until no job waits or is drawn."""
    said = time.monotonic()
    while True:
        lines = server.http.get("/metrics").text.splitlines()
        open_jobs = sum(
            float(line.split()[1])
            for line in lines
            if line.startswith(('sfumato_jobs{state="queued"', 'sfumato_jobs{state="running"'))
        )
        if not open_jobs:
            return
        if time.monotonic() - said > 10:
            said = time.monotonic()
            say(f"{open_jobs:,.0f} jobs are not over, {LOAD} {load()}")
        time.sleep(0.2)


def faults(server: RunningServer, accepted: dict[int, str]) -> list[str]:
    """What is wrong with the jobs that were accepted, if anything."""
    jobs = server.jobs()
    found = []
    seen = Counter(job["id"] for job in jobs)
    if wrong := [each for each in accepted.values() if seen[each] != 1]:
        found.append(f"{len(wrong)} accepted jobs are not there once")
    if len(set(accepted.values())) != len(accepted) or len(seen) != len(accepted):
        found.append(f"{len(seen)} jobs for {len(accepted)} requests")
    if wrong := [job for job in jobs if job["state"] != "done"]:
        found.append(f"{len(wrong)} jobs are {Counter(job['state'] for job in wrong)}")
    if wrong := [job for job in jobs if [each["number"] for each in job["pictures"]] != [0]]:
        found.append(f"{len(wrong)} jobs have not the one picture they were asked for")
    seeds = Counter(job["request"]["seed"] for job in jobs)
    if sorted(seeds.elements()) != sorted(accepted):
        found.append("not every request was drawn once")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--queue", type=int, default=1000)
    parser.add_argument("--write", type=Path, help="the page to write the table into")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = RunningServer(Path(folder) / "data", "--queue", str(options.queue))
        try:
            server.wait_ready()
            under = Load(server)
            warm_up = min(WARM_UP, options.requests // 2)
            asyncio.run(under.run(iter(range(warm_up)), options.clients))
            drained(server)
            before = resident(server.process.pid)
            say(f"{before:.0f} MiB after {warm_up} jobs")
            health, began = Health(server.port), time.monotonic()
            health.start()
            asyncio.run(under.run(iter(range(warm_up, options.requests)), options.clients))
            accepted_in = time.monotonic() - began
            drained(server)
            seconds, answers = time.monotonic() - began, health.stop()
            after = resident(server.process.pid)
            wrong = faults(server, under.accepted)
        finally:
            server.stop()
    table = Table(
        "serve_load",
        [
            f"{machine('cpu')}.",
            f"{options.clients} clients, {options.requests:,} requests of one step of 64 × 64, a queue of "
            f"{options.queue:,}.",
            "",
            "| accepted | 429 | ended once | seconds to accept, to draw | `/healthz`: median, p99, longest | "
            f"memory before, after | {LOAD} |",
            "|---|---|---|---|---|---|---|",
        ],
        options.write,
    )
    table.add(
        f"| {len(under.accepted):,} | {under.refused:,} | {'all' if not wrong else 'NOT all'} | "
        f"{accepted_in:.0f}, {seconds:.0f} | {1000 * statistics.median(answers):.0f}, "
        f"{1000 * answers[int(0.99 * (len(answers) - 1))]:.0f}, {1000 * answers[-1]:.0f} ms | "
        f"{before:.0f}, {after:.0f} MiB | {load()} |"
    )
    if wrong:
        raise SystemExit(f"FAILED: {'; '.join(wrong)}")


if __name__ == "__main__":
    main()
