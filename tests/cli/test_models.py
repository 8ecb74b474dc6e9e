import io
import json
import shutil
import sys

import pytest
import torch
from commandline import SMALL
from huggingface_hub import constants

from sfumato import checkpoint, weights
from sfumato.cli import models
from sfumato.cli.convert import convert
from sfumato.errors import CheckpointError, UsageError
from sfumato.image import Image


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The user's folders, empty, and no hub cache."""
    monkeypatch.setenv("SFUMATO_HOME", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def dreamy(home):
    (home / "models").mkdir()
    path = home / "models" / "dreamy.safetensors"
    weights.write(path, {"model.diffusion_model.x.attn2.to_k.weight": torch.zeros(4, 768)})
    return path


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_what_is_here_is_a_table_or_lines_of_json(dreamy, capfdbinary):
    models.list_models(as_json=False)
    head, row = capfdbinary.readouterr().out.decode().splitlines()
    assert head.split() == ["model", "kind", "layout", "MB", "where"]
    assert row.split() == ["dreamy", "sd1", "single", "file", "0", "your", "folder"]
    models.list_models(as_json=True)
    (line,) = capfdbinary.readouterr().out.splitlines()
    assert json.loads(line) == {
        "name": "dreamy",
        "place": "folder",
        "layout": "single file",
        "kind": "sd1",
        "bytes": dreamy.stat().st_size,
        "path": str(dreamy),
        "refs": [],
    }


def test_an_empty_library_says_how_to_fill_it(home, capfdbinary):
    models.list_models(as_json=True)
    assert capfdbinary.readouterr().out == b""
    models.list_models(as_json=False)
    assert f"put checkpoints into {home / 'models'}" in capfdbinary.readouterr().out.decode()


def test_the_place_of_a_model_is_printed(dreamy, capfdbinary):
    models.path("dreamy")
    assert capfdbinary.readouterr().out.decode() == f"{dreamy}\n"
    with pytest.raises(UsageError, match="did you mean 'dreamy'"):
        models.path("draemy")


@pytest.mark.parametrize(("answer", "status"), [("n\n", 1), ("\n", 1), ("y\n", 0)])
def test_a_model_is_deleted_only_after_a_yes(dreamy, monkeypatch, capfdbinary, answer, status):
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    assert models.remove("dreamy", yes=False) == status
    assert dreamy.exists() == bool(status)
    out, err = capfdbinary.readouterr()
    assert out == b""
    assert f"delete {dreamy}?" in err.decode()


def test_where_nobody_can_be_asked_yes_must_be_said(dreamy, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    with pytest.raises(UsageError, match="say --yes"):
        models.remove("dreamy", yes=False)
    assert dreamy.exists()
    assert models.remove("dreamy", yes=True) == 0
    assert not dreamy.exists()


def test_pulling_prints_the_folder(home, monkeypatch, capfdbinary):
    asked = []

    def download(repository, **options):
        asked.append((repository, options))
        return str(home)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    monkeypatch.setattr("sfumato.checkpoint.source.lacking", lambda *_arguments: None)
    models.pull("org/name", "v2", None)
    assert capfdbinary.readouterr().out.decode() == f"{home}\n"
    assert asked == [("org/name", {"revision": "v2", "local_files_only": True})]
    with pytest.raises(CheckpointError, match="is not a hub id"):
        models.pull("../name", None, None)


def test_a_converted_pickle_says_what_was_trusted(home, capfdbinary):
    torch.save({"state_dict": {"w": torch.ones(2)}, "epoch": 1}, home / "in.ckpt")
    pickled = {"source": str(home / "in.ckpt"), "target": home / "out.safetensors", "parts": {}}
    convert(**pickled, from_pickle=True, as_json=True)
    told = json.loads(capfdbinary.readouterr().out)
    assert (told["tensors"], told["dropped"]) == (1, ["epoch (int)"])
    assert told["guards"]
    convert(**pickled, from_pickle=True, overwrite=True)
    out = capfdbinary.readouterr().out.decode()
    assert "trusted: torch's weights-only unpickler" in out
    assert "left out: epoch (int)" in out


def test_inspect_writes_what_is_wrong_to_stderr(here, tmp_path):
    (tmp_path / "broken.safetensors").write_bytes(b"no tensors at all")
    status, out, err = here("inspect", "broken.safetensors")
    assert (status, out) == (2, "")
    assert err.startswith("error: broken.safetensors")
    status, out, err = here("inspect", "broken.safetensors", "--json")
    assert (status, len(json.loads(out)["problems"])) == (2, 1)
    assert err.startswith("error: broken.safetensors")


def test_inspect_takes_several_at_once(here, tmp_path):
    here("generate", "a red apple", "-o", "a.png", *SMALL)
    (tmp_path / "broken.safetensors").write_bytes(b"no tensors at all")
    status, out, _ = here("inspect", "embedded", "a.png")
    assert status == 0
    assert out.startswith("embedded\n")
    assert "\n\na.png: PNG, 64×64\n" in out
    status, out, _ = here("inspect", "--json", "broken.safetensors", "a.png")
    told = [json.loads(line) for line in out.splitlines()]
    assert (status, told[1]["path"], len(told[0]["problems"])) == (2, "a.png", 1)


def test_inspect_of_a_model_that_lacks_a_part_says_what_is_there_and_what_is_not(here, tmp_path):
    folder = shutil.copytree(checkpoint.embedded(), tmp_path / "model")
    shutil.rmtree(folder / "vae")
    status, out, err = here("inspect", "model")
    assert status == 2
    assert "unet: UNet2DConditionModel" in out
    assert "missing" not in out
    assert "error: model is incomplete: the folder vae/ is missing" in err


@pytest.mark.parametrize(
    ("switch", "asked"), [("--no-zero-terminal-snr", False), ("--zero-terminal-snr", True)]
)
def test_zero_terminal_snr_is_switched_on_the_command_line(here, tmp_path, switch, asked):
    drawn = ("generate", "a", "--steps", "1", "--width", "64", "--height", "64", "-o", "a.png", switch)
    status, _, err = here(*drawn)
    assert status == 0, err
    assert Image.open(tmp_path / "a.png").request.zero_terminal_snr is asked
