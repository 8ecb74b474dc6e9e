"""For all tests: no example is timed, and the collector of Python passes over what was imported.

That is half a million objects that live to the end.
"""

import gc

import pytest
from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    gc.disable()
    found = yield
    gc.freeze()
    gc.set_threshold(10_000, 50, 10)
    gc.enable()
    return found


@pytest.fixture
def quick(monkeypatch):
    """Every picture is drawn small, in two steps."""
    from sfumato.studio import Studio

    resolve = Studio.resolve

    def resolved(studio, request):
        found = resolve(studio, request)
        return found.filled(width=64, height=64, steps=min(found.steps, 2))

    monkeypatch.setattr(Studio, "resolve", resolved)
