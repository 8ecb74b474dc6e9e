"""Files that do not fit, are something else, or are damaged: each says what it is; partial use on request."""

import json
import random

import pytest
import torch
from adapt_families import ask_ours, assert_same_answers, ours, pipeline
from adapter_files import TARGETS, TEXT, kohya
from safetensors.torch import load_file, save_file

from sfumato.adapt import Adapters, AdapterWeight
from sfumato.adapt.keys import parse_key
from sfumato.errors import CheckpointError, SfumatoError

ENDS = (*TARGETS, *TEXT)


@pytest.fixture(scope="module")
def adapters():
    """Of a model whose weights no test changes."""
    return Adapters(ours(pipeline("sd1")))


@pytest.fixture
def path(tmp_path, adapters):
    kohya(tmp_path / "detail.safetensors", adapters.networks, ENDS)
    return tmp_path / "detail.safetensors"


def changed(path, add=(), drop=(), metadata=None):
    tensors = {key: tensor for key, tensor in load_file(path).items() if key not in drop}
    save_file(tensors | dict(add), path, metadata)
    return path


@pytest.mark.parametrize(
    ("key", "part", "layer", "role"),
    [
        ("unet.mid.to_q.lora_A.weight", "unet", "mid.to_q", "down"),
        ("unet.mid.to_q.lora_B.bias", "unet", "mid.to_q", "up_bias"),
        ("unet.mid.to_q.lora_magnitude_vector", "unet", "mid.to_q", "magnitude"),
        ("unet.mid.to_q.lora_magnitude_vector.default.weight", "unet", "mid.to_q", "magnitude"),
        ("unet.mid.attn1.to_q.lora.up.weight", "unet", "mid.attn1.to_q", "up"),
        ("unet.mid.attn1.processor.to_q_lora.down.weight", "unet", "mid.attn1.to_q", "down"),
        ("mid.attn2.processor.to_out_lora.up.weight", None, "mid.attn2.to_out.0", "up"),
        ("base_model.model.mid.to_q.lora_A.default.weight", None, "mid.to_q", "down"),
        ("text_encoder.a.self_attn.to_out_lora.up.weight", "text_encoder", "a.self_attn.out_proj", "up"),
        ("text_encoder.a.self_attn.to_v_lora.down.weight", "text_encoder", "a.self_attn.v_proj", "down"),
        ("text_encoder_2.a.fc1.lora_linear_layer.down.weight", "text_encoder_2", "a.fc1", "down"),
        ("lora_unet_mid_to_q.lora_down.weight", "unet", "mid_to_q", "down"),
        ("lora_te_text_model_a.alpha", "text_encoder", "text_model_a", "alpha"),
        ("lora_te1_text_model_a.dora_scale", "text_encoder", "text_model_a", "dora_scale"),
        ("lora_te2_text_model_a.lora_mid.weight", "text_encoder_2", "text_model_a", "mid"),
        ("lora_unet_a.hada_w1_a", "unet", "a", "hada_w1_a"),
        ("lycoris_a.lokr_t2", "unet", "a", "lokr_t2"),
        (
            "text_encoders.clip_l.transformer.text_model.a.lora_up.weight",
            "text_encoder",
            "text_model.a",
            "up",
        ),
        (
            "text_encoders.clip_h.transformer.text_model.a.lora_up.weight",
            "text_encoder",
            "text_model.a",
            "up",
        ),
        ("text_encoders.clip_g.transformer.a.lora_up.weight", "text_encoder_2", "a", "up"),
        ("lora_unet_a.w_norm", "unet", "a", "diff"),
        ("diffusion_model.input_blocks.0.0.diff_b", "unet", "input_blocks.0.0", "diff_b"),
    ],
)
def test_a_key_says_which_network_which_layer_and_which_part(key, part, layer, role):
    found = parse_key(key)
    assert (found.part, found.layer, found.tensor) == (part, layer, role)


@pytest.mark.parametrize(
    "key", ["unet.mid.to_q.weight", "emb_params", "alpha", ".alpha", "lora_unet_a.oft_blocks"]
)
def test_other_keys_say_nothing(key):
    assert parse_key(key) is None


def test_the_report_counts_keys_and_layers(adapters, path):
    report = adapters.load(path, "whole").report
    tensors = load_file(path)
    assert (report.used, report.keys) == (len(tensors), len(tensors))
    assert report.whole
    assert report.lines()[0] == f"{len(tensors)} of {len(tensors)} keys used"
    assert "text_encoder: 12 of 19 layers" in report.lines()


