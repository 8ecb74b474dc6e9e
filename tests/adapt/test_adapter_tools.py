"""Converting, merging and resizing adapters: closed forms, and the same pictures in diffusers."""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from adapter_files import CONVOLUTIONS, TARGETS, TEXT, kohya, original_name
from safetensors.torch import load_file, save_file

sys.path.append(str(Path(__file__).parents[1] / "checkpoint"))

from checkpoint_families import pipeline

from sfumato import adapt, checkpoint, weights
from sfumato.adapt import AdapterWeight
from sfumato.adapt.architecture import of_model, published
from sfumato.adapt.delta import LoHa, LoKr, LoRA
from sfumato.adapt.keys import LayerIndex
from sfumato.adapt.low_rank import RankChoice, truncated
from sfumato.adapt.reading import read
from sfumato.adapt.transforming import combined
from sfumato.errors import CheckpointError, OutputError, SfumatoWarning, UsageError

LAYERS = (*TARGETS, *CONVOLUTIONS, *TEXT)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Of a family: its pipeline, its folder, and two LoRAs "one" and "two" in kohya's layout."""
    found = {}

    def get(family):
        if family not in found:
            folder = tmp_path_factory.mktemp(family)
            pipe = pipeline(family)
            pipe.set_progress_bar_config(disable=True)
            pipe.save_pretrained(folder / "model")
            nets = {"unet": pipe.unet, "text_encoder": pipe.text_encoder}
            if family == "sdxl":
                nets["text_encoder_2"] = pipe.text_encoder_2
            kohya(folder / "one.safetensors", nets, LAYERS, rank=3, alpha=2.0, seed=1)
            kohya(folder / "two.safetensors", nets, ("to_q", "to_k", "conv1"), rank=2, alpha=1.0, seed=2)
            found[family] = pipe, folder
        return found[family]

    return get


def deltas(path, model):
    """ΔW of every layer of a file, by its place."""
    indexes = of_model(str(model)).indexes
    adapter = read(path, indexes)
    assert adapter.report.whole
    return {
        (part, layer): delta.change(torch.zeros(indexes[part].layers[layer].weight.shape))
        for (part, layer), delta in adapter.deltas.items()
    }


def assert_close(ours, theirs, tolerance=1e-5):
    assert ours.keys() == theirs.keys()
    for place, change in ours.items():
        assert (change - theirs[place]).norm() <= tolerance * theirs[place].norm(), place


def draw(pipe, **loras):
    pipe.set_adapters(list(loras), list(loras.values()))
    return pipe(
        "a red apple", num_inference_steps=2, width=24, height=16, output_type="np",
        generator=torch.Generator().manual_seed(3),
    ).images[0]  # fmt: skip


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_a_lora_goes_to_the_other_layout_and_back_and_diffusers_draws_the_same(family, made, tmp_path):
    pipe, folder = made(family)
    model = folder / "model"
    peft, back = tmp_path / "peft.safetensors", tmp_path / "back.safetensors"
    done = adapt.convert(folder / "one.safetensors", peft, layout="peft", model=str(model))
    assert (done.layout, done.ranks.keys(), done.bytes) == ("peft", {3}, peft.stat().st_size)
    adapt.convert(peft, back, layout="kohya", model=str(model))
    expected = deltas(folder / "one.safetensors", model)
    assert_close(deltas(peft, model), expected, 0)
    assert_close(deltas(back, model), expected, 0)
    for name, path in {"own": folder / "one.safetensors", "peft": peft, "back": back}.items():
        pipe.load_lora_weights(path, adapter_name=name)
    own = draw(pipe, own=0.7)
    assert np.abs(draw(pipe, peft=0.7) - own).max() < 1e-4
    assert np.abs(draw(pipe, back=0.7) - own).max() < 1e-4
    assert np.abs(draw(pipe, own=0.0) - own).max() > 0.01
    pipe.unload_lora_weights()


