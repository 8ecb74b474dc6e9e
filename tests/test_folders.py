"""The user's own folders: where they are, and which file a name means."""

from pathlib import Path

import pytest

from sfumato import folders
from sfumato.errors import UsageError


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("SFUMATO_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(home, *names):
    for name in names:
        path = home / "adapters" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_the_folders_are_the_users_own_unless_told_otherwise(home, monkeypatch):
    assert folders.folder("models") == home / "models"
    monkeypatch.delenv("SFUMATO_HOME")
    assert folders.folder("models").parts[-2:] == ("sfumato", "models")
    assert folders.folder("models").is_relative_to(Path.home())
    with pytest.raises(ValueError, match="loras"):
        folders.folder("loras")


def test_a_name_means_the_file_nearest_to_the_top(home):
    put(home, "ink.safetensors", "old/ink.safetensors", "b/line.SAFETENSORS", "a/line.safetensors", "x.txt")
    found = folders.found("adapters")
    assert found["ink"] == home / "adapters" / "ink.safetensors"
    assert found["old/ink"] == home / "adapters" / "old" / "ink.safetensors"
    assert found["line"] == home / "adapters" / "a" / "line.safetensors"
    assert "x" not in found
    assert folders.found("styles", (".toml",)) == {}


def test_a_path_wins_over_a_name_and_the_suffix_may_be_left_out(home):
    put(home, "ink.safetensors")
    inside = home / "adapters" / "ink.safetensors"
    assert folders.pick("adapters", "ink") == folders.pick("adapters", "ink.safetensors") == inside
    (home / "ink.safetensors").touch()
    assert folders.pick("adapters", "ink.safetensors") == Path("ink.safetensors")
    assert folders.pick("adapters", "ink") == inside


def test_the_path_of_a_file_with_another_suffix_is_left_to_its_reader(home):
    (home / "old.pt").touch()
    assert folders.pick("embeddings", "old.pt") == Path("old.pt")


@pytest.mark.parametrize("name", ["a" * 999, "a" * 999 + ".safetensors", "~nobody-of-this-name/x", "a\0b"])
def test_a_name_that_can_be_no_path_is_an_unknown_one(home, name):
    with pytest.raises(UsageError, match="there is no adapter"):
        folders.pick("adapters", name)


def test_an_unknown_name_names_the_nearest_or_says_that_there_are_none(home):
    with pytest.raises(UsageError, match=r"no adapter 'ink'; it is no file, and .*adapters holds none"):
        folders.pick("adapters", "ink")
    put(home, "ink.safetensors")
    with pytest.raises(UsageError, match="no adapter 'inc'; did you mean 'ink'"):
        folders.pick("adapters", "inc")
