"""Take pictures of every view of the page, in both themes and three widths, with Chromium.

    python docs/take_screenshots.py [--only VIEW ...] [--all FOLDER]

A view becomes one sheet in docs/pictures: the widths beside each other, light and dark in turn. `--all`
keeps every picture by itself besides, as PNG.
"""

import argparse
import contextlib
import io
import math
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL.Image
import PIL.ImageDraw
from playwright.sync_api import Browser, Page, sync_playwright

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent / "benchmarks"))

from running import RunningServer  # noqa: E402

import sfumato  # noqa: E402

APPLE = "a red apple, 3d render"
FOX = "a fox, noto emoji"
HOUSE = "a house, flat color icon"
CLIP = "a star spinning, minimal flat emoji"
SIZES = {1440: 900, 768: 1024, 360: 740}
SCHEMES = ("light", "dark")
SHEET = ((1440, "light"), (768, "dark"), (360, "light"))
"""What of a view its sheet shows."""
UNSHOWN = ("styles", "keys", "viewer", "failed")
"""Views that the documentation does without."""
HEIGHT, GAP = 520, 12
"""Of a sheet, and between its parts, in pixels."""
LARGEST = 100_000
"""Bytes of a sheet."""
MOST_STEPS = 1000
"""Of a request, that a picture is drawn for longer than it takes to look at it."""


@dataclass(frozen=True)
class View:
    """What is opened, and what is done there before it is looked at."""

    address: str
    prepare: Callable[[Page], Any]


