"""Pictures that a drawing follows, chosen in the form of the page."""

import base64
import io

import PIL.Image
import PIL.ImageDraw
import pytest
from playwright.sync_api import expect

DROP = """(target, [name, bytes]) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([new Uint8Array(bytes)], name, { type: "image/png" }));
    for (const kind of ["dragenter", "dragover", "drop"])
        target.dispatchEvent(
            new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: transfer }));
}"""
SMALL = {"Width": "64", "Height": "64", "Steps": "2"}


def ring(colour):
    """A PNG of lines: a ring on black."""
    picture = PIL.Image.new("RGB", (64, 64), "black")
    PIL.ImageDraw.Draw(picture).ellipse((12, 12, 52, 52), outline=colour, width=2)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def controls_of(page):
    page.get_by_role("button", name="All controls").click()
    return page.get_by_role("region", name="All controls")


def shown(image):
    """Whether the browser could show a picture."""
    image.wait_for()
    image.page.wait_for_function("image => image.complete", arg=image.element_handle())
    return image.evaluate("image => image.naturalWidth > 0")


@pytest.mark.quick
def test_a_control_picture_is_dropped_chosen_drawn_with_kept_and_taken_over(server, open_page, check_access):
    page = open_page(server.url, viewport={"width": 768, "height": 1024})
    page.get_by_role("textbox", name="Prompt", exact=True).fill("a ring by its lines")
    panel = controls_of(page)
    for name, value in SMALL.items():
        panel.get_by_label(name, exact=True).fill(value)
    section = panel.get_by_role("group", name="Control pictures")
    section.evaluate(DROP, ["ring.png", list(ring("white"))])
    control = section.get_by_role("group", name="Control picture 1")
    expect(control.get_by_label("Control network")).to_have_value("edges")
    # a network for edges is shown those of the picture, unless one says that it has them
    expect(control.get_by_label("Preparation")).to_have_value("canny")
    control.get_by_label("Preparation").select_option("none")
    control.get_by_label("Weight", exact=True).fill("0.8")
    begin = control.get_by_label("From this part of the steps", exact=True)
    begin.fill("0.5")
    control.get_by_label("Up to this part of the steps", exact=True).fill("0.5")
    begin.focus()
    expect(control).to_contain_text("It begins where it has ended.")
    begin.fill("0")
    begin.blur()
    check_access(page)
    # another picture takes its place, and all of it outlives a reload
    with page.expect_file_chooser() as chooser:
        control.get_by_role("button", name="Another picture…").click()
    chooser.value.set_files({"name": "red.png", "mimeType": "image/png", "buffer": ring("red")})
    expect(section.get_by_role("img")).to_have_count(1)
    with page.expect_file_chooser() as chooser:
        section.get_by_role("button", name="Choose a picture…").click()
    chooser.value.set_files({"name": "no.png", "mimeType": "image/png", "buffer": b"no picture"})
    expect(page.get_by_text("no.png is no picture that can be read.")).to_be_visible()
    page.get_by_role("button", name="Presets and history").click()
    page.get_by_role("textbox", name="Name of a new preset").fill("by lines")
    page.get_by_role("button", name="Save", exact=True).click()
    page.get_by_role("button", name="by lines", exact=True).wait_for()
    page.reload()
    page.get_by_role("button", name="Remove edges 0.8").click()
    page.get_by_role("button", name="Presets and history").click()
    page.get_by_role("button", name="by lines", exact=True).click()
    expect(page.get_by_role("button", name="edges 0.8", exact=True)).to_be_visible()
    page.get_by_role("button", name="Draw", exact=True).click()
    expect(page.get_by_role("img", name="a ring by its lines", exact=True)).to_be_visible()
    (asked,) = server.jobs()[0]["request"]["controls"]
    said = {name: asked[name] for name in ("model", "preprocessor", "weight", "start", "end")}
    assert said == {"model": "edges", "preprocessor": "none", "weight": 0.8, "start": 0, "end": 0.5}
    # taken over from the picture: the server has what it followed
    picture = server.http.get("/api/v1/pictures").json()[0]["id"]
    page.goto(f"{server.url}/gallery?picture={picture}")
    expect(page.get_by_text("edges 0.8")).to_be_visible()
    page.get_by_role("button", name="Same again").click()
    panel = controls_of(page)
    assert shown(panel.get_by_role("img", name="Control picture 1"))
    page.get_by_role("button", name="All controls").click()
    page.get_by_role("button", name="Draw", exact=True).click()
    job = server.wait(server.jobs()[0]["id"])
    assert job["request"]["controls"] == [asked]
    assert job["state"] == "done"


def test_a_dropped_file_gives_its_control_pictures(server, open_page):
    image = base64.b64encode(ring("white")).decode()
    given = {"model": "edges", "image": image, "weight": 0.5}
    job = server.wait(
        server.submit(prompt="a ring", steps=1, width=64, height=64, controls=[given])["id"], "done"
    )
    file = server.http.get(f"/api/v1/pictures/{job['pictures'][0]['id']}/file").content
    page = open_page(server.url)
    page.locator("main").evaluate(DROP, ["ring.png", list(file)])
    dialog = page.get_by_role("dialog", name="Settings of a picture")
    expect(dialog).to_contain_text("Everything could be taken over.")
    dialog.get_by_role("button", name="Use these").click()
    expect(page.get_by_role("button", name="edges 0.5", exact=True)).to_be_visible()
    assert shown(controls_of(page).get_by_role("img", name="Control picture 1"))
