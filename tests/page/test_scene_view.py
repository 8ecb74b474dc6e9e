"""The page's scenes, used as a person uses them: boxes are dragged, named, put in depth, and drawn."""

import re

import pytest
from playwright.sync_api import expect

import sfumato

WIDE = {"width": 1280, "height": 800}
SCENE = {
    "background": "a window, noto style",
    "seed": 3,
    "steps": 1,
    "guidance": 1,
    "elements": [
        {"prompt": "a red apple, 3d render", "box": (0.1, 0.5, 0.4, 0.9), "depth": 1, "shadow": 0.3},
        {"prompt": "a lemon, 3d render", "box": (0.3, 0.5, 0.7, 0.9), "seed": 8},
    ],
}


@pytest.fixture
def page(server, open_page):
    """A window with an empty scene, which draws in one step."""
    page = open_page(f"{server.url}/scene", viewport=WIDE)
    page.get_by_role("textbox", name="Background prompt").fill("a window, noto style")
    page.get_by_role("button", name="All controls").click()
    page.get_by_label("Steps", exact=True).fill("1")
    page.get_by_label("Steps", exact=True).press("Tab")
    page.get_by_role("button", name="All controls").click()
    return page


def box(page, name):
    return page.get_by_role("application").get_by_role("group", name=name)


def prompts(page):
    """What the layers are, the nearest first."""
    return page.get_by_role("complementary", name="Layers").get_by_role("textbox")


def drag(page, *points):
    """From point to point, given as fractions of the picture."""
    canvas = page.locator(".picture").bounding_box()
    for index, (x, y) in enumerate(points):
        page.mouse.move(canvas["x"] + x * canvas["width"], canvas["y"] + y * canvas["height"], steps=3)
        if index == 0:
            page.mouse.down()
    page.mouse.up()


def drawn(page):
    """The name of the picture that is drawn next."""
    before = page.url
    page.get_by_role("button", name="Draw", exact=True).click()
    expect(page).not_to_have_url(before)
    return page.url.rpartition("/")[2]


def request(server, picture):
    return server.http.get(f"/api/v1/pictures/{picture}/record").json()["request"]


@pytest.mark.quick
def test_boxes_are_drawn_as_elements_in_their_depth_and_kept(server, page):
    drag(page, (0.1, 0.5), (0.4, 0.9))
    page.keyboard.type("a red apple, 3d render")
    drag(page, (0.5, 0.5), (0.9, 0.9))
    page.keyboard.type("a lemon, 3d render")
    drag(page, (0.7, 0.7), (0.6, 0.7))
    drag(page, (0.8, 0.9), (0.8, 1))
    expect(prompts(page).first).to_have_value("a lemon, 3d render")
    grip = page.get_by_role("slider", name="Depth of a lemon").bounding_box()
    page.mouse.move(grip["x"] + 8, grip["y"] + 8)
    page.mouse.down()
    page.mouse.move(grip["x"] + 8, grip["y"] + 70, steps=4)
    page.mouse.up()
    expect(prompts(page).first).to_have_value("a red apple, 3d render")
    picture = drawn(page)
    asked = request(server, picture)
    assert asked["prompt"] == "a window, noto style"
    apple, lemon = asked["elements"]
    assert (apple["prompt"], lemon["prompt"]) == ("a red apple, 3d render", "a lemon, 3d render")
    assert apple["depth"] > lemon["depth"]
    assert apple["box"] == pytest.approx([0.1, 0.5, 0.4, 0.9], abs=0.01)
    assert lemon["box"] == pytest.approx([0.4, 0.5, 0.8, 1], abs=0.01)
    image = page.get_by_role("application").get_by_role("img", name="a window, noto style")
    expect(image).to_be_visible()
    page.reload()
    expect(image).to_be_visible()
    expect(prompts(page)).to_have_count(2)
    expect(box(page, re.compile("a lemon, 3d render: 10. × 12. pixels at 10., 12."))).to_be_visible()


def test_everything_is_done_by_keys(page):
    page.get_by_role("application").focus()
    page.keyboard.press("n")
    page.keyboard.type("a star")
    page.get_by_role("application").focus()
    page.keyboard.press("n")
    page.keyboard.type("a moon")
    box(page, "a star").focus()
    page.keyboard.press("Tab")
    expect(box(page, "a moon")).to_be_focused()
    before = box(page, "a moon").get_attribute("aria-label")
    assert before == "a moon: 102 × 102 pixels at 77, 77"
    for key in ("ArrowLeft", "ArrowUp", "Shift+ArrowRight", "Shift+ArrowDown", "Alt+ArrowDown"):
        page.keyboard.press(key)
    expect(box(page, "a moon: 110 × 110 pixels at 69, 70")).to_be_focused()
    page.keyboard.press("PageDown")
    expect(prompts(page).first).to_have_value("a star")
    page.get_by_role("slider", name="Depth of a moon").press("ArrowUp")
    expect(prompts(page).first).to_have_value("a moon")
    box(page, "a moon").press("Delete")
    expect(prompts(page)).to_have_count(1)
    page.keyboard.press("Control+z")
    expect(prompts(page)).to_have_count(2)
    box(page, "a star").press("Enter")
    expect(page.get_by_role("textbox", name="Prompt of element 1")).to_be_focused()
    page.get_by_role("application").focus()
    page.keyboard.press("o")
    expect(page.get_by_role("button", name="Show the boxes")).to_have_attribute("aria-pressed", "false")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_contain_text("Bring nearer")


