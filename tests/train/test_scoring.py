"""The scorer's objective and task."""

import math
import shutil

import numpy as np
import pytest
import torch
from making import changed, made

from sfumato.errors import SfumatoError
from sfumato.evaluate.scorer import Head, HeadConfig, Scorer
from sfumato.train.context import StepContext
from sfumato.train.loop import train
from sfumato.train.objectives import task
from sfumato.train.objectives.scorer import RESULT, TEMPERATURE, CaptionedFeatures, CaptionScorerLoss

CPU = torch.device("cpu")


def as_it_is(width):
    """A head that gives back what it reads."""
    head = Head(HeadConfig(readings=width, width=width, blocks=0, vector=width))
    for linear in (head.inward, head.outward):
        torch.nn.init.eye_(linear.weight)
        torch.nn.init.zeros_(linear.bias)
    return head


def test_the_loss_of_pictures_that_say_their_captions_is_the_doubt_that_captions_leave():
    texts = torch.eye(3)
    loss, metrics = CaptionScorerLoss(as_it_is(3), dropout=0.0)((5 * texts, texts), torch.Generator())
    p = torch.tensor([math.exp(TEMPERATURE), 1, 1]).double()
    p /= p.sum()
    assert loss.tolist() == pytest.approx([float(-2 * (p * p.log()).sum())] * 3, abs=1e-6)
    assert metrics["cosine"].item() == pytest.approx(1)


def test_the_loss_of_pictures_that_say_each_others_captions_is_higher():
    texts = torch.eye(2)
    loss, metrics = CaptionScorerLoss(as_it_is(2), dropout=0.0)((texts.flip(0), texts), torch.Generator())
    assert loss.tolist() == pytest.approx([1 + 2 * TEMPERATURE] * 2, rel=1e-4)
    assert metrics["cosine"].item() == pytest.approx(0)


def test_what_is_hidden_is_replaced_by_the_mean():
    head = as_it_is(4)
    head.mean = torch.full((4,), 7.0)
    seen = []
    head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    readings = torch.zeros(500, 4)
    CaptionScorerLoss(head, dropout=0.25)(
        (readings, torch.eye(4)[:1].expand(500, 4)), torch.Generator().manual_seed(0)
    )
    assert set(seen[0].unique().tolist()) == {0.0, 7.0}
    assert float((seen[0] == 7).float().mean()) == pytest.approx(0.25, abs=0.05)


def test_batches_pair_pictures_with_their_own_captions():
    shown = CaptionedFeatures(
        readings=torch.arange(3.0)[:, None].half(),
        captions=torch.tensor([[0, 1], [2, 2], [3, 4]]),
        vectors=torch.arange(5.0)[:, None].half(),
    )
    context = StepContext(0, 0, 1, torch.Generator().manual_seed(0))
    readings, vectors = shown(context, 400)
    pairs = set(zip(readings[:, 0].tolist(), vectors[:, 0].tolist(), strict=True))
    assert pairs == {(0, 0), (0, 1), (1, 2), (2, 3), (2, 4)}


@pytest.fixture(scope="module")
def scorer_run(tiny_data, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "scorer"
    recipe = made(
        "scorer", folder=str(tiny_data), run=str(run), steps=30, batch_size=16, learning_rate=3e-3,
        warmup_steps=2, decay_steps=10, ema_decays=(0.5,), feature_dropout=0.0, captions_per_picture=2,
        precision="float32", network={"width": 16, "blocks": 1},
    )  # fmt: skip
    return recipe, train(task(recipe, CPU), recipe, CPU)


def test_the_scorer_learns_what_its_pictures_are_called(scorer_run):
    _, outcome = scorer_run
    assert outcome.done
    assert outcome.metrics["top1_seen"] == 1
    assert outcome.metrics["among_seen"] == 5


def test_the_result_is_a_scorer(scorer_run):
    recipe, _ = scorer_run
    scorer = Scorer.load(f"{recipe.run}/{RESULT}", CPU)
    assert scorer.head.config == HeadConfig(width=16, blocks=1)
    red = torch.tensor([1.0, -1, -1])[:, None, None].expand(3, 32, 32).clone()
    red[:, :6] = red[:, -6:] = red[:, :, :6] = red[:, :, -6:] = 1
    pictures, texts = scorer.of_pictures(red[None]), scorer.of_texts(["red square", "blue square"])
    assert pictures.shape == (1, 384)
    assert float(pictures.norm()) == pytest.approx(1, abs=1e-5)
    assert float(texts[0] @ pictures[0]) > float(texts[1] @ pictures[0])


def test_what_was_read_once_is_not_read_again(scorer_run, monkeypatch):
    recipe, _ = scorer_run
    monkeypatch.setattr("sfumato.train.objectives.scorer.read", None)
    shown = task(recipe, CPU).batches
    assert shown.readings.shape[0] == 5
    assert shown.readings.dtype == torch.float16


def test_other_pictures_of_the_same_captions_are_read_anew(scorer_run, tmp_path):
    recipe, _ = scorer_run
    data = shutil.copytree(recipe.data.folder, tmp_path / "data")
    for path in data.glob("part-*.npy"):
        np.save(path, 255 - np.load(path))
    run = shutil.copytree(recipe.run, tmp_path / "run")
    before = task(recipe, CPU).batches.readings
    other = changed(recipe, folder=str(data), run=str(run))
    assert not torch.equal(task(other, CPU).batches.readings, before)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"start": "base"}, "start is 'base': must be 'scratch' for the objective 'scorer'"),
        ({"feature_dropout": 1.0}, "feature_dropout is 1.0: must be less than 1"),
        ({"captions_per_picture": 0}, "captions_per_picture is 0: must be .*at least 1"),
        ({"network": {"wide": 2}}, "unknown key 'wide'; did you mean 'width'"),
    ],
)
def test_a_recipe_that_makes_no_scorer_is_refused(scorer_run, changes, said):
    recipe, _ = scorer_run
    keys = {"folder": recipe.data.folder, "run": recipe.run, "captions_per_picture": 2, **changes}
    with pytest.raises(SfumatoError, match=said):
        task(made("scorer", **keys), CPU)
