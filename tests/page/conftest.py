"""The page as a person sees it: a server with the embedded model, and a browser that looks at it."""

import shutil

import pytest
from playwright.sync_api import expect, sync_playwright
from running import RunningServer

expect.set_options(timeout=60_000)


@pytest.fixture(scope="session")
def browser():
    """Chromium of this machine."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("there is no chromium")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server with the embedded model."""
    found = RunningServer(tmp_path_factory.mktemp("page") / "data")
    found.wait_ready()
    yield found
    found.stop()


@pytest.fixture
def open_page(browser):
    """Opens windows; what one of them complains of fails the test."""
    contexts, complaints = [], []

    def begin(url, **options):
        context = browser.new_context(locale="en", reduced_motion="reduce", **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(url)
        return page

    yield begin
    for context in contexts:
        context.close()
    assert complaints == []