def main() -> None:
    """Write WebP files to docs/pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=None, metavar="VIEW", help="views to take")
    parser.add_argument("--all", type=Path, metavar="FOLDER", help="where every picture is kept as PNG")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        server = RunningServer(Path(folder) / "data", env={"SFUMATO_SERVE_MAX_STEPS": str(MOST_STEPS)})
        server.wait_ready()
        for name, view in _views(server, arguments.only):
            shots = {}
            for width, height in SIZES.items():
                for scheme in SCHEMES:
                    shots[width, scheme] = _shot(browser, server.url, view, scheme, width, height)
            if arguments.all:
                arguments.all.mkdir(parents=True, exist_ok=True)
                for (width, scheme), shot in shots.items():
                    shot.save(arguments.all / f"{name}-{scheme}-{width}.png")
            if name not in UNSHOWN:
                _save(_sheet([shots[part] for part in SHEET]), name)
            print(name, flush=True)
        server.stop()
        browser.close()


def _views(server: RunningServer, only: list[str] | None) -> Iterator[tuple[str, View]]:
    """The views that are wanted, by name; the server has what they show."""

    def wanted(name: str) -> bool:
        return only is None or name in only

    def drawn(**fields: Any) -> str:
        picture: str = server.wait(server.submit(**fields)["id"])["pictures"][0]["id"]
        return picture

    if wanted("first"):
        yield "first", View("/", lambda page: _prompt(page).wait_for())
    if wanted("drawing"):
        drawn(prompt="a lemon, 3d render", seed=3, count=2)
        with _endless(server, prompt=HOUSE, seed=3):
            yield "drawing", View("/", _drawing)
    apple = drawn(prompt=APPLE, seed=7, count=4)
    drawn(prompt=CLIP, seed=5, frames=8, fast=True)
    drawn(prompt=FOX, seed=7, count=4)
    for name, prepare in {
        "finished": _finished,
        "controls": _controls,
        "clip": _clip,
        "control": _control,
        "advanced": _advanced,
        "styles": _styles,
        "keys": lambda page: page.keyboard.press("?"),
    }.items():
        if wanted(name):
            yield name, View("/", prepare)
    if wanted("live"):
        yield "live", View("/?live=1", _live)
    if wanted("edit"):
        yield "edit", View(f"/edit/{apple}", _edit)
    if wanted("painting"):
        yield "painting", View("/edit/new", _painting)
    if wanted("scene"):
        scene = sfumato.Scene.read(DOCS.parent / "examples" / "kitchen.toml").request
        yield "scene", View(f"/scene/{drawn(**scene.model_dump(mode='json'))}", _scene)
    if wanted("grid"):
        yield "grid", View(f"/grid/{_grid(server)}", _grid_shown)
    if wanted("teach"):
        yield "teach", View("/teach", _teach(server))
    for prompt in ("a lemon, 3d render", "a rocket, minimal flat emoji", "a blue fish, noto emoji", HOUSE):
        drawn(prompt=prompt, seed=3, count=2)
    drawn(prompt="a green tree, 3d render", seed=1, width=384)
    server.http.patch(f"/api/v1/pictures/{apple}", json={"favourite": True, "tags": ["for mum"]})
    other = server.http.get("/api/v1/pictures?search=fox").json()[0]["id"]
    for name, address in {
        "gallery": "/gallery",
        "viewer": f"/gallery?picture={apple}",
        "compare": f"/gallery?compare={apple},{other}",
    }.items():
        if wanted(name):
            yield name, View(address, _settle)
    if wanted("failed"):
        server.wait(server.submit(prompt="a hat <lora:winter:1>", seed=1)["id"])
        yield "failed", View("/", _settle)


def _teach(server: RunningServer) -> Callable[[Page], None]:
    """The form of a subject, filled with pictures of it."""
    shown = server.http.get("/api/v1/pictures?search=fox").json()[:4]
    contents = [server.http.get(f"/api/v1/pictures/{each['id']}/file").content for each in shown]

    def prepare(page: Page) -> None:
        page.locator("input[type=file]").set_input_files(
            [
                {"name": f"{number}.png", "mimeType": "image/png", "buffer": content}
                for number, content in enumerate(contents)
            ]
        )
        page.get_by_role("textbox", name="Name").fill("sks fox")
        page.get_by_role("textbox", name="Class").fill("fox")
        _settle(page)

    return prepare


@contextlib.contextmanager
def _endless(server: RunningServer, **fields: Any) -> Iterator[None]:
    """A job that is drawn all the while: of as many steps as there may be."""
    job = server.submit(**fields, steps=MOST_STEPS)["id"]
    yield
    server.http.delete(f"/api/v1/jobs/{job}")


def _shot(browser: Browser, url: str, view: View, scheme: Any, width: int, height: int) -> PIL.Image.Image:
    context = browser.new_context(
        color_scheme=scheme,
        viewport={"width": width, "height": height},
        locale="en",
        has_touch=width < 700,
        is_mobile=width < 700,
    )
    page = context.new_page()
    page.goto(url + view.address)
    view.prepare(page)
    page.wait_for_timeout(700)
    with PIL.Image.open(io.BytesIO(page.screenshot())) as picture:
        shot = picture.convert("RGB")
    context.close()
    return shot


def _prompt(page: Page, name: str = "Prompt") -> Any:
    return page.get_by_role("textbox", name=name, exact=True)


def _settle(page: Page) -> None:
    page.locator("main img").first.wait_for()
    page.wait_for_timeout(1500)


def _drawing(page: Page) -> None:
    page.get_by_role("img", name=f"Preview of {HOUSE}").wait_for()
    # far enough that something is to be seen
    page.wait_for_function(
        """() => {
            const bar = document.querySelector("main [role=progressbar]");
            return bar && bar.ariaValueNow / bar.ariaValueMax > 0.25;
        }""",
        timeout=300_000,
    )


def _finished(page: Page) -> None:
    _settle(page)
    _prompt(page).fill("a (blue:1.3) whale, 3d render")
    page.get_by_text("/75").first.wait_for()
    page.wait_for_timeout(500)


def _controls(page: Page) -> None:
    _panel(page).evaluate("panel => panel.scrollTo(0, 0)")


def _panel(page: Page) -> Any:
    """All controls, opened."""
    _finished(page)
    page.get_by_role("button", name="All controls").click()
    return page.get_by_role("region", name="All controls")


def _to_top(part: Any) -> None:
    part.evaluate("part => part.scrollIntoView({ block: 'start' })")


def _clip(page: Page) -> None:
    panel = _panel(page)
    panel.get_by_role("checkbox", name="Draw a clip").check()
    _prompt(page).fill("a flower")
    travel = panel.get_by_role("group", name="Prompt travel")
    for frame, text in ((0, "in bud"), (15, "in full bloom")):
        travel.get_by_role("button", name="Add a frame").click()
        place = travel.get_by_role("spinbutton").last
        place.fill(str(frame))
        place.blur()
        travel.get_by_role("textbox").last.fill(text)
    _to_top(panel.get_by_role("group", name="Clip", exact=True))


def _control(page: Page) -> None:
    panel = _panel(page)
    _prompt(page).fill("a green apple, 3d render")
    section = panel.get_by_role("group", name="Control pictures")
    with page.expect_file_chooser() as chooser:
        section.get_by_role("button", name="Choose a picture").click()
    chooser.value.set_files({"name": "apple.png", "mimeType": "image/png", "buffer": _sketch()})
    section.get_by_label("Preparation").select_option("invert")
    _to_top(section)


def _sketch() -> bytes:
    """A drawing of dark lines on white, a PNG."""
    picture = PIL.Image.new("L", (256, 256), 255)
    pen = PIL.ImageDraw.Draw(picture)
    pen.ellipse((48, 72, 208, 232), outline=0, width=4)
    pen.line((128, 72, 140, 32), fill=0, width=4)
    pen.ellipse((140, 28, 196, 56), outline=0, width=4)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _advanced(page: Page) -> None:
    panel = _panel(page)
    folded = panel.get_by_text("Advanced", exact=True)
    folded.click()
    _to_top(folded)


def _styles(page: Page) -> None:
    _settle(page)
    page.get_by_role("button", name="All controls").click()
    page.get_by_label("Model", exact=True).select_option("embedded-instruct")
    page.get_by_role("button", name="Styles", exact=True).click()


def _live(page: Page) -> None:
    prompt = "a (green:1.2) apple, 3d render"
    _prompt(page).fill(prompt)
    page.get_by_role("img", name=prompt, exact=True).wait_for()


def _stroke(page: Page, points: list[tuple[float, float]]) -> None:
    """From point to point, given from the middle of the canvas in parts of its smaller side."""
    box = page.get_by_role("application", name="Canvas").bounding_box()
    assert box is not None
    side = min(box["width"], box["height"])
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    for number, (x, y) in enumerate(points):
        page.mouse.move(middle[0] + x * side, middle[1] + y * side, steps=4)
        if number == 0:
            page.mouse.down()
    page.mouse.up()


def _edit(page: Page) -> None:
    _settle(page)
    _stroke(page, [(-0.05 + 0.01 * step, -0.34 + 0.03 * (step % 8)) for step in range(30)])
    page.get_by_role("textbox").first.fill("a green leaf")


def _painting(page: Page) -> None:
    page.get_by_role("button", name="Draw on an empty canvas").click()
    page.get_by_role("application", name="Canvas").wait_for()
    prompt = "a red apple with a leaf, 3d render"
    _prompt(page).fill(prompt)
    page.wait_for_timeout(1000)
    ring = [(0.17 * math.cos(part / 4), 0.1 + 0.15 * math.sin(part / 4)) for part in range(26)]
    for colour, brush, points in (
        ("Red", 48, [*ring, (0, 0.1)]),
        ("Brown", 20, [(0, -0.12), (0.03, -0.24)]),
        ("Green", 20, [(0.06, -0.2), (0.2, -0.26), (0.12, -0.2)]),
    ):
        page.get_by_role("slider", name="Brush size").first.fill(str(brush))
        page.get_by_role("button", name=colour, exact=True).click()
        _stroke(page, points)
    page.get_by_role("img", name=prompt).wait_for()
    page.wait_for_timeout(6000)


def _scene(page: Page) -> None:
    _prompt(page, "Background prompt").wait_for()
    _settle(page)
    page.get_by_role("slider", name="Depth of a red apple").focus()


def _grid(server: RunningServer) -> str:
    axes = [("steps", "2, 4, 8"), ("sampler", ["ddim", "euler-a"]), ("prompt~a fox", "a fox, a cat")]
    body = {"request": {"prompt": FOX, "seed": 7}, "axes": [{"field": f, "values": v} for f, v in axes]}
    grid = server.http.post("/api/v1/grids", json=body).json()
    for cell in grid["cells"]:
        server.wait(cell["job"])
    found: str = grid["id"]
    return found


def _grid_shown(page: Page) -> None:
    page.get_by_role("img", name="steps 8, euler-a").wait_for()
    page.wait_for_timeout(1000)


def _sheet(shots: list[PIL.Image.Image]) -> PIL.Image.Image:
    """Pictures of one height beside each other, on grey."""
    parts = [
        each.resize((round(each.width * HEIGHT / each.height), HEIGHT), PIL.Image.LANCZOS) for each in shots
    ]
    width = sum(each.width for each in parts) + GAP * (len(parts) + 1)
    sheet = PIL.Image.new("RGB", (width, HEIGHT + 2 * GAP), "#8f887c")
    left = GAP
    for each in parts:
        sheet.paste(each, (left, GAP))
        left += each.width + GAP
    return sheet


def _save(picture: PIL.Image.Image, name: str) -> None:
    """As WebP, as well as it may be in so many bytes."""
    for quality in (85, 75, 65, 50):
        buffer = io.BytesIO()
        picture.save(buffer, "WEBP", quality=quality, method=6)
        if buffer.tell() <= LARGEST:
            break
    (DOCS / "pictures" / f"page-{name}.webp").write_bytes(buffer.getvalue())


main()
