"""The page's editor, used as a person uses it: masks, edges, words, keys."""

import io
import re

import numpy as np
import PIL.Image
import pytest
from playwright.sync_api import expect

WIDE = {"width": 1280, "height": 800}
ALPHA = """canvas => {
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return Array.from(data).filter((_, index) => index % 4 === 3);
}"""


@pytest.fixture
def editor(server, apple, open_page):
    """A window with the picture, which draws in two steps."""
    page = open_page(f"{server.url}/edit/{apple}", viewport=WIDE)
    expect(page.get_by_role("img", name="a red apple, 3d render").first).to_be_visible()
    page.get_by_label("Steps", exact=True).fill("2")
    return page


def canvas(page):
    return page.get_by_role("application", name="Canvas")


def about(page, text):
    """What the editor says that it would draw."""
    return page.get_by_role("main").get_by_text(text)


def paint(page, *points):
    """A stroke from point to point, given as ways from the middle of the canvas."""
    box = canvas(page).bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    for index, (x, y) in enumerate(points):
        page.mouse.move(middle[0] + x, middle[1] + y, steps=4)
        if index == 0:
            page.mouse.down()
    page.mouse.up()


def draw(page):
    """The name of the picture that is drawn next."""
    before = page.url
    page.get_by_role("button", name="Draw", exact=True).click()
    expect(page).not_to_have_url(before)
    return page.url.rpartition("/")[2]


