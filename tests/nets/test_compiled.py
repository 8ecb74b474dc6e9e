"""The library of what is written in C++."""

import ctypes
from pathlib import Path

import pytest
import torch

from sfumato.nets import compiled


@pytest.fixture
def anew():
    """Have it be looked for again, in the test and after it."""
    compiled.library.cache_clear()
    yield
    compiled.library.cache_clear()


@pytest.mark.parametrize("content", [b"no library", None])
def test_a_library_that_is_another_or_none_is_not_used(content, tmp_path, monkeypatch, anew):
    path = tmp_path / "library.so"
    if content is None:
        path = Path(torch.__file__).parent / "lib" / "libgomp.so.1"
    else:
        path.write_bytes(content)
    monkeypatch.setattr(compiled, "LIBRARY", path)
    assert compiled.library() is None


def test_without_a_compiler_there_is_none(monkeypatch, anew):
    def missing(path):
        raise OSError(f"{path}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert compiled.library() is None


def test_on_another_processor_there_is_none(monkeypatch, anew):
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert compiled.library() is None
