"""Every key that `?` lists does what it says: a key that is added to a view needs a line here."""

import re

import pytest
from playwright.sync_api import expect

WIDE = {"width": 1280, "height": 800}
EVERYWHERE = {"?", "Alt+D", "Alt+S", "Alt+G", "Alt+T"}
KEYS = "all => all.map(each => [...each.children].map(cap => cap.textContent).join('+'))"
NAMES = {"↑": "ArrowUp", "↓": "ArrowDown", "←": "ArrowLeft", "→": "ArrowRight", "⇧": "Shift", "Esc": "Escape"}
NAMES |= {"Ctrl": "Control"}


def listed(page):
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog", name="Keys")
    expect(dialog).to_be_visible()
    found = dialog.locator("dt > span").evaluate_all(KEYS)
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    return set(found)


def press(page, key):
    """Press a key as it is listed, and let go."""
    parts = [NAMES.get(part, part) for part in key.split("+")] if key != "+" else ["+"]
    *held, last = parts
    page.keyboard.press("+".join([*held, last.lower() if len(last) == 1 else last]))


def try_all(page, deeds):
    """Press each key in its turn; what is in `deeds` looks whether it has done its work."""
    assert listed(page) - EVERYWHERE == {key for key, _ in deeds}
    for key, seen in deeds:
        press(page, key)
        seen()


@pytest.fixture(scope="module")
def two(shared_server, apple):
    """Two pictures, of a word of their own."""
    fields = {"prompt": "keyed ball", "steps": 1, "width": 64, "height": 64}
    for seed in (1, 2):
        shared_server.wait(shared_server.submit(**fields, seed=seed)["id"])


def wide(page, low, high=1e9):
    """Whether the picture on the canvas is shown so many pixels wide."""
    width = "document.querySelector('.picture').getBoundingClientRect().width"
    inside = f"([low, high]) => low < {width} && {width} < high"
    return lambda: page.wait_for_function(inside, arg=[low, high])


def textbox(page, name="Prompt"):
    return page.get_by_role("textbox", name=name, exact=True)


def pressed(locator, state="true"):
    return lambda: expect(locator).to_have_attribute("aria-pressed", state)


def test_those_of_all_places(server, open_page):
    page = open_page(server.url)
    for key, address in (("Alt+G", "/gallery"), ("Alt+T", "/teach"), ("Alt+S", "/scene"), ("Alt+D", "/")):
        press(page, key)
        expect(page).to_have_url(server.url + address)
        expect(page.get_by_role("heading", level=1)).not_to_have_count(0)
        assert listed(page) >= EVERYWHERE


def test_those_of_draw(server, open_page):
    page = open_page(server.url, viewport=WIDE)
    prompt, controls = textbox(page), page.get_by_role("region", name="All controls")

    steps = page.get_by_role("button", name="3 steps", exact=True)

    def weighed(value):
        return lambda: expect(prompt).to_have_value(value)

    def write():
        expect(prompt).to_be_focused()
        page.keyboard.type("a keyed cat")

    def leave():
        expect(controls).to_have_count(0)
        expect(prompt).to_be_focused()

    def drawn():
        expect(page.get_by_role("list", name="What was drawn")).to_contain_text("a keyed cat")
        page.get_by_role("button", name="All controls").click()
        controls.get_by_label("Steps", exact=True).fill("3")
        page.get_by_role("button", name="All controls").click()
        expect(steps).to_have_count(1)

    try_all(
        page,
        [
            ("/", write),
            ("Ctrl+↑", weighed("a keyed (cat:1.1)")),
            ("Ctrl+↓", weighed("a keyed cat")),
            ("Ctrl+.", lambda: expect(controls).to_be_focused()),
            ("Esc", leave),
            ("Ctrl+Enter", drawn),
            ("U", lambda: expect(steps).to_have_count(0)),
            ("⇧+U", lambda: expect(steps).to_have_count(1)),
            ("Alt+L", pressed(page.get_by_role("button", name="Live"))),
        ],
    )
    keep = page.get_by_role("button", name="Keep")
    expect(keep).to_be_enabled()
    assert "Alt+K" in listed(page)
    press(page, "Alt+K")
    expect(page.get_by_role("button", name="Kept")).to_be_disabled()


