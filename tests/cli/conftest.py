import functools
import signal

import pytest
from commandline import Here

from sfumato import studio
from sfumato.cli import console


@pytest.fixture(scope="session", autouse=True)
def interrupts_arrive():
    """A shell that runs the tests in its background has them, and what they start, ignore SIGINT."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


@pytest.fixture
def here(capfdbinary, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "SILENCE", 600.0)  # a busy machine does not add to what is said
    return Here(capfdbinary)


opened = functools.cache(studio.open_studio)


@pytest.fixture
def kept_studios(monkeypatch):
    """Models are loaded once for all tests that draw in this process."""
    monkeypatch.setattr(studio, "open_studio", opened)
