"""`sfumato train` and `sfumato data`: what they say, and what they say of what they cannot do."""

import json
import shlex
from dataclasses import asdict

import pytest

from sfumato.data import pack
from sfumato.data.pack import Drawing

SQUARE = '<path fill="#f00" d="M0 0h16v16H0z"/>'
RECIPE = """
run = "run"
batch_size = 1
precision = "float32"
log_every = 1
objective.name = "autoencoder"
data.folder = "data"
"""


@pytest.fixture
def packed(tmp_path):
    """A pack of four drawings in `data/pack`, one of them for tests."""
    labels = ["cat", "dog", "cow"]
    labels.append(next(f"thing {n}" for n in range(999) if Drawing("noto", f"thing {n}", (), 1.0).held_out))
    rows = [asdict(Drawing("noto", label, (), 1.0, (0, 0, 16, 16), SQUARE)) for label in labels]
    folder = tmp_path / "data" / "pack"
    folder.mkdir(parents=True)
    pack._write_xz(folder / "part-00.jsonl.xz", [json.dumps(row) for row in rows])
    (folder / "pack.json").write_text(json.dumps({"parts": ["part-00.jsonl.xz"]}))


def test_a_pack_is_rendered_and_trained_on_in_slices(here, packed, tmp_path):
    status, out, err = here("data", "icons", "data", "--size", "16", "--offline")
    assert (status, out, err) == (0, "data: 4 pictures rendered, 0 drawings left out as broken\n", "")
    told = "data: icons of `sfumato data icons`, 4, 1 of them held out\n"
    assert here("data", "check", "data") == (0, told, "")
    (tmp_path / "recipe.toml").write_text(RECIPE)
    status, out, err = here("train", "recipe.toml", "--steps", "2", "--seconds", "0.001", "--device", "cpu")
    assert status == 0
    assert "run: stopped at step 1 of 2, run again to go on; 1 example in" in out
    assert "step 1/2" in err
    assert "warning: recipe.toml: 2 steps in place of 1,000 shorten warmup_steps to 0" in err
    assert here(*shlex.split(out.splitlines()[-1].split("sfumato ")[1]))[0] == 0
    status, out, err = here("train", "recipe.toml", "--steps", "2", "--device", "cpu", "--json", "-q")
    assert (status, err) == (0, "")
    told = json.loads(out)
    assert (told["step"], told["done"]) == (2, True)
    assert "psnr_held_out" in told["metrics"]
    assert told["result"] == "run/model"
    assert told["next"] == "sfumato generate 'a red apple' --model run/model"
    out = here("train", "recipe.toml", "--steps", "2", "--device", "cpu", "-q")[1]
    assert out.splitlines()[-2:] == [
        "result           run/model",
        "next             sfumato generate 'a red apple' --model run/model",
    ]
    assert here(*shlex.split(told["next"])[1:], "-W", "64", "-H", "64", "--steps", "1")[0] == 0


def test_stages_are_told_one_by_one(here, packed, tmp_path):
    for name, base in (("first", "embedded"), ("second", "first/model")):
        text = (
            RECIPE.replace('"run"', f'"{name}"') + f'base = "{base}"\nsteps = 2\noptimizer.warmup_steps = 0\n'
        )
        (tmp_path / f"{name}.toml").write_text(text)
    (tmp_path / "all.toml").write_text('stages = ["first.toml", "second.toml"]\nicons = 16')
    slice_ = ["train", "all.toml", "--seconds", "0.001", "--device", "cpu"]
    status, out, err = here(*slice_)
    assert (status, out.count("not begun, run again to go on")) == (0, 2)
    assert err == "data: rendering 0/4\n"
    status, out, err = here(*slice_)
    assert "first: stopped at step 1 of 2" in out
    assert "second: not begun" in out
    assert "first.toml: step 1/2" in err
    status, out, err = here("train", "all.toml", "--device", "cpu", "--json", "-q", "--shards", "out")
    assert (status, err) == (0, "")
    told = json.loads(out)
    assert told["done"]
    assert [(one["stage"], one["run"], one["step"]) for one in told["stages"]] == [
        ("first.toml", "first", 2),
        ("second.toml", "second", 2),
    ]
    assert (tmp_path / "out" / "model_index.json").is_file()
    assert max(path.stat().st_size for path in (tmp_path / "out").rglob("*")) < 16_000_000


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["train", "no.toml"], 2, "cannot read the recipe no.toml"),
        (["train", "recipe.toml", "--seconds", "0"], 2, "--seconds 0 must be more than 0"),
        (["train", "recipe.toml", "--steps", "0"], 2, "steps is 0: must be"),
        (["train", "all.toml", "--steps", "5"], 2, "--steps cannot be the same for all stages"),
        (["train", "recipe.toml", "--device", "cpu"], 2, "there is no folder data: name one of captioned"),
        (["train", "recipe.toml", "--base", "nowhere", "--data", "."], 2, "nowhere"),
        (
            ["train", "recipe.toml", "--base", "runs/a/model"],
            2,
            "first carry out the recipe with run = 'runs/a'",
        ),
        (["data", "icons", "empty", "--offline"], 2, "there is no pack in empty/pack"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(here, tmp_path, arguments, status, said):
    (tmp_path / "recipe.toml").write_text(RECIPE)
    (tmp_path / "all.toml").write_text('stages = ["recipe.toml"]')
    ended, out, err = here(*arguments)
    assert (ended, out) == (status, "")
    assert said in err
    assert len(err.splitlines()) <= 2
