"""What a long history costs the page: first paint, lists, a search, frames a second, in headless Chromium.

    python benchmarks/gallery.py [--pictures 20000] [--rounds 5] [--seconds 5] [--write docs/page.md]

The rows are put into the store of a server as if they had been drawn. Draw's list and the gallery then
scroll by the wheel, as fast as a hand turns it, and the gallery at full speed from the first picture to the
last. A frame is a call of `requestAnimationFrame`; its longest pause is what a person would see as a jerk.
The page is opened and searched with that history and with a short one. A list is there when its first
picture is, counted from the begin of the navigation; a search is answered when its first picture is shown,
counted from the last key, after which the page waits 0.2 seconds for another.
"""

import argparse
import colorsys
import contextlib
import gzip
import io
import json
import random
import re
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import PIL.Image
import PIL.ImageDraw
from measuring import LOAD, Table, load, machine
from playwright.sync_api import Browser, Page, sync_playwright
from running import RunningServer

from sfumato.server.jobs import JobState
from sfumato.server.limits import Limits
from sfumato.server.security import LOCAL_OWNER
from sfumato.server.store import NewJob, Store

AT_ONCE = 4
"""Pictures of a job."""
SHORT = 200
"""Pictures of the history that a long one is compared with."""
SIZES = ((256, 256), (256, 256), (384, 256), (256, 384), (512, 192))
THINGS = ("apple", "fox", "house", "fish", "rocket", "tree", "owl", "teapot")
CONTENTS = 40
WHEEL = 240
"""Pixels of a turn of the wheel."""

SEEN = """selector => new Promise((done) => {
  const look = () => {
    const found = document.querySelector(selector);
    found ? done(performance.now() - (window.begun ?? 0)) : requestAnimationFrame(look);
  };
  look();
})"""
"""Milliseconds until an element is there."""
PAINTED = "() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0"
SHIFTED = """() => new Promise((done) => {
  let sum = 0;
  new PerformanceObserver((list) => list.getEntries().forEach((each) => (sum += each.value)))
    .observe({ type: "layout-shift", buffered: true });
  setTimeout(() => done(sum), 300);
})"""
"""How much of the window has moved, as a sum of shares."""
PICTURES = {"/": "figure img", "/gallery": "[role=gridcell] img"}
"""Where a list has its pictures."""

COUNT_FRAMES = """() => {
  window.frames_seen = [];
  const step = (now) => { window.frames_seen.push(now); window.counting && requestAnimationFrame(step); };
  window.counting = true;
  requestAnimationFrame(step);
}"""


def content(number: int) -> bytes:
    """A small PNG: a round thing on paper, another for every `number`."""
    chance = random.Random(number)
    width, height = SIZES[number % len(SIZES)]
    picture = PIL.Image.new("RGB", (width, height), "#fbfaf7")
    draw = PIL.ImageDraw.Draw(picture)
    for _ in range(6):
        x, y, r = chance.uniform(0.2, 0.8) * width, chance.uniform(0.2, 0.8) * height, chance.uniform(20, 70)
        red, green, blue = colorsys.hsv_to_rgb(chance.random(), 0.7, 0.9)
        fill = (int(red * 255), int(green * 255), int(blue * 255))
        draw.ellipse((x - r, y - r, x + r, y + r), fill=fill)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def name_of(index: int) -> str:
    """The prompt of a picture."""
    return f"{THINGS[index % len(THINGS)]} number {index}"


def seed(folder: Path, count: int) -> None:
    """Put `count` pictures into the store in `folder`, as if they had been drawn."""
    store = Store(folder)
    contents = [content(number) for number in range(CONTENTS)]
    try:
        for first in range(0, count, AT_ONCE):
            here = min(AT_ONCE, count - first)
            request = {"model": "embedded", "prompt": "seeded", "count": here}
            job, _ = store.submit(NewJob(request, here), owner=LOCAL_OWNER, limits=Limits(count))
            store.begin([job.id])
            for number in range(here):
                _add(store, job.id, number, first + number, contents)
            store.end(job.id, JobState.DONE)
    finally:
        store.close()


def _add(store: Store, job: str, number: int, index: int, contents: list[bytes]) -> None:
    width, height = SIZES[index % CONTENTS % len(SIZES)]
    prompt = name_of(index)
    sampler = ("euler", "dpmpp-2m")[index % 2]
    request = {"prompt": prompt, "seed": index, "width": width, "height": height, "sampler": sampler}
    origin = {"prompt": prompt, "negative": "", "style": ["emoji-flat"]} if index % 3 == 0 else None
    facts = {
        "width": width,
        "height": height,
        "seed": index,
        "prompt": prompt,
        "negative": "",
        "model": "embedded",
        "record": json.dumps({"request": {**request, "origin": origin}}),
    }
    store.add_picture(job, number, contents[index % CONTENTS], facts)


def scrolled(page: Page, seconds: float, turns_a_second: int = 20) -> list[float]:
    """Milliseconds between frames while the wheel turns."""
    page.evaluate(COUNT_FRAMES)
    for _ in range(int(seconds * turns_a_second)):
        page.mouse.wheel(0, WHEEL)
        page.wait_for_timeout(1000 / turns_a_second)
    return _pauses(page)


def leapt(page: Page) -> list[float]:
    """Milliseconds between frames while the page is dragged through all of it, a screen a frame."""
    page.evaluate("() => window.scrollTo(0, 0)")
    page.evaluate(COUNT_FRAMES)
    page.evaluate(
        """() => new Promise((done) => {
          const step = () => {
            const before = scrollY;
            scrollBy(0, innerHeight / 2);
            if (scrollY === before) done(); else requestAnimationFrame(step);
          };
          requestAnimationFrame(step);
        })"""
    )
    return _pauses(page)


