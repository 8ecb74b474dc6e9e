"""The page where things go wrong: a server that is gone, full or slow, failing jobs, refused files."""

import io
import os
import re
import signal

import PIL.Image
import pytest
from playwright.sync_api import expect
from running import RunningServer

SLOW = {"steps": 200, "count": 20}
QUEUE = 4
DROP = """async ([name, type, bytes]) => {
    const transfer = new DataTransfer();
    // a number stands for so many bytes
    transfer.items.add(new File([new Uint8Array(bytes)], name, { type }));
    const target = document.querySelector("main");
    for (const kind of ["dragenter", "dragover", "drop"])
        target.dispatchEvent(
            new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: transfer }));
}"""


class Weather:
    """A server of its own that goes and comes back."""

    def __init__(self, data):
        self.data = data
        self.server = None

    def begin(self):
        port = "0" if self.server is None else str(self.server.port)
        self.server = RunningServer(self.data, "--queue", str(QUEUE), "--port", port)
        return self.server


@pytest.fixture(scope="module")
def started(browser, tmp_path_factory):
    """Begun when the browser is there: the first test meets it while it loads its model."""
    found = Weather(tmp_path_factory.mktemp("weather") / "data")
    found.begin()
    yield found
    found.server.stop()


@pytest.fixture
def weather(started):
    """It draws nothing when a test begins."""
    yield started
    for job in started.server.jobs():
        started.server.http.delete(f"/api/v1/jobs/{job['id']}")


def prompt_of(page):
    return page.get_by_role("textbox", name="Prompt", exact=True)


def draw(page, prompt):
    prompt_of(page).fill(prompt)
    page.get_by_role("button", name="Draw", exact=True).click()


def row(page, prompt):
    """What the page shows of the newest job for a prompt."""
    return page.get_by_role("list", name="What was drawn").locator("> li").filter(has_text=prompt).first


def network(page, latency=0, down=-1, up=-1):
    """Have the network take `latency` milliseconds and carry so many bytes a second."""
    session = page.context.new_cdp_session(page)
    speed = {"latency": latency, "downloadThroughput": down, "uploadThroughput": up}
    session.send("Network.emulateNetworkConditions", {"offline": False, **speed})


def picture_file(width, height):
    buffer = io.BytesIO()
    PIL.Image.effect_noise((width, height), 50).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def test_while_the_model_loads_jobs_wait_until_the_queue_is_full(weather, open_page):
    [worker] = weather.server.workers()
    os.kill(worker, signal.SIGSTOP)
    page = open_page(weather.server.url)
    loading = page.get_by_text("The model is loading.")
    try:
        expect(page.get_by_role("heading", name="Draw something.")).to_be_visible()
        expect(loading).to_be_visible()
        page.get_by_role("button", name="a fox, noto emoji").click()
        expect(prompt_of(page)).to_have_value("a fox, noto emoji")
        [*_, last] = [weather.server.submit(prompt=f"a {name}") for name in ("tree", "star", "ball", "hat")]
        page.get_by_role("button", name="Draw", exact=True).click()
        told = page.locator(".toast").filter(has_text="The queue is full.")
        expect(told).to_be_visible()
        expect(prompt_of(page)).to_have_value("a fox, noto emoji")
        row(page, "a hat").get_by_role("button", name="Cancel").click()
        expect(row(page, "a hat")).to_contain_text("Cancelled")
        told.get_by_role("button", name="Try again").click()
        expect(told).to_have_count(0)
        expect(row(page, "a fox, noto emoji")).to_contain_text("Waiting, 3 before it")
        assert weather.server.job(last["id"])["state"] == "cancelled"
    finally:  # the tests after it have the same server
        os.kill(worker, signal.SIGCONT)
    expect(loading).to_have_count(0)