def test_fingers_make_boxes_and_two_of_them_move_the_canvas(server, open_page):
    page = open_page(f"{server.url}/scene", viewport={"width": 360, "height": 740}, has_touch=True)
    canvas = page.locator(".picture").bounding_box()
    session = page.context.new_cdp_session(page)

    def touch(kind, *points):
        at = [
            {"x": canvas["x"] + x * canvas["width"], "y": canvas["y"] + y * canvas["height"], "id": number}
            for number, (x, y) in enumerate(points)
        ]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": at})

    touch("touchStart", (0.2, 0.2))
    touch("touchMove", (0.4, 0.5))
    touch("touchMove", (0.6, 0.7))
    touch("touchEnd")
    expect(box(page, re.compile("Element 1: 10. × 12. pixels at 5., 5."))).to_be_visible()
    expect(prompts(page)).to_be_focused()
    touch("touchStart", (0.8, 0.8))
    touch("touchMove", (0.9, 0.9))
    touch("touchStart", (0.9, 0.9), (0.1, 0.1))
    touch("touchMove", (0.9, 0.9), (0.5, 0.5))
    touch("touchEnd")
    expect(prompts(page)).to_have_count(1)
    assert page.locator(".picture").bounding_box()["width"] < 0.8 * canvas["width"]


def test_what_is_wrong_with_a_box_is_told_where_it_is(server, page):
    jobs = len(server.http.get("/api/v1/jobs").json())
    drag(page, (0.2, 0.2), (0.22, 0.4))
    row = page.get_by_role("complementary", name="Layers").get_by_role("listitem").first
    expect(row).to_contain_text("The box is too small")
    page.get_by_role("button", name="Options of Element 1").click()
    page.get_by_label("Width", exact=True).fill("300")
    page.get_by_label("Width", exact=True).press("Tab")
    expect(row).to_contain_text("partly outside")
    page.get_by_label("Width", exact=True).fill("80")
    page.get_by_role("button", name="Draw", exact=True).click()
    prompt = page.get_by_role("textbox", name="Prompt of element 1")
    expect(row).to_contain_text("Say what stands here")
    expect(prompt).to_be_focused()
    prompt.fill("a star")
    expect(row).not_to_contain_text("Say what")
    assert len(server.http.get("/api/v1/jobs").json()) == jobs


def test_a_drawn_scene_is_opened_changed_copied_and_saved_in_parts(server, open_page, tmp_path):
    sfumato.connect(server.url).generate(sfumato.Scene(**SCENE).request)
    picture = server.http.get("/api/v1/pictures").json()[0]["id"]
    page = open_page(f"{server.url}/gallery?picture={picture}", viewport={"width": 360, "height": 740})
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("link", name="Open as scene").click()
    expect(page).to_have_url(re.compile(f"/scene/{picture}"))
    expect(prompts(page)).to_have_count(2)
    expect(prompts(page).first).to_have_value("a red apple, 3d render")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.get_by_role("button", name="Copy as").click()
    page.get_by_role("menuitem", name="Command").click()
    expect(page.get_by_text("Copied.")).to_be_visible()
    text = page.evaluate("navigator.clipboard.readText()")
    file = tmp_path / "scene.toml"
    file.write_text(re.search(r"<<'END_OF_SCENE'\n(.*)END_OF_SCENE\n", text, re.DOTALL)[1])
    assert sfumato.Scene.read(file).request == sfumato.Scene(**SCENE).request
    page.get_by_role("button", name="Options of a red apple").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save alone, transparent").click()
    image = sfumato.Image.open(download.value.path())
    assert image.pixels.shape == (256, 256, 4)
    assert (image.record.request.prompt, image.record.request.seed) == ("a red apple, 3d render", 4)


@pytest.mark.parametrize(("scheme", "width"), [("light", 360), ("dark", 360), ("dark", 768), ("light", 1440)])
def test_no_rule_of_accessibility_is_broken_in_a_scene(server, open_page, check_access, scheme, width):
    size = {"width": width, "height": 740}
    page = open_page(f"{server.url}/scene", color_scheme=scheme, viewport=size, has_touch=width == 360)
    page.get_by_role("application").wait_for()
    check_access(page)
    drag(page, (0.1, 0.5), (0.4, 0.9))
    page.keyboard.type("a red apple, 3d render")
    page.get_by_role("button", name="Options of a red apple").click()
    page.get_by_role("button", name="Draw", exact=True).click()
    check_access(page)