def _pauses(page: Page) -> list[float]:
    times: list[float] = page.evaluate("() => { window.counting = false; return window.frames_seen; }")
    return [after - before for before, after in pairwise(times)]


@contextlib.contextmanager
def served(folder: Path, count: int) -> Iterator[RunningServer]:
    """A server that has drawn `count` pictures."""
    seed(folder, count)
    server = RunningServer(folder)
    try:
        server.wait_ready()
        yield server
    finally:
        server.stop()


def script_bytes(server: RunningServer) -> int:
    """Of all scripts that the page begins with, compressed."""
    found = re.findall(r'(?:src|href)="(/[^"]+\.js)"', server.http.get("/").text)
    return sum(len(gzip.compress(server.http.get(each).content)) for each in found)


def opened(browser: Browser, url: str, place: str, width: int) -> dict[str, float]:
    """Milliseconds until a place is painted and its list is there, and how much of it moved."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto(url + place, wait_until="commit")
    listed = page.evaluate(SEEN, PICTURES[place])
    found = {"listed": listed, "painted": page.evaluate(PAINTED), "shifted": page.evaluate(SHIFTED)}
    page.close()
    return found


def searched(browser: Browser, url: str, text: str, first: str, width: int) -> float:
    """Milliseconds until the gallery shows the picture that a search finds first."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto(f"{url}/gallery")
    page.get_by_role("gridcell").first.wait_for()
    box = page.get_by_role("textbox", name="Search pictures")
    box.fill(text[:-1])
    page.evaluate("addEventListener('keydown', () => (window.begun = performance.now()), { once: true })")
    box.press(text[-1])
    milliseconds: float = page.evaluate(SEEN, f'[role=gridcell]:first-child img[alt="{first}"]')
    page.close()
    return milliseconds


def costs(browser: Browser, url: str, count: int, rounds: int, width: int) -> dict[str, str]:
    """What is measured of a history of `count` pictures, by what it is."""
    places = {place: [opened(browser, url, place, width) for _ in range(rounds)] for place in PICTURES}

    def middle(place: str, name: str) -> float:
        return statistics.median(each[name] for each in places[place])

    moved = max(middle(place, "shifted") for place in PICTURES)
    index = count // 2 + 1
    one, half = (f"number {index}", name_of(index)), ("sampler:euler", name_of((count - 1) // 2 * 2))
    return {
        "Draw: first paint": f"{middle('/', 'painted'):.0f} ms",
        "Draw: its list is there": f"{middle('/', 'listed'):.0f} ms",
        "Gallery: first paint": f"{middle('/gallery', 'painted'):.0f} ms",
        "Gallery: its list is there": f"{middle('/gallery', 'listed'):.0f} ms",
        "What moves while they load (layout shift)": f"{moved:.3f}",
        "A search for words that one picture has": _median_search(browser, url, *one, rounds, width),
        "A search for `sampler:euler`, half of all": _median_search(browser, url, *half, rounds, width),
    }


def _median_search(browser: Browser, url: str, text: str, first: str, rounds: int, width: int) -> str:
    times = [searched(browser, url, text, first, width) for _ in range(rounds)]
    return f"{statistics.median(times):.0f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--width", type=int, default=1440)
    parser.add_argument("--write", type=Path, help="page whose table is replaced")
    arguments = parser.parse_args()
    head = [
        f"{machine('cpu')}; headless Chromium,",
        f"which draws by software. {arguments.pictures:,} pictures, a window {arguments.width} pixels wide, "
        f"{arguments.rounds} rounds.",
        "",
        f"| scrolling | frames a second: median, least, most | slowest of 100 frames, median | {LOAD} |",
        "|---|---|---|---|",
    ]
    table = Table("gallery", head, arguments.write)
    with (
        tempfile.TemporaryDirectory() as folder,
        sync_playwright() as playwright,
        served(Path(folder) / "long", arguments.pictures) as server,
    ):
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": arguments.width, "height": 900})
        for name, place, run in (
            ("Draw, by the wheel", "/", lambda: scrolled(page, arguments.seconds)),
            ("gallery, by the wheel", "/gallery", lambda: scrolled(page, arguments.seconds)),
            ("gallery, half a screen a frame, to the end", "/gallery", lambda: leapt(page)),
        ):
            page.goto(server.url + place)
            page.locator(PICTURES[place]).first.wait_for()
            page.mouse.move(arguments.width / 2, 500)
            rounds = [run() for _ in range(arguments.rounds)]
            rates = [1000 * len(pauses) / sum(pauses) for pauses in rounds]
            slow = statistics.median(statistics.quantiles(pauses, n=100)[-1] for pauses in rounds)
            table.add(
                f"| {name} | {statistics.median(rates):.0f}, {min(rates):.0f}, {max(rates):.0f} | "
                f"{slow:.0f} ms | {load()} |"
            )
        page.close()
        long = costs(browser, server.url, arguments.pictures, arguments.rounds, arguments.width)
        kib = script_bytes(server) / 1000
        with served(Path(folder) / "short", SHORT) as other:
            short = costs(browser, other.url, SHORT, arguments.rounds, arguments.width)
        table.add("")
        table.add(
            f"| medians; load of the machine {load()} | {SHORT} pictures | {arguments.pictures:,} pictures |"
        )
        table.add("|---|---|---|")
        for name, text in long.items():
            table.add(f"| {name} | {short[name]} | {text} |")
        table.add("")
        table.add(f"The script that the page begins with has {kib:.0f} kB, compressed.")
        browser.close()


if __name__ == "__main__":
    main()
