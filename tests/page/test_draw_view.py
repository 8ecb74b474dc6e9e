"""Drawing, as a person draws."""

import re

import pytest
from playwright.sync_api import expect

STEPS = "3"


def prompt_of(page):
    return page.get_by_role("textbox", name="Prompt", exact=True)


def with_few_steps(page):
    page.get_by_role("button", name="All controls").click()
    page.get_by_role("spinbutton", name="Steps").fill(STEPS)
    page.keyboard.press("Tab")
    page.get_by_role("button", name="All controls").click()


def test_a_prompt_is_drawn_and_its_picture_is_named_by_it(server, open_page):
    page = open_page(server.url)
    with_few_steps(page)
    prompt_of(page).fill("a green apple, 3d render")
    page.get_by_role("textbox", name="Negative prompt").fill("leaf")
    page.get_by_role("button", name="Draw", exact=True).click()
    picture = page.get_by_role("img", name="a green apple, 3d render", exact=True)
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") == 256
    job = server.http.get("/api/v1/jobs").json()[0]
    assert job["request"]["steps"] == int(STEPS)
    assert job["request"]["negative"] == "leaf"


def test_a_picture_develops_by_previews_and_can_be_cancelled(server, open_page):
    page = open_page(server.url)
    job = server.submit(prompt="a slow house, flat color icon", steps=200, count=8)
    expect(page.get_by_role("img", name="Preview of a slow house, flat color icon").first).to_be_visible()
    expect(page.get_by_role("progressbar").first).to_be_visible()
    expect(page).to_have_title(re.compile(r"^[1-9]\d?% – Sfumato$"))
    page.get_by_role("link", name="Gallery").click()
    expect(page).to_have_title(re.compile(r"^\d+% – Gallery – Sfumato$"))
    page.go_back()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
    expect(page).to_have_title("Sfumato")
    assert server.wait(job["id"])["state"] == "cancelled"


def test_what_is_typed_and_what_was_drawn_survive_a_reload(server, open_page):
    server.wait(server.submit(prompt="a yellow star", steps=2)["id"])
    page = open_page(server.url)
    prompt_of(page).fill("a cat, noto emoji")
    with_few_steps(page)
    page.reload()
    expect(prompt_of(page)).to_have_value("a cat, noto emoji")
    expect(page.get_by_role("button", name=f"{STEPS} steps", exact=True)).to_be_visible()
    expect(page.get_by_role("img", name="a yellow star").first).to_be_visible()


def test_everything_works_by_keys(server, open_page):
    page = open_page(server.url)
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_contain_text("Draw")
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    page.keyboard.type("a red ball")
    page.keyboard.press("Home")
    page.keyboard.press("ControlOrMeta+ArrowRight")
    page.keyboard.press("ControlOrMeta+ArrowRight")
    page.keyboard.press("ControlOrMeta+ArrowUp")
    expect(prompt_of(page)).to_have_value("a (red:1.1) ball")
    page.keyboard.press("ControlOrMeta+.")
    expect(page.get_by_role("group", name="Sampling")).to_be_visible()
    page.get_by_role("spinbutton", name="Steps").fill(STEPS)
    page.keyboard.press("ControlOrMeta+Enter")
    expect(page.get_by_role("img", name="a (red:1.1) ball", exact=True)).to_be_visible()
    page.keyboard.press("Alt+g")
    expect(page).to_have_url(server.url + "/gallery")


def test_an_error_of_the_prompt_is_told_beside_it(server, open_page):
    page = open_page(server.url)
    prompt_of(page).fill("a [cat:dog")
    expect(prompt_of(page)).to_have_attribute("aria-invalid", "true")
    page.get_by_role("button", name="Undo").click()
    expect(prompt_of(page)).to_have_value("")


def test_a_style_without_a_picture_says_what_it_is(server, open_page):
    page = open_page(server.url)
    page.get_by_role("button", name="Styles", exact=True).click()
    page.get_by_role("button", name="ink-drawing Black ink on paper").click()
    expect(page.get_by_role("button", name="Remove ink-drawing")).to_be_visible()


def test_a_menu_that_is_closed_by_a_key_leaves_the_rest_open(server, open_page):
    page = open_page(server.url)
    page.get_by_role("button", name="All controls").click()
    menu = page.get_by_role("button", name="Page settings")
    menu.click()
    expect(page.get_by_label("Theme")).to_be_focused()
    page.keyboard.press("Escape")
    expect(menu).to_be_focused()
    expect(page.get_by_role("group", name="Sampling")).to_be_visible()


def test_a_second_window_follows(server, open_page):
    one, other = open_page(server.url), open_page(server.url)
    with_few_steps(one)
    prompt_of(one).fill("a blue fish")
    one.get_by_role("button", name="Draw", exact=True).click()
    expect(other.get_by_role("img", name="a blue fish", exact=True)).to_be_visible()


def test_while_the_server_is_gone_nothing_typed_is_lost(server, open_page):
    page = open_page(server.url)
    page.context.set_offline(True)
    prompt_of(page).fill("a tree")
    page.get_by_role("button", name="Draw", exact=True).click()
    banner = page.get_by_text("What you typed is kept.")
    expect(banner).to_be_visible()
    page.context.set_offline(False)
    expect(banner).to_have_count(0)
    expect(prompt_of(page)).to_have_value("a tree")


def test_texts_are_german_for_germans(server, browser):
    context = browser.new_context(locale="de")
    page = context.new_page()
    page.goto(server.url)
    expect(page.get_by_role("button", name="Zeichnen", exact=True)).to_be_visible()
    assert page.locator("html").get_attribute("lang") == "de"
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1440])
def test_no_rule_of_accessibility_is_broken(server, open_page, check_access, scheme, width):
    server.wait(server.submit(prompt="a yellow star", steps=2)["id"])
    page = open_page(server.url, color_scheme=scheme, viewport={"width": width, "height": 800})
    prompt_of(page).fill("a (red:1.3) apple")
    page.get_by_role("button", name="All controls").click()
    expect(page.get_by_role("img", name="a yellow star").first).to_be_visible()
    check_access(page)
