"""The optimizers besides AdamW: by their packages, resumed exactly, and with a rate for every group."""

import importlib
import json

import prodigyopt
import pytest
import test_loop as t
import torch
from making import changed, made
from torch import nn
from transformers.optimization import Adafactor

from sfumato import weights
from sfumato.errors import UsageError
from sfumato.train import optimizers
from sfumato.train.loop import train
from sfumato.train.optimizers import FACTOR, groups_of
from sfumato.train.state import FILE

RATES = {"prodigy": 1.0, "adafactor": 0.05, "adamw-8bit": 0.05}
CONSTANT = {"lr_schedule": "constant", "warmup_steps": 0, "decay_steps": 0, "weight_decay": 0.0}


@pytest.mark.parametrize("name", RATES)
def test_a_run_is_resumed_exactly_by_every_optimizer(name, tmp_path):
    if name == "adamw-8bit":
        pytest.importorskip("bitsandbytes")
    keys = {"name": name, "learning_rate": RATES[name]}
    recipe = changed(t.RECIPE, optimizer=changed_optimizer(**keys))
    train(t.line(), changed(recipe, run=str(tmp_path / "whole")), t.CPU)
    broken = changed(recipe, run=str(tmp_path / "broken"))
    with pytest.raises(t.StoppedError):
        train(t.stopping(t.line(), 17), broken, t.CPU)
    train(t.line(), broken, t.CPU)
    whole, parts = (t.digest(tmp_path / run, optimizer=recipe.optimizer) for run in ("whole", "broken"))
    assert whole == parts


def changed_optimizer(**keys):
    return changed(t.RECIPE, **keys).optimizer


@pytest.mark.parametrize(
    ("name", "peer"),
    [
        ("prodigy", lambda weights: prodigyopt.Prodigy(
            weights, lr=1.0, betas=(0.9, 0.99), safeguard_warmup=True, use_bias_correction=True
        )),
        ("adafactor", lambda weights: Adafactor(
            weights, lr=0.05, relative_step=False, scale_parameter=False, warmup_init=False
        )),
    ],
)  # fmt: skip
def test_its_steps_are_the_packages_own(name, peer, tmp_path):
    keys = {"name": name, "learning_rate": RATES[name], **CONSTANT, "max_grad_norm": 1e9}
    net = nn.Linear(3, 2)
    twin = nn.Linear(3, 2)
    twin.load_state_dict(net.state_dict())
    x = torch.randn(8, 3)

    def loss_of(layer):
        return (layer(x) - x[:, :2]).square().mean(1)

    task = t.Task(net, lambda *_: None, lambda *_: (loss_of(net), {}), lambda *_: None, lambda *_: {})
    recipe = changed(t.RECIPE, run=str(tmp_path), steps=5, optimizer=changed_optimizer(**keys))
    train(task, recipe, t.CPU)
    optimizer = peer(list(twin.parameters()))
    for _ in range(5):
        loss_of(twin).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    torch.testing.assert_close(net.state_dict(), twin.state_dict())


def test_b_of_a_lora_and_text_encoders_have_rates_of_their_own(tmp_path):
    """The first step of Adam moves every weight by its learning rate."""
    names = ("unet.q.adapters.0.delta.parts.down", "unet.q.adapters.0.delta.parts.up")
    names += ("text_encoder.q.adapters.0.delta.parts.down", "text_encoder.q.adapters.0.delta.parts.up")
    trained = {name: nn.Parameter(torch.zeros(1)) for name in names}
    groups = groups_of(trained, 0.5, 16.0)
    assert sorted(group[FACTOR] for group in groups) == [0.5, 1.0, 8.0, 16.0]
    optimizer = optimizers.new("adamw", groups, 0.01, (0.9, 0.99), 0.0, t.CPU)
    for group in optimizer.param_groups:
        group["lr"] = 0.01 * group[FACTOR]
    for weight in trained.values():
        weight.grad = torch.ones(1)
    optimizer.step()
    moved = [-weight.item() for weight in trained.values()]
    assert moved == pytest.approx([0.01, 0.16, 0.005, 0.08], rel=1e-4)


@pytest.mark.parametrize(("name", "package"), [("prodigy", "prodigyopt"), ("adamw-8bit", "bitsandbytes")])
def test_a_package_that_is_missing_is_named_with_its_extra(name, package, monkeypatch, tmp_path):
    def missing(module, *_):
        raise ImportError(module)

    monkeypatch.setattr(importlib, "import_module", missing)
    recipe = changed(t.RECIPE, run=str(tmp_path), optimizer=changed_optimizer(name=name))
    with pytest.raises(UsageError, match=rf"needs the package {package}: pip install .sfumato\[optimizers\]"):
        train(t.line(), recipe, t.CPU)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"name": "prodigy", "lora_plus_ratio": 4.0}, "prodigy finds one learning rate for all"),
        ({"name": "lion"}, "name is 'lion'"),
        ({"lora_plus_ratio": 4.0}, "lora_plus_ratio is of a LoRA"),
        ({"text_learning_rate": 1e-4}, r"text_learning_rate needs \[adapter\] text_encoders = true"),
    ],
)
def test_rates_that_cannot_be_are_refused(keys, said):
    with pytest.raises(UsageError, match=said):
        made("denoiser", folder="-", run="-", **keys)


def test_a_run_of_an_earlier_version_goes_on(tmp_path):
    """Which kept AdamW's moments alone, and took the steps from the run's."""
    whole, broken = (changed(t.RECIPE, run=str(tmp_path / run)) for run in ("whole", "broken"))
    train(t.line(), whole, t.CPU)
    with pytest.raises(t.StoppedError):
        train(t.stopping(t.line(), 17), broken, t.CPU)
    path = tmp_path / "broken" / FILE
    told = weights.metadata(path)
    assert json.loads(told.pop("optimizer"))["weights"].keys() == {"weight", "bias"}
    kept = {name: tensor for name, tensor in weights.read(path).items() if not name.startswith("step.")}
    weights.write(path, kept, told)
    train(t.line(), broken, t.CPU)
    assert t.digest(tmp_path / "broken") == t.digest(tmp_path / "whole")
