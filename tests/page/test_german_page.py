"""The page in German: nothing that a person sees is English."""

import io
import re
from pathlib import Path

import PIL.Image
import PIL.PngImagePlugin
import pytest
from playwright.sync_api import expect

TEXTS = Path(__file__).parents[2] / "web" / "src" / "lib" / "texts"
ENTRY = re.compile(r'\{\s*en:\s*("(?:[^"\\]|\\.)*"),\s*de:\s*("(?:[^"\\]|\\.)*"),?\s*\}')
SHOWN = """() => {
    const found = document.body.innerText.split("\\n");
    for (const each of document.querySelectorAll("[aria-label], [placeholder], [title], [alt]"))
        for (const name of ["aria-label", "placeholder", "title", "alt"])
            found.push(each.getAttribute(name) ?? "");
    return [...new Set(found.map((text) => text.trim()).filter((text) => text !== ""))];
}"""


SETTLED = """() => {
    const before = window.shownBefore;
    window.shownBefore = document.body.innerText;
    window.shownSame = before === window.shownBefore ? (window.shownSame ?? 0) + 1 : 0;
    return window.shownSame === 2;
}"""
"""Whether what is shown has stayed the same twice."""


def english():
    """Texts of the table that are English and no German ones too."""
    pairs = [pair for file in TEXTS.glob("*.ts") for pair in ENTRY.findall(file.read_text("utf-8"))]
    assert len(pairs) > 500
    german = {de for _, de in pairs}
    return {en[1:-1] for en, de in pairs if en not in german}


@pytest.fixture
def german(open_page):
    def begin(url, **options):
        page = open_page(url, locale="de", **options)
        expect(page.locator("html")).to_have_attribute("lang", "de")
        return page

    return begin


@pytest.mark.quick
def test_no_view_shows_an_english_text(server, german, apple):
    page = german(server.url, viewport={"width": 1280, "height": 900})
    known = english()

    def look():
        page.wait_for_function(SETTLED, polling=100)
        assert known.intersection(page.evaluate(SHOWN)) == set(), page.url

    page.get_by_role("textbox", name="Prompt", exact=True).fill("a (cat:1.2)")
    page.get_by_role("button", name="Alle Einstellungen").click()
    page.get_by_role("checkbox", name="Einen Clip zeichnen").check()
    page.get_by_text("Erweitert", exact=True).click()
    look()
    page.get_by_role("button", name="Alle Einstellungen").click()
    page.get_by_role("button", name="Vorlagen und Verlauf").click()
    look()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Raster …").click()
    look()
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    look()
    for address in ("/?live=1", "/gallery", f"/gallery?picture={apple}", f"/edit/{apple}", "/edit/new"):
        page.goto(server.url + address)
        look()
    for address in ("/scene", "/teach", "/grid/none", "/gallery?picture=none", "/nowhere"):
        page.goto(server.url + address)
        look()


@pytest.mark.quick
def test_the_dialog_of_a_grid_refuses_in_german(server, german):
    page = german(server.url)
    page.get_by_role("textbox", name="Prompt", exact=True).fill("a red apple, 3d render")
    page.get_by_role("button", name="Raster …").click()
    dialog = page.get_by_role("dialog", name="Ein Raster zeichnen")
    setting = dialog.get_by_role("combobox", name="Spalten: Einstellung")
    values = dialog.get_by_role("textbox", name="Spalten: Werte")
    for field, text, said in (
        ("steps", "0", "0: Schritte: von 1 bis 1.000."),
        ("steps", "many", "many: Schritte: von 1 bis 1.000."),
        ("steps", "0.5-1", "Der Bereich 0.5-1 braucht eine Schrittweite"),
        ("steps", "1-9000", "Der Bereich 1-9000 hat 9.000 Werte"),
        ("steps", "900", "Schritte möglich"),
        ("width", "9000", "Breite: von 8 bis 4.096."),
        ("guidance_rescale", "2", "Guidance-Ausgleich: von 0 bis 1."),
        ("strength", "0.5", "Stärke geht nur zusammen mit Begonnen mit."),
    ):
        setting.select_option(field)
        values.fill(text)
        expect(dialog).to_contain_text(said)
        expect(dialog).not_to_contain_text("auf Englisch")
    setting.select_option("prompt~")
    dialog.get_by_role("textbox", name="Spalten: Wort").fill("pear")
    values.fill("plum")
    expect(dialog).to_contain_text("pear steht nicht im Text (Prompt).")
    setting.select_option("steps")
    values.fill("1, 2")
    dialog.get_by_role("combobox", name="Zeilen: Einstellung").select_option("steps")
    dialog.get_by_role("textbox", name="Zeilen: Werte").fill("3")
    expect(dialog).to_contain_text("Schritte steht auf zwei Achsen")


