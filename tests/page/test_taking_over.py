"""Settings that a picture, a preset, a list of names or an earlier prompt gives to the form."""

import io
import json

import PIL.Image
import pytest
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import expect

import sfumato

DROP = """async ([name, bytes]) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([new Uint8Array(bytes)], name, { type: "image/png" }));
    const target = document.querySelector("main");
    for (const kind of ["dragenter", "dragover", "drop"])
        target.dispatchEvent(
            new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: transfer }));
}"""
GRAPH = {
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "seed": 77,
            "steps": 25,
            "cfg": 6.5,
            "sampler_name": "dpmpp_2m",
            "scheduler": "karras",
            "denoise": 1.0,
            "model": ["11", 0],
            "positive": ["6", 0],
            "negative": ["7", 0],
            "latent_image": ["5", 0],
        },
    },
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "dreamy.safetensors"}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 640, "height": 384, "batch_size": 1}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat", "clip": ["4", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "dark", "clip": ["4", 1]}},
    "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "x"}},
    "11": {"class_type": "FreeU", "inputs": {"b1": 1.1, "model": ["4", 0]}},
}
INVOKEAI = {
    "app_version": "4.2.0",
    "positive_prompt": "a cat",
    "negative_prompt": "dark",
    "steps": 25,
    "seed": 77,
    "cfg_scale": 6.5,
    "scheduler": "dpmpp_2m_k",
    "width": 640,
    "height": 384,
    "hrf_enabled": True,
}
A1111 = (
    "a cat\nNegative prompt: dark\nSteps: 25, Sampler: DPM++ 2M Karras, CFG scale: 6.5, Seed: 77, "
    "Size: 640x384, Face restoration: GFPGAN"
)


def png(**texts):
    told = PngInfo()
    for name, text in texts.items():
        told.add_text(name, text)
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (96, 64), "red").save(buffer, "PNG", pnginfo=told)
    return buffer.getvalue()


def prompt_of(page):
    return page.get_by_role("textbox", name="Prompt", exact=True)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("program", "content", "left_out"),
    [
        ("ComfyUI", png(prompt=json.dumps(GRAPH)), "FreeU"),
        ("InvokeAI", png(invokeai_metadata=json.dumps(INVOKEAI)), "hrf_enabled"),
        ("A1111", png(parameters=A1111), "Face restoration"),
    ],
)
def test_a_dropped_picture_gives_its_settings_and_says_what_is_left_out(
    server, open_page, check_access, program, content, left_out
):
    page = open_page(server.url)
    page.evaluate(DROP, [f"{program}.png", list(content)])
    dialog = page.get_by_role("dialog", name="Settings of a picture")
    expect(dialog).to_contain_text(f"Drawn by {program}")
    expect(dialog.get_by_role("listitem").filter(has_text=left_out)).to_be_visible()
    check_access(page)
    dialog.get_by_role("button", name="Use these").click()
    expect(prompt_of(page)).to_have_value("a cat")
    expect(page.get_by_role("textbox", name="Negative prompt")).to_have_value("dark")
    for text in ("640 × 384", "25 steps", "guidance 6.5", "seed 77", "dpmpp-2m", "karras"):
        expect(page.locator(".chips ul").get_by_text(text, exact=True)).to_be_attached()


