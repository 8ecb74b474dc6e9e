"""The published families: their configurations as released, and narrow ones of the same make."""

import json

import diffusers
import torch

from sfumato.config import UNetConfig
from sfumato.nets.unet import UNet

SD1 = {
    "block_out_channels": [320, 640, 1280, 1280],
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "sample_size": 64,
}
SD2 = {
    **SD1,
    "cross_attention_dim": 1024,
    "attention_head_dim": [5, 10, 20, 20],
    "use_linear_projection": True,
    "sample_size": 96,
}
SD21 = {**SD2, "upcast_attention": True}
SDXL = {
    "block_out_channels": [320, 640, 1280],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "transformer_layers_per_block": [1, 2, 10],
    "cross_attention_dim": 2048,
    "attention_head_dim": [5, 10, 20],
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
    "sample_size": 128,
}
REFINER = {
    **SDXL,
    "block_out_channels": [384, 768, 1536, 1536],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "transformer_layers_per_block": 4,
    "cross_attention_dim": 1280,
    "attention_head_dim": [6, 12, 24, 24],
    "projection_class_embeddings_input_dim": 2560,
}
PUBLISHED_UNETS = {
    "SD 1.5": SD1,
    "SD 1.5 inpainting": {**SD1, "in_channels": 9},
    "InstructPix2Pix": {**SD1, "in_channels": 8},
    "LCM Dreamshaper": {**SD1, "time_cond_proj_dim": 256},
    "SD 2 base": SD2,
    "SD 2.1": SD21,
    "SDXL base": SDXL,
    "SDXL refiner": REFINER,
}

