"""The page on adapters: its programs run, in order, as they stand."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "adapters.md"


def programs():
    _, own = PAGE.read_text().split("## In programs of your own")
    return re.findall(r"```python\n(.*?)```", own, re.DOTALL)


def test_the_pages_programs_run_in_order(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for program in programs():
        exec(compile(program, PAGE.name, "exec"), names)
    assert capsys.readouterr().out.splitlines()[0].endswith("keys used")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine-kohya.safetensors", "mine.safetensors"]


@pytest.mark.parametrize("name", ["down", "mid", "up", "in", "out", "time", "text"])
def test_every_block_is_explained(name):
    assert re.search(rf"^\|.*`{name}`", PAGE.read_text(), re.MULTILINE)