def test_prompts_are_refused_in_german(server, german):
    page = german(server.url)
    prompt = page.get_by_role("textbox", name="Prompt", exact=True)
    for text, said in (
        ("a (cat", "„(“ an Stelle 3 wird nie geschlossen"),
        ("a {b|c", "Die Klammer { an Stelle 3 wird nie geschlossen"),
        ("[a:b:x]", "Schritt"),
        ("a {2$b}", "Nach der Anzahl stehen zwei $"),
        ("${x}", "${x} hat noch keinen Wert"),
        ("__nothing__", "keine Wortliste „nothing“"),
        ("(a:99)", "Das Gewicht 99 liegt nicht zwischen"),
        ("<lora:x", "Zu <lora: fehlt das >"),
        ("a\\", "Der Prompt endet mit einem Rückstrich"),
    ):
        prompt.fill(text)
        expect(page.get_by_text(said).first).to_be_visible()


def test_what_could_not_be_taken_over_is_told_in_german(server, german):
    page = german(server.url)
    text = (
        "a cat <lora:ink:1>\nSteps: 4, Sampler: Euler a, CFG scale: 5, Seed: 1, Size: 64x64, Model: dreamy, "
        "Hires upscaler: Latent"
    )
    buffer = io.BytesIO()
    texts = PIL.PngImagePlugin.PngInfo()
    texts.add_text("parameters", text)
    PIL.Image.new("RGB", (64, 64), "red").save(buffer, "PNG", pnginfo=texts)
    page.goto(f"{server.url}/gallery")
    page.locator("input[type=file]").first.set_input_files(
        {"name": "a1111.png", "mimeType": "image/png", "buffer": buffer.getvalue()}
    )
    dialog = page.get_by_role("dialog", name="Einstellungen eines Bildes")
    expect(dialog).to_contain_text("Modell dreamy: nicht auf diesem Server; gezeichnet wird mit embedded")
    expect(dialog).to_contain_text("LoRA ink: liegt nicht im Ordner des Servers")
    page.keyboard.press("Escape")
    page.locator("input[type=file]").first.set_input_files(
        {"name": "cut.png", "mimeType": "image/png", "buffer": buffer.getvalue()[:60]}
    )
    expect(page.get_by_text("Das ist kein Bild, das gelesen wird")).to_be_visible()


def test_a_finished_grid_is_labelled_in_german_and_a_damaged_adapter_told(server, german):
    page = german(server.url)
    axes = [{"field": "steps", "values": "1, 2"}, {"field": "fast", "values": ["false", "true"]}]
    asked = {"prompt": "an apple", "seed": 1, "width": 64, "height": 64}
    grid = server.http.post("/api/v1/grids", json={"request": asked, "axes": axes}).json()
    page.goto(f"{server.url}/grid/{grid['id']}")
    expect(page.get_by_role("columnheader")).to_have_text(["Schritte 1", "Schritte 2"])
    expect(page.get_by_role("rowheader")).to_have_text(["Schnell aus", "Schnell an"])
    expect(page.get_by_role("img", name="Schritte 2, Schnell an")).to_be_visible()
    page.goto(server.url)
    page.get_by_role("textbox", name="Prompt", exact=True).fill("a <lora:broken:1> hat")
    page.get_by_role("button", name="Zeichnen", exact=True).click()
    told = page.get_by_role("list", name="Was gezeichnet wurde").get_by_text("broken.safetensors").first
    expect(told).to_contain_text("„broken.safetensors“ ist keine safetensors-Datei oder beschädigt.")
