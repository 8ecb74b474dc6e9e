"""Recipes: what they may say, and what is said of what they may not."""

import tomllib
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sfumato import devices
from sfumato.errors import SfumatoWarning, UsageError
from sfumato.train import stages
from sfumato.train.lr_schedule import LR_SCHEDULES, warmup_stable_decay
from sfumato.train.objectives import OBJECTIVES
from sfumato.train.recipe import MODEL
from sfumato.train.recipe_file import RENAMED, read

OWN = sorted(Path(__file__).parents[2].glob("recipes/**/*.toml"))
LEAST = 'run = "r"\n{}\n[objective]\nname = "denoiser"\n{}\n[data]\nfolder = "d"\n{}\n[optimizer]\n{}\n'


def least(run="", objective="", data="", optimizer=""):
    return LEAST.format(run, objective, data, optimizer)


def written(tmp_path, text):
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.stem)
def test_the_projects_own_recipes_are_read(path):
    listed = tomllib.loads(path.read_text()).get("stages", [path.name])
    for stage, name in zip(stages.read(path).stages, listed, strict=True):
        objective = tomllib.loads((path.parent / name).read_text())["objective"]["name"]
        assert type(stage.recipe.objective) is OBJECTIVES[objective]


@pytest.mark.parametrize(
    "path", [path for path in OWN if path.stem == "all"], ids=lambda path: path.parent.name
)
def test_every_stage_of_the_projects_own_begins_with_the_model_of_one_before_it(path):
    runs = []
    for stage in stages.read(path).stages:
        assert stage.recipe.base in ["embedded", *[f"{run}/{MODEL}" for run in runs]]
        runs.append(stage.recipe.run)


def test_keys_can_be_changed_where_the_recipe_is_named(tmp_path):
    recipe = read(written(tmp_path, least()), {"steps": 7, "data.folder": "other", "adapter.rank": 4})
    assert (recipe.steps, recipe.data.folder, recipe.adapter.rank) == (7, "other", 4)


@pytest.mark.parametrize("fast", [True, False])
def test_a_network_computes_in_what_is_fastest_on_its_device_unless_the_recipe_says(
    fast, tmp_path, monkeypatch
):
    monkeypatch.setattr(devices, "cpu_has_bfloat16", lambda: fast)
    cpu, recipe = torch.device("cpu"), read(written(tmp_path, least()))
    assert recipe.dtype(cpu) == (torch.bfloat16 if fast else torch.float32)
    assert read(written(tmp_path, least('precision = "float16"'))).dtype(cpu) == torch.float16
    assert read(written(tmp_path, least('precision = "float32"'))).dtype(cpu) == torch.float32


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (least("stepz = 3"), r"unknown key 'stepz'; did you mean 'steps'\?"),
        (least(data="mirror = true"), r"earlier version: mirror is now data.horizontal_flip"),
        (least(optimizer="rate = 1.0"), r"earlier version: rate is now optimizer.learning_rate"),
        (least('start = "nothing"'), r"start = 'nothing' is now 'scratch'"),
        ('[objectiv]\nname = "denoiser"', r"unknown section 'objectiv'; did you mean 'objective'\?"),
        (least('steps = "many"'), r"steps is 'many': must be a valid integer"),
        (least("steps = 0"), r"steps is 0: must be .*at least 1"),
        (least(optimizer="warmup_steps = -1"), r"\[optimizer\]: warmup_steps is -1: must be .*at least 0"),
        (least(optimizer="learning_rate = 0"), r"learning_rate is 0: must be greater than 0"),
        (
            least("batch_size = 10\ngradient_accumulation = 3"),
            r"batch_size = 10 must be a multiple of gradient_accumulation = 3",
        ),
        (least(optimizer="decay_steps = 2000"), r"decay_steps is 2000: must be at most steps = 1000"),
        (least("ema_decays = [1.0]"), r"ema_decays\.0 is 1\.0: must be less than 1"),
        (least("ema_decays = []"), r"ema_decays is \(\): must have at least 1 item"),
        (least("result_ema = 0.9"), r"result_ema is 0\.9: must be one of ema_decays = \[0\.9995\]"),
        (least(optimizer="beta2 = 1.0"), r"beta2 is 1\.0: must be less than 1"),
        (least(optimizer="learning_rate = nan"), r"learning_rate is nan: must be a finite number"),
        (least("ema_decays = 0.9"), r"ema_decays is 0.9: must be a list"),
        (least("result_ema = 'best'"), r"result_ema is 'best': must be a valid number"),
        (least(optimizer="learning_rate = true"), r"learning_rate is True: must be a valid number"),
        (least("tensorboard = 1"), r"tensorboard is 1: must be a valid boolean"),
        (least(optimizer='lr_schedule = "cosin"'), r"did you mean 'cosine'\?"),
        (least('precision = "fp17"'), r"precision is 'fp17': not supported; did you mean 'fp16'\?"),
        (
            least(objective='weighting = "min-snt"'),
            r"\[objective\]: weighting is 'min-snt': not supported; did you mean 'min-snr'\?",
        ),
        (
            least(data="caption_templates = 'x'"),
            r"\[data\]: unknown key .* did you mean 'caption_template'\?",
        ),
        (least(data="caption_dropout = 2"), r"\[data\]: caption_dropout is 2: must be .*at most 1"),
        (least() + "[network]\nnorm_eps = 1", r"only be changed with start = 'scratch'"),
        (least("network = 3"), r"network is 3: must be a valid dictionary"),
        (least("learning_rate = 1"), r"unknown key 'learning_rate'; it belongs to \[optimizer\]"),
        (least("optimizer = 1").replace("[optimizer]", ""), r"optimizer is 1: must be a table, \[opt"),
        (least('start = "scratch"\n[adapter]\nrank = 4'), r"an adapter needs the weights .*start = 'base'"),
        (
            least().replace("denoiser", "autoencoder") + "[adapter]\nrank = 4",
            r"the objective 'autoencoder' takes no adapter",
        ),
        ('run = "r"\n[objective]\nname = "denoiser"', r"\[data\]: folder must name a folder"),
        ('[objective]\nname = "denoiser"\n[data]\nfolder = "d"', r"run must name a folder"),
        ('[objective]\nname = "denoisr"', r"name is 'denoisr': not known; did you mean 'denoiser'\?"),
        ("", r"name is None: not known"),
        ("= 3", r"is not valid TOML"),
    ],
)
def test_a_wrong_recipe_is_an_error_that_says_what_would_be_right(tmp_path, text, said):
    with pytest.raises(UsageError, match=said) as caught:
        read(written(tmp_path, text))
    assert "recipe.toml" in str(caught.value)


