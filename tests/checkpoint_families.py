"""Small random pipelines of every published family, made by diffusers and transformers themselves."""

import json

import diffusers
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from sfumato.checkpoint import embedded

FAMILIES = ("sd1", "sd2", "sdxl", "refiner", "inpaint", "instruct", "lcm")
BETAS = {"steps_offset": 1, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def text_encoder(width, *, projection=False, act="quick_gelu"):
    config = CLIPTextConfig(
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=3,
        num_attention_heads=2,
        projection_dim=20,
        vocab_size=6332,
        bos_token_id=6330,
        eos_token_id=6331,
        hidden_act=act,
    )
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config).eval()


def autoencoder():
    return diffusers.AutoencoderKL(
        block_out_channels=[8, 16],
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        norm_num_groups=4,
        sample_size=16,
    ).eval()


def unet(**changes):
    return diffusers.UNet2DConditionModel(
        **{
            "sample_size": 8,
            "block_out_channels": [8, 16],
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
            "layers_per_block": 1,
            "norm_num_groups": 4,
            "attention_head_dim": 2,
            "cross_attention_dim": 24,
            **changes,
        }
    ).eval()


def tokenizer(**options):
    return CLIPTokenizer.from_pretrained(embedded() / "tokenizer", **options)


def give_scheduler(folder, content):
    """Write a scheduler's configuration into a model's folder, and its class into the index."""
    index = json.loads((folder / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", content["_class_name"]]
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(content))


def pipeline(family):
    """One family's pipeline, the same at every call."""
    torch.manual_seed(FAMILIES.index(family))
    parts = {"vae": autoencoder(), "scheduler": diffusers.DDIMScheduler(clip_sample=False, **BETAS)}
    if family in ("sdxl", "refiner"):
        size = {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "use_linear_projection": True,
        }
        parts["text_encoder_2"] = text_encoder(16, projection=True, act="gelu")
        parts["tokenizer_2"] = tokenizer(pad_token="!")
        if family == "refiner":
            parts["unet"] = unet(cross_attention_dim=16, projection_class_embeddings_input_dim=60, **size)
            return diffusers.StableDiffusionXLImg2ImgPipeline(
                text_encoder=None, tokenizer=None, requires_aesthetics_score=True, **parts
            )
        parts |= {"text_encoder": text_encoder(8), "tokenizer": tokenizer()}
        parts["unet"] = unet(projection_class_embeddings_input_dim=68, **size)
        return diffusers.StableDiffusionXLPipeline(add_watermarker=False, **parts)
    parts |= {"text_encoder": text_encoder(24), "tokenizer": tokenizer()}
    none = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    match family:
        case "sd1":
            return diffusers.StableDiffusionPipeline(unet=unet(), **parts, **none)
        case "sd2":
            parts["tokenizer"] = tokenizer(pad_token="!")
            parts["text_encoder"] = text_encoder(24, act="gelu")
            parts["scheduler"] = diffusers.EulerDiscreteScheduler(prediction_type="v_prediction", **BETAS)
            net = unet(use_linear_projection=True, attention_head_dim=[2, 4], upcast_attention=True)
            return diffusers.StableDiffusionPipeline(unet=net, **parts, **none)
        case "inpaint":
            return diffusers.StableDiffusionInpaintPipeline(unet=unet(in_channels=9), **parts, **none)
        case "instruct":
            net = unet(in_channels=8)
            return diffusers.StableDiffusionInstructPix2PixPipeline(unet=net, **parts, **none)
        case "lcm":
            parts["scheduler"] = diffusers.LCMScheduler()
            net = unet(time_cond_proj_dim=32)
            return diffusers.LatentConsistencyModelPipeline(unet=net, **parts, **none)
