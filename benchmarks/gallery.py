"""Frames a second while a gallery of many pictures scrolls, in headless Chromium.

    python benchmarks/gallery.py [--pictures 10000] [--rounds 5] [--seconds 5] [--write docs/page.md]

The rows are put into the store of a server as if they had been drawn. The page then scrolls by the wheel, as
fast as a hand turns it, and once at full speed from the first picture to the last. A frame is a call of
`requestAnimationFrame`; its longest pause is what a person would see as a jerk.
"""

import argparse
import colorsys
import io
import json
import random
import shutil
import statistics
import tempfile
from itertools import pairwise
from pathlib import Path

import PIL.Image
import PIL.ImageDraw
from measuring import LOAD, Table, load, machine
from playwright.sync_api import Page, sync_playwright
from running import RunningServer

from sfumato.server.jobs import JobState
from sfumato.server.limits import Limits
from sfumato.server.security import LOCAL_OWNER
from sfumato.server.store import NewJob, Store

AT_ONCE = 100
"""Pictures of a job."""
SIZES = ((256, 256), (256, 256), (384, 256), (256, 384), (512, 192))
THINGS = ("apple", "fox", "house", "fish", "rocket", "tree", "owl", "teapot")
CONTENTS = 40
WHEEL = 240
"""Pixels of a turn of the wheel."""

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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=5)
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
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        seed(data, arguments.pictures)
        server = RunningServer(data)
        try:
            server.wait_ready()
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(
                    executable_path=shutil.which("chromium"), args=["--no-sandbox"]
                )
                page = browser.new_page(viewport={"width": arguments.width, "height": 900})
                page.goto(f"{server.url}/gallery")
                page.get_by_role("gridcell").first.wait_for()
                page.mouse.move(arguments.width / 2, 500)
                for name, run in (
                    ("by the wheel", lambda: scrolled(page, arguments.seconds)),
                    ("half a screen a frame, to the end", lambda: leapt(page)),
                ):
                    rounds = [run() for _ in range(arguments.rounds)]
                    rates = [1000 * len(pauses) / sum(pauses) for pauses in rounds]
                    slow = statistics.median(statistics.quantiles(pauses, n=100)[-1] for pauses in rounds)
                    table.add(
                        f"| {name} | {statistics.median(rates):.0f}, {min(rates):.0f}, {max(rates):.0f} | "
                        f"{slow:.0f} ms | {load()} |"
                    )
                browser.close()
        finally:
            server.stop()


if __name__ == "__main__":
    main()
