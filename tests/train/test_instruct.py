"""Training a model that edits by instruction, from pairs to what draws."""

import json
from collections import Counter
from random import Random

import numpy as np
import pytest
import torch
from making import changed, made
from PIL import Image

import sfumato
from sfumato import checkpoint, weights
from sfumato.checkpoint import instruct_adapter
from sfumato.errors import CheckpointError, UsageError
from sfumato.train.context import StepContext
from sfumato.train.loop import train
from sfumato.train.objectives import task
from sfumato.train.objectives.unet import TrainedUNet
from sfumato.train.pairs import PairData

CPU = torch.device("cpu")
SMALL = {"steps": 2, "width": 32, "height": 32, "seed": 1}


@pytest.fixture(scope="module")
def recipe(tiny_data, tiny_base, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "instruct"
    return made(
        "instruct", folder=str(tiny_data), base=str(tiny_base), run=str(run), steps=3, batch_size=4,
        learning_rate=1e-2, warmup_steps=0, ema_decays=(0.5,), max_pictures=12, precision="float32",
        log_every=1, rank=2, guidance=3.0, image_guidance=1.25,
    )  # fmt: skip


@pytest.fixture(scope="module")
def editor(recipe):
    """What came of it: a file."""
    train(task(recipe, CPU), recipe, CPU)
    return recipe.objective.result(recipe)


@pytest.fixture(scope="module")
def picture():
    return np.full((32, 32, 3), (200, 40, 40), np.uint8)


def test_before_its_first_step_it_answers_as_the_base_model_whatever_the_picture(recipe):
    base = checkpoint.load(recipe.base, dtype=torch.float32)
    net = TrainedUNet(recipe, base, CPU, extra_channels=4).network().eval()
    x, states, t = torch.randn(2, 4, 8, 8), torch.randn(2, 77, 256), torch.tensor([10, 900])
    with torch.no_grad():
        there = net(torch.cat([x, torch.randn(2, 4, 8, 8)], 1), t, states)
        assert torch.allclose(there, base.unet(x, t, states), atol=1e-5)


def test_what_is_learned_are_the_first_layer_and_the_lora(recipe):
    net = task(recipe, CPU).net
    trained = {name for name, weight in net.named_parameters() if weight.requires_grad}
    assert "conv_in.weight" in trained
    assert all(".adapters." in name for name in trained - {"conv_in.weight"})


def test_instruction_and_picture_are_left_out_as_often_as_asked():
    data = PairData(folder="-", text_dropout=0.1, image_dropout=0.2, both_dropout=0.3)
    random = Random(0)
    found = Counter(data.dropped(random) for _ in range(20_000))
    for which, share in (((True, False), 0.1), ((False, True), 0.2), ((True, True), 0.3)):
        assert found[which] / 20_000 == pytest.approx(share, abs=0.015)
    with pytest.raises(UsageError, match="must not sum to more than 1"):
        made("instruct", folder="-", run="-", text_dropout=0.5, image_dropout=0.4, both_dropout=0.2)


def test_a_batch_is_the_latents_after_with_those_before_as_the_autoencoder_makes_them(recipe, tmp_path):
    kept = changed(recipe, run=str(tmp_path), text_dropout=0.0, image_dropout=0.0, both_dropout=0.0)
    without = changed(recipe, run=str(tmp_path), text_dropout=0.0, image_dropout=1.0, both_dropout=0.0)
    context = StepContext(0, 0, 1, torch.Generator().manual_seed(5))
    batches = task(kept, CPU).batches
    batch = batches(context, 4)
    _, rows = batches.order(context, 4)
    pairs = [batches.paired.pairs[row] for row in rows]
    vae = checkpoint.load(recipe.base, dtype=torch.float32).vae
    crops = batches._crops([0] * 4, (32, 32))
    with torch.no_grad():
        before = vae.encode(batches.paired.pictures.load([pair.source for pair in pairs], crops)).mean
        after = vae.scale(vae.encode(batches.paired.pictures.load([p.target for p in pairs], crops)).mean)
    assert torch.allclose(batch.channels, before, atol=2e-2)
    assert torch.allclose(batch.x0, after, atol=2e-2)
    assert not task(without, CPU).batches(context, 4).channels.any()


def test_the_result_is_a_model_that_edits(editor, picture):
    studio = sfumato.load(editor, device="cpu", dtype="float32")
    assert (studio.model.task, studio.name) == ("instruct", "instruct")
    edited = studio.edit(picture, "make it blue", **SMALL)
    assert (edited.request.guidance, edited.request.image_guidance) == (3.0, 1.25)
    assert edited.size == (32, 32)
    other = studio.edit(255 - picture, "make it blue", **SMALL)
    assert edited.differs(other) is not None


def test_it_has_the_weights_that_training_left(recipe, editor):
    state = weights.read(f"{recipe.run}/state.safetensors")
    model = checkpoint.load(editor, dtype=torch.float32)
    base = checkpoint.load(recipe.base, dtype=torch.float32)
    kept = {
        name.removeprefix("ema-0.5."): each for name, each in state.items() if name.startswith("ema-0.5.")
    }
    assert torch.allclose(model.unet.conv_in.weight, kept["conv_in.weight"], atol=1e-3)
    down = next(name for name in kept if name.endswith("to_q.adapters.0.delta.parts.down"))
    layer = down.removesuffix(".adapters.0.delta.parts.down")
    change = kept[down.removesuffix("down") + "up"] @ kept[down]
    was, now = (each.unet.get_parameter(f"{layer}.weight") for each in (base, model))
    assert torch.allclose(now, was + change, atol=1e-3)


def test_it_is_written_as_a_folder_that_edits_the_same(editor, picture, tmp_path):
    checkpoint.save(checkpoint.load(editor), tmp_path / "whole")
    index = json.loads((tmp_path / "whole" / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionInstructPix2PixPipeline"
    one, other = (sfumato.load(each, dtype="float32") for each in (editor, tmp_path / "whole"))
    assert one.edit(picture, "blue", **SMALL).differs(other.edit(picture, "blue", **SMALL)) is None


def test_it_can_be_trained_on(recipe, editor, tmp_path):
    more = changed(recipe, base=str(editor), run=str(tmp_path / "more"), steps=1)
    train(task(more, CPU), more, CPU)
    model = checkpoint.load(more.objective.result(more))
    assert model.unet.config.in_channels == 8


def test_without_an_adapter_the_result_is_a_whole_folder(recipe, tmp_path, picture):
    whole = changed(recipe, run=str(tmp_path), adapter=None, steps=1)
    train(task(whole, CPU), whole, CPU)
    studio = sfumato.load(whole.objective.result(whole), dtype="float32")
    assert studio.edit(picture, "make it blue", **SMALL).request.image_guidance == 1.25


def test_it_learns_from_a_folder_of_pairs(recipe, tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    for name in ("red", "blue"):
        Image.new("RGB", (48, 40), name).save(folder / f"{name}.png")
    row = {"file_name": "red.png", "edited_file_name": "blue.png", "edit_prompt": "make it blue"}
    (folder / "metadata.jsonl").write_text(json.dumps(row))
    own = changed(recipe, folder=str(folder), run=str(tmp_path / "run"), steps=1)
    assert train(task(own, CPU), own, CPU).done
    assert recipe.objective.usage(own)[:2] == ["sfumato", "edit"]


def test_it_is_no_lora_and_says_so(editor):
    studio = sfumato.load("embedded", dtype="float32")
    with pytest.raises(CheckpointError, match="makes a model that edits by instruction"):
        studio.load_adapter(editor)


def test_a_file_that_does_not_fit_its_base_model_is_named(editor, tmp_path):
    tensors, header = weights.read(editor), weights.metadata(editor)
    tensors[instruct_adapter.FIRST] = torch.zeros(7, 8, 3, 3)
    weights.write(tmp_path / "wrong.safetensors", tensors, header)
    with pytest.raises(CheckpointError, match=r"does not fit its base model .*conv_in"):
        checkpoint.load(tmp_path / "wrong.safetensors")
    del tensors[instruct_adapter.FIRST]
    weights.write(tmp_path / "less.safetensors", tensors, header)
    with pytest.raises(CheckpointError, match=r"lacks unet\.conv_in\.weight"):
        checkpoint.load(tmp_path / "less.safetensors")
