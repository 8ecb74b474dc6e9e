"""The collector of Python passes over what was imported: half a million objects that live to the end."""

import gc

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    gc.disable()
    found = yield
    gc.freeze()
    gc.set_threshold(10_000, 50, 10)
    gc.enable()
    return found
