"""Configurations: the libraries' defaults, strictness, and files written by others."""

import inspect
import json
from dataclasses import fields, replace
from importlib import resources

import diffusers
import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.config import ScheduleConfig, TextConfig, TinyVAEConfig, UNetConfig, VAEConfig
from sfumato.config.model_settings import ModelSettings
from sfumato.config.schedulers import SCHEDULERS
from sfumato.errors import CheckpointError

CLASSES = {
    UNetConfig: diffusers.UNet2DConditionModel,
    VAEConfig: diffusers.AutoencoderKL,
    TinyVAEConfig: diffusers.AutoencoderTiny,
}
ALL = [*CLASSES, TextConfig, ScheduleConfig, ModelSettings]
SD1 = {"cross_attention_dim": 768, "sample_size": 64, "_class_name": "UNet2DConditionModel"}


def defaults(theirs):
    found = inspect.signature(theirs.__init__).parameters.values()
    return {p.name: p.default for p in found if p.default is not inspect.Parameter.empty}


@pytest.mark.parametrize("config", CLASSES)
def test_every_key_of_diffusers_is_known_and_has_its_default(config):
    ours = {field.name: field.default for field in fields(config)}
    for key, default in defaults(CLASSES[config]).items():
        if key in ours:
            assert ours[key] == default, key
        elif key in config.FIXED:
            assert default in config.FIXED[key], key
        else:
            assert key in config.IGNORED, key


def test_every_key_of_transformers_is_known_and_has_its_default():
    theirs = transformers.CLIPTextConfig().to_dict()
    ours = TextConfig.from_dict(theirs, "config.json")
    assert ours == TextConfig()
    for field in fields(TextConfig):
        if field.name not in TextConfig.DERIVED:
            assert theirs[field.name] == field.default, field.name


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_key_of_a_diffusers_scheduler_is_known_and_has_its_default(name):
    if name == "DPMSolverSDEScheduler":
        # needs torchsde even to be looked at; its signature is Heun's but for this
        theirs = defaults(diffusers.HeunDiscreteScheduler) | {"noise_sampler_seed": None}
        del theirs["clip_sample"], theirs["clip_sample_range"]
    else:
        theirs = defaults(getattr(diffusers, name))
    assert SCHEDULERS[name] == theirs
    config = ScheduleConfig.from_dict({"_class_name": name}, "scheduler_config.json")
    for key, default in theirs.items():
        if key in ScheduleConfig.FIXED:
            assert default in ScheduleConfig.FIXED[key], key
        elif key not in ScheduleConfig.IGNORED or hasattr(config, key):
            assert getattr(config, key) == default, key


@pytest.mark.parametrize("name", sorted(SCHEDULERS.keys() - {"DPMSolverSDEScheduler"}))
def test_scheduler_files_written_by_diffusers_are_read_and_written_back(name):
    theirs = getattr(diffusers, name)()
    mapping = json.loads(theirs.to_json_string())
    config = ScheduleConfig.from_dict(mapping, "scheduler_config.json")
    assert config.class_name == name
    assert ScheduleConfig.from_dict(config.to_dict(), "again") == config
    again = getattr(diffusers, name).from_config(config.to_dict())
    if hasattr(theirs, "alphas_cumprod"):
        assert again.alphas_cumprod.equal(theirs.alphas_cumprod)


def test_files_of_the_embedded_model_are_read_and_written_back():
    folder = resources.files("sfumato") / "models" / "icons"
    files = {
        "unet/config.json": UNetConfig,
        "vae/config.json": VAEConfig,
        "text_encoder/config.json": TextConfig,
        "scheduler/scheduler_config.json": ScheduleConfig,
    }
    for name, config in files.items():
        read = config.from_dict(json.loads((folder / name).read_text()), name)
        assert config.from_dict(json.loads(json.dumps(read.to_dict())), name) == read


@pytest.mark.parametrize(
    ("config", "content"),
    [
        # SDXL base and its refiner
        (UNetConfig, {**SD1, "upcast_attention": None}),
        # SDXL for inpainting: the weights are a moving average, which its training described here
        (
            UNetConfig,
            {
                **SD1,
                "decay": 0.9999,
                "inv_gamma": 1.0,
                "min_decay": 0.0,
                "optimization_step": 37000,
                "power": 0.6666666666666666,
                "update_after_step": 0,
                "use_ema_warmup": False,
            },
        ),
        # schedulers of 2022
        (ScheduleConfig, {"_class_name": "DPMSolverMultistepScheduler", "predict_epsilon": True}),
    ],
)
def test_what_published_files_say_besides_changes_nothing(config, content):
    plain = {key: content[key] for key in ("_class_name", *SD1) if key in content}
    read, without = (config.from_dict(each, "config.json").to_dict() for each in (content, plain))
    assert {key: value or False for key, value in read.items()} == {
        key: value or False for key, value in without.items()
    }


