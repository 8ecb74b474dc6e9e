"""The programs of the page about serving, as they stand, and its table of settings."""

import re
from pathlib import Path

import PIL.Image

from sfumato.server.settings import ServerSettings

PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text("utf-8")


def test_the_pages_programs_draw(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    programs = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(programs) == 2
    for program in programs:
        assert "http://127.0.0.1:7860" in program
        exec(compile(program.replace("http://127.0.0.1:7860", server.url), "serving.md", "exec"), {})
        assert PIL.Image.open("apple.png").size == (256, 256)
        Path("apple.png").unlink()


def test_every_setting_is_in_the_pages_table():
    rows = re.findall(r"^\| (`[a-z_`, ]+`) \|", PAGE.split("## Settings")[1], re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(named) == sorted(ServerSettings.model_fields)


def test_the_gallery_shows_what_was_drawn_and_escapes_its_prompts(server):
    server.wait(server.submit(prompt="a <b>bold</b> apple", steps=1)["id"])
    page = server.http.get("/", params={"search": "bold"})
    assert "a &lt;b&gt;bold&lt;/b&gt; apple" in page.text
    assert "<b>" not in page.text
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
