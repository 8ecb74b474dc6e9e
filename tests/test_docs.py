"""The pages: their links lead somewhere, and what they name exists."""

import re
from pathlib import Path

import pytest

from sfumato.diffusion import samplers
from sfumato.names import SAMPLERS, SPACINGS
from sfumato.train.recipe_file import RENAMED

ROOT = Path(__file__).parents[1]
SAMPLERS_PAGE = (ROOT / "docs" / "samplers.md").read_text("utf-8")
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("src/**/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_to_a_file(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("name", [*SAMPLERS, *SPACINGS])
def test_every_sampler_and_spacing_is_explained(name):
    assert f"`{name}`" in SAMPLERS_PAGE


def test_the_table_of_samplers_is_that_of_the_registry():
    rows = re.findall(
        r"^\| (`.*?) \| ([\d, ]+) \| (\d) \| (yes|no) \| (.*?) \|$", SAMPLERS_PAGE, re.MULTILINE
    )
    found = {}
    for names, orders, evaluations, stochastic, source in rows:
        for name, order in zip(re.findall(r"`(.*?)`", names), orders.split(", "), strict=True):
            found[name] = int(order), int(evaluations), stochastic == "yes", source
    assert found.keys() == samplers.SAMPLERS.keys()
    for name, info in samplers.SAMPLERS.items():
        assert found[name][:3] == (info.order, info.evaluations_per_step, info.random), name
        assert info.source in found[name][3], name


def test_the_changes_list_every_renamed_key_of_recipes():
    page = (ROOT / "CHANGELOG.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| `([\w.]+)`.*\|$", page, re.MULTILINE))
    assert rows == {old: new.split()[0] for old, new in RENAMED.items()}


def test_the_readmes_two_commands_are_targets_and_ci_runs_the_second():
    readme, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    commands = re.findall(r"^make (\w+)", readme, re.MULTILINE)
    assert commands == ["picture", "test"]
    assert all(re.search(rf"^{command}:", makefile, re.MULTILINE) for command in commands)
    assert (ROOT / ".ci" / "run").read_text().strip().splitlines()[-1] == "exec make test"


def test_no_page_or_source_names_a_path_of_one_machine():
    for path in [
        *PAGES,
        *ROOT.glob("src/**/*.py"),
        *ROOT.glob("examples/*.py"),
        *ROOT.glob("benchmarks/*.py"),
    ]:
        assert not re.search(r"/(work|root|home)/\w+/", path.read_text()), path


def test_the_constraints_pin_every_package_to_one_version():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert "torch==2.13.0" in pins
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][A-Za-z0-9.]*", pin) for pin in pins)
