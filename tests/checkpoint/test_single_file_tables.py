"""The tables of original names: complete, the same both ways, and those that diffusers knows."""

from functools import partial
from pathlib import Path

import diffusers
import pytest
import torch
from diffusers.loaders import single_file_utils as peer
from hypothesis import given, settings
from hypothesis import strategies as st
from single_files import _unet, _vae
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from sfumato.checkpoint import ldm_keys, shapes_to_config, single
from sfumato.checkpoint.infer import model_info
from sfumato.checkpoint.loading import empty_network, expected_shapes, table_of_part
from sfumato.checkpoint.report import Report
from sfumato.config import ScheduleConfig, TextConfig, TinyVAEConfig, UNetConfig, VAEConfig
from sfumato.weights import Header, TensorInfo

SD1 = {"cross_attention_dim": 768}
SD2 = {"cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True}
SDXL = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
REFINER = {
    "block_out_channels": (384, 768, 1536, 1536),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": 4,
    "attention_head_dim": (6, 12, 24, 24),
    "cross_attention_dim": 1280,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2560,
}
# SSD-1B is a pruned SDXL: its transformers are not equally deep within a level.
PRUNED = SDXL | {
    "transformer_layers_per_block": ((1, 1), (2, 2), (4, 4)),
    "reverse_transformer_layers_per_block": ((4, 4, 10), (2, 1, 1), (1, 1, 1)),
    "mid_block_type": None,
}
UNETS = {
    "sd1": (SD1, 686),
    "inpaint": (SD1 | {"in_channels": 9}, 686),
    "instruct": (SD1 | {"in_channels": 8}, 686),
    "lcm": (SD1 | {"time_cond_proj_dim": 256}, 687),
    "sd2": (SD2, 686),
    "sdxl": (SDXL, 1680),
    "refiner": (REFINER, 1220),
}
"""What is not the class's default, and how many parameters there are."""
VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
}
BIG_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}


def shapes_of(config):
    return expected_shapes(empty_network(config).state_dict())


