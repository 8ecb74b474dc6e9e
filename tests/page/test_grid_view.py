"""Grids and contact sheets, as a person makes them."""

import re

import PIL.Image
import pytest
from playwright.sync_api import expect

from sfumato.series import record

APPLE = "a red apple, 3d render"
SLOW = [{"field": "steps", "values": "190-200 (+5)"}]


def set_up(page, prompt=APPLE):
    """The dialog in which a grid of this prompt is set up."""
    page.get_by_role("textbox", name="Prompt", exact=True).fill(prompt)
    page.get_by_role("button", name="Grid…").click()
    return page.get_by_role("dialog", name="Draw a grid")


def submitted(server, axes, **fields):
    body = {"request": {"prompt": APPLE, "seed": 7, **fields}, "axes": axes}
    answer = server.http.post("/api/v1/grids", json=body)
    assert answer.status_code == 202, answer.text
    return answer.json()


def drawn(server, grid):
    for cell in grid["cells"]:
        server.wait(cell["job"])
    return server.http.get(f"/api/v1/grids/{grid['id']}").json()


def downloaded(page, button):
    with page.expect_download() as download:
        button.click()
    return PIL.Image.open(download.value.path())


@pytest.mark.quick
def test_a_grid_is_set_up_drawn_looked_through_and_taken_along(server, open_page):
    server.wait(server.submit(prompt="a star", steps=1)["id"])
    page = open_page(server.url, permissions=["clipboard-read", "clipboard-write"])
    dialog = set_up(page)
    dialog.get_by_role("textbox", name="Columns: values").fill("1-3 (+1)")
    expect(dialog).to_contain_text("3 values: 1 · 2 · 3")
    dialog.get_by_role("combobox", name="Rows: setting").select_option("prompt~")
    dialog.get_by_role("textbox", name="Rows: word").fill("apple")
    dialog.get_by_role("textbox", name="Rows: values").fill("apple, lemon")
    expect(dialog.get_by_role("status")).to_contain_text("About")
    dialog.get_by_role("button", name="Draw 6 pictures").click()
    expect(page).to_have_url(re.compile("/grid/"))
    expect(page.get_by_text("6 pictures")).to_be_visible()
    expect(page.get_by_role("columnheader")).to_have_text(["steps 1", "steps 2", "steps 3"])
    expect(page.get_by_role("rowheader")).to_have_text(["apple", "lemon"])

    page.reload()
    expect(page.get_by_role("img", name="steps 3, lemon")).to_be_visible()
    page.get_by_role("img", name="steps 2, lemon").click()
    expect(page.get_by_role("heading", name="a red lemon, 3d render")).to_be_visible()
    expect(page.locator("dl")).to_contain_text("Steps 2")
    page.keyboard.press("ArrowRight")
    expect(page.locator("dl")).to_contain_text("Steps 3")
    page.keyboard.press("Escape")

    expect(page.get_by_role("region", name="Picture", exact=True)).to_have_count(0)
    page.get_by_role("link", name="steps 1, apple").focus()
    page.keyboard.press("x")
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("link", name="steps 1, lemon")).to_be_focused()
    page.keyboard.press("x")
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_role("row", name=re.compile(f"^Prompt {APPLE} a red lemon"))).to_be_visible()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Clear the selection").click()

    found = downloaded(page, page.get_by_role("button", name="Download as one picture"))
    assert record.read(found.filename).axes == {
        "steps": ("1", "2", "3"),
        "prompt~apple": ("apple", "lemon"),
    }
    page.get_by_role("button", name="Copy as command").click()
    expect(page.get_by_text("Copied.")).to_be_visible()
    seed = found.text["sfumato-set"].partition('"seed":')[2].partition(",")[0]
    assert page.evaluate("() => navigator.clipboard.readText()") == (
        f"sfumato grid '{APPLE}' --seed {seed} --x steps=1,2,3 --y 'prompt~apple=apple,lemon'"
    )

    grid = re.search("/grid/[^?]+", page.url)[0]
    page.get_by_role("button", name="Back to drawing").click()
    opened = page.get_by_role("link", name=f"Open the grid: {APPLE}").and_(page.locator(f'[href="{grid}"]'))
    expect(opened).to_have_count(1)
    expect(page.get_by_role("img", name="a red lemon, 3d render")).to_have_count(0)
    opened.click()
    page.get_by_role("button", name="Use these settings").click()
    expect(page.get_by_role("textbox", name="Prompt", exact=True)).to_have_value(APPLE)


def test_what_cannot_be_drawn_is_said_where_it_stands_before_anything_is(server, open_page):
    page = open_page(server.url)
    dialog = set_up(page)
    values = dialog.get_by_role("textbox", name="Columns: values")
    values.fill("4, many")
    expect(values).to_have_attribute("aria-invalid", "true")
    expect(dialog).to_contain_text("many: Steps: from 1 to 1,000")
    expect(dialog.get_by_role("button", name="Draw", exact=True)).to_be_disabled()
    values.fill("4, 8")
    dialog.get_by_role("combobox", name="Rows: setting").select_option("negative~")
    dialog.get_by_role("textbox", name="Rows: word").fill("blur")
    dialog.get_by_role("textbox", name="Rows: values").fill("haze")
    expect(dialog).to_contain_text("blur is not in the text (Negative prompt)")
    dialog.get_by_role("combobox", name="Rows: setting").select_option("sampler")
    dialog.get_by_role("checkbox", name="ddim", exact=True).check()
    dialog.get_by_role("checkbox", name="heun").check()
    expect(dialog.get_by_role("button", name="Draw 4 pictures")).to_be_enabled()
    dialog.get_by_role("button", name="Swap columns and rows").click()
    expect(dialog.get_by_role("textbox", name="Rows: values")).to_have_value("4, 8")
    page.reload()
    page.get_by_role("button", name="Grid…").click()
    expect(page.get_by_role("checkbox", name="heun")).to_be_checked()