def test_attention_head_dim_is_the_number_of_heads():
    assert UNetConfig.from_dict(SD1, "").heads == (8, 8, 8, 8)
    assert UNetConfig.from_dict({**SD1, "attention_head_dim": [5, 10, 20, 20]}, "").heads == (5, 10, 20, 20)


@pytest.mark.parametrize(
    "value", [10**400, -(10**400), [[[[]]]] * 10_000, "x" * 100_000], ids=["huge", "low", "deep", "long"]
)
def test_monstrous_values_are_refused_in_a_short_line(value):
    for mapping in ({"norm_eps": value}, {"act_fn": value}, {"in_channels": value}, {str(value)[:99_999]: 1}):
        with pytest.raises(CheckpointError) as caught:
            UNetConfig.from_dict(mapping, "config.json")
        assert len(str(caught.value)) < 1500


def test_one_depth_stands_for_every_residual_block_and_one_more_on_the_way_up():
    config = UNetConfig.from_dict({**SD1, "transformer_layers_per_block": [1, 2, 3, 4]}, "")
    assert config.down_depths == ((1, 1), (2, 2), (3, 3), (4, 4))
    assert config.up_depths == ((4, 4, 4), (3, 3, 3), (2, 2, 2), (1, 1, 1))


def test_only_schedulers_that_clip_are_said_to():
    for name in ("DDIMScheduler", "EulerDiscreteScheduler"):
        config = ScheduleConfig.from_dict({"_class_name": name, "clip_sample": True}, "")
        assert config.clips == (name == "DDIMScheduler")


def test_only_schedulers_that_threshold_are_said_to():
    for name in ("DPMSolverMultistepScheduler", "EulerDiscreteScheduler"):
        config = ScheduleConfig.from_dict({"_class_name": name, "thresholding": True}, "")
        assert config.thresholds == (name == "DPMSolverMultistepScheduler")