_NARROW = {"norm_num_groups": 8, "cross_attention_dim": 24}
_NARROW4 = {**_NARROW, "block_out_channels": [16, 32, 48, 48]}
_NARROW_TIMES = {"addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 68}
NARROW_UNETS = {
    "SD 1.5": {**SD1, **_NARROW4, "attention_head_dim": 4},
    "SD 1.5 inpainting": {**SD1, **_NARROW4, "attention_head_dim": 4, "in_channels": 9},
    "InstructPix2Pix": {**SD1, **_NARROW4, "attention_head_dim": 4, "in_channels": 8},
    "LCM Dreamshaper": {**SD1, **_NARROW4, "attention_head_dim": 4, "time_cond_proj_dim": 32},
    "SD 2 base": {**SD2, **_NARROW4, "attention_head_dim": [2, 4, 6, 6]},
    "SD 2.1": {**SD21, **_NARROW4, "attention_head_dim": [2, 4, 6, 6]},
    "SDXL base": {
        **SDXL,
        **_NARROW,
        **_NARROW_TIMES,
        "block_out_channels": [16, 32, 48],
        "transformer_layers_per_block": [1, 2, 3],
        "attention_head_dim": [2, 4, 6],
    },
    "SDXL refiner": {
        **REFINER,
        **_NARROW4,
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 60,
        "attention_head_dim": [2, 4, 6, 6],
    },
    "distilled SDXL with transformers of uneven depth": {
        **SDXL,
        **_NARROW,
        **_NARROW_TIMES,
        "block_out_channels": [16, 32, 48],
        "layers_per_block": [2, 2, 1],
        "transformer_layers_per_block": [1, [2, 1], [2]],
        "reverse_transformer_layers_per_block": [[2, 1], [1, 2, 1], 1],
        "attention_head_dim": [2, 4, 6],
    },
    "embedded-like": {
        **_NARROW,
        "block_out_channels": [16, 24],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
        "attention_head_dim": [2, 3],
        "layers_per_block": 1,
        "use_linear_projection": True,
    },
    "no text in the middle": {**SD1, **_NARROW4, "attention_head_dim": 4, "mid_block_type": "UNetMidBlock2D"},
    "no middle": {**SD1, **_NARROW4, "attention_head_dim": 4, "mid_block_type": None},
    "text on the way up only": {
        **_NARROW,
        "block_out_channels": [16, 24],
        "down_block_types": ["DownBlock2D", "DownBlock2D"],
        "mid_block_type": "UNetMidBlock2D",
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
        "attention_head_dim": 2,
        "layers_per_block": 1,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
        "time_embedding_dim": 40,
    },
}

_LEVELS4 = {
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
}
PUBLISHED_VAES = {
    "SD": {**_LEVELS4, "block_out_channels": [128, 256, 512, 512], "sample_size": 512},
    "SDXL": {
        **_LEVELS4,
        "block_out_channels": [128, 256, 512, 512],
        "scaling_factor": 0.13025,
        "sample_size": 1024,
    },
}
_NARROW_VAE = {**_LEVELS4, "block_out_channels": [8, 16, 24, 24], "norm_num_groups": 4}
NARROW_VAES = {
    "SD": _NARROW_VAE,
    "SDXL": {**_NARROW_VAE, "scaling_factor": 0.13025, "force_upcast": True},
    "without attention": {**_NARROW_VAE, "mid_block_add_attention": False, "layers_per_block": 1},
    "without quantising convolutions": {
        **_NARROW_VAE,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
        "latent_channels": 16,
        "shift_factor": 0.1159,
    },
    "of two levels": {
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
        "block_out_channels": [8, 16],
        "norm_num_groups": 4,
    },
}

_CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "projection_dim": 768}
_CLIP_G = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_attention_heads": 20,
    "num_hidden_layers": 32,
    "projection_dim": 1280,
    "hidden_act": "gelu",
}
PUBLISHED_TEXTS = {
    "SD 1.5": {**_CLIP_L, "eos_token_id": 2},
    "SD 2.1": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_hidden_layers": 23,
        "hidden_act": "gelu",
        "eos_token_id": 2,
    },
    "SDXL first": {**_CLIP_L, "eos_token_id": 2},
    "SDXL second": {**_CLIP_G, "eos_token_id": 2, "architectures": ["CLIPTextModelWithProjection"]},
}
_NARROW_TEXT = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_attention_heads": 3,
    "num_hidden_layers": 4,
    "vocab_size": 100,
    "projection_dim": 20,
    "bos_token_id": 98,
    "eos_token_id": 99,
}
NARROW_TEXTS = {
    "SD 1.5": {**_NARROW_TEXT, "eos_token_id": 2},
    "SD 1.5 with its true end": _NARROW_TEXT,
    "SD 2.1": {**_NARROW_TEXT, "hidden_act": "gelu", "num_hidden_layers": 5},
    "SDXL second": {
        **_NARROW_TEXT,
        "hidden_act": "gelu",
        "eos_token_id": 2,
        "architectures": ["CLIPTextModelWithProjection"],
    },
}


def stirred(model, seed=0):
    """`model` ready to answer, its norms and biases random too, so that each of them counts."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def pair(family):
    torch.manual_seed(0)
    theirs = stirred(diffusers.UNet2DConditionModel(**NARROW_UNETS[family]))
    ours = UNet(UNetConfig.from_dict(NARROW_UNETS[family], family)).eval()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def ours_of(family):
    return pair(family)[0]


def shapes(model):
    """Key to shape, text encoders without the prefix that only some of their files have."""
    return {key.removeprefix("text_model."): tuple(t.shape) for key, t in model.state_dict().items()}


def norms(model):
    """Name to what a normalisation adds to the variance: too little to show in any answer."""
    found = {name.removeprefix("text_model."): getattr(m, "eps", None) for name, m in model.named_modules()}
    return {name: eps for name, eps in found.items() if eps is not None}


def published(config):
    """What a library's configuration would be in a file."""
    return json.loads(json.dumps({key: value for key, value in config.items() if not key.startswith("_")}))


def assert_close(ours, theirs, tolerance=1e-4):
    """Equal to `tolerance` of the largest number."""
    assert ours.shape == theirs.shape
    assert torch.isfinite(ours).all()
    error = ((ours - theirs).abs().max() / theirs.abs().max()).item()
    assert error <= tolerance, f"off by {error:.2e} of the largest number"
