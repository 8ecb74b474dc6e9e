"""Recipes: what they may say, and what is said of what they may not."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato.errors import UsageError
from sfumato.train import stages
from sfumato.train.lr_schedule import LR_SCHEDULES, warmup_stable_decay
from sfumato.train.recipe import RECIPES, different, read
from sfumato.train.tasks.common import MODEL

OWN = sorted(Path(__file__).parents[2].glob("recipes/**/*.toml"))
LEAST = 'objective = "denoiser"\ndata = "d"\nrun = "r"\n'


def written(tmp_path, text):
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.stem)
def test_the_projects_own_recipes_are_read(path):
    listed = tomllib.loads(path.read_text()).get("stages", [path.name])
    for stage, name in zip(stages.read(path).stages, listed, strict=True):
        objective = tomllib.loads((path.parent / name).read_text())["objective"]
        assert isinstance(stage.recipe, RECIPES[objective])


@pytest.mark.parametrize(
    "path", [path for path in OWN if path.stem == "all"], ids=lambda path: path.parent.name
)
def test_every_stage_of_the_projects_own_begins_with_the_model_of_one_before_it(path):
    runs = []
    for stage in stages.read(path).stages:
        assert stage.recipe.base in ["embedded", *[f"{run}/{MODEL}" for run in runs]]
        runs.append(stage.recipe.run)


def test_keys_can_be_changed_where_the_recipe_is_named(tmp_path):
    assert read(written(tmp_path, LEAST), {"steps": 7}).steps == 7


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LEAST + "stepz = 3", r"unknown key 'stepz'; did you mean 'steps'\?"),
        (LEAST + 'steps = "many"', r"steps is 'many': must be a valid integer"),
        (LEAST + "steps = 0", r"steps = 0 must be at least 1"),
        (LEAST + "warmup = -1", r"warmup = -1 must not be negative"),
        (LEAST + "rate = 0", r"rate = 0\.0 must be positive"),
        (LEAST + "batch = 10\naccumulate = 3", r"batch = 10 must be a multiple of accumulate = 3"),
        (LEAST + "decay = 2000", r"decay = 2000 steps are more than all steps = 1000"),
        (LEAST + "ema = [1.0]", r"must be decays in \[0, 1\)"),
        (LEAST + "ema = []", r"ema = \[\] must be decays in \[0, 1\)"),
        (LEAST + "result = 0.9", r"result = 0\.9 must be one of ema = \[0\.9995\]"),
        (LEAST + "beta2 = 1.0", r"beta2 = 1\.0 must be in \[0, 1\)"),
        (LEAST + "rate = nan", r"rate is nan: must be a finite number"),
        (LEAST + "ema = 0.9", r"ema is 0.9: must be a list"),
        (LEAST + "result = 'best'", r"result is 'best': must be a valid number"),
        (LEAST + "rate = true", r"rate is True: must be a valid number"),
        (LEAST + "tensorboard = 1", r"tensorboard is 1: must be a valid boolean"),
        (LEAST + 'schedule = "cosin"', r"did you mean 'cosine'\?"),
        (LEAST + 'precision = "fp17"', r"precision 'fp17' is not known; did you mean 'fp16'\?"),
        (LEAST + 'weighting = "min-snt"', r"weighting 'min-snt' is not known; did you mean 'min-snr'\?"),
        (LEAST + "drop_text = 2", r"drop_text = 2\.0 must be in \[0, 1\]"),
        (LEAST + "[network]\nnorm_eps = 1", r"only be changed with start = 'nothing'"),
        (LEAST + "network = 3", r"network must be a table"),
        ('objective = "denoiser"\nrun = "r"', r"data must name a folder"),
        ('objective = "denoisr"', r"objective = 'denoisr' is not known; did you mean 'denoiser'\?"),
        ("", r"objective = None is not known"),
        ("= 3", r"is not valid TOML"),
    ],
)
def test_a_wrong_recipe_is_an_error_that_says_what_would_be_right(tmp_path, text, said):
    with pytest.raises(UsageError, match=said) as caught:
        read(written(tmp_path, text))
    assert "recipe.toml" in str(caught.value)


def test_a_recipe_that_is_not_there_is_an_error_that_names_it(tmp_path):
    with pytest.raises(UsageError, match=r"cannot read the recipe .*nothing\.toml"):
        read(tmp_path / "nothing.toml")


def test_only_what_makes_it_another_run_makes_it_another_run(tmp_path):
    before = read(written(tmp_path, LEAST))
    assert different(before.identity(), read(written(tmp_path, LEAST + "steps = 5"))) is None
    assert different(before.identity(), read(written(tmp_path, LEAST + "seed = 5"))) == "seed"
    earlier = {key: value for key, value in before.identity().items() if key not in ("seed", "network")}
    assert different(earlier, before) is None
    assert different(earlier, read(written(tmp_path, LEAST + "seed = 5"))) == "seed"


@given(
    st.sampled_from(sorted(LR_SCHEDULES)),
    st.integers(1, 500),
    st.integers(0, 50),
    st.integers(0, 500),
    st.data(),
)
def test_a_rate_is_always_a_share_of_the_highest(name, steps, warmup, decay, data):
    step = data.draw(st.integers(0, steps - 1))
    assert 0 <= LR_SCHEDULES[name](step, steps, warmup, min(decay, steps)) <= 1


@given(st.integers(0, 899))
def test_putting_the_end_off_changes_no_step_before_the_decay(step):
    assert warmup_stable_decay(step, 1000, 10, 100) == warmup_stable_decay(step, 5000, 10, 100)
