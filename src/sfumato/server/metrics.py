"""Figures for Prometheus."""

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from sfumato.server.context import Server


def exposition(server: Server) -> str:
    """Jobs by state, and workers that are ready, in the text format of Prometheus."""
    registry = CollectorRegistry()
    jobs = Gauge("sfumato_jobs", "Jobs by state.", ["state"], registry=registry)
    for state, count in server.store.counts().items():
        jobs.labels(state=str(state)).set(count)
    ready = Gauge("sfumato_ready", "Whether a worker can draw.", registry=registry)
    ready.set(server.dispatcher.ready)
    return generate_latest(registry).decode()
