"""Figures for Prometheus: what happens to jobs, to pictures and to requests."""

import time
from threading import Lock
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from sfumato.server.jobs import ENDED, Event, JobState

SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)
"""Edges of the histograms of times."""


class ServerMetrics:
    """Counts since the server began. Several threads may use it."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        made: dict[str, Any] = {"registry": self.registry}
        self._ended = Counter("sfumato_jobs_ended", "Jobs that are over.", ["state"], **made)
        self._pictures = Counter("sfumato_pictures", "Pictures that were drawn.", **made)
        self._wait = Histogram("sfumato_wait_seconds", "From accepted to begun.", buckets=SECONDS, **made)
        self._drawing = Histogram("sfumato_draw_seconds", "From begun to over.", buckets=SECONDS, **made)
        self._step = Histogram("sfumato_step_seconds", "One batch of points.", buckets=SECONDS, **made)
        sizes = (1, 2, 4, 8, 16, 32, 64)
        self._batch = Histogram("sfumato_batch_points", "Points in a batch.", buckets=sizes, **made)
        self._crashes = Counter("sfumato_worker_crashes", "Workers that ended.", **made)
        labels = ["method", "route", "status"]
        self._requests = Counter("sfumato_http_requests", "Requests.", labels, **made)
        self._answers = Histogram("sfumato_http_seconds", "Until answered.", buckets=SECONDS, **made)
        self._jobs = Gauge("sfumato_jobs", "Jobs by state.", ["state"], **made)
        self._ready = Gauge("sfumato_ready", "Whether a worker can draw.", **made)
        self._since: dict[str, float] = {}
        self._lock = Lock()

    def see(self, event: Event) -> None:
        """Count what happened to a job."""
        if event.kind == "picture":
            self._pictures.inc()
        if event.kind != "state" or event.state is None:
            return
        now = time.monotonic()
        with self._lock:
            since = self._since.pop(event.job, None)
            if event.state not in ENDED:
                # a queued job is told of again when its priority changes
                again = since is not None and event.priority is not None
                self._since[event.job] = since if again and since is not None else now
        if event.state is JobState.RUNNING and event.priority is None and since is not None:
            self._wait.observe(now - since)
        elif event.state in ENDED:
            self._ended.labels(state=str(event.state)).inc()
            if event.state is JobState.DONE and since is not None:
                self._drawing.observe(now - since)

    def see_batch(self, points: int, seconds: float) -> None:
        """Count a batch of a worker."""
        self._batch.observe(points)
        self._step.observe(seconds)

    def see_crash(self) -> None:
        """Count a worker that ended."""
        self._crashes.inc()

    def see_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request; `route` is its path's pattern."""
        self._requests.labels(method=method, route=route, status=str(status)).inc()
        self._answers.observe(seconds)

    def exposition(self, jobs: dict[JobState, int], ready: bool) -> str:
        """All of it, and how it is now, in the text format of Prometheus."""
        for state, count in jobs.items():
            self._jobs.labels(state=str(state)).set(count)
        self._ready.set(ready)
        return generate_latest(self.registry).decode()