def test_a_server_that_is_killed_comes_back_with_its_jobs_and_what_was_typed(weather, open_page):
    page = open_page(weather.server.url)
    for name in ("first", "second", "third"):
        job = weather.server.submit(prompt=f"{name} house", **SLOW)
    preview = page.get_by_role("img", name="Preview of first house").first
    expect(preview).to_be_visible()
    prompt_of(page).fill("a cat that I think about")
    weather.server.kill()
    banner = page.get_by_text("What you typed is kept.")
    expect(banner).to_be_visible()
    page.get_by_role("button", name="Draw", exact=True).click()
    refused = page.locator(".toast").filter(has_text="Not sent: the server did not answer.")
    expect(refused).to_be_visible()
    told = banner.bounding_box()
    assert refused.bounding_box()["y"] >= told["y"] + told["height"]  # neither hides the other
    weather.begin()
    expect(banner).to_have_count(0)
    expect(preview).to_be_visible()
    expect(row(page, "third house")).to_contain_text("Waiting")
    expect(prompt_of(page)).to_have_value("a cat that I think about")
    refused.get_by_role("button", name="Try again").click()
    expect(page.get_by_text("Queue: 2 waiting")).to_be_visible()
    row(page, "third house").get_by_role("button", name="Cancel").click()
    expect(row(page, "third house")).to_contain_text("Cancelled")
    assert weather.server.job(job["id"])["state"] == "cancelled"


@pytest.mark.quick
def test_a_job_that_failed_says_why_and_is_offered_again(server, open_page):
    page = open_page(server.url)
    page.get_by_role("button", name="All controls").click()
    page.get_by_label("Seed", exact=True).fill("41")
    page.keyboard.press("Tab")
    page.get_by_role("button", name="All controls").click()
    draw(page, "a hat <lora:broken:1>")
    failed = row(page, "a hat <lora:broken:1>")
    expect(failed.get_by_role("alert")).to_contain_text("broken.safetensors")
    failed.get_by_role("button", name="Try again").click()
    rows = page.get_by_role("list", name="What was drawn").locator("> li")
    expect(rows.filter(has_text="a hat <lora:broken:1>").get_by_role("alert")).to_have_count(2)
    assert [job["request"]["seed"] for job in server.jobs()[:2]] == [41, 41]


