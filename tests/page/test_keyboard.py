"""The page by keys alone: where Tab leads, where the focus goes when something closes, what stands still."""

import re

import pytest
from playwright.sync_api import expect

SIZES = {"wide": (1280, 800), "phone": (360, 740)}
FOCUSED = """() => {
  const found = document.activeElement;
  if (found === document.body) return null;
  const { left, right, top, bottom } = found.getBoundingClientRect();
  const x = (Math.max(left, 0) + Math.min(right, innerWidth)) / 2;
  const y = (Math.max(top, 0) + Math.min(bottom, innerHeight)) / 2;
  const over = document.elementFromPoint(x, y);
  const marked = [found, found.parentElement].some((each) => getComputedStyle(each).outlineStyle !== "none");
  return { html: found.cloneNode(false).outerHTML, seen: found.contains(over), marked };
}"""
"""The focused element: whether it is in sight and nothing lies on it, and whether it is marked."""


@pytest.fixture(scope="module")
def grid(shared_server):
    """The address of a grid that was drawn."""
    axes = [{"field": "steps", "values": "1, 2"}, {"field": "seed", "values": "1, 2"}]
    request = {"prompt": "a plain ball", "width": 64, "height": 64}
    found = shared_server.http.post("/api/v1/grids", json={"request": request, "axes": axes}).json()
    for cell in found["cells"]:
        shared_server.wait(cell["job"])
    return f"grid/{found['id']}"


def few(address):
    """The address of a list of two."""
    path, _, query = address.partition("?")
    others = [each for each in query.split("&") if not each.startswith("limit=")]
    return f"{path}?{'&'.join([*others, 'limit=2'])}"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("place", "shows", "reached"),
    [
        ("", "figure img", "Prompt"),
        ("edit/{apple}", "[role=application]", "Canvas"),
        ("scene", "[role=application]", "Background prompt"),
        ("gallery", "[role=gridcell] img", "Search pictures"),
        ("gallery?picture={apple}", "aside dl", "Download"),
        ("{grid}", "td img", "Copy as command"),
    ],
    ids=["draw", "edit", "scene", "gallery", "picture", "grid"],
)
def test_tab_leads_to_all_that_can_be_done_and_shows_where_it_is(
    server, apple, grid, open_page, place, shows, reached, size
):
    width, height = SIZES[size]
    server.wait(server.submit(prompt="a plain star", steps=1, width=64, height=64)["id"])
    address = place.format(apple=apple, grid=grid)
    page = open_page("about:blank", viewport={"width": width, "height": height})
    # pictures that other tests have drawn have stops of their own
    page.route(
        re.compile(r"/api/v1/(jobs|pictures)\?"), lambda route: route.continue_(url=few(route.request.url))
    )
    page.goto(f"{server.url}/{address}")
    page.locator(shows).first.wait_for()
    walked = []
    for _ in range(400):
        page.keyboard.press("Tab")
        if (found := page.evaluate(FOCUSED)) is None:
            break
        walked.append(found)
    assert any(f'aria-label="{reached}"' in each["html"] for each in walked)
    assert [each for each in walked if not each["seen"] or not each["marked"]] == []


@pytest.mark.quick
def test_the_first_tab_skips_to_what_is_shown(server, apple, open_page):
    page = open_page(f"{server.url}/gallery")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("textbox", name="Search pictures")).to_be_focused()