@pytest.mark.parametrize(
    ("config", "change", "message"),
    [
        (
            UNetConfig,
            {"cross_atention_dim": 768},
            "unknown key 'cross_atention_dim'; did you mean 'cross_att",
        ),
        (
            UNetConfig,
            {"dual_cross_attention": True},
            "dual_cross_attention is True: not supported, only False",
        ),
        (
            UNetConfig,
            {"class_embed_type": "projection"},
            "class_embed_type is 'projection': not supported, only None",
        ),
        (UNetConfig, {"num_attention_heads": 8}, "num_attention_heads is 8: not supported, only None"),
        (
            UNetConfig,
            {"_class_name": "FluxTransformer2DModel"},
            "_class_name is 'FluxTransformer2DModel': must b",
        ),
        (
            UNetConfig,
            {"in_channels": "4"},
            "in_channels is '4': must be a valid integer (allowed: 1 to 65536)",
        ),
        (UNetConfig, {"in_channels": True}, "in_channels is True: must be a valid integer"),
        (UNetConfig, {"norm_eps": float("nan")}, "norm_eps is nan: must be a finite number"),
        (UNetConfig, {"block_out_channels": [320, 640, 1280]}, "down_block_types has 4 entries, must have 3"),
        (UNetConfig, {"block_out_channels": []}, "block_out_channels is (): must have at least 1 item"),
        (
            UNetConfig,
            {"block_out_channels": [10**9] * 4},
            "block_out_channels.0 is 1000000000: must be at most 65536",
        ),
        (
            UNetConfig,
            {"layers_per_block": "two"},
            "layers_per_block is 'two': must be a valid integer or a list (allowed: 1 to 64)",
        ),
        (
            UNetConfig,
            {"transformer_layers_per_block": [1, [2, 99], 1, 1]},
            "transformer_layers_per_block.1.1 is 99: must be at most 64 (allowed: 0 to 64)",
        ),
        (
            UNetConfig,
            {"layers_per_block": 10**9},
            "layers_per_block is 1000000000: must be at most 64 (allowed: 1 to 64)",
        ),
        (
            UNetConfig,
            {"attention_head_dim": 7},
            "block_out_channels = 320 must be a multiple of attention_he",
        ),
        (UNetConfig, {"norm_num_groups": 33}, "must be a multiple of norm_num_groups = 33"),
        (
            UNetConfig,
            {"down_block_types": ["AttnDownBlock2D", *["DownBlock2D"] * 3]},
            "down_block_types.0 is 'AttnDownBlock2D': not supported; did you mean 'CrossAttnDownBlock2D'",
        ),
        (
            UNetConfig,
            {"mid_block_type": "MidBlock"},
            "mid_block_type is 'MidBlock': not supported; did you mean 'UNetMidBlock2D'",
        ),
        (
            UNetConfig,
            {"addition_embed_type": "image"},
            "addition_embed_type is 'image': not supported; known: text_time",
        ),
        (
            UNetConfig,
            {"addition_embed_type": "text_time"},
            "addition_embed_type 'text_time' needs addition_ti",
        ),
        (UNetConfig, {"transformer_layers_per_block": [1, [2, 1], 1, 1]}, "need reverse_transformer_layers"),
        (
            UNetConfig,
            {"transformer_layers_per_block": 0},
            "must be at least 1 where there is cross-attention",
        ),
        (
            UNetConfig,
            {"layers_per_block": 20, "transformer_layers_per_block": 20},
            "2,480 transformer blocks are too many to build, at most 1,024",
        ),
        (VAEConfig, {"latents_mean": [0.0] * 4}, "latents_mean and latents_std must be given together"),
        (VAEConfig, {"scaling_factor": 0}, "scaling_factor is 0: must be greater than 0"),
        (VAEConfig, {"act_fn": "mish"}, "act_fn is 'mish': not supported, only 'silu' or 'swish'"),
        (TinyVAEConfig, {"num_encoder_blocks": [1]}, "num_encoder_blocks has 1 entries, must have 4"),
        (TextConfig, {"hidden_act": "relu"}, "hidden_act is 'relu': not supported; did you mean 'gelu'"),
        (
            TextConfig,
            {"num_attention_heads": 7},
            "hidden_size = 512 must be a multiple of num_attention_head",
        ),
        (TextConfig, {"model_type": "t5"}, "model_type is 't5': not supported, only 'clip_text_model'"),
        (TextConfig, {"with_projection": True}, "unknown key 'with_projection'"),
        (
            ScheduleConfig,
            {"_class_name": "DDIMSchedular"},
            "'DDIMSchedular' is not supported; known: DDIM",
        ),
        (
            ScheduleConfig,
            {"beta_schedule": "sigmoid"},
            "beta_schedule is 'sigmoid': not supported; known: exp, linear, scaled_linear",
        ),
        (ScheduleConfig, {"dynamic_thresholding_ratio": 2}, "dynamic_thresholding_ratio is 2: must be"),
        (ScheduleConfig, {"use_dynamic_shifting": True, "base_shift": 2}, "base_shift must be below"),
        (ScheduleConfig, {"flow_shift": 0}, "flow_shift is 0: must be at least 0.001"),
        (ScheduleConfig, {"predict_epsilon": False}, "predict_epsilon is False: not supported, only True"),
        (ScheduleConfig, {"beta_end": 1.5}, "beta_end is 1.5: must be less than 1"),
        (ScheduleConfig, {"trained_betas": [0.1]}, "trained_betas has 1 entries, must have 1000"),
    ],
)
def test_what_cannot_be_built_is_refused_naming_file_key_and_remedy(config, change, message):
    base = SD1 if config is UNetConfig else {}
    with pytest.raises(CheckpointError) as caught:
        config.from_dict({**base, **change}, "here/config.json")
    assert str(caught.value).startswith("here/config.json: ")
    assert message in str(caught.value)


def test_a_changed_copy_is_held_to_the_same_bounds():
    config = UNetConfig(cross_attention_dim=768)
    assert replace(config, in_channels=9).in_channels == 9
    for changes, message in (
        ({"in_channels": 0}, "greater than or equal to 1"),
        ({"attention_head_dim": 7}, "mult"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(config, **changes)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize("config", ALL)
@settings(max_examples=150)
@given(data=st.data())
def test_any_json_gives_a_configuration_or_a_checkpoint_error(config, data):
    keys = sorted({field.name for field in fields(config)} | config.FIXED.keys() | {"architectures"})
    mapping = data.draw(st.dictionaries(st.sampled_from([*keys, "_class_name"]), JSON, max_size=4))
    try:
        read = config.from_dict(mapping, "config.json")
    except CheckpointError:
        return
    assert config.from_dict(read.to_dict(), "again") == read