def test_kohyas_names_of_sdxl_are_the_original_ones(made, tmp_path):
    pipe, folder = made("sdxl")
    model = folder / "model"
    adapt.convert(folder / "two.safetensors", tmp_path / "peft.safetensors", layout="peft", model=str(model))
    adapt.convert(
        tmp_path / "peft.safetensors", tmp_path / "kohya.safetensors", layout="kohya", model=str(model)
    )
    names = {key.partition(".")[0] for key in load_file(tmp_path / "kohya.safetensors")}
    paths = [path for path, _ in pipe.unet.named_modules() if path.endswith((".to_q", ".to_k", ".conv1"))]
    expected = {
        f"lora_unet_{original_name(path, layers_per_level=1, levels=2).replace('.', '_')}" for path in paths
    }
    assert {name for name in names if name.startswith("lora_unet_")} == expected


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_a_merge_is_the_weighted_sum_of_the_changes_and_draws_as_both_do_in_diffusers(family, made, tmp_path):
    pipe, folder = made(family)
    model = folder / "model"
    one, two = folder / "one.safetensors", folder / "two.safetensors"
    target = tmp_path / "both.safetensors"
    wanted = [AdapterWeight(str(one), 0.8), AdapterWeight(str(two), -0.5)]
    done = adapt.merge(wanted, target, model=str(model), layout="peft")
    assert set(done.ranks) == {3, 5}
    first, second = deltas(one, model), deltas(two, model)
    expected = {place: 0.8 * change - 0.5 * second.get(place, 0) for place, change in first.items()}
    assert_close(deltas(target, model), expected)
    for name, path in {"one": one, "two": two, "both": target}.items():
        pipe.load_lora_weights(path, adapter_name=name)
    assert np.abs(draw(pipe, both=1.0) - draw(pipe, one=0.8, two=-0.5)).max() < 1e-4
    pipe.unload_lora_weights()


def test_weights_of_the_text_and_of_blocks_count_in_a_merge(made, tmp_path):
    _, folder = made("sd1")
    model, one = folder / "model", folder / "one.safetensors"
    wanted = [AdapterWeight(str(one), 1.0, 0.25, {"up": 0}), AdapterWeight(str(one), 0.5, 0.25)]
    adapt.merge(wanted, tmp_path / "it.safetensors", model=str(model))
    factor = {"text_encoder": 0.5, "unet": 1.5}
    expected = {
        (part, layer): change * (0.5 if layer.startswith("up_blocks") else factor[part])
        for (part, layer), change in deltas(one, model).items()
    }
    assert_close(deltas(tmp_path / "it.safetensors", model), expected)


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_what_a_smaller_rank_loses_is_the_tail_of_the_singular_values(rank, made, tmp_path):
    _, folder = made("sd1")
    model, target = folder / "model", tmp_path / "small.safetensors"
    one, two = folder / "one.safetensors", folder / "two.safetensors"
    adapt.merge([one, two], tmp_path / "both.safetensors", model=str(model))
    done = adapt.merge([one, two], target, rank=rank, model=str(model))
    whole, small = deltas(tmp_path / "both.safetensors", model), deltas(target, model)
    norm = lost = 0.0
    for place, change in whole.items():
        values = torch.linalg.svdvals(change.flatten(1))
        tail = values[rank:].square().sum()
        error = (change - small[place]).square().sum()
        assert torch.isclose(error, tail, rtol=1e-3, atol=1e-8 * float(values[0]) ** 2), place
        norm, lost = norm + float(values.square().sum()), lost + float(tail)
    assert done.kept == pytest.approx((1 - lost / norm) ** 0.5, abs=1e-4)


VALUES = torch.tensor([8.0, 4.0, 2.0, 1.0])


