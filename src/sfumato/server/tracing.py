"""Spans of requests and jobs for OpenTelemetry, where that is installed; where it is not, nothing."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Lock
from typing import Any

from sfumato.server.jobs import ENDED, Event, JobState

try:
    from opentelemetry import propagate, trace
except ModuleNotFoundError:
    installed = False
else:
    installed = True


class Tracing:
    """A span for each request, and one for each job from its acceptance to its end, within its request's."""

    def __init__(self) -> None:
        self._tracer: Any = trace.get_tracer("sfumato") if installed else None
        self._jobs: dict[str, Any] = {}
        self._lock = Lock()

    @contextmanager
    def request(self, method: str, path: str, headers: Mapping[str, str], name: str) -> Iterator[Any]:
        """The span of a request called `name` in the log; `None` without OpenTelemetry."""
        if self._tracer is None:
            yield None
            return
        given = {"http.request.method": method, "url.path": path, "sfumato.request": name}
        kind, context = trace.SpanKind.SERVER, propagate.extract(headers)
        with self._tracer.start_as_current_span(method, context, kind=kind, attributes=given) as span:
            yield span

    def see(self, event: Event) -> None:
        """Follow a job."""
        if self._tracer is None or event.kind not in ("state", "picture"):
            return
        with self._lock:
            if event.state is JobState.QUEUED and event.job not in self._jobs:
                self._jobs[event.job] = self._tracer.start_span("job", attributes={"sfumato.job": event.job})
            span = self._jobs.get(event.job)
            if span is None:
                return
            span.add_event(str(event.state) if event.state else "picture")
            if event.state in ENDED:
                if event.state is JobState.FAILED:
                    span.set_status(trace.StatusCode.ERROR, event.error)
                del self._jobs[event.job]
                span.end()


def describe(span: Any, route: str, method: str, status: int) -> None:
    """Tell the span of a request what became of it."""
    if span is not None:
        span.update_name(f"{method} {route}")
        span.set_attributes({"http.route": route, "http.response.status_code": status})