def test_a_key_that_matches_nothing_is_an_error_with_the_nearest_name_and_the_coverage(adapters, path):
    wrong = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_qq.lora_down.weight"
    changed(path, {wrong: torch.zeros(3, 16)})
    with pytest.raises(CheckpointError) as error:
        adapters.load(path)
    for told in (
        f"1 of {len(load_file(path))} keys do not fit this model",
        f"{wrong!r} names no layer of this model",
        "did you mean 'mid_block_attentions_0_transformer_blocks_0_attn1_to_q'?",
        "12 layers of the text_encoder",
    ):
        assert told in str(error.value)
    adapter = adapters.load(path, "partial", allow_partial=True)
    assert adapter.report.problems == ((wrong, "names no layer of this model"),)
    assert not adapter.report.whole
    assert adapter.report.lines()[-1] == f"left out: {wrong!r} names no layer of this model"


LAYER = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
STEM = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"


@pytest.mark.parametrize(
    ("add", "drop", "match"),
    [
        ({}, [f"{STEM}.lora_up.weight"], "cannot be used: up is missing"),
        (
            {},
            [f"{STEM}.lora_up.weight", f"{STEM}.lora_down.weight"],
            "no change of the weight is not a known",
        ),
        ({f"{STEM}.lora_down.weight": torch.zeros(3, 17)}, [], r"shape \[16, 17\] where \[16, 16\] is due"),
        ({f"{STEM}.lora_down.weight": torch.zeros(4, 16)}, [], "cannot be used"),
        ({f"{STEM}.lora_down.weight": torch.zeros(0, 16)}, [], r"down has shape \[0, 16\]"),
        ({f"{STEM}.lora_down.weight": torch.ones(3, 16).int()}, [], "down holds torch.int32"),
        ({f"{STEM}.alpha": torch.ones(2)}, [], r"alpha has shape \[2\]"),
        ({f"{STEM}.scalar": torch.ones(2)}, [], r"scalar has shape \[2\]"),
        ({f"{STEM}.hada_w1_a": torch.ones(2, 2)}, [], "is not a known form"),
        ({f"{STEM}.diff_b": torch.ones(16)}, [], r"has no bias of shape \[16\]"),
        ({f"{STEM}.dora_scale": torch.ones(3)}, [], r"magnitudes of shape \[3\] for a weight of \[16, 16\]"),
        ({"lora_unet_x.oft_blocks": torch.ones(3)}, [], "is not supported: orthogonal adapters"),
        ({"something": torch.ones(3)}, [], "'something' is no part of an adapter"),
        (
            {"lora_te2_text_model_x.alpha": torch.ones(1)},
            [],
            "is for a text_encoder_2, which this model lacks",
        ),
        (
            {f"unet.{LAYER}.alpha": torch.ones(1)},
            [],
            "the same as",
        ),
    ],
)
def test_what_is_wrong_with_a_part_is_said(add, drop, match, adapters, path):
    changed(path, add, drop)
    with pytest.raises(CheckpointError, match=match):
        adapters.load(path)
    adapter = adapters.load(path, "partial", allow_partial=True)
    assert adapter.report.used < adapter.report.keys


@pytest.mark.parametrize(
    ("family", "match"),
    [
        ("sd2", r"was made for a model whose text is 32 wide, and this model is .* 24 wide"),
        ("sdxl", r"was made for a model whose text is 40 wide"),
    ],
)
@pytest.mark.parametrize("allow_partial", [False, True])
def test_an_adapter_of_another_family_says_so(family, match, allow_partial, adapters, tmp_path):
    kohya(tmp_path / "other.safetensors", ours(pipeline(family)), ENDS, original=family == "sdxl")
    with pytest.raises(CheckpointError, match=match):
        adapters.load(tmp_path / "other.safetensors", allow_partial=allow_partial)


