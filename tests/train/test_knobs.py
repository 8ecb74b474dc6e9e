"""What can be set about learning does what its formula says."""

import math
from dataclasses import replace

import pytest
import test_loop as t
import torch
from making import bare, changed
from torch import nn

from sfumato.diffusion.level import VariancePreserving, alphas_cumprod, scaled_linear_betas
from sfumato.diffusion.predict import prediction_named
from sfumato.errors import NumericsError
from sfumato.train.examples import LatentBatch
from sfumato.train.loop import train
from sfumato.train.lr_schedule import constant, cosine, warmup_stable_decay
from sfumato.train.objectives.denoiser import DenoisingLoss, min_snr
from sfumato.train.task import Task

PATH = VariancePreserving(alphas_cumprod(scaled_linear_betas()))
RECIPE = bare(
    steps=5, batch_size=6, learning_rate=0.1, warmup_steps=0, lr_schedule="constant", ema_decays=(0.0,),
    weight_decay=0.0, precision="float32", max_grad_norm=1e9,
)  # fmt: skip


@pytest.mark.parametrize(
    ("schedule", "known"),
    [
        (warmup_stable_decay, [1 / 3, 2 / 3, 1, 1, 1, 1, 1, 3 / 4, 2 / 4, 1 / 4]),
        (cosine, [1 / 3, 2 / 3, *(math.cos(math.pi * n / 16) ** 2 for n in range(8))]),
        (constant, [1 / 3, 2 / 3, 1, 1, 1, 1, 1, 1, 1, 1]),
    ],
)
def test_a_schedule_is_that_of_its_closed_form(schedule, known):
    assert [schedule(step, 10, 2, 4) for step in range(10)] == pytest.approx(known)


def point(examples, weights=None, keep=None, loss=None):
    """Bring w near to examples (N, D), each with its own weight in the loss; `keep` is sent every result."""
    net = nn.Module()
    net.w = nn.Parameter(torch.zeros(examples.shape[1]))
    weights = torch.ones(len(examples)) if weights is None else weights

    def batches(context, count):
        rows = slice(context.part * count, (context.part + 1) * count)
        return examples[rows], weights[rows]

    def objective(batch, generator):
        x, weight = batch
        error = ((net.w - x) ** 2).sum(1) if loss is None else loss(net.w)
        return weight * error, {"w": net.w.abs().max()}

    def finish(state, folder):
        if keep is not None:
            keep.append(state["w"].clone())
        return {}

    return Task(net, batches, objective, lambda state, path: None, finish)


@pytest.mark.parametrize("parts", [2, 3, 6])
def test_parts_with_unequal_weights_add_up_to_the_whole_batch(tmp_path, parts):
    generator = torch.Generator().manual_seed(0)
    examples, weights = torch.randn(6, 3, generator=generator), torch.rand(6, generator=generator) * 9
    found = []
    for accumulate in (1, parts):
        recipe = changed(RECIPE, run=str(tmp_path / str(accumulate)), gradient_accumulation=accumulate)
        train(point(examples, weights, found), recipe, t.CPU)
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-6)


