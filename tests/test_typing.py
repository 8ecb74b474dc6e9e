"""What a type checker and an editor know of the library, from its installed files."""

import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from sfumato.request import ALIASES, Request, RequestFields

RIGHT = """
import sfumato

with sfumato.load() as studio:
    image: sfumato.Image = studio.generate("a red apple", steps=20, guidance=4, style="3d", adapters=["ink"])
    same: sfumato.Image = studio.generate(prompt="a red apple", negative_prompt="", num_inference_steps=20)
    images: list[sfumato.Image] = studio.generate(["a cat", "a dog"], seed=7)
    request = sfumato.Request("a red apple", width=256).changed(seed=8)
    for step in studio.stream([request], guidance_interval=(0.1, 9)):
        step.preview().save("preview.png")
"""
ROOT = Path(__file__).parents[1]
WRONG = {
    'sfumato.Request("a", steeps=20)': "Unexpected keyword argument",
    'studio.generate("a", steeps=20)': "generate",
    'studio.generate_batch("a", seed="seven")': "incompatible type",
    'studio.stream("a", decoder="huge")': "incompatible type",
    "sfumato.Request(steps=20)": "Missing positional argument",
    'studio.genrate("a")': "has no attribute",
}


def test_the_marker_of_a_typed_package_ships():
    assert resources.files("sfumato").joinpath("py.typed").is_file()


def test_the_keywords_of_drawing_are_the_fields_of_a_request_and_take_what_they_hold():
    hints = get_type_hints(RequestFields)
    assert hints.keys() == {*Request.model_fields, *ALIASES}
    for name, field in Request.model_fields.items():
        if type(None) in get_args(field.annotation):
            assert type(None) in get_args(hints[name]), name
        assert hints[name] not in (object, None), name
    for alias, name in ALIASES.items():
        assert hints[alias] == hints[name]


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("typed")
    lines = ["import sfumato", "studio = sfumato.load()", *WRONG]
    (folder / "right.py").write_text(RIGHT)
    (folder / "wrong.py").write_text("\n".join(lines))
    # what was found of the package itself, when that was checked, serves again
    settings = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(ROOT / ".mypy_cache")]
    line = [sys.executable, "-m", "mypy", "--strict", "--no-color-output", *settings, "."]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True).stdout.splitlines()


def test_a_type_checker_takes_a_program_that_is_right(checked):
    assert [line for line in checked if line.startswith("right.py")] == []


def test_a_type_checker_refuses_a_misspelt_field_and_a_wrong_value(checked):
    for number, said in enumerate(WRONG.values(), 3):
        found = [line for line in checked if line.startswith(f"wrong.py:{number}: error")]
        assert found, (number, checked)
        assert any(said in line for line in found), found
