"""The examples, run as a reader would run them."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import PIL.Image
import pytest

pytestmark = pytest.mark.filterwarnings("ignore:.*far from the 256")
EXAMPLES = Path(__file__).parents[1] / "examples"
CALLS = {
    "draw.py": ["a moon, flat emoji", "moon.png"],
    "variations.py": ["a moon, flat emoji", "2", "sheet.png"],
    "watch.py": ["a moon, flat emoji", "frames", "2"],
    "own_sampler.py": [],
    "wardrobe.py": ["a {red|blue} apple", "emoji-3d", "sheet.png"],
    "tutorial.py": ["moon.png"],
    "edit.py": ["apple.png", "make it blue", "sheet.png", "--steps", "4"],
}
DRAWN = {
    "draw.py": ["moon.png"],
    "variations.py": ["sheet.png"],
    "wardrobe.py": ["sheet.png"],
    "tutorial.py": ["moon.png"],
    "watch.py": ["frames/001.png", "frames/002.png"],
    "edit.py": ["apple.png"],
}


def test_every_example_is_run():
    assert {path.name for path in EXAMPLES.glob("*.py")} == {*CALLS, "live.py"}  # test_live.py


@pytest.mark.parametrize("name", sorted({*CALLS, "live.py"}))
def test_an_example_says_its_usage_and_needs_no_arguments(name, tmp_path):
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), "--help"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    usage, _, text = done.stdout.partition("\n\n")
    assert set(re.findall(r"\w+", re.sub(r"\[[^]]*\]", "", usage))) <= {"usage", *name.split(".")}
    assert f"python examples/{name}" in text


@pytest.mark.parametrize("name", CALLS)
def test_an_example_runs_and_leaves_what_it_says(name, tmp_path, monkeypatch, quick):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [name, *CALLS[name]])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    for path in DRAWN.get(name, []):
        with PIL.Image.open(tmp_path / path) as picture:
            assert picture.size[1] == (256 if name == "tutorial.py" else 64)