@pytest.mark.parametrize("key", RENAMED)
def test_a_key_of_an_earlier_version_is_an_error_that_names_the_new_one(tmp_path, key):
    with pytest.raises(UsageError, match=rf"recipe\.toml: .*{key} is now {RENAMED[key].split()[0]}"):
        read(written(tmp_path, f'{key} = "x"'))


@pytest.mark.parametrize("dotted", RENAMED.values())
def test_every_new_key_is_one_of_an_objective(dotted):
    *section, key = dotted.split()[0].split(".")
    assert key == "name" or any(key in keys_of(objective, *section) for objective in OBJECTIVES.values())


def keys_of(objective, section=None):
    from sfumato.train.recipe import AdapterSection, Optimizer, Recipe, Samples

    known = {"optimizer": Optimizer, "adapter": AdapterSection, "samples": Samples, None: Recipe}
    return {"objective": objective, "data": objective.DATA, **known}[section].__dataclass_fields__


def test_a_recipe_that_is_not_there_is_an_error_that_names_it(tmp_path):
    with pytest.raises(UsageError, match=r"cannot read the recipe .*nothing\.toml"):
        read(tmp_path / "nothing.toml")


def test_only_what_makes_it_another_run_makes_it_another_run(tmp_path):
    def recipe(**keys):
        return read(written(tmp_path, least(**keys)))

    before = recipe()
    now = recipe(run="steps = 5", optimizer="decay_steps = 1")
    assert now.changed_since(before.identity()) is None
    assert read(written(tmp_path, least()), {"data.folder": "moved"}).changed_since(before.identity()) is None
    assert recipe(run="seed = 5").changed_since(before.identity()) == "seed"
    assert recipe(optimizer="beta1 = 0.5").changed_since(before.identity()) == "optimizer.beta1"
    adapted = read(written(tmp_path, least()), {"adapter.rank": 16})
    assert adapted.changed_since(before.identity()) == "adapter.rank"
    assert before.changed_since(adapted.identity()) == "adapter.rank"
    left_out = ("seed", "network", "optimizer.beta1")
    earlier = {key: value for key, value in before.identity().items() if key not in left_out}
    assert before.changed_since(earlier) is None
    assert recipe(run="seed = 5").changed_since(earlier) == "seed"


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


@pytest.mark.parametrize(
    ("optimizer", "steps", "warmup", "decay", "said"),
    [
        ("warmup_steps = 50\ndecay_steps = 250", 12, 0, 3, "shorten warmup_steps to 0 and decay_steps to 3"),
        (
            "warmup_steps = 50\ndecay_steps = 250",
            500,
            25,
            125,
            "shorten warmup_steps to 25 and decay_steps to 125",
        ),
        ("", 500, 50, 0, "shorten warmup_steps to 50"),
        ("warmup_steps = 50\ndecay_steps = 250", 2000, 50, 250, None),
    ],
)
def test_fewer_steps_than_the_recipes_shorten_warmup_and_decay(
    tmp_path, optimizer, steps, warmup, decay, said
):
    path = written(tmp_path, least("steps = 1000", optimizer=optimizer))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        recipe = read(path, {"steps": steps})
    assert (recipe.optimizer.warmup_steps, recipe.optimizer.decay_steps) == (warmup, decay)
    assert [said in str(one.message) for one in caught] == [True] * (said is not None)


def test_a_schedule_longer_than_the_run_is_warned_of(tmp_path):
    with pytest.warns(SfumatoWarning, match=r"warmup_steps = 7 and decay_steps = 5 are more than steps = 10"):
        read(written(tmp_path, least("steps = 10", optimizer="warmup_steps = 7\ndecay_steps = 5")))


def test_warmup_and_decay_may_change_in_a_run_that_an_earlier_version_began(tmp_path):
    recipe = read(written(tmp_path, least(optimizer="warmup_steps = 5")))
    before = {**recipe.identity(), "optimizer.warmup_steps": 50}
    assert recipe.changed_since(before) is None