@pytest.mark.parametrize("place", ["/", "/edit/new"])
def test_a_file_that_is_refused_is_told_why(server, open_page, place):
    page = open_page(server.url + place)
    if place == "/":
        prompt_of(page).fill("a cat")
    else:
        expect(page.get_by_role("button", name="Open a file")).to_be_visible()
    noise, flat = picture_file(64, 64), io.BytesIO()
    PIL.Image.new("L", (4200, 4000)).save(flat, "PNG")
    for name, kind, content, told in (
        ("notes.txt", "text/plain", list(b"words"), "notes.txt is not a picture."),
        ("words.png", "image/png", list(b"words"), "words.png: This is not a PNG"),
        ("cut.png", "image/png", list(noise[: len(noise) // 2]), "cut off"),
        ("large.png", "image/png", list(flat.getvalue()), "4,200 × 4,000"),
        ("heavy.png", "image/png", 80_000_000, "heavy.png has 76 MiB: at most 64 MiB are read."),
    ):
        page.evaluate(DROP, [name, kind, content])
        expect(page.locator(".toast").filter(has_text=told)).to_be_visible()
    assert page.get_by_role("dialog").count() == 0
    expect(page).to_have_url(server.url + place)
    if place == "/":
        expect(prompt_of(page)).to_have_value("a cat")


@pytest.mark.quick
def test_what_is_refused_and_what_failed_is_said_in_german(server, browser):
    context = browser.new_context(locale="de", viewport={"width": 360, "height": 740})
    page = context.new_page()
    page.goto(server.url)
    expect(page.get_by_role("button", name="Zeichnen", exact=True)).to_be_in_viewport(ratio=1)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    box = page.get_by_role("textbox", name="Prompt", exact=True)
    box.fill("a (cat")
    expect(box).to_have_accessible_description(re.compile("„\\(“ an Stelle 3 wird nie geschlossen"))
    page.evaluate(DROP, ["words.png", "image/png", list(b"words")])
    expect(page.locator(".toast").filter(has_text="kein Bild, das gelesen wird")).to_be_visible()
    box.fill("ein Hut <lora:nothing:1>")
    page.get_by_role("button", name="Zeichnen", exact=True).click()
    newest = page.get_by_role("list", name="Was gezeichnet wurde").locator("> li").first
    expect(newest.get_by_role("alert")).to_contain_text("Im Ordner des Servers ist kein LoRA „nothing“.")
    context.close()


def test_a_server_that_stops_while_a_picture_is_sent_loses_nothing(weather, open_page, tmp_path):
    (tmp_path / "noise.png").write_bytes(picture_file(900, 700))
    page = open_page(f"{weather.server.url}/edit/new")
    page.locator("input[type=file]").set_input_files(tmp_path / "noise.png")
    expect(page.get_by_role("img", name="The picture")).to_be_visible()
    page.get_by_role("textbox", name="Instruction").fill("make it blue")
    network(page, up=20_000)
    sent = page.get_by_role("button", name="Draw", exact=True)
    sent.click()
    expect(page.get_by_role("button", name="Cancel")).to_be_visible()
    weather.server.kill()
    expect(page.get_by_role("alert")).to_have_text("The server does not answer.")
    network(page)
    weather.begin()
    expect(page.get_by_text("What you typed is kept.")).to_have_count(0)
    expect(page.get_by_role("img", name="The picture")).to_be_visible()
    expect(page.get_by_role("textbox", name="Instruction")).to_have_value("make it blue")
    sent.click()
    expect(page.get_by_role("button", name="Cancel")).to_be_visible()
    expect(page.get_by_role("alert")).to_have_count(0)


def test_a_slow_network_draws_what_was_typed_last(server, open_page):
    page = open_page("about:blank")
    network(page, latency=200, down=150_000, up=20_000)
    page.goto(server.url)
    prompt_of(page).press_sequentially("a (red:1.3) apple", delay=40)
    expect(page.locator(".mirror .more").first).to_have_text("red")
    page.get_by_role("button", name="Draw", exact=True).click()
    expect(page.get_by_role("img", name="Preview of a (red:1.3) apple")).to_be_visible()
    expect(page.get_by_role("img", name="a (red:1.3) apple", exact=True)).to_be_visible()


def test_two_windows_stay_in_step(server, open_page):
    for name in ("one", "two", "three", "four"):
        server.submit(prompt=f"{name} houses", **SLOW)
    one, other = open_page(server.url), open_page(server.url)
    order = other.get_by_role("button", name=re.compile("^Later: "))
    # two are drawn at a time
    expect(order).to_have_count(2)
    last = order.last.get_attribute("aria-label").removeprefix("Later: ")
    one.get_by_role("button", name=f"Earlier: {last}").click()
    expect(order.first).to_have_accessible_name(f"Later: {last}")
    one.get_by_role("button", name=f"Remove from the queue: {last}").click()
    expect(row(other, last)).to_contain_text("Cancelled")
    one.get_by_role("textbox", name="Prompt", exact=True).fill("mine")
    expect(prompt_of(other)).to_have_value("")
    server.wait(server.submit(prompt="a green star", steps=2, priority=10)["id"])
    row(one, "a green star").get_by_role("button", name="Favourite").click()
    favourite = row(other, "a green star").get_by_role("button", name="Favourite")
    expect(favourite).to_have_attribute("aria-pressed", "true")
    row(one, "a green star").get_by_role("button", name="More").click()
    one.get_by_role("menuitem", name="Delete").click()
    expect(favourite).to_have_count(0)
    one.locator(".toast").get_by_role("button", name="Undo").click()
    expect(favourite).to_be_visible()
