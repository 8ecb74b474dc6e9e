"""Small random models of the families that adapters are made for: diffusers' own, and ours like them."""

import diffusers
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from sfumato.config import TextConfig, UNetConfig
from sfumato.nets.inputs import SizeConditioning
from sfumato.nets.text import CLIPText
from sfumato.nets.unet import UNet

FAMILIES = ("sd1", "sd2", "sdxl")
SD1 = {
    "sample_size": 8,
    "block_out_channels": [8, 16],
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "layers_per_block": 2,
    "norm_num_groups": 4,
    "attention_head_dim": 2,
    "cross_attention_dim": 24,
}
UNETS = {
    "sd1": SD1,
    "sd2": SD1 | {"use_linear_projection": True, "attention_head_dim": [2, 4], "cross_attention_dim": 32},
    "sdxl": SD1
    | {
        "block_out_channels": [8, 16, 16],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "transformer_layers_per_block": [1, 1, 2],
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 68,
        "cross_attention_dim": 40,
    },
}
SCHEDULER = diffusers.DDIMScheduler(clip_sample=False, steps_offset=1)
TEXTS = {"sd1": [24], "sd2": [32], "sdxl": [24, 16]}


def text_config(width, projection):
    return CLIPTextConfig(
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=20,
        vocab_size=100,
        bos_token_id=98,
        eos_token_id=99,
        hidden_act="gelu" if projection else "quick_gelu",
    )


def pipeline(family):
    """A pipeline that holds what adapters change, the same at every call."""
    torch.manual_seed(FAMILIES.index(family))
    nothing = dict.fromkeys(("vae", "tokenizer"))
    encoders = [
        (CLIPTextModelWithProjection if second else CLIPTextModel)(text_config(width, bool(second))).eval()
        for second, width in enumerate(TEXTS[family])
    ]
    unet = diffusers.UNet2DConditionModel(**UNETS[family]).eval()
    parts = {"unet": unet, "text_encoder": encoders[0], "scheduler": SCHEDULER, **nothing}
    if family == "sdxl":
        return diffusers.StableDiffusionXLPipeline(
            text_encoder_2=encoders[1], tokenizer_2=None, add_watermarker=False, **parts
        )
    return diffusers.StableDiffusionPipeline(
        safety_checker=None, feature_extractor=None, requires_safety_checker=False, **parts
    )


def theirs(pipe):
    """The pipeline's networks by their places."""
    names = ("unet", "text_encoder", "text_encoder_2")
    return {name: net for name in names if (net := getattr(pipe, name, None)) is not None}


def ours(pipe):
    """Our networks with the same numbers, by the same places."""
    made = {}
    for name, net in theirs(pipe).items():
        content = dict(net.config) if name == "unet" else net.config.to_dict()
        content = {key: value for key, value in content.items() if not key.startswith("_")}
        if name == "unet":
            own = UNet(UNetConfig.from_dict(content, name))
        else:
            content["architectures"] = [type(net).__name__]
            own = CLIPText(TextConfig.from_dict(content, name))
        state = {key.removeprefix("text_model."): tensor for key, tensor in net.state_dict().items()}
        own.load_state_dict({key: state[key] for key in own.state_dict()})
        made[name] = own.eval().requires_grad_(False)
    return made


def question(family, seed=0):
    """What to ask the UNet: a latent, times, text, and what SDXL is told besides."""
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape):
        return torch.randn(shape, generator=generator)

    added = None
    if family == "sdxl":
        added = SizeConditioning(randn(2, 20), torch.tensor([[64.0, 64, 0, 0, 64, 64]] * 2))
    return (
        randn(2, 4, 8, 8),
        torch.tensor([10.0, 500.0]),
        randn(2, 7, UNETS[family]["cross_attention_dim"]),
        added,
    )


@torch.no_grad()
def ask_ours(networks, family):
    """The answers of every network."""
    return [networks["unet"](*question(family))] + [
        networks[name](ids()).states for name in networks if name != "unet"
    ]


@torch.no_grad()
def ask_theirs(pipe, family):
    """The same of diffusers' and transformers'."""
    x, t, states, added = question(family)
    told = added and {"text_embeds": added.pooled, "time_ids": added.ids}
    nets = theirs(pipe)
    return [nets["unet"](x, t, states, added_cond_kwargs=told).sample] + [
        nets[name](ids(), output_hidden_states=True).last_hidden_state for name in nets if name != "unet"
    ]


def ids():
    generator = torch.Generator().manual_seed(1)
    found = torch.randint(0, 97, (2, 9), generator=generator)
    found[:, 0], found[:, -1] = 98, 99
    return found


def assert_same_answers(ours, theirs, tolerance=1e-4):
    for own, other in zip(ours, theirs, strict=True):
        error = ((own - other).abs().max() / other.abs().max()).item()
        assert error <= tolerance, f"off by {error:.2e} of the largest number"


def assert_same_bits(ours, theirs):
    assert all(torch.equal(own, other) for own, other in zip(ours, theirs, strict=True))


def differ(ours, theirs):
    """Whether every network answers differently by more than error."""
    return all(
        (own - other).abs().max() > 1e-3 * other.abs().max() for own, other in zip(ours, theirs, strict=True)
    )
