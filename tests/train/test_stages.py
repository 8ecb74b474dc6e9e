"""Several recipes as one: stopped anywhere and resumed, they end as they would have without a stop."""

from pathlib import Path

import diffusers
import pytest
import torch

from sfumato import checkpoint, weights
from sfumato.data import pack, render
from sfumato.errors import CheckpointError, DataError, UsageError
from sfumato.train import stages
from sfumato.train.recipe import MODEL
from sfumato.train.state import FILE

CPU = torch.device("cpu")
COMMON = """
base = {base!r}
run = {run!r}
steps = 3
batch_size = 4
ema_decays = [0.5]
precision = "float32"
log_every = 1
data.folder = {data!r}
optimizer.warmup_steps = 1
"""
AUTOENCODER = 'objective.name = "autoencoder"' + COMMON
DENOISER = 'objective.name = "denoiser"\ndata.captions_per_picture = 1\ndata.tints_per_icon = 1' + COMMON


@pytest.fixture
def whole(tiny_data, tiny_base, tmp_path):
    """A function that writes a list of two stages, whose runs are in the folder it is given."""

    def written(folder, text='stages = ["first.toml", "second.toml"]', base=None):
        folder.mkdir(exist_ok=True)
        runs = [str(folder / "first"), str(folder / "second")]
        middle = base or f"{runs[0]}/{MODEL}"
        first = AUTOENCODER.format(data=str(tiny_data), base=str(tiny_base), run=runs[0])
        second = DENOISER.format(data=str(tiny_data), base=middle, run=runs[1])
        (folder / "first.toml").write_text(first)
        (folder / "second.toml").write_text(second)
        (folder / "all.toml").write_text(text)
        return folder / "all.toml"

    return written


def states(plan):
    return [weights.read(Path(stage.recipe.run) / FILE) for stage in plan.stages]


def test_stages_that_are_stopped_at_every_step_end_as_those_that_were_not(whole, tmp_path):
    unbroken = stages.read(whole(tmp_path / "unbroken"))
    results = stages.carry_out(unbroken, CPU)
    assert [result.outcome.step for result in results] == [3, 3]
    broken, steps = stages.read(whole(tmp_path / "broken")), []
    while not steps or steps[-1] != [3, 3]:
        results = stages.carry_out(broken, CPU, seconds=1e-9)
        steps.append([result.outcome.step for result in results])
    assert steps == [[1, 0], [2, 0], [3, 0], [3, 1], [3, 2], [3, 3]]
    for whole_run, cut in zip(states(unbroken), states(broken), strict=True):
        assert whole_run.keys() == cut.keys()
        assert all(torch.equal(tensor, cut[name]) for name, tensor in whole_run.items())


def test_stages_that_are_done_are_not_even_prepared(whole, tmp_path, monkeypatch):
    plan = stages.read(whole(tmp_path / "runs"))
    first = stages.carry_out(plan, CPU)
    monkeypatch.setattr(stages, "task", None)
    assert stages.carry_out(plan, CPU) == first
    assert all(result.outcome.done for result in first)


def test_more_steps_make_a_stage_go_on(whole, tmp_path):
    path = whole(tmp_path / "runs")
    stages.carry_out(stages.read(path), CPU)
    recipe = tmp_path / "runs" / "second.toml"
    recipe.write_text(recipe.read_text().replace("steps = 3", "steps = 5"))
    assert [result.outcome.step for result in stages.carry_out(stages.read(path), CPU)] == [3, 5]


def test_a_stage_of_another_recipe_is_not_taken_for_done(whole, tmp_path):
    path = whole(tmp_path / "runs")
    stages.carry_out(stages.read(path), CPU)
    recipe = tmp_path / "runs" / "second.toml"
    recipe.write_text(recipe.read_text().replace("batch_size = 4", "batch_size = 2"))
    with pytest.raises(UsageError, match=r"second\.toml: .* another recipe: batch_size was 4 and is 2"):
        stages.carry_out(stages.read(path), CPU)


def test_what_to_do_about_a_damaged_state_is_said_even_where_its_stage_was_done(whole, tmp_path):
    plan = stages.read(whole(tmp_path / "runs"))
    stages.carry_out(plan, CPU)
    Path(plan.stages[1].recipe.run, FILE).write_bytes(b"garbage")
    with pytest.raises(CheckpointError, match=r"^second\.toml: .* put a sound copy in its place to go on"):
        stages.carry_out(plan, CPU)


def test_progress_names_the_stage(whole, tmp_path):
    told, said = [], []
    plan = stages.read(whole(tmp_path / "runs"))

    def progress(stage, report):
        told.append(stage.name)

    stages.carry_out(plan, CPU, progress=progress, report=said.append)
    assert list(dict.fromkeys(told)) == ["first.toml", "second.toml"]
    stages_said = [line.split(":")[0] for line in said if ".toml: reading the data" in line]
    assert stages_said == ["first.toml", "second.toml"]
    assert f"{plan.stages[1].recipe.run}: writing and measuring the result of step 3" in said