def pixels(server, picture):
    content = server.http.get(f"/api/v1/pictures/{picture}/file").content
    return np.asarray(PIL.Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def request(server, picture):
    return server.http.get(f"/api/v1/pictures/{picture}/record").json()["request"]


@pytest.mark.quick
def test_what_is_painted_over_is_drawn_anew_and_all_else_stays(server, editor, apple):
    paint(editor, (-80, 0), (80, 0), (80, 60))
    expect(about(editor, "Draws into the mask")).to_be_visible()
    editor.get_by_role("textbox", name="Prompt").fill("sunglasses, 3d render")
    painted = np.array(editor.locator(".mask canvas").evaluate(ALPHA)).reshape(256, 256) > 0
    drawn = draw(editor)
    assert 0.005 < painted.mean() < 0.2
    changes = np.abs(pixels(server, apple) - pixels(server, drawn)).max(2)
    assert changes[~painted].max() == 0
    assert changes[painted].mean() > 1
    steps = editor.get_by_role("navigation", name="Steps so far").get_by_role("link")
    expect(steps).to_have_count(2)
    expect(about(editor, "Draws into the mask")).to_have_count(0)
    editor.reload()
    expect(steps).to_have_count(2)
    steps.first.click()
    expect(editor).to_have_url(re.compile(apple))


@pytest.mark.quick
def test_strokes_are_taken_back_and_brought_again(editor):
    undo, redo = (editor.get_by_role("button", name=name, exact=True) for name in ("Undo", "Redo"))
    masked = about(editor, "Draws into the mask")
    expect(undo).to_be_disabled()
    paint(editor, (-60, -60), (60, -60), (60, 60), (-60, 60), (-60, -60))
    editor.get_by_role("button", name="Fill what is surrounded").click()
    paint(editor, (0, 0))
    editor.get_by_role("button", name="Clear the mask").click()
    expect(masked).to_have_count(0)
    for _ in range(3):
        undo.click()
    expect(undo).to_be_disabled()
    expect(masked).to_have_count(0)
    redo.click()
    expect(masked).to_be_visible()
    editor.get_by_role("button", name="Invert the mask").click()
    editor.get_by_role("button", name="Eraser").click()
    editor.get_by_label("Brush size", exact=True).fill("256")
    paint(editor, (-400, -300), (400, -300), (400, 0), (-400, 0), (-400, 300), (400, 300))
    expect(masked).to_have_count(0)


def test_a_picture_is_extended_by_dragging_its_edge(server, editor, apple):
    editor.get_by_role("button", name="Extend the picture").click()
    handle = editor.locator(".frame").get_by_role("slider", name="Extend right")
    box = handle.bounding_box()
    at = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    editor.mouse.move(*at)
    editor.mouse.down()
    editor.mouse.move(at[0] + 100, at[1], steps=5)
    editor.mouse.up()
    by = int(handle.get_attribute("aria-valuenow"))
    assert 10 < by < 100
    expect(about(editor, f"Draws beyond the edges: {256 + by} × 256 pixels")).to_be_visible()
    drawn = draw(editor)
    assert request(server, drawn)["extend"] == {"left": 0, "top": 0, "right": by, "bottom": 0}
    wide = pixels(server, drawn)
    assert wide.shape == (256, 256 + by, 3)
    assert (wide[:, :256] == pixels(server, apple)).all()


def test_everything_can_be_done_by_keys(editor):
    masked = about(editor, "Draws into the mask")
    canvas(editor).focus()
    for key in ("b", "]", "Enter", "ArrowRight", "Shift+ArrowDown", "Enter"):
        editor.keyboard.press(key)
    expect(masked).to_be_visible()
    editor.keyboard.press("Control+z")
    expect(masked).to_have_count(0)
    editor.keyboard.press("Control+Shift+z")
    expect(masked).to_be_visible()
    for key in ("i", "Delete"):
        editor.keyboard.press(key)
    expect(masked).to_have_count(0)
    editor.keyboard.press("x")
    handle = editor.locator(".frame").get_by_role("slider", name="Extend above")
    handle.focus()
    editor.keyboard.press("Shift+ArrowUp")
    editor.keyboard.press("ArrowDown")
    expect(handle).to_have_attribute("aria-valuenow", "56")
    editor.keyboard.press("?")
    expect(editor.get_by_role("dialog", name="Keys")).to_contain_text("Eraser")


def test_the_wheel_zooms_and_space_moves_the_view(editor):
    def shown():
        return editor.locator(".picture").bounding_box()

    fitted, box = shown(), canvas(editor).bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    editor.mouse.move(x, y)
    editor.mouse.wheel(0, -400)
    editor.wait_for_function(
        "width => document.querySelector('.picture').getBoundingClientRect().width > 2 * width",
        arg=fitted["width"],
    )
    large = shown()
    canvas(editor).focus()
    editor.keyboard.down(" ")
    editor.mouse.down()
    editor.mouse.move(x + 30, y + 20, steps=3)
    editor.mouse.up()
    editor.keyboard.up(" ")
    moved = shown()
    assert moved["width"] == pytest.approx(large["width"])
    assert (moved["x"] - large["x"], moved["y"] - large["y"]) == pytest.approx((30, 20), abs=1)
    expect(about(editor, "Draws into the mask")).to_have_count(0)
    editor.get_by_role("button", name="Show the whole picture").click()
    assert shown() == fitted


def test_a_file_that_is_opened_is_changed_by_an_instruction(server, open_page, tmp_path):
    PIL.Image.new("RGB", (256, 256), "white").save(tmp_path / "white.png")
    page = open_page(f"{server.url}/edit/new", viewport={"width": 360, "height": 740})
    page.locator("input[type=file]").set_input_files(tmp_path / "white.png")
    expect(page.get_by_role("img", name="The picture")).to_be_visible()
    expect(page.get_by_role("button", name="Draw", exact=True)).to_be_disabled()
    page.get_by_role("textbox", name="Instruction").fill("add a star")
    page.get_by_role("button", name="Options").click()
    page.get_by_label("Steps", exact=True).fill("2")
    page.keyboard.press("Escape")
    drawn = draw(page)
    assert request(server, drawn)["model"] == "embedded-instruct"
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    compares = page.get_by_role("button", name="Hold to see before")
    compares.hover()
    page.mouse.down()
    expect(page.get_by_role("img", name="One step before")).to_be_visible()
    page.mouse.up()
    expect(page.get_by_role("img", name="One step before")).to_have_count(0)


def test_a_picture_develops_on_the_canvas_also_after_a_reload(server, editor, apple):
    editor.get_by_label("Steps", exact=True).fill("100")
    paint(editor, (-80, 0), (80, 0))
    editor.get_by_label("Feather", exact=True).fill("8")
    editor.keyboard.press("Tab")
    editor.get_by_role("textbox", name="Prompt").fill("sunglasses, 3d render")
    editor.get_by_role("button", name="Draw", exact=True).click()
    preview = editor.get_by_role("img", name="Preview of sunglasses, 3d render")
    expect(preview).to_be_visible()
    assert server.jobs()[0]["request"]["feather"] == 8
    shown, picture = (editor.locator(name).bounding_box() for name in (".preview", ".picture"))
    assert shown == picture
    editor.reload()
    expect(preview).to_be_visible()
    expect(about(editor, "Drawing")).to_be_visible()
    expect(editor.get_by_role("textbox", name="Prompt")).to_have_value("sunglasses, 3d render")
    editor.get_by_role("button", name="Cancel").click()
    expect(preview).to_have_count(0)
    expect(about(editor, "Draws into the mask")).to_be_visible()
    expect(editor.get_by_role("button", name="Draw", exact=True)).to_be_enabled()


def test_variations_are_the_next_steps(server, editor):
    before = editor.url
    editor.get_by_role("button", name="Variations").click()
    expect(editor).not_to_have_url(before)
    expect(editor.get_by_role("navigation", name="Steps so far").get_by_role("link")).to_have_count(5)
    asked = request(server, editor.url.rpartition("/")[2])
    assert (asked["prompt"], asked["variation_amount"]) == ("a red apple, 3d render", [0.2])


def test_a_picture_is_enlarged(server, editor, apple):
    before = editor.url
    editor.get_by_role("button", name="Enlarge ×2").click()
    expect(editor).not_to_have_url(before)
    large = pixels(server, editor.url.rpartition("/")[2])
    assert large.shape == (512, 512, 3)
    small = large.reshape(256, 2, 256, 2, 3).mean((1, 3))
    assert np.abs(small - pixels(server, apple)).mean() < 16


def test_what_is_cut_out_is_transparent_around(server, editor):
    before = editor.url
    editor.get_by_role("button", name="Cut out").click()
    expect(editor).not_to_have_url(before)
    content = server.http.get(f"/api/v1/pictures/{editor.url.rpartition('/')[2]}/file").content
    alpha = np.asarray(PIL.Image.open(io.BytesIO(content)).convert("RGBA"))[..., 3]
    assert alpha.min() == 0
    assert alpha.max() == 255


def test_a_picture_that_is_dropped_or_pasted_is_edited(editor):
    editor.evaluate(
        """async () => {
            const canvas = new OffscreenCanvas(96, 64);
            canvas.getContext("2d").fillRect(0, 0, 96, 64);
            const transfer = new DataTransfer();
            transfer.items.add(new File([await canvas.convertToBlob()], "black.png", { type: "image/png" }));
            const given = { bubbles: true, cancelable: true };
            document.body.dispatchEvent(new ClipboardEvent("paste", { ...given, clipboardData: transfer }));
        }"""
    )
    expect(editor).to_have_url(re.compile(r"/edit/new-1$"))
    expect(editor.get_by_role("img", name="The picture")).to_be_visible()
    assert editor.get_by_role("dialog").count() == 0


def live(page):
    return page.get_by_role("region", name="Live")


def painted(page):
    """Pixels that have a colour painted on them."""
    return np.array(page.locator(".paint canvas").evaluate(ALPHA)).reshape(256, 256) > 0


def test_what_is_drawn_follows_the_strength_and_the_words_and_is_kept_as_the_next_step(server, editor, apple):
    jobs = len(server.jobs())
    editor.get_by_role("button", name="Draw over").click()
    editor.get_by_role("button", name="Live").click()
    editor.get_by_role("textbox", name="Prompt").fill("a green apple, 3d render")
    followed = live(editor).get_by_role("img", name="a green apple, 3d render", exact=True)
    expect(followed).to_be_visible()
    source = followed.get_attribute("src")
    editor.get_by_label("Strength", exact=True).fill("0.3")
    editor.keyboard.press("Tab")
    expect(followed).not_to_have_attribute("src", source)
    assert len(server.jobs()) == jobs
    before = editor.url
    live(editor).get_by_role("button", name="Keep").click()
    expect(editor).not_to_have_url(before)
    kept = request(server, editor.url.rpartition("/")[2])
    assert (kept["prompt"], kept["strength"], kept["fast"]) == ("a green apple, 3d render", 0.3, True)
    expect(live(editor)).to_be_visible()
    editor.keyboard.press("Alt+l")
    expect(live(editor)).to_have_count(0)


def test_a_sketch_in_colours_is_drawn_live_and_survives_a_reload(server, open_page):
    page = open_page(f"{server.url}/edit/new", viewport=WIDE)
    page.get_by_role("button", name="Draw on an empty canvas").click()
    expect(page).to_have_url(re.compile("/edit/empty-256x256$"))
    expect(page.get_by_role("button", name="Paint in colours")).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="Green", exact=True).click()
    paint(page, (-40, 0), (40, 0))
    paint(page, (0, -60), (0, 60))
    page.get_by_role("textbox", name="Prompt").fill("a green leaf, 3d render")
    followed = live(page).get_by_role("img", name="a green leaf, 3d render", exact=True)
    expect(followed).to_be_visible()
    cross = painted(page)
    source = followed.get_attribute("src")
    page.keyboard.press("Tab")
    page.get_by_role("button", name="Undo", exact=True).click()
    assert painted(page).sum() < cross.sum()
    expect(followed).not_to_have_attribute("src", source)
    page.get_by_role("button", name="Redo", exact=True).click()
    page.get_by_role("button", name="Rub out what is painted").click()
    paint(page, (-40, 0), (-40, 1))
    rubbed = painted(page)
    assert (cross & ~rubbed).any()
    page.reload()
    expect(followed).to_be_visible()
    assert (painted(page) == rubbed).all()
    page.get_by_label("Steps", exact=True).fill("2")
    sent = request(server, draw(page))
    assert sent["prompt"] == "a green leaf, 3d render"
    assert sent["image"] is not None


@pytest.mark.parametrize(("scheme", "width"), [("light", 360), ("dark", 360), ("dark", 768), ("light", 1440)])
def test_no_rule_of_accessibility_is_broken_in_edit(server, apple, open_page, check_access, scheme, width):
    size = {"width": width, "height": 740}
    page = open_page(f"{server.url}/edit/new", color_scheme=scheme, viewport=size, has_touch=width == 360)
    expect(page.get_by_role("button", name="Open a file")).to_be_visible()
    check_access(page)
    page.goto(f"{server.url}/edit/{apple}")
    expect(page.get_by_role("img", name="a red apple, 3d render").first).to_be_visible()
    paint(page, (-20, 0), (20, 0))
    check_access(page)
    page.get_by_role("button", name="Clear the mask").click()
    page.get_by_role("button", name="Extend the picture").click()
    check_access(page)
    page.get_by_role("button", name="Draw over").click()
    page.get_by_role("button", name="Live").click()
    page.get_by_role("button", name="Paint in colours").click()
    expect(live(page).get_by_role("img")).to_be_visible()
    check_access(page)
