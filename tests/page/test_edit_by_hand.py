"""The editor under hands: a pen that presses, two fingers, a palm, and a phone."""

import numpy as np
import pytest
from playwright.sync_api import expect

PHONE = {"width": 360, "height": 740}
ALPHA = """canvas => {
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return Array.from(data).filter((_, index) => index % 4 === 3);
}"""
POINTER = """(stage, [kind, type, id, x, y, pressure]) => {
    const box = stage.getBoundingClientRect();
    stage.setPointerCapture = () => undefined;
    stage.dispatchEvent(new PointerEvent(kind, {
        bubbles: true, cancelable: true, pointerId: id, pointerType: type, pressure, button: 0, buttons: 1,
        isPrimary: id === 1, clientX: box.x + box.width / 2 + x, clientY: box.y + box.height / 2 + y,
    }));
}"""


@pytest.fixture
def phone(server, apple, open_page):
    page = open_page(f"{server.url}/edit/{apple}", viewport=PHONE, has_touch=True, is_mobile=True)
    expect(page.get_by_role("img", name="a red apple, 3d render").first).to_be_visible()
    return page


def canvas(page):
    return page.get_by_role("application", name="Canvas")


def pointer(page, kind, device, x, y, *, number=1, pressure=0.5):
    canvas(page).evaluate(POINTER, [f"pointer{kind}", device, number, x, y, pressure])


def painted(page):
    """Which pixels of the mask are painted."""
    return np.array(page.locator(".mask canvas").evaluate(ALPHA)).reshape(256, 256) > 0


def shown(page):
    """Where the picture lies on the page."""
    return page.locator(".picture").bounding_box()


def touches(page):
    session = page.context.new_cdp_session(page)
    box = canvas(page).bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def touch(kind, *points):
        points = [{"x": middle[0] + x, "y": middle[1] + y, "id": at} for at, (x, y) in enumerate(points)]
        session.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points})

    return touch


def test_a_tap_paints_a_dot(phone):
    touch = touches(phone)
    touch("Start", (0, 0))
    touch("End")
    dot = painted(phone)
    assert 600 < dot.sum() < 1000
    assert dot[128, 128]
    phone.get_by_role("button", name="Undo", exact=True).click()
    assert not painted(phone).any()


def test_a_finger_paints_and_two_of_them_zoom_and_move(phone):
    touch, before = touches(phone), shown(phone)
    touch("Start", (-60, -60))
    touch("Move", (60, -60))
    touch("End")
    one = painted(phone)
    assert one.any()
    # a second finger comes down a moment later: the dab of the first is taken back
    touch("Start", (-30, 40))
    touch("Move", (-32, 40))
    touch("Start", (-32, 40), (30, 40))
    for apart in (45, 60):
        touch("Move", (-apart, 40), (apart, 40))
    touch("End")
    after = shown(phone)
    assert (painted(phone) == one).all()
    assert 1.7 < after["width"] / before["width"] < 2.2
    touch("Start", (-30, 0), (30, 0))
    touch("Move", (-30, 50), (30, 50))
    touch("End")
    assert abs(shown(phone)["y"] - after["y"] - 50) < 2
    assert abs(shown(phone)["width"] - after["width"]) < 1
    assert (painted(phone) == one).all()


def test_a_pen_that_presses_more_paints_broader(phone):
    counts = []
    for row, pressure in ((-60, 0.1), (60, 1)):
        pointer(phone, "down", "pen", -50, row, pressure=pressure)
        pointer(phone, "move", "pen", 50, row, pressure=pressure)
        pointer(phone, "up", "pen", 50, row)
        counts.append(painted(phone).sum())
    assert counts[1] - counts[0] > 2 * counts[0]


def test_a_palm_beside_the_pen_neither_paints_nor_moves(phone):
    before = shown(phone)
    # the palm is down before the pen, and moves while it draws
    pointer(phone, "down", "touch", 90, 90, number=2)
    pointer(phone, "move", "touch", 95, 95, number=2)
    pointer(phone, "down", "pen", -50, -50)
    pointer(phone, "move", "touch", 100, 100, number=2)
    pointer(phone, "move", "pen", 50, -50)
    pointer(phone, "down", "touch", 80, 90, number=3)
    pointer(phone, "up", "touch", 80, 90, number=3)
    pointer(phone, "up", "pen", 50, -50)
    mask = painted(phone)
    assert mask[:128].any()
    assert not mask[150:].any()
    assert shown(phone) == before
    phone.get_by_role("button", name="Undo", exact=True).click()
    assert not painted(phone).any()
    # whoever has a pen moves with a finger
    pointer(phone, "down", "touch", 0, 0, number=4)
    pointer(phone, "move", "touch", 0, 30, number=4)
    pointer(phone, "up", "touch", 0, 30, number=4)
    assert not painted(phone).any()
    assert abs(shown(phone)["y"] - before["y"] - 30) < 2


def test_an_edge_is_dragged_by_a_finger(phone):
    phone.get_by_role("button", name="Extend the picture").click()
    handle = phone.locator(".frame").get_by_role("slider", name="Extend below")
    box, stage = handle.bounding_box(), canvas(phone).bounding_box()
    x = box["x"] + box["width"] / 2 - stage["x"] - stage["width"] / 2
    y = box["y"] + box["height"] / 2 - stage["y"] - stage["height"] / 2
    touch = touches(phone)
    touch("Start", (x, y))
    for by in (10, 30):
        touch("Move", (x, y + by))
    touch("End")
    by = int(handle.get_attribute("aria-valuenow"))
    assert by > 10
    expect(phone.get_by_text(f"Draws beyond the edges: 256 × {256 + by} pixels")).to_be_visible()