def header(shapes):
    return {name: TensorInfo("F32", tuple(shape), 0, 0) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def meta():
    """Real networks of real size, without memory."""

    def make(build):
        with torch.device("meta"):
            return {name: tuple(tensor.shape) for name, tensor in build().state_dict().items()}

    return make


@pytest.mark.parametrize("name", UNETS)
def test_the_unets_table_covers_the_real_network_with_nothing_left_over(name, meta):
    changes, count = UNETS[name]
    config = UNetConfig(**changes)
    listed = {key: list(value) if isinstance(value, tuple) else value for key, value in changes.items()}
    real = meta(lambda: diffusers.UNet2DConditionModel(**listed))
    table = ldm_keys.unet_table(config, real, prefix="")
    assert len(real) == count
    assert table.keys() == real.keys() == shapes_of(config).keys()
    assert len({origin.key for origin in table.values()}) == count
    assert {ours.rpartition(".")[0] for ours in real} == ldm_keys.unet_modules(config).keys()


@pytest.mark.parametrize("name", UNETS)
def test_diffusers_turns_our_original_names_back_into_its_own(name, meta):
    changes, count = UNETS[name]
    table = ldm_keys.unet_table(UNetConfig(**changes), shapes_of(UNetConfig(**changes)))
    marks = {origin.key: ours for ours, origin in table.items()}
    back = peer.convert_ldm_unet_checkpoint(
        marks, {"layers_per_block": 2, "class_embed_type": None, **changes}
    )
    guided = {"time_embedding.cond_proj.weight"}
    assert {ours: ours for ours in table if ours not in guided} == back
    assert len(back) == count - len(guided & table.keys())


@pytest.mark.parametrize("name", ["sd1", "sd2", "sdxl"])
def test_a_second_hand_gives_the_same_names(name, meta):
    config = UNetConfig(**UNETS[name][0])
    deep = len(config.block_out_channels)
    table = ldm_keys.unet_table(config, shapes_of(config), prefix="")
    assert {ours: origin.key for ours, origin in table.items()} == {
        ours: _unet(ours, 2, deep) for ours in table
    }


@pytest.mark.parametrize("name", [*UNETS, "pruned"])
@pytest.mark.parametrize("layout", ["original", "diffusers"])
def test_a_unets_configuration_follows_from_its_names_and_shapes(name, layout):
    config = UNetConfig(**(PRUNED if name == "pruned" else UNETS[name][0]))
    shapes = shapes_of(config)
    if layout == "original":
        shapes = ldm_keys.shapes(ldm_keys.unet_table(config, shapes, prefix=""), shapes)
    pooled = 1280 if config.addition_embed_type else None
    report = Report("a test")
    found = shapes_to_config.unet(
        header(shapes), layout == "original", pooled=pooled, numbers=5 if name == "refiner" else 6, fixed={},
        where="a test", infer=report.infer,
    )  # fmt: skip
    assert shapes_of(found) == shapes_of(config)
    for what in (
        "heads",
        "layers",
        "context",
        "addition_time_embed_dim",
        "time_cond_proj_dim",
        "in_channels",
    ):
        assert getattr(found, what) == getattr(config, what)
    assert {told.what for told in report.inferences} == {"unet", "unet heads"}


@st.composite
def unet_configs(draw):
    """Any UNet whose unsaid numbers are those of published ones."""
    count = draw(st.integers(1, 4))
    each = lambda values: tuple(draw(st.lists(values, min_size=count, max_size=count)))  # noqa: E731
    linear = draw(st.booleans())
    widths = each(st.sampled_from((64, 128, 192)))
    attends, returns = each(st.booleans()), each(st.booleans())
    told = draw(st.booleans())
    return UNetConfig(
        in_channels=draw(st.sampled_from((4, 8, 9))),
        block_out_channels=widths,
        layers_per_block=each(st.integers(1, 3)),
        down_block_types=tuple("CrossAttnDownBlock2D" if way else "DownBlock2D" for way in attends),
        up_block_types=tuple("CrossAttnUpBlock2D" if way else "UpBlock2D" for way in returns),
        mid_block_type=draw(st.sampled_from((None, "UNetMidBlock2D", "UNetMidBlock2DCrossAttn"))),
        transformer_layers_per_block=each(st.integers(1, 3)),
        cross_attention_dim=draw(st.sampled_from((64, 96))),
        attention_head_dim=tuple(width // 64 for width in widths) if linear else 8,
        use_linear_projection=linear,
        time_cond_proj_dim=draw(st.sampled_from((None, 32))),
        addition_embed_type="text_time" if told else None,
        addition_time_embed_dim=16 if told else None,
        projection_class_embeddings_input_dim=96 + 6 * 16 if told else None,
    )


@settings(max_examples=20)
@given(config=unet_configs())
def test_any_unet_is_named_one_to_one_and_told_by_its_names(config):
    expected = shapes_of(config)
    table = ldm_keys.unet_table(config, expected, prefix="")
    named = ldm_keys.shapes(table, expected)
    assert len(named) == len(expected)
    assert {name.rpartition(".")[0] for name in expected} == ldm_keys.unet_modules(config).keys()
    for held, is_original in ((named, True), (expected, False)):
        found = shapes_to_config.unet(
            header(held), is_original, pooled=96, numbers=6, fixed={}, where="a test",
            infer=Report("a test").infer,
        )  # fmt: skip
        assert shapes_of(found) == expected
        assert found.layers == config.layers
        assert found.addition_time_embed_dim == config.addition_time_embed_dim


def test_the_autoencoders_table_covers_the_real_network_and_diffusers_reads_it_back(meta):
    config = VAEConfig(**VAE)
    listed = {key: list(value) if isinstance(value, tuple) else value for key, value in VAE.items()}
    real = meta(lambda: diffusers.AutoencoderKL(**listed))
    table = ldm_keys.vae_table(config, real)
    assert len(real) == 248 == len({origin.key for origin in table.values()})
    assert {ours: origin.key for ours, origin in table.items()} == {
        ours: f"first_stage_model.{_vae(ours, 4)}" for ours in real
    }
    marks = {origin.key: torch.empty(0) for origin in table.values()}
    origins = {id(tensor): key for key, tensor in marks.items()}
    back = peer.convert_ldm_vae_checkpoint(marks, VAE)
    assert {ours: origins[id(tensor)] for ours, tensor in back.items()} == {
        ours: origin.key for ours, origin in table.items()
    }


@pytest.mark.parametrize("layout", ["original", "diffusers"])
@pytest.mark.parametrize("changes", [{}, {"use_quant_conv": False, "use_post_quant_conv": False}])
def test_an_autoencoders_configuration_follows_from_its_names_and_shapes(layout, changes):
    config = VAEConfig(**VAE, **changes, scaling_factor=0.13025, sample_size=1024)
    shapes = shapes_of(config)
    if layout == "original":
        shapes = ldm_keys.shapes(ldm_keys.vae_table(config, shapes, prefix=""), shapes)
    found = shapes_to_config.vae(header(shapes), layout == "original", 0.13025, 1024, "a test")
    assert found == config


@pytest.mark.parametrize("projected", [False, True])
def test_the_text_encoders_table_covers_the_real_network_and_diffusers_reads_it_back(projected, meta):
    sizes = BIG_G | {"projection_dim": 1280, "hidden_act": "gelu"}
    config = TextConfig(**sizes, with_projection=projected)
    kind = CLIPTextModelWithProjection if projected else CLIPTextModel
    real = meta(lambda: kind(CLIPTextConfig(**sizes)))
    real = {name.removeprefix("text_model."): shape for name, shape in real.items()}
    prefix = "conditioner.embedders.1.model."
    table = ldm_keys.open_clip_table(config, real, prefix)
    shapes = ldm_keys.shapes(table, shapes_of(config))
    assert len(real) == 516 + projected
    assert len(shapes) == 32 * 12 + 4 + projected
    assert shapes[f"{prefix}transformer.resblocks.31.attn.in_proj_weight"] == (3840, 1280)
    tensors = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    owner = type("owner", (), {"config": CLIPTextConfig(**sizes)})
    back = peer.convert_open_clip_checkpoint(owner, tensors, prefix=prefix)
    back = {name.removeprefix("text_model."): tuple(tensor.shape) for name, tensor in back.items()}
    assert back == real


def test_what_is_taken_from_a_file_goes_back_as_it_was():
    generator = torch.Generator().manual_seed(1)
    config = TextConfig(
        vocab_size=11, hidden_size=8, intermediate_size=16, projection_dim=6, num_hidden_layers=2,
        num_attention_heads=1, with_projection=True,
    )  # fmt: skip
    vae = VAEConfig(norm_num_groups=4, block_out_channels=(8,))
    for table, expected in (
        (ldm_keys.open_clip_table(config, shapes_of(config), "x."), shapes_of(config)),
        (ldm_keys.vae_table(vae, shapes_of(vae)), shapes_of(vae)),
    ):
        convolutions = {origin.key for origin in table.values() if origin.convolution}
        tensors = {
            key: torch.randn(*shape, *((1, 1) if key in convolutions else ()), generator=generator)
            for key, shape in ldm_keys.shapes(table, expected).items()
        }
        state = ldm_keys.from_file(table, tensors)
        assert expected_shapes(state) == expected
        again = ldm_keys.to_file(table, state)
        assert again.keys() == tensors.keys()
        assert all(torch.equal(again[key], tensors[key]) for key in tensors)


def test_the_tiny_autoencoders_table_is_the_published_numbering(meta):
    config = TinyVAEConfig()
    real = meta(lambda: diffusers.AutoencoderTiny())
    table = ldm_keys.tiny_vae_table(config, real)
    assert table.keys() == real.keys()
    assert table["encoder.layers.0.weight"].key == "taesd_encoder.0.weight"
    assert table["encoder.layers.1.conv.0.weight"].key == "taesd_encoder.1.conv.0.weight"
    assert table["decoder.layers.0.weight"].key == "taesd_decoder.1.weight"
    assert table["decoder.layers.2.conv.4.bias"].key == "taesd_decoder.3.conv.4.bias"
    shapes = ldm_keys.shapes(table, shapes_of(config))
    assert shapes_to_config.tiny_vae(header(shapes), True, "a test") == config
    assert shapes_to_config.tiny_vae(header(real), False, "a test") == config


CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
CLIP_H = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
    "hidden_act": "gelu",
}  # fmt: skip


def published(kind):
    """The names and shapes of every tensor of a published file, with those that nothing reads."""
    first = "conditioner.embedders.0." if kind == "sdxl" else "cond_stage_model."
    second = f"{first}model." if kind == "sd2" else "conditioner.embedders.1.model."
    openai = f"{first}transformer.text_model."
    changes = {"sd2": SD2, "sdxl": SDXL}.get(kind) or UNETS[kind][0]
    parts = [
        (UNetConfig(**changes), ldm_keys.unet_table),
        (VAEConfig(**VAE), ldm_keys.vae_table),
    ]
    if kind == "sd2":
        parts.append((TextConfig(**CLIP_H), partial(ldm_keys.open_clip_table, prefix=second)))
    else:
        parts.append((TextConfig(**CLIP_L), partial(ldm_keys.openai_table, prefix=openai)))
    if kind == "sdxl":
        config = TextConfig(**BIG_G, projection_dim=1280, hidden_act="gelu", with_projection=True)
        parts.append((config, partial(ldm_keys.open_clip_table, prefix=second)))
    found = {} if kind == "sd2" else {f"{openai}embeddings.position_ids": (1, 77)}
    for config, table in parts:
        shapes = shapes_of(config)
        found |= ldm_keys.shapes(table(config, shapes), shapes)
    if kind in ("sd2", "sdxl"):
        found[f"{second}logit_scale"] = ()
    if kind == "sd2":
        found[f"{second}text_projection"] = (1024, 1024)
    return found


@pytest.mark.parametrize(
    ("kind", "tensors", "parameters", "family", "task", "size"),
    [
        ("sd1", 1131, 1_066_235_307, "sd1", "text", (512, 512)),
        ("inpaint", 1131, 1_066_249_707, "sd1", "inpaint", (512, 512)),
        ("instruct", 1131, 1_066_246_827, "sd1", "instruct", (512, 512)),
        ("sd2", 1228, 1_289_952_427, "sd2", "text", (768, 768)),
        ("sdxl", 2515, 3_468_837_867, "sdxl", "text", (1024, 1024)),
    ],
)
def test_files_of_published_size_are_told_by_their_headers(kind, tensors, parameters, family, task, size):
    held = header(published(kind))
    metadata = {"modelspec.prediction_type": "v"} if kind == "sd2" else {}
    report = Report("a test")
    found = single.scan(Path("model.safetensors"), Header(held, metadata, 0, 0), report, {}, set())
    for part in found.parts.values():
        table_of_part(part, shapes_of(part.config))
    schedule = ScheduleConfig.from_dict(found.scheduler, "a test")
    told = model_info(found, schedule, report)
    assert (told.family.name, told.task, told.native_size, told.factor) == (family, task, size, 8)
    assert told.prediction == ("v" if kind == "sd2" else "epsilon")
    assert found.parts["vae"].config.scaling_factor == (0.13025 if kind == "sdxl" else 0.18215)
    layers = [part.config.num_hidden_layers for name, part in found.parts.items() if name.startswith("text")]
    assert layers == {"sd2": [23], "sdxl": [12, 32]}.get(kind, [12])
    assert [tokenizer.pad for tokenizer in found.tokenizers.values()] == {"sd2": [0], "sdxl": [49407, 0]}.get(
        kind, [49407]
    )
    assert len(held) == tensors
    assert sum(info.count for part in found.parts.values() for info in part.tensors.values()) == parameters
