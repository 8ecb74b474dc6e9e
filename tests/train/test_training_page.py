"""The pages on training: their recipes are read, and every objective and key is on one."""

import re
from pathlib import Path

import pytest

from sfumato.train.objectives import OBJECTIVES
from sfumato.train.recipe_file import RENAMED, read

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "training.md").read_text()
OBJECTIVE_PAGE = (ROOT / "docs" / "objectives.md").read_text()
STUDENTS = (ROOT / "docs" / "few-steps.md").read_text()


@pytest.mark.parametrize(
    "text", re.findall(r"^```toml\n(.*?)^```", PAGE + STUDENTS, re.DOTALL | re.MULTILINE)
)
def test_every_recipe_of_the_pages_is_read(tmp_path, text):
    (tmp_path / "recipe.toml").write_text(text)
    assert read(tmp_path / "recipe.toml").run


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_is_explained(objective):
    if OBJECTIVES[objective].FEW_STEPS:
        assert f"| `{objective}`" in STUDENTS
        return
    assert f"## `{objective}`:" in OBJECTIVE_PAGE
    assert f"`{objective}.toml`" in PAGE or f"`{objective}`" in PAGE


@pytest.mark.parametrize("dotted", RENAMED.values())
def test_every_key_is_on_a_page(dotted):
    key = dotted.split()[0].split(".")[-1]
    assert re.search(rf"`[^`\n]*\b{key}\b[^`\n]*`|^{key} = ", PAGE + OBJECTIVE_PAGE + STUDENTS, re.MULTILINE)