def test_when_a_dialog_or_a_menu_closes_the_focus_is_where_it_was(server, apple, open_page, check_access):
    page = open_page(server.url)

    def opened_from(button, dialog):
        button.focus()
        page.keyboard.press("Enter")
        shown = page.get_by_role("dialog", name=dialog, exact=True)
        expect(shown).to_be_visible()
        assert shown.evaluate("dialog => dialog.contains(document.activeElement)")
        check_access(page)
        page.keyboard.press("Escape")
        expect(shown).to_have_count(0)
        expect(button).to_be_focused()

    opened_from(page.get_by_role("button", name="Grid…"), "Draw a grid")
    opened_from(page.get_by_role("button", name="Page settings"), "Page settings")
    more = page.get_by_role("figure").first.get_by_role("button", name="More")
    opened_from(more, "More")

    page.get_by_role("button", name="Page settings").focus()
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Show the keys").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    check_access(page)
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Page settings")).to_be_focused()

    for key in ("Escape", "Enter"):
        more.focus()
        page.keyboard.press("Enter")
        for _ in range(3):
            expect(page.get_by_role("menuitem").and_(page.locator(":focus"))).to_be_visible()
            page.keyboard.press("ArrowDown")
        expect(page.get_by_role("menuitem", name="Enlarge…")).to_be_focused()
        page.keyboard.press("Enter")
        dialog = page.get_by_role("dialog", name="Enlarge")
        check_access(page)
        dialog.get_by_role("button", name="Draw").focus()
        page.keyboard.press(key)
        expect(dialog).to_have_count(0)
        expect(more).to_be_focused()


@pytest.mark.quick
@pytest.mark.parametrize(
    ("place", "box"), [("", "Prompt"), ("scene", "Background prompt")], ids=["draw", "scene"]
)
def test_the_controls_take_the_focus_and_give_it_back(server, open_page, place, box):
    page = open_page(f"{server.url}/{place}")
    prompt = page.get_by_role("textbox", name=box, exact=True)
    prompt.focus()
    page.keyboard.press("ControlOrMeta+.")
    panel = page.get_by_role("region", name="All controls")
    expect(panel).to_be_focused()
    page.keyboard.press("Tab")
    assert panel.evaluate("panel => panel.contains(document.activeElement)")
    page.keyboard.press("Escape")
    expect(panel).to_have_count(0)
    expect(prompt).to_be_focused()


def test_a_picture_that_closes_leaves_the_focus_in_its_place(server, apple, grid, open_page):
    page = open_page(f"{server.url}/gallery")
    first = page.get_by_role("gridcell").first.get_by_role("link")
    first.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("region", name="Picture", exact=True)).to_be_focused()
    for name in ("Copy as", "Download"):
        button = page.get_by_role("button", name=name)
        button.focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("menuitem").first).to_be_focused()
        page.keyboard.press("Escape")
        expect(button).to_be_focused()
    page.keyboard.press("Escape")
    expect(first).to_be_focused()
    page.keyboard.press("x")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("x")
    page.keyboard.press("c")
    expect(page.get_by_role("heading", name="Compare two pictures")).to_be_visible()
    page.keyboard.press("Escape")
    expect(first).to_be_focused()

    page.goto(f"{server.url}/{grid}")
    cell = page.get_by_role("link", name="steps 2, seed 1")
    cell.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("region", name="Picture", exact=True)).to_be_focused()
    page.keyboard.press("Escape")
    expect(cell).to_be_focused()


def test_a_place_that_is_left_by_a_key_gives_the_focus_to_the_next(server, open_page):
    page = open_page(server.url)
    page.get_by_role("textbox", name="Prompt", exact=True).focus()
    page.keyboard.press("Alt+g")
    expect(page.get_by_role("main")).to_be_focused()


@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
def test_what_moves_stands_still_where_that_is_asked_for(server, open_page, motion):
    page = open_page(server.url)
    page.emulate_media(reduced_motion=motion)
    server.submit(prompt="a slow house", steps=200)
    expect(page.get_by_role("progressbar").first).to_be_visible()
    durations = page.evaluate(
        "() => [...document.querySelectorAll('*')].map(each => getComputedStyle(each))"
        ".flatMap(each => [each.transitionDuration, each.animationDuration].join(',').split(','))"
        ".map(parseFloat)"
    )
    assert (max(durations) > 0) == (motion == "no-preference")
