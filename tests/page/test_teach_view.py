"""Teaching in the page, as a person does it: pictures in, a name, samples as it learns, and drawn with."""

import io
import re

import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import expect
from running import RunningServer, quick_model


def picture(number):
    drawn = Image.new("RGB", (72 + number, 72), "white")
    ImageDraw.Draw(drawn).ellipse((16, 16 + number, 56, 56), fill="purple", outline="orange", width=5)
    buffer = io.BytesIO()
    drawn.save(buffer, "PNG")
    return buffer.getvalue()


LEARNING = 300_000
"""Milliseconds: what learns stands back behind all else that the machine does."""
FILES = [{"name": f"{n}.png", "mimeType": "image/png", "buffer": picture(n)} for n in range(3)]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server with the embedded model, which draws small pictures in one step."""
    folder = tmp_path_factory.mktemp("teach")
    env = {"SFUMATO_HOME": str(folder / "home")}
    found = RunningServer(folder / "data", "--model", str(quick_model(folder / "small")), env=env)
    found.wait_ready()
    yield found
    found.stop()


def set_up(page, name="zwx ball", steps=2):
    """The form with all that is needed in it."""
    page.locator("input[type=file]").set_input_files(FILES)
    expect(page.get_by_role("listitem")).to_have_count(3)
    page.get_by_role("textbox", name="Name").fill(name)
    page.get_by_role("textbox", name="Class").fill("ball")
    page.get_by_role("spinbutton", name="Steps").fill(str(steps))


def test_a_subject_is_taught_and_drawn_with(server, open_page):
    page = open_page(server.url)
    page.get_by_role("link", name="Teach").click()
    expect(page.get_by_role("heading", name="Teach a subject or a style")).to_be_visible()
    page.get_by_role("button", name="Teach").click()
    alerts = page.get_by_role("alert")
    expect(alerts).to_have_text(["Add pictures first."])
    expect(page.get_by_text("Give it a name.")).to_be_visible()
    set_up(page)
    expect(alerts).to_have_count(0)
    page.get_by_role("button", name="Teach").click()
    card = page.get_by_role("article", name="zwx ball")
    expect(card.get_by_role("progressbar", name="Learning zwx ball")).to_be_visible()
    expect(page.get_by_role("textbox", name="Name")).to_have_value("")
    expect(card).to_contain_text("Learned", timeout=LEARNING)
    sheet = card.get_by_role("img", name="What it draws of zwx ball by now, sheet 2")
    expect(sheet).to_be_visible()
    assert sheet.evaluate("img => [img.naturalWidth, img.naturalHeight]") == [4 * 64, 64]
    card.get_by_role("slider").fill("0")
    expect(card.get_by_role("img", name="sheet 1")).to_be_visible()
    page.reload()
    card.get_by_role("button", name="Draw with it").click()
    prompt = page.get_by_role("textbox", name="Prompt", exact=True)
    expect(prompt).to_have_value("zwx ball on the moon <lora:zwx-ball:1>")
    prompt.press("Enter")
    expect(page.get_by_role("img", name=re.compile("zwx ball on the moon")).first).to_be_visible()
    (found,) = server.http.get("/api/v1/pictures").json()
    assert found["prompt"] == "zwx ball on the moon <lora:zwx-ball:1>"
    record = server.http.get(f"/api/v1/pictures/{found['id']}/record").json()
    assert list(record["adapters"]) == ["zwx-ball"]


def test_what_is_dropped_is_taken_and_a_name_that_exists_is_told(server, open_page):
    (server.data.parent / "home" / "adapters").mkdir(parents=True, exist_ok=True)
    (server.data.parent / "home" / "adapters" / "taken.safetensors").write_bytes(b"")
    page = open_page(f"{server.url}/teach")
    page.locator("form").evaluate(
        """(form, bytes) => {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array(bytes)], "dropped.png", { type: "image/png" }));
          data.items.add(new File(["text"], "notes.txt", { type: "text/plain" }));
          for (const type of ["dragover", "drop"])
            form.dispatchEvent(new DragEvent(type, { dataTransfer: data, bubbles: true, cancelable: true }));
        }""",
        list(picture(5)),
    )
    expect(page.get_by_role("img", name="dropped.png")).to_be_visible()
    expect(page.get_by_text("notes.txt is no picture that can be read.")).to_be_visible()
    expect(page.get_by_role("listitem").filter(has=page.get_by_role("img"))).to_have_count(1)
    page.get_by_role("textbox", name="Name").fill("taken")
    page.get_by_role("button", name="Teach").click()
    expect(page.get_by_text("“taken” is there already.")).to_be_visible()
    # what was typed is kept, also over a reload
    page.reload()
    expect(page.get_by_role("textbox", name="Name")).to_have_value("taken")


def test_one_that_is_learned_can_be_cancelled(server, open_page):
    page = open_page(f"{server.url}/teach")
    set_up(page, "wvx ball", steps=500)
    page.get_by_role("button", name="Teach").click()
    card = page.get_by_role("article", name="wvx ball")
    expect(card).to_contain_text(re.compile(r"Step \d+ of 500,\s+loss [\d.]+,\s+about"), timeout=LEARNING)
    card.get_by_role("button", name="Cancel wvx ball").click()
    expect(card).to_contain_text("Cancelled")
    expect(card.get_by_role("progressbar")).to_have_count(0)


@pytest.mark.parametrize("width", [360, 1280])
def test_anybody_can_use_it_in_both_languages(server, open_page, check_access, width):
    page = open_page(f"{server.url}/teach", viewport={"width": width, "height": 740})
    set_up(page)
    page.get_by_role("combobox", name="Method").select_option("dreambooth")
    expect(page.get_by_text("Keeps the class as it was")).to_be_visible()
    check_access(page)
    page.evaluate("localStorage.setItem('sfumato.language', '\"de\"')")
    page.reload()
    expect(page.get_by_role("heading", name="Ein Motiv oder einen Stil lehren")).to_be_visible()
    expect(page.get_by_role("combobox", name="Verfahren")).to_have_value("dreambooth")
    check_access(page)