def test_a_dropped_picture_of_ours_gives_all_its_settings_and_can_be_begun_with(server, open_page, tmp_path):
    sfumato.connect(server.url).generate("a red hat", seed=7, steps=2, style=["emoji-flat"]).save(
        tmp_path / "hat.png"
    )
    page = open_page(server.url)
    page.evaluate(DROP, ["hat.png", list((tmp_path / "hat.png").read_bytes())])
    dialog = page.get_by_role("dialog", name="Settings of a picture")
    expect(dialog).to_contain_text("Drawn by Sfumato")
    expect(dialog).to_contain_text("Everything could be taken over.")
    dialog.get_by_role("button", name="Begin with this picture").click()
    prompt_of(page).fill("a green hat")
    page.get_by_role("button", name="from a picture", exact=True).click()
    expect(page.get_by_role("img", name="The picture to begin with")).to_be_visible()
    page.get_by_label("Strength", exact=True).fill("0.4")
    page.get_by_label("Steps", exact=True).fill("5")
    page.keyboard.press("Tab")
    page.reload()
    expect(page.get_by_role("button", name="from a picture", exact=True)).to_be_visible()
    page.get_by_role("button", name="Draw", exact=True).click()
    expect(page.get_by_role("img", name="a green hat", exact=True)).to_be_visible()
    asked = server.jobs()[0]["request"]
    assert (asked["strength"], asked["steps"]) == (0.4, 5)
    assert asked["image"] is not None
    page.get_by_role("button", name="Remove from a picture").click()
    page.reload()
    expect(page.get_by_role("button", name="5 steps", exact=True)).to_be_visible()
    expect(page.get_by_role("button", name="from a picture", exact=True)).to_have_count(0)


@pytest.mark.parametrize(
    ("typed", "offered", "taken"),
    [
        ("a hat, <lora:bro", "broken", "a hat, <lora:broken:1>"),
        ("a hat, __col", "colour", "a hat, __colour__"),
        ("a hat, sof", "soft", "a hat, soft"),
    ],
)
def test_names_are_completed(server, open_page, typed, offered, taken):
    page = open_page(server.url)
    prompt_of(page).press_sequentially(typed)
    expect(page.get_by_role("option", name=offered).first).to_be_visible()
    page.keyboard.press("Tab")
    expect(prompt_of(page)).to_have_value(taken)


def test_a_style_is_completed_into_a_chip(server, open_page):
    page = open_page(server.url)
    prompt_of(page).press_sequentially("a hat, ink-dr")
    page.get_by_role("option", name="ink-drawing").click()
    expect(page.get_by_role("button", name="Remove ink-drawing")).to_be_visible()


def test_a_preset_is_kept_used_and_forgotten_and_prompts_are_remembered(server, open_page):
    page = open_page(server.url)
    prompt_of(page).fill("a yellow cup")
    page.get_by_role("button", name="All controls").click()
    page.get_by_label("Steps", exact=True).fill("2")
    page.keyboard.press("Tab")
    page.get_by_role("button", name="All controls").click()
    page.get_by_role("button", name="Draw", exact=True).click()
    expect(page.get_by_role("img", name="a yellow cup", exact=True)).to_be_visible()
    panel = page.get_by_role("button", name="Presets and history")
    panel.click()
    page.get_by_role("textbox", name="Name of a new preset").fill("quick")
    page.get_by_role("button", name="Save", exact=True).click()
    panel.click()
    page.get_by_role("button", name="Remove 2 steps").click()
    prompt_of(page).fill("")
    page.reload()
    panel.click()
    page.get_by_role("button", name="quick", exact=True).click()
    expect(page.get_by_role("button", name="2 steps", exact=True)).to_be_visible()
    panel.click()
    page.get_by_role("region").get_by_role("button", name="a yellow cup", exact=True).click()
    expect(prompt_of(page)).to_have_value("a yellow cup")
    panel.click()
    page.get_by_role("button", name="Delete preset quick").click()
    expect(page.get_by_role("button", name="quick", exact=True)).to_have_count(0)


def test_what_a_template_makes_is_shown_before_it_is_drawn(server, open_page):
    page = open_page(server.url)
    page.get_by_role("button", name="All controls").click()
    page.get_by_role("combobox", name="Templates").select_option("combinatorial")
    page.get_by_role("button", name="All controls").click()
    prompt_of(page).fill("a {green|blue} cup")
    shown = page.locator("details.filled")
    expect(shown).to_contain_text("2 pictures")
    shown.locator("summary").click()
    expect(shown.get_by_role("listitem")).to_have_text(["a green cup", "a blue cup"])
