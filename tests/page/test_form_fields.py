"""What of a request the form has a control for."""

import json

from playwright.sync_api import expect

from sfumato.request import Request

LEFT_OUT = {
    "base": "the server's model has its own",
    "prediction": "the server's model has its own",
    "tiny": "the server's model has its own",
    "vae": "the server's model has its own",
    "zero_terminal_snr": "the server's model has its own",
    "embeddings": "those in the server's folder need no mention: prompts name them",
    "inversion": "edits by two prompts, which no tool of the page asks for",
    "source": "the second prompt of inversion",
    "origin": "the server writes it",
    "regions": "a scene has boxes",
    "resample": "extending sets it",
}
"""What the page has no control for, and why."""
ELSEWHERE = {
    "controls": "control pictures, with a test of their own",
    "crop": "the editor",
    "extend": "the editor",
    "feather": "the editor",
    "fill": "the editor",
    "image": "the editor, and a picture that is dropped",
    "image_guidance": "the editor",
    "mask": "the editor",
    "strength": "the editor, and with a picture",
    "elements": "the scene",
    "harmonise": "the scene",
    "prompt": "the composer",
    "negative": "the composer",
    "style": "the tiles of styles",
    "model": "another one has fewer of the other controls",
}
"""Where else there is one."""


SET_ALL = """panel => {
    const told = (element, ...kinds) => kinds.forEach((kind) =>
        element.dispatchEvent(new Event(kind, { bubbles: true })));
    const usable = (element) => !element.disabled && element.checkVisibility();
    for (const select of [...panel.querySelectorAll("select")].filter(usable)) {
        const other = [...select.options].find((each) => !each.disabled && !each.selected && each.value);
        if (!other || select.labels[0].innerText === "Model") continue;
        select.value = other.value;
        told(select, "change");
    }
    for (const box of [...panel.querySelectorAll("input[type=checkbox]")].filter(usable))
        if (!box.checked && !box.parentElement.innerText.includes("clip")) box.click();
    for (const number of [...panel.querySelectorAll("input[type=number]")].filter(usable)) {
        number.value = 2;
        told(number, "input", "change");
    }
    for (const slider of [...panel.querySelectorAll("input[type=range]")].filter(usable)) {
        slider.value = slider.max;
        told(slider, "input");
    }
}"""


def set_all(panel):
    """Another value for every control that is shown, all in one turn."""
    panel.evaluate(SET_ALL)


def kept(page):
    return {*json.loads(page.evaluate("localStorage.getItem('sfumato.form')"))}


def test_every_field_of_a_request_has_a_control_but_those_that_are_left_out(server, open_page):
    page = open_page(server.url, viewport={"width": 1280, "height": 900})
    page.get_by_role("button", name="All controls").click()
    panel = page.get_by_role("region", name="All controls")
    expect(panel.get_by_label("Sampler").locator("option").nth(5)).to_be_attached()
    panel.get_by_text("Advanced").click()
    set_all(panel)
    found = kept(page)
    set_all(panel)  # those too that the first ones bring
    found |= kept(page)
    panel.get_by_role("checkbox", name="Draw a clip").check()
    panel.get_by_text("More about the motion").click()
    panel.get_by_role("button", name="Add a frame").click()
    set_all(panel)
    found |= kept(page)
    assert found.isdisjoint(LEFT_OUT.keys() | ELSEWHERE.keys())
    assert found | LEFT_OUT.keys() | ELSEWHERE.keys() == {*Request.model_fields}


def test_a_clip_travels_from_prompt_to_prompt(server, open_page, check_access):
    page = open_page(server.url, viewport={"width": 360, "height": 740})
    page.get_by_role("textbox", name="Prompt", exact=True).fill("a travelling flower")
    page.get_by_role("button", name="All controls").click()
    panel = page.get_by_role("region", name="All controls")
    for name, value in (("Width", "64"), ("Height", "64"), ("Steps", "1")):
        panel.get_by_label(name, exact=True).fill(value)
    panel.get_by_role("checkbox", name="Draw a clip").check()
    panel.get_by_label("Frames", exact=True).fill("4")
    panel.get_by_label("Motion adapter").select_option("text2video-zero")
    travel = panel.get_by_role("group", name="Prompt travel")
    travel.get_by_role("button", name="Add a frame").click()
    travel.get_by_role("textbox", name="Text from frame 2 on").fill("an open flower")
    frame = travel.get_by_role("spinbutton", name="Frame of the text at 2")
    frame.fill("9")
    frame.blur()
    expect(frame).to_have_value("2")  # the clip has no frame 9
    frame.fill("3")
    frame.blur()
    expect(travel.get_by_role("textbox", name="Text from frame 3 on")).to_have_value("an open flower")
    travel.get_by_role("button", name="Add a frame").click()
    travel.get_by_role("button", name="Remove the text at frame 2").click()
    check_access(page)
    page.get_by_role("button", name="All controls").click()
    page.get_by_role("button", name="Draw", exact=True).click()
    drawn = page.get_by_role("list", name="What was drawn").locator("> li")
    picture = drawn.filter(has_text="a travelling flower").first.get_by_role("img", name="Clip of 4 frames")
    expect(picture).to_be_visible()
    job = next(each for each in server.jobs() if each["request"]["prompt"] == "a travelling flower")
    assert job["request"]["travel"] == {"3": "an open flower"}


def test_what_is_set_among_the_advanced_controls_is_found_again(server, open_page):
    page = open_page(server.url)
    page.get_by_role("button", name="All controls").click()
    panel = page.get_by_role("region", name="All controls")
    panel.get_by_text("Advanced").click()
    panel.get_by_label("Clip skip", exact=True).fill("2")
    panel.get_by_label("Clip skip", exact=True).blur()
    panel.get_by_label("Seamless").select_option("Both")
    page.reload()
    expect(page.get_by_role("button", name="Clip skip 2", exact=True)).to_be_visible()
    page.get_by_role("button", name="All controls").click()
    expect(panel.get_by_label("Clip skip", exact=True)).to_have_value("2")
    page.get_by_role("button", name="Remove Seamless xy").click()
    expect(panel.get_by_label("Seamless")).to_have_value("")