def test_the_published_families_are_called_by_their_names(adapters, tmp_path):
    stem = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    for width, name in (
        (768, "Stable Diffusion 1.x"),
        (1024, "Stable Diffusion 2.x"),
        (2048, "Stable Diffusion XL"),
    ):
        tensors = {
            f"{stem}.lora_down.weight": torch.ones(2, width),
            f"{stem}.lora_up.weight": torch.ones(8, 2),
        }
        save_file(tensors, tmp_path / "it.safetensors")
        with pytest.raises(CheckpointError, match=rf"was made for {name} \({width} wide\)"):
            adapters.load(tmp_path / "it.safetensors")


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        (["model.diffusion_model.out.2.weight", "first_stage_model.a"], "it is a whole checkpoint"),
        (["down_blocks.0.resnets.0.conv1.weight"], "it is a UNet's own weights"),
        (["text_model.encoder.layers.0.mlp.fc1.weight"], "it is a text encoder's own weights"),
        (["decoder.up_blocks.0.resnets.0.conv1.weight"], "it is an autoencoder"),
        (["control_model.input_blocks.0.0.weight"], "it is a ControlNet"),
        (["emb_params"], "it is a textual inversion embedding"),
        (["<cat>"], "it is perhaps a textual inversion embedding"),
        (["a.oft_blocks"], "a kind that is not supported: orthogonal adapters"),
        (["lora_unet_double_blocks_0_img_attn_proj.lora_down.weight"], "was made for Flux"),
        (["transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight"], "was made for Flux, which"),
        (["lora_unet_joint_blocks_0_x_block_attn_qkv.lora_down.weight"], "was made for Stable Diffusion 3"),
        (["transformer.joint_transformer_blocks.0.x.lora_A.weight"], "was made for AuraFlow"),
        (["transformer_blocks.0.attn.add_k_proj.lora_A.weight"], "Stable Diffusion 3 or Qwen-Image"),
        (["transformer.transformer_blocks.0.img_mod.1.lora_A.weight"], "was made for Qwen-Image"),
        (["diffusion_model.blocks.0.cross_attn.k.lora_A.weight"], "was made for Wan"),
        (["diffusion_model.layers.0.attention.to_q.lora_A.weight"], "was made for Z-Image"),
        (["transformer.patchify_proj.lora_A.weight"], "was made for LTX-Video"),
        (["transformer.transformer_blocks.0.attn1.to_q.lora_A.weight"], "made for a diffusion transformer"),
        (["lora_unet_nothing_like_it.alpha"], "nothing of it can be used"),
        ([], "it is empty"),
    ],
)
def test_a_file_that_is_no_adapter_says_what_it_is(keys, match, adapters, tmp_path):
    save_file({key: torch.ones(1, 8) for key in keys}, tmp_path / "it.safetensors")
    with pytest.raises(CheckpointError, match=match):
        adapters.load(tmp_path / "it.safetensors", allow_partial=True)


def test_pickles_and_numbers_that_are_not_finite_are_refused(adapters, path, tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "lora.pt")
    with pytest.raises(CheckpointError, match="pickle"):
        adapters.load(tmp_path / "lora.pt")
    changed(path, {f"{STEM}.lora_up.weight": torch.full((16, 3), torch.inf)})
    with pytest.raises(CheckpointError, match="infinite"):
        adapters.load(path)


@pytest.mark.parametrize(
    ("metadata", "triggers"),
    [
        ({"modelspec.trigger_phrase": "sks dog, on grass"}, ("sks dog", "on grass")),
        (
            {"ss_tag_frequency": json.dumps({"10_sks": {"sks ": 12, "dog": 3}, "5_x": {"dog": 1}})},
            ("sks", "dog"),
        ),
        ({"ss_tag_frequency": "[1, {"}, ()),
        ({"ss_tag_frequency": json.dumps({"a": 3, "b": {"c": "d"}})}, ()),
        ({"ss_tag_frequency": "[" * 100_000}, ()),
        ({}, ()),
    ],
)
def test_words_of_the_training_are_found(metadata, triggers, adapters, path):
    adapter = adapters.load(changed(path, metadata=metadata or None))
    assert adapter.triggers == triggers
    assert adapter.name == "detail"
    adapters.remove("detail")


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ("{", "not valid JSON"),
        ("[]", "must hold a JSON object"),
        ('{"unet.lora_alpha": "much"}', "alpha = 'much' must be a number"),
        ('{"unet.lora_alpha": 1, "unet.alpha_pattern": {"to_q": true}}', "alpha = True must be a number"),
    ],
)
def test_settings_that_are_no_settings_are_refused(settings, match, adapters, path):
    tensors = {
        f"unet.{LAYER}.lora_A.weight": torch.ones(2, 16),
        f"unet.{LAYER}.lora_B.weight": torch.ones(16, 2),
    }
    save_file(tensors, path, {"lora_adapter_metadata": settings})
    with pytest.raises(CheckpointError, match=match):
        adapters.load(path)


