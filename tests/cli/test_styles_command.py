"""`sfumato styles`: what it lists."""

import json

import pytest

from sfumato.cli.styles import styles
from sfumato.errors import UsageError
from sfumato.prompt.styles import load_styles


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The user's own style."""
    monkeypatch.setenv("SFUMATO_HOME", str(tmp_path))
    (tmp_path / "styles").mkdir()
    path = tmp_path / "styles" / "own.toml"
    path.write_text("[mine]\nprompt = 'mine, {prompt}'\ndescription = 'My own'\n")
    return path


def test_every_style_is_listed_with_what_it_is_for(capfdbinary, own):
    styles(None, as_json=False)
    lines = capfdbinary.readouterr().out.decode().splitlines()
    for style in load_styles().values():
        line = next(line for line in lines if line.split()[:1] == [style.name])
        assert style.description in line
        assert (str(own) in line) == (style.name == "mine")


def test_in_json_every_style_is_a_line_with_its_words(capfdbinary, own):
    styles(None, as_json=True)
    told = [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]
    assert [one["name"] for one in told] == list(load_styles())
    assert told[-1] == {
        "name": "mine",
        "prompt": "mine, {prompt}",
        "negative": "",
        "description": "My own",
        "models": [],
        "source": str(own),
    }


def test_those_for_one_kind_of_model_are_its_own_and_those_for_any(capfdbinary, own):
    styles("embedded", as_json=True)
    told = [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]
    assert {tuple(one["models"]) for one in told} == {("embedded",), ()}


def test_an_unknown_kind_of_model_is_an_error_that_names_the_nearest(own):
    with pytest.raises(UsageError, match="unknown kind of model 'embeded'; did you mean 'embedded'"):
        styles("embeded", as_json=False)