def test_those_of_edit(server, apple, open_page):
    page = open_page(f"{server.url}/edit/{apple}", viewport=WIDE)
    canvas, picture = page.get_by_role("application", name="Canvas"), page.locator(".picture")
    expect(picture.get_by_role("img").first).to_be_visible()
    page.get_by_label("Steps", exact=True).fill("1")
    page.get_by_role("textbox", name="Instruction").fill("make it blue")
    canvas.focus()
    masked = page.get_by_text("Draws into the mask")
    size = page.get_by_label("Brush size", exact=True)
    smaller, width = int(float(size.input_value()) * 0.8 + 0.5), picture.bounding_box()["width"]

    def tool(name):
        return pressed(page.get_by_role("button", name=name, exact=True))

    def brush(wanted):
        return lambda: expect(size).to_have_value(str(wanted))

    def drawn():
        expect(page).not_to_have_url(re.compile(apple))
        canvas.focus()
        page.keyboard.down("c")
        expect(page.get_by_role("img", name="One step before")).to_be_visible()
        page.keyboard.up("c")

    try_all(
        page,
        [
            ("E", tool("Eraser")),
            ("F", tool("Fill what is surrounded")),
            ("P", tool("Paint in colours")),
            ("X", tool("Extend the picture")),
            ("M", tool("Move the view")),
            ("B", tool("Brush")),
            ("[", brush(smaller)),
            ("]", brush(int(smaller * 1.25 + 0.5))),
            ("I", lambda: expect(masked).to_be_visible()),
            ("Delete", lambda: expect(masked).to_have_count(0)),
            ("Ctrl+Z", lambda: expect(masked).to_be_visible()),
            ("Ctrl+⇧+Z", lambda: expect(masked).to_have_count(0)),
            ("+", wide(page, width + 1)),
            ("0", wide(page, width - 1, width + 1)),
            ("-", wide(page, 0, width - 1)),
            ("Ctrl+Enter", drawn),
            ("C", lambda: None),
            ("Alt+L", pressed(page.get_by_role("button", name="Live"))),
        ],
    )


def test_those_of_a_scene(server, open_page):
    page = open_page(f"{server.url}/scene", viewport=WIDE)
    textbox(page, "Background prompt").fill("a wall")
    page.get_by_role("button", name="All controls").click()
    page.get_by_label("Steps", exact=True).fill("1")
    page.get_by_role("button", name="All controls").click()
    canvas, picture = page.get_by_role("application"), page.locator(".picture")
    prompts = page.get_by_role("complementary", name="Layers").get_by_role("textbox")
    canvas.focus()
    page.keyboard.press("n")
    page.keyboard.type("a star")
    canvas.focus()
    controls = page.get_by_role("region", name="All controls")
    width = picture.bounding_box()["width"]

    def moon(place=""):
        return canvas.get_by_role("group", name=f"a moon{place}")

    def write():
        expect(prompts.first).to_be_focused()
        page.keyboard.type("a moon")
        moon().focus()

    def first(text):
        return lambda: expect(prompts.first).to_have_value(text)

    def rewritten():
        expect(page.get_by_role("textbox", name="Prompt of element 2")).to_be_focused()
        moon().focus()

    def back():
        expect(controls).to_have_count(0)
        canvas.focus()

    def drawn():
        expect(page).to_have_url(re.compile("/scene/"))
        canvas.focus()

    try_all(
        page,
        [
            ("N", write),
            ("↑", lambda: expect(moon(": 102 × 102 pixels at 77, 69")).to_be_focused()),
            ("⇧+↑", lambda: expect(moon(": 102 × 94 pixels at 77, 69")).to_be_focused()),
            ("Enter", rewritten),
            ("PageDown", first("a star")),
            ("PageUp", first("a moon")),
            ("Delete", lambda: expect(prompts).to_have_count(1)),
            ("Ctrl+Z", lambda: expect(prompts).to_have_count(2)),
            ("Ctrl+⇧+Z", lambda: expect(prompts).to_have_count(1)),
            ("O", pressed(page.get_by_role("button", name="Show the boxes"), "false")),
            ("+", wide(page, width + 1)),
            ("0", wide(page, width - 1, width + 1)),
            ("-", wide(page, 0, width - 1)),
            ("Ctrl+.", lambda: expect(controls).to_be_focused()),
            ("Esc", back),
            ("/", lambda: expect(textbox(page, "Background prompt")).to_be_focused()),
            ("Ctrl+Enter", drawn),
        ],
    )


