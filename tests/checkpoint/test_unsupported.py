"""What is no model that can be loaded is named by what it is, as a folder and as a single file."""

import json
import re

import diffusers
import pytest
import safetensors.torch
import torch

from sfumato import checkpoint
from sfumato.checkpoint.unsupported import family_of_classes
from sfumato.errors import CheckpointError


def refusal(source):
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(source)
    told = str(caught.value)
    assert "\n" not in told
    assert "did you mean" not in told
    return told


@pytest.mark.parametrize(
    ("pipeline", "family"),
    [
        ("StableDiffusion3Pipeline", "Stable Diffusion 3"),
        ("FluxPipeline", "Flux"),
        ("FluxKontextPipeline", "Flux"),
        ("StableCascadeDecoderPipeline", "Stable Cascade"),
        ("StableCascadePriorPipeline", "Stable Cascade"),
        ("WuerstchenPriorPipeline", "Würstchen"),
        ("AnimateDiffPipeline", "AnimateDiff"),
        ("AnimateDiffSDXLPipeline", "AnimateDiff"),
        ("I2VGenXLPipeline", "I2VGen-XL"),
        ("StableDiffusionUpscalePipeline", "the x4 upscaler of Stable Diffusion 2"),
        ("StableDiffusionLatentUpscalePipeline", "the latent upscaler"),
        ("StableDiffusionDepth2ImgPipeline", "Stable Diffusion 2 with a depth map"),
        ("StableDiffusionLDM3DPipeline", "LDM3D"),
        ("StableDiffusionGLIGENPipeline", "GLIGEN"),
        ("StableUnCLIPPipeline", "Stable unCLIP"),
        ("KandinskyV22Pipeline", "Kandinsky"),
        ("Kandinsky3Pipeline", "Kandinsky"),
        ("PixArtAlphaPipeline", "PixArt"),
        ("PixArtSigmaPipeline", "PixArt"),
        ("HunyuanDiTPipeline", "HunyuanDiT"),
        ("HunyuanVideoPipeline", "HunyuanVideo"),
        ("LuminaPipeline", "Lumina"),
        ("Lumina2Pipeline", "Lumina 2"),
        ("SanaPipeline", "Sana"),
        ("AuraFlowPipeline", "AuraFlow"),
        ("IFPipeline", "DeepFloyd IF"),
        ("IFSuperResolutionPipeline", "DeepFloyd IF"),
        ("KolorsPipeline", "Kolors"),
        ("QwenImagePipeline", "Qwen-Image"),
        ("ZImagePipeline", "Z-Image"),
        ("CogView4Pipeline", "CogView"),
        ("MarigoldDepthPipeline", "Marigold"),
        ("StableDiffusionControlNetPipeline", "a ControlNet"),
        ("StableDiffusionXLControlNetPipeline", "a ControlNet"),
        ("StableDiffusionAdapterPipeline", "a T2I-Adapter"),
        ("OnnxStableDiffusionPipeline", "an ONNX export"),
        ("FlaxStableDiffusionPipeline", "weights for Flax"),
    ],
)
def test_a_folder_of_another_family_is_named_by_its_pipeline(pipeline, family, tmp_path):
    index = {"_class_name": pipeline, "unet": ["diffusers", "UNet2DConditionModel"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    told = refusal(tmp_path)
    assert f"model_index.json: {family}" in told
    assert "is not supported; supported are Stable Diffusion 1, 2 and XL" in told


def test_pipelines_of_the_supported_families_are_none_of_the_others():
    names = [name for name in dir(diffusers) if name.endswith("Pipeline")]
    for kind in ("", "Img2Img", "Inpaint", "PAG", "SAG", "InstructPix2Pix", "Panorama", "AttendAndExcite"):
        for family in ("StableDiffusion", "StableDiffusionXL"):
            assert family_of_classes([f"{family}{kind}Pipeline"]) is None
    assert family_of_classes(["LatentConsistencyModelPipeline"]) is None
    unknown = [name for name in names if family_of_classes([name]) is None]
    assert len(unknown) < len(names) / 3


@pytest.mark.parametrize(
    ("component", "family"),
    [
        ("SD3Transformer2DModel", "Stable Diffusion 3"),
        ("FluxTransformer2DModel", "Flux"),
        ("UNetMotionModel", "AnimateDiff"),
        ("AutoencoderDC", "Sana"),
    ],
)
def test_a_folder_without_a_pipelines_class_is_named_by_its_networks(component, family, tmp_path):
    index = {"_class_name": "DiffusionPipeline", "transformer": ["diffusers", component]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    assert f"{family}" in refusal(tmp_path)


def test_a_component_of_no_known_family_is_named_with_its_class(tmp_path):
    index = {"_class_name": "MyPipeline", "brain": ["mine", "Brain"], "unet": ["diffusers", "UNet3D"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    assert "a model with brain ('Brain') is not supported; supported are" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"_class_name": "ControlNetModel"}, "it is a ControlNet: give it beside a model, with --control"),
        ({"_class_name": "T2IAdapter"}, "it is a T2I-Adapter: give it beside a model, with --control"),
        ({"_class_name": "MotionAdapter"}, "it is AnimateDiff"),
        ({"_class_name": "SD3Transformer2DModel"}, "it is Stable Diffusion 3"),
        ({"_class_name": "AutoencoderKL"}, "it is a VAE alone: give it beside a model, with --vae"),
        ({"_class_name": "UNet2DConditionModel"}, "of a UNet's folder, load the .safetensors file"),
    ],
)
def test_a_folder_of_one_network_is_named_by_its_class(config, told, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert told in refusal(tmp_path)


def test_a_folder_that_holds_something_else_says_what_to_name_instead(tmp_path):
    assert "it has no model_index.json" in refusal(tmp_path)
    (tmp_path / "dreamy.safetensors").touch()
    assert "of its single files, load one by its name: dreamy.safetensors" in refusal(tmp_path)
    (tmp_path / "adapter_config.json").touch()
    assert "it is a LoRA's folder: use it with --lora" in refusal(tmp_path)
    (tmp_path / "snapshots").mkdir()
    assert "it is the hub cache's folder of a repository" in refusal(tmp_path)


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
@pytest.mark.parametrize(
    ("names", "family"),
    [
        (["joint_blocks.0.context_block.attn.qkv.weight"], "Stable Diffusion 3"),
        (["transformer_blocks.0.attn.add_k_proj.weight"], "Stable Diffusion 3"),
        (["double_blocks.0.img_attn.qkv.weight"], "Flux"),
        (["single_transformer_blocks.0.attn.to_k.weight", "transformer_blocks.0.attn.to_k.weight"], "Flux"),
        (["double_stream_modulation_img.lin.weight", "double_blocks.0.x.weight"], "Flux"),
        (["distilled_guidance_layer.in_proj.bias", "double_blocks.0.x.weight"], "Chroma"),
        (["txt_in.individual_token_refiner.blocks.0.x.bias", "double_blocks.0.x.weight"], "HunyuanVideo"),
        (["down_blocks.1.0.channelwise.0.weight"], "Stable Cascade"),
        (["clip_txt_mapper.weight"], "Stable Cascade"),
        (["down_blocks.0.motion_modules.0.temporal_transformer.norm.bias"], "an AnimateDiff motion module"),
        (["input_blocks.0.0.weight", "label_emb.weight"], "the x4 upscaler of Stable Diffusion 2"),
        (["mlp_t5.0.weight", "pooler.q_proj.weight"], "HunyuanDiT"),
        (["cap_embedder.0.weight", "noise_refiner.0.attention.qkv.weight"], "Lumina 2"),
        (["cap_embedder.0.weight", "layers.0.attention.wk_y.weight"], "Lumina"),
        (["attention_y_norm.weight", "y_embedder.y_proj.fc1.weight"], "Sana"),
        (["y_embedder.y_proj.fc1.weight", "blocks.0.cross_attn.q_linear.weight"], "PixArt"),
        (["adaln_single.linear.weight", "transformer_blocks.0.attn1.to_k.weight"], "PixArt"),
        (["double_layers.0.attn.w2q.weight", "cond_seq_linear.weight"], "AuraFlow"),
        (["conv_in.weight", "encoder_hid_proj.image_embeds.weight"], "Kandinsky"),
        (["conv_in.weight", "add_embedding.pool.k_proj.weight"], "DeepFloyd IF"),
        (["patchify_proj.weight", "transformer_blocks.27.scale_shift_table"], "LTX-Video"),
    ],
)
def test_a_file_of_another_family_is_named_by_its_tensors(prefix, names, family, tmp_path):
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file({prefix + name: torch.zeros(1) for name in names}, path)
    belongs = "(, which is not supported|: give it beside a model, with --control)"
    assert re.search(f"model.safetensors is {family}\\b.*{belongs}", refusal(path))


@pytest.mark.parametrize(
    ("names", "family"),
    [
        (["control_model.input_blocks.0.0.weight"], "a ControlNet"),
        (["controlnet_cond_embedding.conv_in.weight", "conv_in.weight"], "a ControlNet"),
        (["lora_controlnet", "input_hint_block.0.weight", "input_blocks.0.0.weight"], "a ControlNet"),
        (["adapter.body.0.resnets.0.block1.weight"], "a T2I-Adapter"),
        (["body.0.block1.weight", "conv_in.weight"], "a T2I-Adapter"),
        (["image_proj.proj.weight", "ip_adapter.1.to_k_ip.weight"], "an IP-Adapter"),
        (["image_proj.proj.weight", "ip_adapter.0.to_q_lora.down.weight"], "an IP-Adapter"),
        (["model.0.weight", "model.1.sub.0.RDB1.conv1.0.weight"], "an upscaler of pictures"),
        (["conv_first.weight", "body.0.rdb1.conv1.weight"], "an upscaler of pictures"),
        (["encoder.block.0.layer.0.SelfAttention.q.weight", "shared.weight"], "a T5 text encoder"),
        (["vision_model.post_layernorm.weight"], "an image encoder"),
        (["model.layers.0.self_attn.q_proj.weight"], "a language model"),
    ],
)
def test_a_file_that_belongs_beside_a_model_is_named_by_its_tensors(names, family, tmp_path):
    path = tmp_path / "other.safetensors"
    safetensors.torch.save_file({name: torch.zeros(1) for name in names}, path)
    assert f"other.safetensors is {family}" in refusal(path)