def test_a_fingerprint_tells_files_apart(adapters, path):
    first = adapters.load(path, "one").fingerprint
    assert adapters.load(path, "two").fingerprint == first
    changed(path, {f"{STEM}.alpha": torch.tensor(7.0)})
    other = adapters.load(path, "three").fingerprint
    assert other != first
    assert len(other) == 16
    assert int(other, 16) >= 0


def test_damaged_files_raise_declared_errors_or_are_adapters(adapters, tmp_path):
    rng = random.Random(0)
    kohya(tmp_path / "good.safetensors", adapters.networks, ("to_q", "q_proj"))
    good = (tmp_path / "good.safetensors").read_bytes()
    length = int.from_bytes(good[:8], "little")
    path = tmp_path / "bad.safetensors"
    refused = 0
    for _ in range(100):
        bad = bytearray(good)
        for _ in range(rng.choice((1, 2, 8))):
            place = rng.randrange(8 + length) if rng.random() < 0.8 else rng.randrange(len(bad))
            bad[place] = rng.choice((rng.randrange(256), rng.choice(b'0123456789[]{}",._')))
        path.write_bytes(bad[: rng.choice((len(bad), len(bad), rng.randrange(len(bad))))])
        try:
            adapters.load(path, "bad", allow_partial=rng.random() < 0.5)
            adapters.set_adapters([AdapterWeight("bad")])
            adapters.set_adapters([])
        except SfumatoError:
            refused += 1
    assert refused > 30


MATRIX, CONVOLUTION = STEM, "lora_unet_conv_in"  # (16, 16) and (8, 4, 3, 3)
SHAPES = [
    (MATRIX, {"lora_down.weight": [3, 16], "lora_up.weight": [16, 3], "alpha": [], "dora_scale": [16, 1]}),
    (MATRIX, {"hada_w1_a": [16, 2], "hada_w1_b": [2, 16], "hada_w2_a": [16, 2], "hada_w2_b": [2, 16]}),
    (MATRIX, {"lokr_w1": [2, 4], "lokr_w2_a": [8, 3], "lokr_w2_b": [3, 4], "alpha": []}),
    (MATRIX, {"diff": [16, 16], "dora_scale": [1, 16]}),
    (CONVOLUTION, {"lora_down.weight": [3, 4, 3, 3], "lora_up.weight": [8, 3, 1, 1], "diff_b": [8]}),
    (
        CONVOLUTION,
        {"lora_down.weight": [3, 4, 1, 1], "lora_mid.weight": [3, 3, 3, 3], "lora_up.weight": [8, 3, 1, 1]},
    ),
    (
        CONVOLUTION,
        {f"hada_w{i}_a": [2, 8] for i in (1, 2)}
        | {f"hada_w{i}_b": [2, 4] for i in (1, 2)}
        | {f"hada_t{i}": [2, 2, 3, 3] for i in (1, 2)},
    ),
    (CONVOLUTION, {"lokr_w1": [2, 2], "lokr_w2_a": [3, 4], "lokr_w2_b": [3, 2], "lokr_t2": [3, 3, 3, 3]}),
]


def test_parts_of_nearly_right_shapes_are_refused_or_are_the_same_folded_and_beside(adapters, tmp_path):
    rng, used = random.Random(1), 0
    for _ in range(50):
        for stem, shapes in SHAPES:
            tensors = {}
            for role, shape in shapes.items():
                odd = list(shape)
                if odd and rng.random() < 0.25:
                    odd[rng.randrange(len(odd))] = rng.choice((0, 1, 2, 3, 4, 8, 16))
                if rng.random() < 0.1:
                    odd = rng.choice((odd[:-1], [*odd, 1], [1, *odd], odd[::-1]))
                tensors[f"{stem}.{role}"] = torch.rand(odd)
            save_file(tensors, tmp_path / "odd.safetensors")
            try:
                adapters.load(tmp_path / "odd.safetensors", "odd", allow_partial=rng.random() < 0.5)
            except SfumatoError:
                continue
            used += 1
            if used % 10 == 0:
                adapters.set_adapters([AdapterWeight("odd")])
                folded = ask_ours(adapters.networks, "sd1")
                adapters.set_adapters([])
                adapters.attach([AdapterWeight("odd")])
                assert_same_answers(ask_ours(adapters.networks, "sd1"), folded, 1e-4)
                adapters.detach()
    assert 50 < used < 350
