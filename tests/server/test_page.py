"""The programs of the page about serving, as they stand, and its table of settings."""

import re
from pathlib import Path

import PIL.Image

from sfumato.server.settings import ServerSettings

PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text("utf-8")


def test_the_pages_programs_draw(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    programs = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(programs) == 3
    # the one that teaches takes minutes; test_teaching_jobs.py does that in a few steps
    for program in (each for each in programs if ".teach(" not in each):
        assert "http://127.0.0.1:7860" in program
        exec(compile(program.replace("http://127.0.0.1:7860", server.url), "serving.md", "exec"), {})
        assert PIL.Image.open("apple.png").size == (256, 256)
        Path("apple.png").unlink()


def test_every_setting_is_in_the_pages_table():
    rows = re.findall(r"^\| (`[a-z_`, ]+`) \|", PAGE.split("## Settings")[1], re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(named) == sorted(ServerSettings.model_fields)


def test_the_page_and_its_files_are_served_under_a_strict_policy(server):
    page = server.http.get("/")
    for address in ("/gallery", "/teach", "/edit/a-picture", "/scene", "/scene/a-picture"):
        assert server.http.get(address).text == page.text
    policy = page.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    files = re.findall(r'(?:src|href)="(/[^"]+)"', page.text)
    assert {Path(name).suffix for name in files} == {".js", ".css", ".svg"}
    for name in files:
        answer = server.http.get(name)
        assert answer.status_code == 200
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert "<script>" not in page.text
    assert "style=" not in page.text
    assert server.http.get("/assets/..%2findex.html").status_code == 404
