"""Take the pictures of the page that its documentation shows, with Chromium: all, or those that are named.

python docs/take_screenshots.py [page-painting ...]
"""

import io
import math
import shutil
import sys
import tempfile
from pathlib import Path

import PIL.Image
from playwright.sync_api import Browser, Page, sync_playwright

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent / "benchmarks"))

from running import RunningServer  # noqa: E402

import sfumato  # noqa: E402

FOX = "a fox, noto emoji"
HOUSE = "a house, flat color icon"


def main() -> None:
    """Write WebP files to docs/pictures."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        server = RunningServer(Path(folder) / "data")
        server.wait_ready()
        _save(_opened(browser, server.url, "light"), "page-first")
        for prompt, count in (("a red apple, 3d render", 4), (FOX, 4)):
            server.wait(server.submit(prompt=prompt, seed=7, count=count)["id"])
        page = _opened(browser, server.url, "light")
        page.get_by_role("textbox", name="Prompt", exact=True).fill("a (blue:1.3) whale, 3d render")
        page.get_by_text("10/75").or_(page.get_by_text("/75")).first.wait_for()
        _save(page, "page-finished")
        page.get_by_role("button", name="All controls").click()
        _save(page, "page-controls")
        axes = [("steps", "2, 4, 8"), ("sampler", ["ddim", "euler-a"]), ("prompt~a fox", "a fox, a cat")]
        body = {"request": {"prompt": FOX, "seed": 7}, "axes": [{"field": f, "values": v} for f, v in axes]}
        grid = server.http.post("/api/v1/grids", json=body).json()
        for cell in grid["cells"]:
            server.wait(cell["job"])
        page = browser.new_page(color_scheme="light", viewport={"width": 1100, "height": 760}, locale="en")
        page.goto(f"{server.url}/grid/{grid['id']}")
        page.get_by_role("img", name="steps 8, euler-a").wait_for()
        page.wait_for_timeout(1000)
        _save(page, "page-grid")
        for prompt in (
            "a lemon, 3d render",
            "a rocket, minimal flat emoji",
            "a blue fish, noto emoji",
            HOUSE,
        ):
            server.wait(server.submit(prompt=prompt, seed=3, count=2)["id"])
        page = browser.new_page(color_scheme="dark", viewport={"width": 1100, "height": 760}, locale="en")
        page.goto(f"{server.url}/gallery")
        page.wait_for_timeout(3000)
        _save(page, "page-gallery")
        apple = server.http.get("/api/v1/pictures?search=apple").json()[0]["id"]
        page.goto(f"{server.url}/edit/{apple}")
        page.wait_for_timeout(2000)
        page.mouse.move(440, 200)
        page.mouse.down()
        for step in range(60):
            page.mouse.move(440 + 3 * step, 200 + 20 * (step % 8), steps=2)
        page.mouse.up()
        page.get_by_role("textbox").first.fill("a green leaf")
        page.wait_for_timeout(1000)
        _save(page, "page-edit")
        _painting(browser, server.url)
        job = server.submit(prompt=HOUSE, seed=3, steps=100)
        page = _opened(browser, server.url, "dark")
        page.get_by_role("img", name=f"Preview of {HOUSE}").wait_for()
        page.wait_for_timeout(1500)
        _save(page, "page-drawing")
        server.http.delete(f"/api/v1/jobs/{job['id']}")
        scene = sfumato.Scene.read(DOCS.parent / "examples" / "kitchen.toml").request
        picture = server.wait(server.submit(**scene.model_dump(mode="json"))["id"])["pictures"][0]["id"]
        page = _opened(browser, f"{server.url}/scene/{picture}", "light", prompt="Background prompt")
        page.get_by_role("slider", name="Depth of a red apple").focus()
        _save(page, "page-scene")
        _save(_opened(browser, server.url, "dark", 390), "page-phone")
        page = _opened(browser, f"{server.url}/?live=1", "light")
        page.get_by_role("textbox", name="Prompt", exact=True).fill("a (green:1.2) apple, 3d render")
        page.get_by_role("img", name="a (green:1.2) apple, 3d render", exact=True).wait_for()
        page.wait_for_timeout(1500)
        _save(page, "page-live")
        server.stop()
        browser.close()


def _opened(browser: Browser, url: str, scheme: str, width: int = 1100, prompt: str = "Prompt") -> Page:
    page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 760}, locale="en")
    page.goto(url)
    page.get_by_role("textbox", name=prompt, exact=True).wait_for()
    page.wait_for_timeout(1500)
    return page


def _painting(browser: Browser, url: str) -> None:
    """An apple that is painted on an empty canvas, and what live makes of it."""
    page = browser.new_page(color_scheme="light", viewport={"width": 1100, "height": 760}, locale="en")
    page.goto(f"{url}/edit/new")
    page.get_by_role("button", name="Draw on an empty canvas").click()
    canvas = page.get_by_role("application", name="Canvas")
    canvas.wait_for()
    prompt = "a red apple with a leaf, 3d render"
    page.get_by_role("textbox", name="Prompt", exact=True).fill(prompt)
    page.wait_for_timeout(1000)
    box = canvas.bounding_box()
    assert box is not None
    side = min(box["width"], box["height"])
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    ring = [(0.17 * math.cos(part / 4), 0.1 + 0.15 * math.sin(part / 4)) for part in range(26)]
    for colour, brush, points in (
        ("Red", 48, [*ring, (0, 0.1)]),
        ("Brown", 20, [(0, -0.12), (0.03, -0.24)]),
        ("Green", 20, [(0.06, -0.2), (0.2, -0.26), (0.12, -0.2)]),
    ):
        page.get_by_role("slider", name="Brush size").first.fill(str(brush))
        page.get_by_role("button", name=colour, exact=True).click()
        for number, (x, y) in enumerate(points):
            page.mouse.move(middle[0] + x * side, middle[1] + y * side, steps=6)
            if number == 0:
                page.mouse.down()
        page.mouse.up()
    page.mouse.move(20, 700)
    page.get_by_role("img", name=prompt).wait_for()
    page.wait_for_timeout(9000)
    _save(page, "page-painting")


def _save(page: Page, name: str) -> None:
    if sys.argv[1:] and name not in sys.argv[1:]:
        return
    with PIL.Image.open(io.BytesIO(page.screenshot())) as picture:
        picture.convert("RGB").save(DOCS / "pictures" / f"{name}.webp", quality=80, method=6)


main()