def test_a_stage_that_fails_is_named_and_those_before_it_are_kept(whole, tmp_path):
    path = whole(tmp_path / "runs", base="no/such/folder")
    for _ in range(2):
        with pytest.raises(Exception, match=r"^second\.toml: .*no/such/folder"):
            stages.carry_out(stages.read(path), CPU)
    assert stages.outcome_of(stages.read(path).stages[0].recipe).done


@pytest.mark.parametrize(
    ("text", "changes", "said"),
    [
        ("stages = []", {}, r"stages is \(\): must have at least 1 item"),
        ('stages = ["first.toml"]\nicon = 64', {}, "did you mean 'icons'"),
        ('stages = ["first.toml"]\nicons = 4', {}, r"icons is 4: must be .*at least 8"),
        ('stages = ["third.toml"]', {}, "cannot read the recipe"),
        ('stages = ["first.toml", "first.toml"]', {}, "have the same run"),
        ('stages = ["first.toml", "second.toml"]', {"steps": 5}, "--steps cannot be the same for all stages"),
        ('stages = ["first.toml", "second.toml"]', {"base": "x"}, "--base cannot be the same"),
        ('stages = ["all.toml"]', {}, "name is None: not known"),
    ],
)
def test_what_makes_no_plan_is_told(whole, tmp_path, text, changes, said):
    with pytest.raises(UsageError, match=said):
        stages.read(whole(tmp_path / "runs", text), changes)


def test_one_change_is_made_to_all_stages(whole, tmp_path):
    plan = stages.read(whole(tmp_path / "runs"), {"data.folder": "elsewhere"})
    assert [stage.recipe.data.folder for stage in plan.stages] == ["elsewhere", "elsewhere"]


def test_a_recipe_by_itself_is_a_plan_of_one_stage(whole, tmp_path):
    whole(tmp_path / "runs")
    plan = stages.read(tmp_path / "runs" / "first.toml", {"steps": 2})
    assert [(stage.name, stage.recipe.steps) for stage in plan.stages] == [("first.toml", 2)]


@pytest.fixture
def unrendered(tiny_data, whole, tmp_path):
    """A plan whose data is a pack that nobody has rendered yet."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "pack").symlink_to(tiny_data.parent)
    return stages.read(
        whole(tmp_path / "runs", 'stages = ["first.toml"]\nicons = 32'), {"data.folder": str(folder)}
    )


def test_icons_are_rendered_first_part_by_part_as_time_allows(unrendered, tmp_path):
    packed, folder, steps = tmp_path / "data" / "pack", tmp_path / "data", []
    while not steps or steps[-1][1] < 1:
        (result,) = stages.carry_out(unrendered, CPU, seconds=1e-9)
        steps.append((len(render.waiting(packed, folder)), result.outcome.step))
    assert steps == [(1, 0), (0, 0), (0, 1)]


def test_icons_are_fetched_where_there_is_no_pack(unrendered, tmp_path, monkeypatch):
    (tmp_path / "data" / "pack").unlink()
    asked = []

    def build(folder, archives, progress):
        asked.append(folder)
        raise DataError("no network")

    monkeypatch.setattr(pack, "build", build)
    with pytest.raises(DataError, match="no network"):
        stages.carry_out(unrendered, CPU)
    assert asked == [tmp_path / "data" / "pack"]


def test_a_pack_with_parts_missing_is_not_trained_on(unrendered, tmp_path, monkeypatch):
    monkeypatch.setattr(pack, "parts", lambda folder: ([], ["part-00.jsonl.xz"]))
    with pytest.raises(DataError, match=r"lacks part-00\.jsonl\.xz; bring the whole pack"):
        stages.carry_out(unrendered, CPU)


def test_pictures_of_another_size_are_not_mixed(unrendered, tmp_path, whole):
    stages.carry_out(unrendered, CPU, seconds=1e-9)
    text = 'stages = ["first.toml"]\nicons = 16'
    other = stages.read(whole(tmp_path / "others", text), {"data.folder": str(tmp_path / "data")})
    with pytest.raises(DataError, match="holds pictures of 32 pixels, not of 16"):
        stages.carry_out(other, CPU)


@pytest.mark.filterwarnings("ignore")
def test_the_newest_model_is_left_in_shards_that_diffusers_loads(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "SHARD_BYTES", 1_000_000)
    plan, out = stages.read(whole(tmp_path / "runs")), tmp_path / "out"
    assert stages.leave(plan, out) is None
    for steps in ([1, 0], [3, 3]):
        results = stages.carry_out(plan, CPU, seconds=1e-9 if steps[1] == 0 else 1e9)
        assert [result.outcome.step for result in results] == steps
        last = stages.leave(plan, out)
    assert last == tmp_path / "runs" / "second" / MODEL
    assert all(path.stat().st_size < 5_000_000 for path in out.rglob("*.safetensors"))
    assert len(list((out / "text_encoder").glob("*-of-*.safetensors"))) > 1
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(out)
    own = checkpoint.load(last, dtype=torch.float32)
    for name, weight in pipeline.unet.state_dict().items():
        assert torch.equal(weight.float(), own.unet.state_dict()[name])
