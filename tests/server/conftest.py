"""A server as a user starts one."""

import pytest
from postgresql import PostgreSQL
from running import RunningServer


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A server with the embedded model."""
    found = RunningServer(tmp_path_factory.mktemp("server") / "data")
    found.wait_ready()
    yield found
    found.stop()


@pytest.fixture
def start(tmp_path):
    """Starts servers that keep their jobs in one folder, one after another."""
    started = []

    def begin(*options, **settings):
        started.append(RunningServer(tmp_path / "data", *options, **settings))
        return started[-1]

    begin.data = tmp_path / "data"
    yield begin
    for each in started:
        if each.process.poll() is None:
            each.kill()  # a stop would have it draw its jobs to their end
        each.stop()


@pytest.fixture(scope="session")
def postgresql():
    """A PostgreSQL server."""
    running = PostgreSQL()
    yield running
    running.remove()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request):
    """The URL of an empty database of each kind, `None` for SQLite in the data folder."""
    if request.param == "sqlite":
        return None
    return request.getfixturevalue("postgresql").create()
