"""The queue of waiting jobs: dragged by mouse and finger, moved by keys, cancelled, drawn in its order."""

import re

import pytest
from playwright.sync_api import expect

AT_ONCE = 2
"""Jobs of one picture that a batch holds."""
WAITING = ["a red house", "a green house", "a blue house"]


@pytest.fixture
def queue(server):
    """Two jobs that are drawn for long, and three that wait; the order of those on a page."""
    for number in range(AT_ONCE):
        server.submit(prompt=f"a slow house {number}", steps=200, count=40, priority=10)
    for prompt in WAITING:
        server.submit(prompt=prompt, steps=2)

    def order(page):
        return page.locator("details ol li .prompt")

    return order


def middle(locator):
    box = locator.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_rows_are_dragged_by_a_mouse(queue, server, open_page):
    page = open_page(server.url)
    expect(queue(page)).to_have_text(WAITING)
    page.mouse.move(*middle(queue(page).nth(2)))
    page.mouse.down()
    page.mouse.move(*middle(queue(page).nth(0)), steps=4)
    page.mouse.up()
    expect(queue(page)).to_have_text([WAITING[2], *WAITING[:2]])
    page.reload()
    expect(queue(page)).to_have_text([WAITING[2], *WAITING[:2]])


def test_rows_are_dragged_by_a_finger_at_their_grip(queue, server, open_page):
    page = open_page(server.url, has_touch=True, is_mobile=True, viewport={"width": 360, "height": 740})
    expect(queue(page)).to_have_text(WAITING)
    session = page.context.new_cdp_session(page)

    def touch(kind, *points):
        points = [{"x": x, "y": y} for x, y in points]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    grips = page.locator("details .grip")
    start, end = middle(grips.nth(0)), middle(grips.nth(2))
    touch("touchStart", start)
    for part in (0.5, 1):
        touch("touchMove", (start[0], start[1] + part * (end[1] - start[1])))
    touch("touchEnd")
    expect(queue(page)).to_have_text([*WAITING[1:], WAITING[0]])


def test_what_is_moved_by_keys_keeps_the_focus_and_is_drawn_next(queue, server, open_page):
    page = open_page(server.url)
    expect(queue(page)).to_have_text(WAITING)
    earlier = page.get_by_role("button", name=f"Earlier: {WAITING[2]}")
    earlier.focus()
    page.keyboard.press("Enter")
    expect(queue(page)).to_have_text([WAITING[0], WAITING[2], WAITING[1]])
    expect(earlier).to_be_focused()
    page.keyboard.press("Enter")
    expect(queue(page)).to_have_text([WAITING[2], *WAITING[:2]])
    # at the top it cannot go further, and the focus is on what can be done
    expect(page.get_by_role("button", name=f"Later: {WAITING[2]}")).to_be_focused()

    slow = [job for job in server.jobs() if "slow" in job["request"]["prompt"]]
    for job in slow:
        server.http.delete(f"/api/v1/jobs/{job['id']}")
    ended = {job["request"]["prompt"]: server.wait(job["id"])["ended"] for job in server.jobs()[:3]}
    assert ended[WAITING[2]] <= min(ended.values())


def test_moves_that_are_not_sent_yet_survive_a_reload(queue, server, open_page):
    page = open_page(server.url)
    expect(queue(page)).to_have_text(WAITING)
    earlier = page.get_by_role("button", name=f"Earlier: {WAITING[2]}")
    # both and the reload before the first is answered
    earlier.evaluate(
        "async button => { button.click(); await null; await null; button.click(); location.reload(); }"
    )
    expect(queue(page)).to_have_text([WAITING[2], *WAITING[:2]])


def test_a_move_that_is_not_answered_yet_survives_a_reload(queue, server, open_page):
    page = open_page(server.url)
    expect(queue(page)).to_have_text(WAITING)
    earlier = page.get_by_role("button", name=f"Earlier: {WAITING[2]}")
    for place in (1, 0):
        earlier.evaluate("button => { button.click(); location.reload(); }")
        order = WAITING[:2]
        order.insert(place, WAITING[2])
        expect(queue(page)).to_have_text(order)


@pytest.mark.quick
def test_what_waits_is_taken_out_of_the_queue(queue, server, open_page):
    page = open_page(server.url)
    page.get_by_role("button", name=f"Remove from the queue: {WAITING[1]}").click()
    expect(queue(page)).to_have_text([WAITING[0], WAITING[2]])
    row = page.get_by_role("list", name="What was drawn").locator("> li").filter(has_text=WAITING[1])
    expect(row.first).to_contain_text("Cancelled")
    row.first.get_by_role("button", name="Again").click()
    expect(queue(page)).to_have_text([WAITING[0], WAITING[2], WAITING[1]])
    expect(page.get_by_text(re.compile("^Waiting, 2 before it"))).to_be_visible()


def test_jobs_wait_in_the_order_of_their_turns_and_those_of_a_grid_in_one_row(queue, server, open_page):
    axes = [{"field": "steps", "values": "3, 5"}, {"field": "seed", "values": "1, 2"}]
    server.http.post("/api/v1/grids", json={"request": {"prompt": "a star"}, "axes": axes})
    server.submit(prompt="a long house", steps=40)
    server.submit(prompt="a short house", steps=1)
    page = open_page(server.url)
    grid = "a star (grid, 4 to go)"
    expect(queue(page)).to_have_text(["a short house", *WAITING, grid, "a long house"])
    page.get_by_role("button", name=f"Earlier: {grid}").click()
    expect(queue(page)).to_have_text(["a short house", *WAITING[:2], grid, WAITING[2], "a long house"])
    other = open_page(server.url)
    expect(queue(other)).to_have_text(["a short house", *WAITING[:2], grid, WAITING[2], "a long house"])
    page.get_by_role("button", name=f"Remove from the queue: {grid}").click()
    expect(queue(page)).to_have_text(["a short house", *WAITING, "a long house"])
    jobs = {(job["request"]["prompt"], job["state"]) for job in server.jobs()}
    assert ("a star", "queued") not in jobs
    assert ("a star", "cancelled") in jobs