def test_a_grid_is_cancelled_whole_and_single_pictures_are_drawn_after_all(server, open_page):
    grid = submitted(server, SLOW, width=64, height=64, guidance=1)
    page = open_page(f"{server.url}/grid/{grid['id']}")
    page.get_by_role("button", name="Cancel all").click()
    expect(page.get_by_text("Cancelled")).to_have_count(3)
    page.get_by_role("button", name="Try again: steps 195").click()
    expect(page.get_by_role("img", name="steps 195", exact=True)).to_be_visible()
    page.get_by_role("button", name="Draw what is missing").click()
    expect(page.get_by_text("3 pictures")).to_be_visible()


def test_a_picture_that_failed_says_why_in_its_place_and_pages_are_tabs(server, open_page):
    axes = [{"field": "width", "values": "64, 100"}, {"field": "seed", "values": "1"}]
    axes.append({"field": "prompt~apple", "values": "apple, plum"})
    grid = drawn(server, submitted(server, axes, steps=1, height=64))
    page = open_page(f"{server.url}/grid/{grid['id']}")
    expect(page.get_by_role("cell").filter(has_text="Width: a multiple of 8")).to_be_visible()
    expect(page.get_by_text("2 failed")).to_be_visible()
    expect(page.get_by_role("tab", selected=True)).to_have_text("apple")
    page.get_by_role("tab", name="plum").click()
    expect(page.get_by_role("img", name="width 64, seed 1, plum")).to_be_visible()
    page.reload()
    expect(page.get_by_role("tab", selected=True)).to_have_text("plum")


def test_labels_stay_in_sight_while_one_scrolls(server, open_page):
    axes = [{"field": "seed", "values": "1-8"}, {"field": "steps", "values": "1-6"}]
    grid = submitted(server, axes, width=64, height=64, guidance=1)
    page = open_page(f"{server.url}/grid/{grid['id']}", viewport={"width": 480, "height": 500})
    expect(page.get_by_role("img", name="seed 8, steps 6")).to_be_attached()
    page.get_by_role("cell").last.evaluate("cell => cell.scrollIntoView()")
    expect(page.get_by_role("cell").last).to_be_in_viewport()
    expect(page.get_by_role("columnheader").last).to_be_in_viewport()
    expect(page.get_by_role("rowheader").last).to_be_in_viewport()


def test_selected_pictures_become_a_contact_sheet(server, open_page):
    server.wait(server.submit(prompt="a plain ball", steps=1, width=64, height=64, count=2, seed=1)["id"])
    page = open_page(f"{server.url}/gallery?search=plain")
    for number in range(2):
        page.get_by_role("button", name="Select a plain ball").nth(number).click()
    page.get_by_role("button", name="Contact sheet").click()
    sheet = downloaded(page, page.get_by_role("menuitem", name="Pictures alone"))
    assert sheet.size == (128, 64)


def test_a_picture_is_enlarged_by_what_one_chooses(server, open_page):
    server.wait(server.submit(prompt="a small ball", steps=1, width=64, height=64, seed=1)["id"])
    page = open_page(server.url)
    row = page.get_by_role("listitem").filter(has_text="a small ball").last
    row.get_by_role("button", name="More").first.click()
    page.get_by_role("menuitem", name="Enlarge…").click()
    dialog = page.get_by_role("dialog", name="Enlarge")
    dialog.get_by_role("spinbutton", name="How many times").fill("1.5")
    page.keyboard.press("Tab")
    dialog.get_by_role("combobox", name="Upscaler").select_option("lanczos")
    expect(dialog).to_contain_text("96 × 96 pixels")
    dialog.get_by_role("button", name="Draw").click()
    expect(dialog).to_have_count(0)
    job = server.wait(server.http.get("/api/v1/jobs").json()[0]["id"])
    assert (job["request"]["upscaler"], job["request"]["upscale"]) == ("lanczos", 1.5)
    assert (job["pictures"][0]["width"], job["state"]) == (96, "done")


@pytest.mark.parametrize(("scheme", "width"), [("light", 360), ("dark", 360), ("dark", 768), ("light", 1440)])
def test_nothing_is_wrong_for_readers_in_a_grid_and_nothing_is_wider_than_a_phone(
    server, open_page, check_access, scheme, width
):
    axes = [{"field": "width", "values": "64, 100"}, {"field": "steps", "values": "1"}]
    axes.append({"field": "seed", "values": "1, 2"})
    grid = drawn(server, submitted(server, axes, height=64))
    page = open_page(server.url, viewport={"width": width, "height": 720}, color_scheme=scheme)
    dialog = set_up(page)
    dialog.get_by_role("combobox", name="Rows: setting").select_option("style")
    dialog.get_by_role("button", name="All", exact=True).click()
    dialog.get_by_role("textbox", name="Columns: values").fill("many")
    expect(dialog.get_by_text("many: Steps: from 1 to 1,000")).to_be_visible()

    check_access(page)
    page.goto(f"{server.url}/grid/{grid['id']}")
    expect(page.get_by_role("img", name="width 64, steps 1, seed 1")).to_be_visible()
    check_access(page)
