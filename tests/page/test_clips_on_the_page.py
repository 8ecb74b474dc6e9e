"""Clips, as a person asks for them and finds them again."""

import pytest
from playwright.sync_api import expect


@pytest.mark.quick
def test_a_clip_is_asked_for_drawn_and_marked(server, open_page, check_access):
    page = open_page(server.url, viewport={"width": 1280, "height": 900})
    page.get_by_role("textbox", name="Prompt", exact=True).fill("a clipped ball bouncing")
    page.get_by_role("button", name="All controls").click()
    panel = page.get_by_role("region", name="All controls")
    panel.get_by_role("checkbox", name="Transparent background").check()
    for name, value in (("Width", "64"), ("Height", "64"), ("Steps", "2")):
        panel.get_by_label(name, exact=True).fill(value)
    panel.get_by_role("checkbox", name="Draw a clip").check()
    expect(panel.get_by_role("checkbox", name="Transparent background")).not_to_be_checked()
    expect(panel.get_by_text("About 2 s long.")).to_be_visible()
    panel.get_by_label("Frames", exact=True).fill("3")
    panel.get_by_label("Frames a second", exact=True).fill("4")
    panel.get_by_label("Frames in between").select_option("2 times as many frames")
    expect(page.get_by_role("button", name="2× frames", exact=True)).to_be_visible()
    panel.get_by_label("Frames in between").select_option("None")
    panel.get_by_label("Motion adapter").select_option("text2video-zero")
    panel.get_by_role("checkbox", name="Loop").check()
    check_access(page)
    page.get_by_role("button", name="All controls").click()
    expect(page.get_by_role("button", name="clip of 3 frames", exact=True)).to_be_visible()
    page.get_by_role("button", name="Draw", exact=True).click()

    stream = page.get_by_role("list", name="What was drawn")
    drawn = stream.locator("> li").filter(has_text="a clipped ball bouncing").first
    expect(drawn.get_by_role("img", name="Clip of 3 frames")).to_be_visible()
    asked = server.jobs()[0]["request"]
    said = {name: asked[name] for name in ("frames", "fps", "motion", "loop", "transparent")}
    assert said == {"frames": 3, "fps": 4, "motion": "text2video-zero", "loop": True, "transparent": False}
    assert drawn.get_by_role("button", name="Edit").count() == 0

    page.get_by_role("button", name="Remove clip of 3 frames").click()
    page.get_by_role("button", name="Live").click()
    page.get_by_role("button", name="Live").click()
    page.get_by_role("button", name="All controls").click()
    expect(panel.get_by_role("checkbox", name="Draw a clip")).not_to_be_checked()
    expect(panel.get_by_label("Frames", exact=True)).to_have_count(0)
    expect(page.get_by_role("list", name="What differs").get_by_text("loop")).to_have_count(0)

    page.goto(f"{server.url}/gallery?search=clipped")
    tile = page.get_by_role("gridcell").first
    expect(tile.get_by_role("img", name="Clip of 3 frames")).to_be_visible()
    check_access(page)
    tile.get_by_role("link").click()
    expect(page.locator("dl")).to_contain_text("Frames a second")
    expect(
        page.get_by_role("link", name="Edit").filter(has_text="Edit").and_(page.locator("aside a"))
    ).to_have_count(0)


def test_many_chips_push_nothing_off_a_phone(server, open_page, check_access):
    page = open_page(server.url, viewport={"width": 360, "height": 740})
    page.get_by_role("button", name="All controls").click()
    panel = page.get_by_role("region", name="All controls")
    panel.get_by_role("checkbox", name="Draw a clip").check()
    panel.get_by_label("Sampler").select_option("heun")
    panel.get_by_label("Frames a second", exact=True).fill("12")
    panel.get_by_label("Frames a second", exact=True).press("Tab")
    check_access(page)
    for name in ("Draw", "Grid…"):
        expect(page.get_by_role("button", name=name, exact=True)).to_be_in_viewport(ratio=1)
    expect(page.get_by_role("list", name="What differs")).to_be_in_viewport(ratio=1)
    assert panel.evaluate(
        "panel => panel.scrollWidth <= panel.clientWidth && panel.clientWidth <= innerWidth"
    )


def test_who_wants_no_motion_sees_the_first_frame_until_the_clip_is_opened(server, open_page):
    fields = {"prompt": "a quiet clip", "frames": 2, "steps": 1, "width": 64, "height": 64}
    (picture,) = server.wait(server.submit(**fields)["id"])["pictures"]
    page = open_page(server.url)
    image = page.get_by_role("img", name="a quiet clip").first
    expect(image).to_be_visible()
    image.evaluate("image => image.decode()")
    assert image.evaluate("image => image.currentSrc").endswith("/thumbnail")
    page.emulate_media(reduced_motion="no-preference")
    page.wait_for_function(
        "id => document.querySelector(`img[src*='${id}']`).currentSrc.endsWith('/file')", arg=picture["id"]
    )
    image.click()
    expect(page.get_by_role("region", name="Picture", exact=True)).to_be_visible()