def test_those_of_the_gallery_its_viewer_and_the_comparison(server, two, open_page):
    page = open_page(f"{server.url}/gallery?search=keyed+ball", viewport=WIDE)
    cells = page.get_by_role("gridcell")
    expect(cells).to_have_count(2)
    links, chosen = cells.get_by_role("link"), page.get_by_text("1 selected")
    undo = page.locator(".toast").get_by_role("button", name="Undo")

    def at(number):
        return lambda: expect(links.nth(number)).to_be_focused()

    def removed():
        expect(cells).to_have_count(1)
        undo.click()
        expect(cells).to_have_count(2)

    def favourite():
        heart = cells.first.get_by_role("img", name="Favourite")
        expect(heart).to_be_visible()
        page.keyboard.press("f")
        expect(heart).to_have_count(0)

    def search():
        expect(textbox(page, "Search pictures")).to_be_focused()
        page.get_by_role("main").focus()
        for number in (0, 1):
            cells.nth(number).get_by_role("button", name="Select").click()

    try_all(
        page,
        [
            ("→", at(0)),
            ("↓", at(0)),
            ("End", at(1)),
            ("Home", at(0)),
            ("↑", at(0)),
            ("←", at(0)),
            ("X", lambda: expect(chosen).to_be_visible()),
            ("Esc", lambda: expect(chosen).to_have_count(0)),
            ("F", favourite),
            ("Delete", removed),
            ("/", search),
            ("C", lambda: expect(page.get_by_role("heading", name="Compare two pictures")).to_be_visible()),
        ],
    )
    slider = page.get_by_role("slider")
    try_all(
        page,
        [
            ("→", lambda: expect(slider).to_have_value("55")),
            ("←", lambda: expect(slider).to_have_value("50")),
            ("Esc", lambda: expect(slider).to_have_count(0)),
        ],
    )
    page.keyboard.press("Escape")
    links.first.click()
    viewer = page.get_by_role("region", name="Picture", exact=True)
    expect(viewer).to_be_focused()
    newest = page.url

    def edited():
        expect(page).to_have_url(re.compile("/edit/"))
        page.go_back()
        expect(viewer).to_be_visible()

    def deleted():
        expect(page).not_to_have_url(newest)
        undo.click()
        page.goto(newest)
        expect(viewer).to_be_visible()

    def again():
        expect(textbox(page)).to_have_value("keyed ball")
        page.go_back()
        expect(viewer).to_be_visible()

    try_all(
        page,
        [
            ("→", lambda: expect(page).not_to_have_url(newest)),
            ("←", lambda: expect(page).to_have_url(newest)),
            ("F", pressed(viewer.get_by_role("button", name="Favourite"))),
            ("E", edited),
            ("Delete", deleted),
            ("R", again),
            ("Esc", lambda: expect(viewer).to_have_count(0)),
        ],
    )


def test_a_picture_is_drawn_again_by_its_key_also_before_it_is_there(server, open_page, apple):
    page, held, pressed_yet = open_page("about:blank"), [], []
    page.route(
        re.compile(r"/api/v1/pictures"),
        lambda route: route.continue_() if pressed_yet else held.append(route),
    )
    page.goto(f"{server.url}/gallery?picture={apple}")
    expect(page.get_by_role("region", name="Picture", exact=True)).to_be_focused()
    page.keyboard.press("r")
    pressed_yet.append(True)
    for route in held:
        route.continue_()
    expect(textbox(page)).to_have_value("a red apple, 3d render")


def test_those_of_a_grid(server, open_page):
    axes = [{"field": "steps", "values": "1, 2"}, {"field": "seed", "values": "1, 2"}]
    request = {"prompt": "a keyed grid", "width": 64, "height": 64}
    grid = server.http.post("/api/v1/grids", json={"request": request, "axes": axes}).json()
    for cell in grid["cells"]:
        server.wait(cell["job"])
    page = open_page(f"{server.url}/grid/{grid['id']}", viewport=WIDE)
    size = page.get_by_role("slider", name="Size of the cells")
    expect(page.get_by_role("link", name="steps 2, seed 2")).to_be_visible()
    begun = int(size.input_value())

    def at(steps, seed):
        return lambda: expect(page.get_by_role("link", name=f"steps {steps}, seed {seed}")).to_be_focused()

    def compared():
        heading = page.get_by_role("heading", name="Compare two pictures")
        expect(heading).to_be_visible()
        page.keyboard.press("Escape")
        expect(heading).to_have_count(0)

    def selected():
        expect(page.get_by_text("1 selected")).to_be_visible()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("x")

    try_all(
        page,
        [
            ("→", at(1, 1)),
            ("↓", at(1, 2)),
            ("↑", at(1, 1)),
            ("←", at(1, 1)),
            ("X", selected),
            ("C", compared),
            ("Esc", lambda: expect(page.get_by_text("2 selected")).to_have_count(0)),
            ("-", lambda: expect(size).to_have_value(str(begun - 32))),
            ("+", lambda: expect(size).to_have_value(str(begun))),
        ],
    )
