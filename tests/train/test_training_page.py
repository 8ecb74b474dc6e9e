"""The page on training: its commands can be given, and its recipes carried out."""

import re
import shlex
from pathlib import Path

import click
import pytest
import typer

from sfumato.cli.app import app
from sfumato.train import stages
from sfumato.train.objectives import OBJECTIVES
from sfumato.train.recipe_file import RENAMED, read

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "training.md").read_text()
OBJECTIVE_PAGE = (ROOT / "docs" / "objectives.md").read_text()
STUDENTS = (ROOT / "docs" / "few-steps.md").read_text()
BLOCKS = "\n".join(re.findall(r"^```\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))
SPANS = re.findall(r"`(sfumato [^`]+)`", PAGE)
COMMANDS = [line for line in [*BLOCKS.splitlines(), *SPANS] if line.startswith("sfumato ")]


def parsed(command, arguments, parent=None):
    """What `arguments` are understood as. Raises click's errors."""
    context = command.make_context(command.name, arguments, parent=parent)
    if isinstance(command, click.Group):
        _, below, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        return parsed(below, rest, context)
    return context.params


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_of_the_page_can_be_given(line):
    command, bare = typer.main.get_command(app), {"sfumato train", "sfumato evaluate"}
    if line not in bare:
        assert parsed(command, shlex.split(line)[1:]) is not None
    for name in re.findall(r"recipes/\S+\.toml", line):
        assert stages.read(ROOT / name).stages


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
    assert f"`{objective}.toml`" in PAGE


@pytest.mark.parametrize("dotted", RENAMED.values())
def test_every_key_is_on_a_page(dotted):
    key = dotted.split()[0].split(".")[-1]
    assert re.search(rf"`[^`\n]*\b{key}\b[^`\n]*`|^{key} = ", PAGE + OBJECTIVE_PAGE + STUDENTS, re.MULTILINE)