@pytest.mark.parametrize(
    ("choice", "rank"),
    [
        (RankChoice(2), 2),
        (RankChoice(9), 4),
        (RankChoice(None, None, "sv_ratio", 4.1), 3),
        (RankChoice(None, None, "sv_ratio", 1.0), 1),
        (RankChoice(None, None, "sv_fro", 0.97), 2),
        (RankChoice(None, None, "sv_fro", 1.0), 4),
        (RankChoice(None, None, "sv_cumulative", 0.93), 3),
        (RankChoice(None, None, "sv_cumulative", 0.5), 1),
        (RankChoice(2, None, "sv_fro", 1.0), 2),
    ],
)
def test_a_rank_is_chosen_by_the_singular_values(choice, rank):
    left, right = (
        torch.linalg.qr(torch.randn(6, 4, generator=torch.Generator().manual_seed(n)))[0] for n in (0, 1)
    )
    matrix = left * VALUES @ right.mT
    for given in (matrix, (left * VALUES, right.mT)):
        found = truncated(given, choice, (6, 6))
        assert found.rank == rank
        assert found.lost == pytest.approx(VALUES[rank:].norm().item(), abs=1e-5)
        assert found.norm == pytest.approx(VALUES.norm().item())
        assert found.up.norm() == pytest.approx(found.down.norm().item())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "rank is 0: must be 1 or more"),
        ((4, -1), "the rank of convolutions is -1"),
        ((None, 2), "no rank of the other layers"),
        ((4, None, "sv_foo", 1.0), "unknown way to choose a rank 'sv_foo'; did you mean 'sv_fro'"),
        ((4, None, "sv_ratio", 0.5), "sv_ratio is 0.5: must be a number from 1"),
        ((4, None, "sv_fro", 1.5), "sv_fro is 1.5: must be above 0 and at most 1"),
        ((4, None, "sv_fro", float("nan")), "sv_fro is nan"),
    ],
)
def test_a_rank_out_of_range_is_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        RankChoice(*arguments)


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


