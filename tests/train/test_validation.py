"""The best step is kept by the loss of what is held out, and the run ends where that gets no better."""

import json
from dataclasses import replace

import pytest
import test_loop as t
import torch
from making import changed, made

from sfumato import checkpoint
from sfumato.errors import UsageError
from sfumato.train.examples import captioned_batches
from sfumato.train.loop import train
from sfumato.train.objectives import task
from sfumato.train.recipe import Validation
from sfumato.train.stages import Plan, Stage, carry_out, outcome_of
from sfumato.train.state import FILE

LOSSES = {5: 4.0, 10: 2.0, 15: 3.0, 20: 2.5, 25: 2.1, 30: 5.0, 35: 1.0, 40: 6.0}
"""Of the steps, as if they had been measured."""


def recipe_of(folder, patience=0):
    return changed(t.RECIPE, run=str(folder), validation=Validation(every=5, patience=patience))


def measuring(told):
    """`line`, whose measurements are `LOSSES`; what was measured, and the result, go to `told`."""
    results = []
    learned = t.line(results)

    def validate(state):
        told.append({name: weight.clone() for name, weight in state.items()})
        return LOSSES[5 * len(told)]

    return replace(learned, validate=validate), results


def test_the_result_is_that_of_the_step_of_the_lowest_loss(tmp_path):
    told = []
    learned, results = measuring(told)
    outcome = train(learned, recipe_of(tmp_path), t.CPU)
    assert (outcome.step, outcome.done, outcome.stopped_early) == (40, True, False)
    assert outcome.metrics["best_step"] == 35
    assert outcome.metrics["held_out_loss"] == 1.0
    assert all(torch.equal(weight, told[6][name]) for name, weight in results[-1].items())
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["held_out_loss"] for line in lines] == list(LOSSES.values())


def test_a_run_ends_after_as_many_measurements_as_it_has_patience_for(tmp_path):
    told = []
    learned, results = measuring(told)
    recipe = recipe_of(tmp_path, patience=3)
    outcome = train(learned, recipe, t.CPU)
    assert (outcome.step, outcome.done, outcome.stopped_early) == (25, True, True)
    assert all(torch.equal(weight, told[1][name]) for name, weight in results[-1].items())
    assert outcome_of(recipe) == outcome
    (again,) = carry_out(Plan((Stage("one", recipe),)), t.CPU)
    assert again.outcome == outcome
    assert not outcome_of(recipe_of(tmp_path, patience=6)).done


def test_with_more_patience_it_goes_on(tmp_path):
    told = []
    learned, _ = measuring(told)
    train(learned, recipe_of(tmp_path, patience=3), t.CPU)
    outcome = train(learned, recipe_of(tmp_path, patience=6), t.CPU)
    assert (outcome.step, outcome.metrics["best_step"]) == (40, 35)


def test_the_best_step_outlives_an_interruption(tmp_path):
    whole, parts = recipe_of(tmp_path / "whole"), recipe_of(tmp_path / "parts")
    train(measuring([])[0], whole, t.CPU)
    told = []
    with pytest.raises(t.StoppedError):
        train(t.stopping(measuring(told)[0], 31), parts, t.CPU)
    del told[5:]  # step 28 was kept, and five measurements
    learned, _ = measuring(told)
    train(learned, parts, t.CPU)
    assert t.digest(tmp_path / "parts", validation=whole.validation) == t.digest(
        tmp_path / "whole", validation=whole.validation
    )


@pytest.fixture
def keys(own_pictures, tiny_base, tmp_path):
    return {
        "folder": str(own_pictures), "base": str(tiny_base), "run": str(tmp_path), "rank": 2, "steps": 4,
        "batch_size": 2, "precision": "float32", "warmup_steps": 0,
    }  # fmt: skip


def test_what_is_held_out_is_not_learned_and_is_measured_always_in_the_same_way(keys, tiny_base, tmp_path):
    recipe = changed(made("denoiser", **keys), validation=Validation(every=2, pictures=3, batches=2))
    base = checkpoint.load(str(tiny_base), dtype=torch.float32)
    _, batches = captioned_batches(recipe, base, t.CPU)
    own, held_out = (
        {picture.name for picture in each.dataset.pictures} for each in (batches, batches.held_out)
    )
    assert (len(own), len(held_out), own & held_out) == (17, 3, set())
    learned = task(recipe, t.CPU)
    state = learned.net.state_dict()
    first = learned.validate(state)
    assert learned.validate(state) == first
    moved = {name: weight + 0.1 * weight.std() for name, weight in state.items() if "parts.up" in name}
    moved = {name: torch.full_like(weight, 0.3) for name, weight in moved.items()}
    assert learned.validate({**state, **moved}) != first
    assert all(torch.equal(weight, state[name]) for name, weight in learned.net.state_dict().items())
    assert train(learned, recipe, t.CPU).metrics["held_out_loss"] > 0
    assert (tmp_path / FILE).is_file()


@pytest.mark.parametrize(
    ("objective", "validation", "said"),
    [
        (
            "denoiser",
            Validation(every=1, pictures=20),
            "pictures is 20: must be fewer than the pictures",
        ),
        ("instruct", Validation(every=1), "has no .validation.: leave it out"),
    ],
)
def test_what_cannot_be_measured_is_refused(objective, validation, said, keys):
    with pytest.raises((UsageError, ValueError), match=said):
        task(changed(made(objective, **keys), validation=validation), t.CPU)
