import functools

import pytest
from commandline import Here

from sfumato import studio


@pytest.fixture
def here(capfdbinary, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Here(capfdbinary)


@functools.cache
def loaded(model, **options):
    return original(model, **options)


original = studio.load


@pytest.fixture
def kept_studios(monkeypatch):
    """Models are loaded once for all tests that draw in this process."""
    monkeypatch.setattr(studio, "load", loaded)
