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


@pytest.mark.quick
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


@pytest.mark.quick
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


@pytest.mark.quick
def test_an_error_of_the_prompt_is_told_beside_it(server, open_page):
    page = open_page(server.url)
    prompt_of(page).fill("a [cat:dog")
    expect(prompt_of(page)).to_have_attribute("aria-invalid", "true")
    expect(page.locator(".mirror .wrong")).to_have_text("[")
    expect(prompt_of(page)).to_have_accessible_description(re.compile("closed"))
    page.get_by_role("button", name="Undo").click()
    expect(prompt_of(page)).to_have_value("")


def test_tokens_are_counted_by_chunk(server, open_page):
    page = open_page(server.url)
    prompt_of(page).fill("apple " * 80)
    expect(page.get_by_text("75/75 + 5/75")).to_be_visible()


def test_every_control_is_part_of_what_is_drawn(server, open_page):
    page = open_page(server.url)
    page.get_by_role("button", name="All controls").click()
    seed = page.get_by_label("Seed", exact=True)
    page.get_by_role("button", name="Roll a seed and lock it").click()
    expect(seed).to_have_value(re.compile(r"^\d+$"))
    page.get_by_role("button", name="Unlock the seed").click()
    expect(seed).to_have_value("")
    page.get_by_role("button", name="16:9").click()
    expect(page.get_by_text("Longer than 2:1")).to_have_count(0)
    page.get_by_label("Width", exact=True).fill("512")
    page.keyboard.press("Tab")
    expect(page.get_by_text("Longer than 2:1")).to_be_visible()
    page.get_by_label("Height", exact=True).fill("512")
    page.keyboard.press("Tab")
    expect(page.get_by_text("Larger than the model knows")).to_be_visible()
    page.get_by_role("button", name="3:4").click()
    page.get_by_label("Guidance", exact=True).fill("3")
    page.get_by_label("Sampler").select_option("heun")
    page.get_by_label("Spacing").select_option("karras")
    page.get_by_label("Pictures", exact=True).fill("2")
    page.get_by_role("checkbox", name="Transparent background").check()
    page.get_by_label("LoRAs and other adapters").select_option("broken")
    page.get_by_label("broken", exact=True).fill("0.5")
    page.get_by_label("Model", exact=True).select_option("embedded-instruct")
    expect(page.get_by_role("button", name="embedded-instruct", exact=True)).to_be_visible()
    page.get_by_label("Model", exact=True).select_option("embedded")
    prompt_of(page).fill("a cup")
    page.get_by_role("button", name="Draw", exact=True).click()
    newest = page.get_by_role("list", name="What was drawn").locator("> li").first
    expect(newest).to_contain_text("a cup")
    expect(newest.get_by_role("alert")).to_contain_text("broken.safetensors")
    asked = server.jobs()[0]["request"]
    said = {name: asked[name] for name in ("guidance", "sampler", "spacing", "count", "transparent", "model")}
    assert said == {
        "guidance": 3,
        "sampler": "heun",
        "spacing": "karras",
        "count": 2,
        "transparent": True,
        "model": "embedded",
    }
    assert [(each["name"], each["weight"]) for each in asked["adapters"]] == [("broken", 0.5)]
    assert (asked["width"], asked["height"]) == (224, 296)
    page.get_by_role("button", name="Remove broken 0.5").click()
    page.get_by_role("checkbox", name="Fast").check()
    page.get_by_role("button", name="fast", exact=True).wait_for()
    page.get_by_role("checkbox", name="Fast").uncheck()
    expect(page.get_by_role("button", name="fast", exact=True)).to_have_count(0)


def test_a_style_is_chosen_by_its_picture(server, open_page):
    page = open_page(server.url)
    page.get_by_role("button", name="Styles", exact=True).click()
    tiles = page.get_by_role("list", name="Styles")
    tile = tiles.get_by_role("button", name="emoji-flat", exact=True)
    assert tile.locator("img").evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    tile.click()
    expect(tile).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_role("button", name="Remove emoji-flat")).to_be_visible()


def test_a_drawn_picture_is_varied_enlarged_and_edited(server, open_page):
    fields = {"prompt": "a small cup", "steps": 1, "width": 64, "height": 64, "seed": 5}
    (picture,) = server.wait(server.submit(**fields)["id"])["pictures"]
    page = open_page(server.url)
    pictures = page.get_by_role("img", name="a small cup", exact=True)
    first = page.get_by_role("figure").filter(has=page.locator(f'img[src*="{picture["id"]}"]'))
    first.get_by_role("button", name="Vary").click()
    expect(pictures).to_have_count(5)
    varied = server.jobs()[0]["request"]
    assert (varied["seed"], varied["count"], varied["variation_amount"]) == (5, 4, [0.3])
    first.get_by_role("button", name="Twice as large").click()
    expect(pictures).to_have_count(6)
    assert server.jobs()[0]["pictures"][0]["width"] == 128
    first.get_by_role("button", name="Edit").click()
    expect(page).to_have_url(f"{server.url}/edit/{picture['id']}")
    expect(pictures.first).to_be_visible()


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


@pytest.mark.quick
@pytest.mark.parametrize(("scheme", "width"), [("light", 360), ("dark", 360), ("dark", 768), ("light", 1440)])
def test_no_rule_of_accessibility_is_broken(server, open_page, check_access, scheme, width):
    server.wait(server.submit(prompt="a yellow star", steps=2)["id"])
    page = open_page(server.url, color_scheme=scheme, viewport={"width": width, "height": 800})
    prompt_of(page).fill("a (red:1.3) apple")
    page.get_by_role("button", name="All controls").click()
    expect(page.get_by_role("img", name="a yellow star").first).to_be_visible()
    check_access(page)