def test_a_gradient_is_clipped_by_its_norm(tmp_path):
    examples, logged = torch.full((6, 4), 100.0), []
    recipe = changed(RECIPE, run=str(tmp_path), steps=1, max_grad_norm=0.5)
    task = point(examples)
    taken = []
    task.net.w.register_hook(lambda gradient: logged.append(gradient.norm().item()))
    original = torch.optim.AdamW.step

    def step(self, *args, **options):
        taken.append(self.param_groups[0]["params"][0].grad.clone())
        return original(self, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", step)
        train(task, recipe, t.CPU)
    assert logged == pytest.approx([400.0])
    torch.testing.assert_close(taken[0], torch.full((4,), -0.25), rtol=1e-4, atol=0)


def test_averages_are_those_of_their_closed_form_and_any_of_them_can_be_kept(tmp_path):
    """Adam's steps on a loss that is a plane are all of the rate's length, so that w_n = −rate·n."""
    steps, decays, found = 60, (0.9, 0.5, 0.0), []
    task = point(torch.ones(6, 1), keep=found, loss=lambda w: w.sum())
    recipe = changed(RECIPE, run=str(tmp_path), steps=steps, ema_decays=decays)
    for result in (None, 0.5, 0.0, 0.9):
        assert train(task, changed(recipe, result_ema=result), t.CPU).done
    for average, decay in zip(found, (0.9, 0.5, 0.0, 0.9), strict=True):
        known = 0.0
        for n in range(1, steps + 1):
            share = min(decay, n / (n + 9))
            known = share * known + (1 - share) * -0.1 * n
        assert float(average) == pytest.approx(known, rel=1e-4)
    with pytest.raises(ValueError, match=r"result_ema is 0\.5: must be one of"):
        changed(RECIPE, ema_decays=(0.9,), result_ema=0.5)


@pytest.mark.parametrize("name", ["epsilon", "v", "x0"])
def test_min_snr_is_the_papers_in_units_of_each_prediction(name):
    snr = torch.tensor([1e4, 30.0, 5.0, 1.0, 0.01], dtype=torch.float64)
    five = torch.minimum(snr, torch.tensor(5.0))
    known = {"epsilon": five / snr, "v": five / (snr + 1), "x0": five}[name]
    torch.testing.assert_close(min_snr(snr, prediction_named(name)), known)


@pytest.mark.parametrize("name", ["epsilon", "v"])
def test_under_min_snr_every_prediction_has_the_loss_of_the_clean_estimate(name):
    """min(SNR, 5)·|x̂0 − x0|², whatever the network was asked for (Hang et al. 2023, §3.4)."""
    x0, states = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.zeros(4, 1, 1)
    seen = {}

    def net(x, times, states, added):
        seen.update(x=x, times=times)
        return 0.1 * x

    prediction = prediction_named(name)
    objective = DenoisingLoss(net, PATH, prediction, "min-snr", t.CPU)
    losses, _ = objective(LatentBatch(x0, states), torch.Generator().manual_seed(1))
    for row, loss in enumerate(losses):
        level = PATH.level(int(seen["times"][row]))
        x = seen["x"][row].double()
        out = 0.1 * x
        x0_hat = level.a * x - level.s * out if name == "v" else (x - level.s * out) / level.a
        snr = (level.a / level.s) ** 2
        known = min(snr, 5) * ((x0_hat - x0[row].double()) ** 2).mean()
        assert float(loss) == pytest.approx(float(known), rel=1e-3)


HALF = changed(t.RECIPE, precision="float16", learning_rate=0.01)


def steep(steps):
    """The line, whose gradients are infinite at these steps."""
    task, now = t.line(), []

    def batches(context, count):
        now[:] = [context.step]
        return task.batches(context, count)

    task.net.weight.register_hook(lambda gradient: gradient * math.inf if now[0] in steps else gradient)
    return replace(task, batches=batches)


def half_state(folder):
    return t.restored(folder, precision="float16", learning_rate=0.01)


def test_a_float16_step_out_of_range_is_left_out_and_the_run_goes_on_exactly(tmp_path):
    train(steep((25, 33)), replace(HALF, run=str(tmp_path / "unbroken")), t.CPU)
    unbroken = half_state(tmp_path / "unbroken")
    told = unbroken.tensors()
    left_out = 40 - float(told["step.weight"])
    assert left_out >= 2
    assert float(told["scaler.scale"]) == 2.0 ** (16 - left_out), "each one halves the scale"
    broken = replace(HALF, run=str(tmp_path / "broken"))
    with pytest.raises(t.StoppedError):
        train(t.stopping(steep((25, 33)), 31), broken, t.CPU)
    assert half_state(tmp_path / "broken").progress.step == 28
    train(steep((25, 33)), broken, t.CPU)
    assert t.digest_of(half_state(tmp_path / "broken")) == t.digest_of(unbroken)


def test_a_float16_run_whose_gradients_no_scale_can_hold_is_stopped(tmp_path):
    with pytest.raises(NumericsError, match="not finite at step 26"):
        train(steep(range(40)), replace(HALF, run=str(tmp_path)), t.CPU)
