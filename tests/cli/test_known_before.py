"""What can be known before the work is known before it, in every command."""

import shutil

import pytest

from sfumato import checkpoint
from sfumato.contact_sheet import cell_size, columns_for
from sfumato.data import pack, search, shards
from sfumato.formats import MAX_SIDES


@pytest.fixture
def file(tmp_path):
    """A file where a folder would have to be."""
    (tmp_path / "file").write_bytes(b"")
    return tmp_path / "file"


def never(*_, **__):
    pytest.fail("the work was begun")


@pytest.mark.parametrize(
    "target", ["file/a.safetensors", "none/a.safetensors", "file/a", "full", "a.dir.safetensors"]
)
def test_a_model_is_not_loaded_to_be_written_where_it_cannot_be(target, here, file, tmp_path, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_bytes(b"")
    (tmp_path / "a.dir.safetensors").mkdir()
    monkeypatch.setattr(checkpoint.converting, "load", never)
    status, out, err = here("convert", "embedded", target, "--overwrite")
    assert (status, out) == (1, "")
    assert err.count("\n") == 1
    assert "cannot write" in err or "will not replace" in err


def test_pictures_are_not_looked_at_to_be_packed_where_they_cannot_be(here, file, tmp_path, monkeypatch):
    monkeypatch.setattr(search, "search", never)
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "train-00000.tar").write_bytes(b"")
    for out in ("file/packed", "packed"):
        assert here("data", "pack", ".", out)[0] == 1
    assert shards.check_place(tmp_path / "new") is None


def test_icons_are_not_fetched_where_they_cannot_be_rendered(here, file, monkeypatch):
    monkeypatch.setattr(pack, "build", never)
    status, _, err = here("data", "icons", "file/icons")
    assert status == 1
    assert "cannot write file/icons" in err
    monkeypatch.setattr("sfumato.data.render._renders", lambda: False)
    status, _, err = here("data", "icons", "icons")
    assert status == 2
    assert "rendering needs resvg-py" in err


def test_a_run_is_not_prepared_where_it_cannot_be_kept(here, file, tmp_path, monkeypatch):
    monkeypatch.setattr("sfumato.train.stages._go_on", never)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_bytes(b"")
    recipe = tmp_path / "a.toml"
    recipe.write_text(
        'run = "run"\nsteps = 1\nbatch_size = 1\n[objective]\nname = "denoiser"\n[data]\nfolder = "data"\n'
    )
    for given in (["--run", "file/run"], ["--shards", "full"]):
        status, _, err = here("train", recipe, *given)
        assert status == 1, err
        assert "cannot write" in err or "will not replace" in err


def test_nothing_is_drawn_to_be_evaluated_where_it_cannot_be_kept(here, file, monkeypatch):
    monkeypatch.setattr("sfumato.studio.open_studio", never)
    for given in (["--cache", "file/cache"], ["--out", "file/report"]):
        status, _, err = here("evaluate", "--small", *given)
        assert status == 1, err
        assert "cannot write" in err


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (["x", "--clip-skip", "11"], "clip_skip = 11 is out of range"),
        (["embedding:none", "--dialect", "comfy"], "unknown embedding 'none'"),
        (['("a", "b").blend(1, -1)', "--dialect", "compel"], "the weights of a blend sum to 0"),
    ],
)
def test_a_prompt_that_cannot_be_encoded_is_known_before_another_is_drawn(wrong, told, here, monkeypatch):
    monkeypatch.setattr("sfumato.studio.Studio.job", never)
    prompt, *options = wrong
    status, out, err = here("generate", "a red apple, 3d", prompt, *options)
    assert (status, out) == (2, "")
    assert told in err


def test_a_name_that_is_too_long_is_known_before_anything_is_drawn(here, monkeypatch):
    monkeypatch.setattr("sfumato.studio.open_studio", never)
    status, _, err = here("generate", "apple " * 30, "-o", "x" * 180 + "-{prompt}.png")
    assert status == 1
    assert "the name is too long" in err


def test_a_full_disk_is_known_before_anything_is_drawn(here, tmp_path, monkeypatch):
    full = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    monkeypatch.setattr("sfumato.studio.Studio.stream", never)
    status, _, err = here("generate", "a red apple, 3d render", "-n", "4", "-o", "a.png")
    assert status == 1
    assert "cannot write a-{n}.png: it takes 26,214 bytes, and its disk has 1,000 free" in err


@pytest.mark.parametrize("size", [(64, 4096), (4096, 64), (4096, 4096)])
def test_a_page_of_many_pictures_fits_into_every_format(size):
    columns = columns_for(1000)
    cell = cell_size(size, 1000, columns)
    assert max(columns * cell[0], -(-1000 // columns) * cell[1]) < 0.9 * min(MAX_SIDES.values())


def test_threads_are_told_to_be_a_number_within_bounds(here, tmp_path):
    for given, told in (("0", "at least 1"), ("2000", "at most 1024")):
        for command in (["generate", "x"], ["evaluate", "--small"], ["train", "none.toml"]):
            status, _, err = here(*command, "--threads", given)
            assert status == 2
            assert f"threads is {given}: must be {told}" in err


@pytest.mark.parametrize("model", ["nothere", "./none/a.safetensors"])
def test_a_model_that_is_not_there_is_not_served(model, here, monkeypatch):
    monkeypatch.setattr("sfumato.server.serving.serve", never)
    status, out, err = here("serve", "--model", model, "--port", "0")
    assert (status, out) == (2, "")
    assert err.startswith(f"error: there is no model '{model}'")
