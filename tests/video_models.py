"""Small random pipelines of clips, made by diffusers itself, and Stable Video Diffusion in one file.

Names in the file follow rules of their own, not the tables under test. Widths are multiples of what files
leave unsaid: heads of 64 channels in the UNet, 16 heads in the image encoder, 32 groups in the autoencoder.
"""

import re

import diffusers
import safetensors.torch
import torch
from checkpoint_families import BETAS, text_encoder, tokenizer
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection


def stable_video_diffusion(seed=0, **changes):
    """`changes`: of the UNet's configuration."""
    torch.manual_seed(seed)
    unet = diffusers.UNetSpatioTemporalConditionModel(
        **{
            "block_out_channels": [64, 128],
            "down_block_types": ["CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"],
            "up_block_types": ["UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"],
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 24,
            "cross_attention_dim": 16,
            "num_attention_heads": [1, 2],
            "num_frames": 14,
            "sample_size": 96,
            **changes,
        }
    )
    for name, parameter in unet.named_parameters():
        if name.endswith("mix_factor"):
            torch.nn.init.normal_(parameter)
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        projection_dim=16,
        num_hidden_layers=2,
        num_attention_heads=16,
        image_size=224,
        patch_size=56,
        hidden_act="gelu",
    )
    return diffusers.StableVideoDiffusionPipeline(
        unet=unet.eval(),
        vae=temporal_autoencoder(),
        image_encoder=CLIPVisionModelWithProjection(vision).eval(),
        feature_extractor=CLIPImageProcessor(crop_size=224, size=224),
        scheduler=diffusers.EulerDiscreteScheduler(
            prediction_type="v_prediction",
            timestep_type="continuous",
            use_karras_sigmas=True,
            sigma_min=0.002,
            sigma_max=700.0,
            timestep_spacing="leading",
            **BETAS,
        ),
    )


def temporal_autoencoder():
    return diffusers.AutoencoderKLTemporalDecoder(
        block_out_channels=[32, 64],
        down_block_types=["DownEncoderBlock2D"] * 2,
        layers_per_block=2,
        sample_size=768,
    ).eval()


def modelscope(seed=0):
    torch.manual_seed(seed)
    unet = diffusers.UNet3DConditionModel(
        block_out_channels=[16, 32],
        down_block_types=["CrossAttnDownBlock3D", "DownBlock3D"],
        up_block_types=["UpBlock3D", "CrossAttnUpBlock3D"],
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=24,
        attention_head_dim=8,
        sample_size=8,
    )
    for name, parameter in unet.named_parameters():
        if ".conv4." in name:  # they begin at zero
            torch.nn.init.normal_(parameter, std=0.1)
    vae = diffusers.AutoencoderKL(
        block_out_channels=[8, 16],
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        norm_num_groups=4,
        sample_size=16,
    )
    return diffusers.TextToVideoSDPipeline(
        unet=unet.eval(),
        vae=vae.eval(),
        text_encoder=text_encoder(24, act="gelu"),
        tokenizer=tokenizer(pad_token="!"),
        scheduler=diffusers.DDIMScheduler(clip_sample=False, set_alpha_to_one=False, **BETAS),
    )


PIPELINES = {"svd": stable_video_diffusion, "modelscope": modelscope}


def original(pipe):
    """Stable Video Diffusion's tensors as published in one file, with what nobody reads."""
    layers = pipe.unet.config.layers_per_block
    tensors = {
        f"model.diffusion_model.{original_unet_name(name, layers)}": tensor
        for name, tensor in pipe.unet.state_dict().items()
    }
    for name, tensor in pipe.vae.state_dict().items():
        renamed = original_vae_name(name, len(pipe.vae.config.block_out_channels))
        matrix = re.search(r"attn_1\.(q|k|v|proj_out)\.weight", renamed)
        tensors[renamed] = tensor[..., None, None] if matrix else tensor
    tensors |= open_clip_vision(pipe.image_encoder)
    tensors["first_stage_model.encoder.conv_in.weight"] = torch.ones(1)
    tensors["conditioner.embedders.3.encoder.decoder.conv_in.weight"] = torch.ones(1)
    tensors["conditioner.embedders.3.encoder.post_quant_conv.weight"] = torch.ones(1)
    tensors["conditioner.embedders.0.open_clip.model.logit_scale"] = torch.ones(1)
    return {name: tensor.contiguous().clone() for name, tensor in tensors.items()}


def write(pipe, path):
    safetensors.torch.save_file(original(pipe), path)
    return path