HADAMARD = {
    f"hada_w{i}_{half}": randn(*shape, seed=i)
    for i in (1, 2)
    for half, shape in (("a", (5, 2)), ("b", (2, 7)))
}
KINDS = {
    "LoHa": (LoHa(HADAMARD, 0.5), (5, 7)),
    "LoKr": (
        LoKr({"lokr_w1": randn(2, 3), "lokr_w2_a": randn(3, 1), "lokr_w2_b": randn(1, 4)}, 0.5),
        (6, 12),
    ),
    "Tucker": (
        LoRA({"down": randn(2, 4, 1, 1), "mid": randn(2, 2, 3, 3), "up": randn(5, 2, 1, 1)}, 0.5),
        (5, 4, 3, 3),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_other_kinds_become_a_lora_of_their_own_rank_exactly(kind):
    delta, shape = KINDS[kind]
    found = combined([(0.7, delta), (0.3, delta)], shape, RankChoice(9), "it").delta
    assert isinstance(found, LoRA)
    assert torch.allclose(found.change(torch.zeros(shape)), delta.change(torch.zeros(shape)), atol=1e-5)


def test_a_sum_of_loha_without_a_rank_is_refused():
    delta, shape = KINDS["LoHa"]
    with pytest.raises(UsageError, match="it is LoHa, whose sum with another is a LoRA of high rank"):
        combined([(1, delta), (1, delta)], shape, RankChoice(), "it")


def test_a_dora_keeps_its_magnitudes_in_a_smaller_rank_and_has_no_sum():
    parts = {"down": randn(3, 6), "up": randn(4, 3, seed=1), "dora_scale": randn(4, 1, seed=2).abs()}
    found = combined([(1.0, LoRA(parts, 0.5))], (4, 6), RankChoice(2), "it").delta
    assert (found.rank, found.scale) == (2, 1)
    assert torch.equal(found.parts["dora_scale"], parts["dora_scale"])
    for terms in ([(0.5, LoRA(parts))], [(1.0, LoRA(parts)), (1.0, LoRA(parts))]):
        with pytest.raises(UsageError, match=r"it is DoRA: .*; name that model|it is DoRA, which"):
            combined(terms, (4, 6), RankChoice(2), "it")


def test_doras_are_merged_by_what_they_add_to_the_weights_of_a_model(made, tmp_path):
    _, folder = made("sd1")
    model, one = folder / "model", folder / "one.safetensors"
    networks = checkpoint.load(str(model), dtype=torch.float32).networks
    indexes = of_model(str(model)).indexes
    tensors = load_file(folder / "two.safetensors")
    layers = {part: LayerIndex(net) for part, net in networks.items() if part in indexes}
    for stem in {key.split(".")[0] for key in tensors}:
        layer = layers["unet"].layers[layers["unet"].find(stem.removeprefix("lora_unet_"))]
        norms = layer.weight.flatten(1).norm(dim=1)
        tensors[f"{stem}.dora_scale"] = (1.3 * norms).view(-1, *[1] * (layer.weight.ndim - 1))
    dora, target = tmp_path / "dora.safetensors", tmp_path / "both.safetensors"
    save_file(tensors, dora)
    wanted = [AdapterWeight(str(one), 0.8), AdapterWeight(str(dora), 0.5)]
    adapt.merge(wanted, target, model=str(model), layout="kohya", rank=64)
    expected = {place: 0.8 * change for place, change in deltas(one, model).items()}
    added = read(dora, indexes).deltas
    assert all(delta.has("dora_scale") for delta in added.values())
    for (part, layer), delta in added.items():
        expected[part, layer] = expected[part, layer] + 0.5 * delta.change(layers[part].layers[layer].weight)
    assert_close(deltas(target, model), expected)


def test_half_precision_holds_a_lora_of_a_small_scale(made, tmp_path):
    """alpha / rank put into one factor would leave numbers that half precision has no digits for."""
    _, folder = made("sd1")
    model, target = folder / "model", tmp_path / "half.safetensors"
    tensors = load_file(folder / "one.safetensors")
    tensors = {key: torch.tensor(1e-5) if key.endswith(".alpha") else each for key, each in tensors.items()}
    save_file(tensors, tmp_path / "faint.safetensors")
    faint = tmp_path / "faint.safetensors"
    adapt.merge([faint, faint], target, model=str(model), dtype=torch.float16)
    expected = {place: 2 * change for place, change in deltas(faint, model).items()}
    assert_close(deltas(target, model), expected, 2e-3)


def test_numbers_that_half_precision_has_not_are_told(made, tmp_path):
    _, folder = made("sd1")
    tensors = load_file(folder / "one.safetensors")
    key = next(key for key in tensors if key.endswith("lora_up.weight"))
    save_file({**tensors, key: 1e6 * tensors[key]}, tmp_path / "loud.safetensors")
    with pytest.raises(UsageError, match="is too large for float16; use fp32 or bf16"):
        adapt.convert(
            tmp_path / "loud.safetensors", tmp_path / "half.safetensors", layout="kohya",
            model=str(folder / "model"), dtype=torch.float16,
        )  # fmt: skip
    assert not (tmp_path / "half.safetensors").exists()


def test_the_header_says_what_it_was_made_of_and_has_the_hash_that_a1111_knows_it_by(made, tmp_path):
    _, folder = made("sd1")
    paths = [tmp_path / "moss.safetensors", tmp_path / "fern.safetensors"]
    for path in paths:
        told = {"modelspec.trigger_phrase": f"{path.stem} style", "ss_seed": "1", "ss_lr": path.stem}
        save_file(load_file(folder / "one.safetensors"), path, {**told, "ss_network_dim": "3"})
    target = tmp_path / "both.safetensors"
    adapt.merge([AdapterWeight(str(paths[0]), 0.5), paths[1]], target, model=str(folder / "model"))
    told = weights.metadata(target)
    assert told["modelspec.trigger_phrase"] == "moss style, fern style"
    assert told["modelspec.merged_from"] == "moss, fern"
    assert (told["ss_seed"], "ss_lr" in told, told["ss_network_dim"]) == ("1", False, "Dynamic")
    sources = json.loads(told["sfumato.sources"])
    assert [(each["name"], each["weight"]) for each in sources] == [("moss", 0.5), ("fern", 1.0)]
    content = target.read_bytes()
    body = content[8 + int.from_bytes(content[:8], "little") :]
    assert told["sshs_model_hash"] == hashlib.sha256(body).hexdigest()


def test_what_it_is_and_how_much_it_changes_each_block_is_told(made):
    _, folder = made("sd1")
    model = folder / "model"
    told = adapt.info(folder / "one.safetensors", model=str(model))
    assert told.kinds == {"LoRA": sum(told.layers.values())}
    found = deltas(folder / "one.safetensors", model)
    middle = [change for (_, layer), change in found.items() if layer.startswith("mid_block")]
    texts = [change for (part, _), change in found.items() if part == "text_encoder"]
    assert told.norms["mid"] == pytest.approx(sum(each.square().sum() for each in middle) ** 0.5)
    assert told.norms["text_encoder"] == pytest.approx(sum(each.square().sum() for each in texts) ** 0.5)
    assert list(told.norms) == ["text_encoder", "in", "down.0", "down.1", "mid", "up.0", "up.1", "out"]


PARAMETERS = {
    "sd1": {"unet": 859_520_964, "text_encoder": 123_060_480},
    "sd2": {"unet": 865_910_724, "text_encoder": 340_387_840},
    "sdxl": {"unet": 2_567_463_684, "text_encoder": 123_060_480, "text_encoder_2": 694_659_840},
}


@pytest.mark.parametrize("family", PARAMETERS)
def test_the_published_families_are_of_the_published_size(family):
    counted = {
        part: sum(p.numel() for layer in index.layers.values() for p in layer.parameters(recurse=False))
        for part, index in published(family).indexes.items()
    }
    assert counted == PARAMETERS[family]


def test_an_embedding_in_the_file_goes_along_where_the_layout_has_a_place(made, tmp_path):
    _, folder = made("sd1")
    tensors = load_file(folder / "one.safetensors")
    word = randn(2, 24)
    path, model = tmp_path / "moss.safetensors", str(folder / "model")
    save_file({**tensors, "bundle_emb.moss.string_to_param.*": word}, path)
    adapt.convert(path, tmp_path / "kohya.safetensors", layout="kohya", model=model)
    found = read(tmp_path / "kohya.safetensors", of_model(model).indexes).embeddings
    assert torch.equal(found["moss"].vectors[0], word)
    with pytest.warns(SfumatoWarning, match="moss: diffusers' layout has no place for embeddings"):
        adapt.convert(path, tmp_path / "peft.safetensors", layout="peft", model=model)


def test_what_cannot_be_done_is_an_error_before_anything_is_written(made, tmp_path):
    _, folder = made("sd1")
    one, model = folder / "one.safetensors", str(folder / "model")
    before = one.read_bytes()
    with pytest.raises(UsageError, match=r"one\.safetensors is what is read: it is not replaced"):
        adapt.convert(one, one, layout="kohya", model=model, overwrite=True)
    with pytest.raises(UsageError, match="merge takes two adapters or more, not 1"):
        adapt.merge([one], tmp_path / "it.safetensors", model=model)
    with pytest.raises(UsageError, match="every weight is 0"):
        adapt.merge([AdapterWeight(str(one), 0.0)] * 2, tmp_path / "it.safetensors", model=model)
    with pytest.raises(UsageError, match=r"an adapter is named \.safetensors"):
        adapt.convert(one, tmp_path / "it.pt", layout="kohya", model=model)
    with pytest.raises(CheckpointError, match="if it was made for a model of another shape, --model names"):
        adapt.convert(one, tmp_path / "it.safetensors", layout="kohya")
    (tmp_path / "it.safetensors").write_bytes(b"precious")
    with pytest.raises(OutputError, match="will not replace"):
        adapt.convert(one, tmp_path / "it.safetensors", layout="kohya", model=model)
    assert (tmp_path / "it.safetensors").read_bytes() == b"precious"
    assert one.read_bytes() == before
