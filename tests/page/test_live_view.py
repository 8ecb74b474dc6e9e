"""Live drawing, as a person types."""

import pytest
from playwright.sync_api import expect


def live(page):
    return page.get_by_role("region", name="Live")


def picture_of(page, prompt):
    return live(page).get_by_role("img", name=prompt, exact=True)


def prompt_of(page):
    return page.get_by_role("textbox", name="Prompt", exact=True)


def rows(server):
    return [job["id"] for job in server.jobs()], server.http.get("/api/v1/pictures").json()


def pictures_seen(page):
    """Has the page count the pictures that are shown; they are read by `seen.length`."""
    page.evaluate("""() => {
        window.seen = []
        const look = () => {
            const image = document.querySelector("section img")
            if (image && seen.at(-1) !== image.src) seen.push(image.src)
        }
        const all = { subtree: true, attributes: true, childList: true }
        new MutationObserver(look).observe(document.body, all)
    }""")


@pytest.mark.quick
def test_the_picture_follows_what_is_typed_and_is_stored_when_it_is_kept(server, open_page):
    page = open_page(server.url)
    before = rows(server)
    page.keyboard.press("Alt+l")
    expect(page.get_by_role("button", name="Live")).to_have_attribute("aria-pressed", "true")
    prompt_of(page).press_sequentially("a pink apple, 3d render")
    expect(picture_of(page, "a pink apple, 3d render")).to_be_visible()
    expect(live(page)).to_contain_text("ms")
    assert rows(server) == before
    page.get_by_role("button", name="Keep").click()
    expect(page.get_by_role("button", name="Kept")).to_be_disabled()
    kept = server.jobs()[0]["request"]
    assert (kept["fast"], kept["decoder"], kept["steps"]) == (True, "tiny", 2)
    page.get_by_role("button", name="Draw", exact=True).click()
    stream = page.get_by_role("list", name="What was drawn")
    expect(stream.get_by_role("button", name="a pink apple, 3d render")).to_have_count(2)
    drawn = server.wait(server.jobs()[0]["id"])["request"]
    assert (drawn["fast"], drawn["steps"], drawn["seed"]) == (False, None, kept["seed"])


def test_quick_changes_leave_nothing_behind(server, open_page):
    page = open_page(f"{server.url}/?live=1")
    before, asked = rows(server), []
    page.on("request", lambda request: asked.append(request.url))
    prompt_of(page).press_sequentially("x" * 200, delay=5)
    prompt_of(page).fill("a yellow star")
    expect(picture_of(page, "a yellow star")).to_be_visible()
    assert 0 < sum(url.endswith("/draw") for url in asked) < 200
    assert rows(server) == before
    assert not [job for job in server.jobs() if job["state"] in ("queued", "running")]


def test_pictures_come_while_a_slider_moves(server, open_page):
    page = open_page(f"{server.url}/?live=1")
    prompt_of(page).fill("a blue fish")
    expect(picture_of(page, "a blue fish")).to_be_visible()
    page.get_by_role("button", name="All controls").click()
    slider = page.get_by_role("slider", name="Width, slider")
    slider.focus()
    pictures_seen(page)
    # the last key is pressed after these pictures came
    while page.evaluate("seen.length") < 3:
        slider.press("ArrowLeft")
        slider.press("ArrowRight")
    expect(picture_of(page, "a blue fish")).to_be_visible()


def test_what_is_wrong_is_told_quietly_and_the_picture_stays(server, open_page):
    page = open_page(f"{server.url}/?live=1")
    prompt_of(page).fill("a green tree")
    expect(picture_of(page, "a green tree")).to_be_visible()
    prompt_of(page).fill("a green [tree")
    expect(live(page)).to_contain_text("The picture follows when the prompt can be read.")
    expect(picture_of(page, "a green tree")).to_be_visible()
    expect(live(page).get_by_role("alert")).to_have_count(0)
    prompt_of(page).fill("a green bush")
    expect(picture_of(page, "a green bush")).to_be_visible()
    expect(live(page)).not_to_contain_text("can be read")


def test_it_waits_for_a_server_that_is_gone(server, open_page):
    page = open_page(f"{server.url}/?live=1")
    prompt_of(page).fill("a house")
    expect(picture_of(page, "a house")).to_be_visible()
    page.context.set_offline(True)
    prompt_of(page).fill("a red house")
    expect(live(page)).to_contain_text("Live goes on when the server answers again.")
    expect(picture_of(page, "a house")).to_be_visible()
    page.context.set_offline(False)
    expect(picture_of(page, "a red house")).to_be_visible()


def test_it_is_off_again_with_the_same_key_and_nothing_is_drawn_then(server, open_page):
    page = open_page(f"{server.url}/?live=1")
    prompt_of(page).fill("a cat")
    expect(picture_of(page, "a cat")).to_be_visible()
    page.keyboard.press("Alt+l")
    expect(live(page)).to_have_count(0)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    prompt_of(page).fill("a dog")
    expect(page.get_by_text("/75")).to_be_visible()
    assert not any(url.endswith("/draw") for url in asked)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_rule_of_accessibility_is_broken_live(server, open_page, check_access, scheme):
    size = {"width": 360, "height": 740}
    page = open_page(f"{server.url}/?live=1", color_scheme=scheme, viewport=size, has_touch=True)
    prompt_of(page).fill("a yellow star")
    expect(picture_of(page, "a yellow star")).to_be_visible()
    check_access(page)