def original_unet_name(name, layers):
    for ours, theirs in (
        ("time_embedding.linear_1", "time_embed.0"), ("time_embedding.linear_2", "time_embed.2"),
        ("add_embedding.linear_1", "label_emb.0.0"), ("add_embedding.linear_2", "label_emb.0.2"),
        ("conv_norm_out", "out.0"), ("conv_out", "out.2"),
    ):  # fmt: skip
        name = re.sub(f"^{re.escape(ours)}", theirs, name)
    name = re.sub("^conv_in", "input_blocks.0.0", name)
    if match := re.match(r"mid_block\.(resnets|attentions)\.(\d)\.(.*)", name):
        kind, place, rest = match.groups()
        return f"middle_block.{2 * int(place) if kind == 'resnets' else 1}.{_inside(rest, kind)}"
    if not (match := re.match(r"(down|up)_blocks\.(\d)\.(\w+)\.(\d)\.(.*)", name)):
        return name
    way, level, kind, layer, rest = match.groups()
    level, layer = int(level), int(layer)
    if kind == "downsamplers":
        return f"input_blocks.{(layers + 1) * (level + 1)}.0.op.{rest.removeprefix('conv.')}"
    if kind == "upsamplers":
        return f"output_blocks.{(layers + 1) * level + layers}.{1 + (level > 0)}.{rest}"
    column = 0 if kind == "resnets" else 1
    if way == "down":
        return f"input_blocks.{1 + (layers + 1) * level + layer}.{column}.{_inside(rest, kind)}"
    return f"output_blocks.{(layers + 1) * level + layer}.{column}.{_inside(rest, kind)}"


def _inside(name, kind):
    if kind == "resnets":
        for ours, theirs in (
            ("norm1.", "in_layers.0."), ("conv1.", "in_layers.2."), ("time_emb_proj.", "emb_layers.1."),
            ("norm2.", "out_layers.0."), ("conv2.", "out_layers.3."), ("conv_shortcut.", "skip_connection."),
        ):  # fmt: skip
            name = name.replace(ours, theirs)
        return name.replace("spatial_res_block.", "").replace("temporal_res_block.", "time_stack.")
    name = name.replace("temporal_transformer_blocks.", "time_stack.")
    return name.replace("pos_embed.linear_1", "pos_embed.0").replace("pos_embed.linear_2", "pos_embed.2")


def original_vae_name(name, deep):
    half = "first_stage_model." if name.startswith("decoder.") else "conditioner.embedders.3.encoder."
    if "temporal_res_block" in name:
        for ours, theirs in (
            ("norm1", "in_layers.0"), ("conv1", "in_layers.2"),
            ("norm2", "out_layers.0"), ("conv2", "out_layers.3"),
        ):  # fmt: skip
            name = name.replace(ours, theirs)
    for ours, theirs in (
        ("spatial_res_block.", ""), ("temporal_res_block", "time_stack"), ("time_mixer.", ""),
        ("time_conv_out", "conv_out.time_mix_conv"),
        ("conv_shortcut", "nin_shortcut"), ("downsamplers.0", "downsample"), ("upsamplers.0", "upsample"),
        ("mid_block.resnets.0", "mid.block_1"), ("mid_block.resnets.1", "mid.block_2"),
        ("mid_block.attentions.0", "mid.attn_1"), ("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"),
        ("to_v", "v"), ("to_out.0", "proj_out"), ("conv_norm_out", "norm_out"), (".resnets.", ".block."),
        ("down_blocks", "down"),
    ):  # fmt: skip
        name = name.replace(ours, theirs)
    return half + re.sub(r"up_blocks\.(\d)", lambda match: f"up.{deep - 1 - int(match[1])}", name)


def open_clip_vision(encoder, prefix="conditioner.embedders.0.open_clip.model.visual."):
    state, found = encoder.state_dict(), {}
    for name in list(state):
        renamed = name.removeprefix("vision_model.")
        for ours, theirs in (
            ("embeddings.class_embedding", "class_embedding"), ("embeddings.patch_embedding", "conv1"),
            ("embeddings.position_embedding.weight", "positional_embedding"), ("pre_layrnorm", "ln_pre"),
            ("post_layernorm", "ln_post"), ("visual_projection.weight", "proj"),
            ("encoder.layers", "transformer.resblocks"), ("layer_norm1", "ln_1"), ("layer_norm2", "ln_2"),
            ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj"), ("self_attn.out_proj", "attn.out_proj"),
        ):  # fmt: skip
            renamed = renamed.replace(ours, theirs)
        if match := re.fullmatch(r"(.*)\.self_attn\.q_proj\.(weight|bias)", renamed):
            parts = [state[name.replace("q_proj", f"{each}_proj")] for each in "qkv"]
            found[f"{prefix}{match[1]}.attn.in_proj_{match[2]}"] = torch.cat(parts)
        elif "self_attn" not in renamed:
            found[f"{prefix}{renamed}"] = state[name].t() if renamed == "proj" else state[name]
    return found
