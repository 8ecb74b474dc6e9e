"""The page as a person sees it: a server with the embedded model, and a browser that looks at it."""

import shutil
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright
from running import RunningServer

import sfumato

expect.set_options(timeout=60_000)

AXE = Path(__file__).parents[2] / "web" / "node_modules" / "axe-core" / "axe.min.js"
STYLE = '[ink-drawing]\nprompt = "{prompt}, ink drawing"\ndescription = "Black ink on paper"\n'


@pytest.fixture(scope="module")
def browser():
    """Chromium of this machine. While it is open no other test of the process can run coroutines."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("there is no chromium")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """A user's own folders: a LoRA and an embedding that cannot be read, a word list, a style."""
    folder = tmp_path_factory.mktemp("home")
    for name, content in {
        "adapters/broken.safetensors": "no weights",
        "embeddings/soft.safetensors": "no weights",
        "wildcards/colour.txt": "red\nred\n",
        "styles/own.toml": STYLE,
    }.items():
        path = folder / name
        path.parent.mkdir()
        path.write_text(content, "utf-8")
    return folder


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory, home):
    """A server with the embedded model."""
    found = RunningServer(tmp_path_factory.mktemp("page") / "data", env={"SFUMATO_HOME": str(home)})
    found.wait_ready()
    yield found
    found.stop()


@pytest.fixture
def server(shared_server):
    """The server, which draws nothing when a test begins."""
    yield shared_server
    for job in shared_server.http.get("/api/v1/jobs", params={"state": ["queued", "running"]}).json():
        shared_server.http.delete(f"/api/v1/jobs/{job['id']}")


@pytest.fixture(scope="session")
def apple(shared_server):
    """The name of a picture that was drawn."""
    sfumato.connect(shared_server.url).generate("a red apple, 3d render", seed=7, steps=2)
    return shared_server.http.get("/api/v1/pictures").json()[0]["id"]


@pytest.fixture
def open_page(browser):
    """Opens windows; what one of them complains of fails the test."""
    contexts, complaints = [], []

    def begin(url, **options):
        context = browser.new_context(**{"locale": "en", "reduced_motion": "reduce", **options})
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


@pytest.fixture
def check_access():
    """Fails where a rule of accessibility is broken on a page, or it is wider than its window."""
    if not AXE.exists():
        pytest.skip("there is no axe-core: make page")
    script = AXE.read_text("utf-8")

    def check(page):
        page.evaluate(script)
        found = page.evaluate("() => axe.run().then(found => found.violations)")
        assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found] == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    return check
