"""Models of clips: diffusers' folders, Stable Video Diffusion in one file, and what is refused by name."""

import json

import diffusers
import pytest
import safetensors.torch
import torch
from video_models import PIPELINES, original, stable_video_diffusion, write

import sfumato
from sfumato import checkpoint
from sfumato.checkpoint import convert, ldm_keys
from sfumato.checkpoint.loading import empty_network
from sfumato.config import TemporalVAEConfig, UNetSpatioTemporalConfig, VisionConfig
from sfumato.diffusion.level import VarianceExploding
from sfumato.errors import CheckpointError, UsageError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder that diffusers made of a pipeline."""
    made = {}

    def get(kind):
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp("clips") / kind
            PIPELINES[kind]().save_pretrained(made[kind])
        return made[kind]

    return get


def same_networks(model, other):
    assert model.networks.keys() == other.networks.keys()
    for name, network in model.networks.items():
        state = other.networks[name].state_dict()
        assert other.networks[name].config == network.config
        assert all(torch.equal(state[key], tensor) for key, tensor in network.state_dict().items()), name


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def edited(folder, tmp_path, file, **changes):
    """A copy of a model's folder with other settings in one of its files."""
    for path in folder.rglob("*"):
        if path.is_file():
            place = tmp_path / "edited" / path.relative_to(folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes())
    path = tmp_path / "edited" / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return tmp_path / "edited"


def test_stable_video_diffusions_folder_is_told_by_its_files(folder):
    model = checkpoint.load(folder("svd"))
    assert (model.kind, model.task, model.prediction) == ("svd", "animate", "edm-v:1")
    assert (model.native_size, model.info.frames) == ((1024, 576), 14)
    path = model.path()
    assert isinstance(path, VarianceExploding)
    assert (path.sigma_min, path.sigma_max) == (0.002, 700.0)
    assert (model.defaults.sampler, model.defaults.spacing, model.defaults.steps) == ("euler", "karras", 25)
    assert model.text_encoders == model.tokenizers == []
    assert model.vision is not None


def test_levels_of_stable_video_diffusion_are_those_of_its_scheduler(folder):
    model = checkpoint.load(folder("svd"))
    scheduler = diffusers.EulerDiscreteScheduler.from_pretrained(folder("svd") / "scheduler")
    scheduler.set_timesteps(25)
    levels = model.levels("karras", 25)
    sigmas = torch.tensor([level.sigma for level in levels])
    assert torch.allclose(sigmas, scheduler.sigmas, rtol=1e-5)
    times = torch.tensor([level.t for level in levels[:-1]])
    assert torch.allclose(times, scheduler.timesteps, atol=1e-5)


def test_modelscopes_folder_is_told_by_its_files(folder):
    model = checkpoint.load(folder("modelscope"))
    assert (model.kind, model.task, model.prediction) == ("modelscope", "text", "epsilon")
    assert (model.native_size, model.info.frames) == ((16, 16), 16)
    assert len(model.text_encoders) == 1


@pytest.mark.parametrize("kind", PIPELINES)
def test_a_folder_of_clips_written_again_is_read_by_diffusers(kind, folder, tmp_path):
    convert(folder(kind), tmp_path / "again")
    same_networks(checkpoint.load(folder(kind)), checkpoint.load(tmp_path / "again"))
    ours = type(PIPELINES[kind]()).from_pretrained(tmp_path / "again")
    theirs = type(PIPELINES[kind]()).from_pretrained(folder(kind))
    for name in ours.components:
        if isinstance(getattr(theirs, name), torch.nn.Module):
            state = getattr(ours, name).state_dict()
            for key, tensor in getattr(theirs, name).state_dict().items():
                assert torch.equal(state[key], tensor), (name, key)
    assert ours.scheduler.config == theirs.scheduler.config


def test_stable_video_diffusion_in_one_file_equals_its_folder(folder, tmp_path):
    file = write(stable_video_diffusion(), tmp_path / "svd.safetensors")
    model, alone = checkpoint.load(folder("svd")), checkpoint.load(file)
    same_networks(model, alone)
    assert (alone.kind, alone.task, alone.prediction) == ("svd", "animate", "edm-v:1")
    assert alone.native_size == (1024, 576)
    assert alone.levels("karras", 25) == model.levels("karras", 25)
    told = {found.what: found.reason for found in checkpoint.inspect(file).inferences}
    assert told["frames"] == "as the published model; the one of 25 has 'xt' in its name"


def test_frames_of_one_file_are_told_by_its_name(tmp_path):
    file = write(stable_video_diffusion(), tmp_path / "svd_xt_1_1.safetensors")
    assert checkpoint.load(file).info.frames == 25


def test_stable_video_diffusions_folder_becomes_a_file_and_that_the_same_folder_again(folder, tmp_path):
    first, second, file = tmp_path / "first", tmp_path / "second", tmp_path / "clips.safetensors"
    convert(folder("svd"), first)
    convert(first, file)
    convert(file, second)
    assert content(second) == content(first)
    ours, theirs = safetensors.torch.load_file(file), original(stable_video_diffusion())
    unread = theirs.keys() - ours.keys()
    assert len(unread) == 4
    assert ours.keys() < theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_modelscope_is_not_written_as_one_file(folder, tmp_path):
    with pytest.raises(UsageError, match="is ModelScope's text to video, which is a folder in every program"):
        convert(folder("modelscope"), tmp_path / "one.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_moves_pictures_draws_no_pictures(folder):
    with pytest.raises(UsageError, match="svd moves a picture: it draws clips, not pictures"):
        sfumato.load(folder("svd"), device="cpu").generate("a cat")


def test_modelscope_draws_a_picture_as_a_clip_of_one_frame(folder):
    studio = sfumato.load(folder("modelscope"), device="cpu")
    image = studio.generate("a cat", steps=2, seed=1)
    assert image.size == (16, 16)


def names(prefix, *inside):
    return {f"{prefix}.{name}" for name in inside}


def both(*modules):
    return [f"{module}.{kind}" for module in modules for kind in ("weight", "bias")]


def published_names():
    """The names in svd.safetensors and svd_xt.safetensors of what is read."""
    unet, found = "model.diffusion_model", set()
    layers = both("in_layers.0", "in_layers.2", "emb_layers.1", "out_layers.0", "out_layers.3")
    attention = both("to_out.0") + [f"{name}.weight" for name in ("to_q", "to_k", "to_v")]
    block = [f"attn{number}.{name}" for number in (1, 2) for name in attention]
    block += both("ff.net.0.proj", "ff.net.2", "norm1", "norm2", "norm3")
    across = [*block, *both("norm_in", "ff_in.net.0.proj", "ff_in.net.2")]
    transformer = [
        *both("norm", "proj_in", "proj_out", "time_pos_embed.0", "time_pos_embed.2"),
        "time_mixer.mix_factor",
        *(f"transformer_blocks.0.{name}" for name in block),
        *(f"time_stack.0.{name}" for name in across),
    ]
    resnet = [*layers, "time_mixer.mix_factor", *(f"time_stack.{name}" for name in layers)]
    for place in (1, 2, 4, 5, 7, 8, 10, 11):
        found |= names(f"{unet}.input_blocks.{place}.0", *resnet)
    for place in (0, 2):
        found |= names(f"{unet}.middle_block.{place}", *resnet)
    for place in range(12):
        found |= names(f"{unet}.output_blocks.{place}.0", *resnet, *both("skip_connection"))
    for place in ("input_blocks.4.0", "input_blocks.7.0"):
        found |= names(f"{unet}.{place}", *both("skip_connection"))
    attending = [f"input_blocks.{place}.1" for place in (1, 2, 4, 5, 7, 8)]
    for place in (*attending, "middle_block.1", *(f"output_blocks.{place}.1" for place in range(3, 12))):
        found |= names(f"{unet}.{place}", *transformer)
    ends = ["input_blocks.0.0", "input_blocks.3.0.op", "input_blocks.6.0.op", "input_blocks.9.0.op"]
    ends += ["output_blocks.2.1.conv", "output_blocks.5.2.conv", "output_blocks.8.2.conv", "out.0", "out.2"]
    ends += ["time_embed.0", "time_embed.2", "label_emb.0.0", "label_emb.0.2"]
    found |= names(unet, *both(*ends))

    resnet = both("norm1", "conv1", "norm2", "conv2")
    timed = both("in_layers.0", "in_layers.2", "out_layers.0", "out_layers.3")
    across = [*resnet, "mix_factor", *(f"time_stack.{name}" for name in timed)]
    encoder, decoder = "conditioner.embedders.3.encoder.encoder", "first_stage_model.decoder"
    for half, inside in ((encoder, resnet), (decoder, across)):
        for place in ("mid.block_1", "mid.block_2"):
            found |= names(f"{half}.{place}", *inside)
        found |= names(f"{half}.mid.attn_1", *both("norm", "q", "k", "v", "proj_out"))
        found |= names(half, *both("conv_in", "norm_out", "conv_out"))
    for level in range(4):
        for number in range(2):
            found |= names(f"{encoder}.down.{level}.block.{number}", *resnet)
        for number in range(3):
            found |= names(f"{decoder}.up.{level}.block.{number}", *across)
    for place in ("down.1.block.0", "down.2.block.0"):
        found |= names(f"{encoder}.{place}", *both("nin_shortcut"))
    for place in ("up.0.block.0", "up.1.block.0"):
        found |= names(f"{decoder}.{place}", *both("nin_shortcut"))
    found |= names(encoder, *both(*(f"down.{level}.downsample.conv" for level in range(3))))
    found |= names(decoder, *both(*(f"up.{level}.upsample.conv" for level in (1, 2, 3))))
    found |= names(decoder, *both("conv_out.time_mix_conv"))
    found |= names("conditioner.embedders.3.encoder", *both("quant_conv"))

    visual = "conditioner.embedders.0.open_clip.model.visual"
    found |= names(visual, "class_embedding", "positional_embedding", "proj", "conv1.weight")
    found |= names(visual, *both("ln_pre", "ln_post"))
    layer = [*both("ln_1", "ln_2", "attn.out_proj", "mlp.c_fc", "mlp.c_proj")]
    for number in range(32):
        here = f"{visual}.transformer.resblocks.{number}"
        found |= names(here, *layer, "attn.in_proj_weight", "attn.in_proj_bias")
    return found


def test_tables_of_the_published_file_name_what_is_in_it_and_nothing_else():
    vae = {"block_out_channels": (128, 256, 512, 512), "down_block_types": ("DownEncoderBlock2D",) * 4}
    huge = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "patch_size": 14}
    configs = (
        UNetSpatioTemporalConfig(),
        TemporalVAEConfig(layers_per_block=2, **vae),
        VisionConfig(num_attention_heads=16, projection_dim=1024, hidden_act="gelu", **huge),
    )
    prefixes = (ldm_keys.UNET, ldm_keys.VAE, ldm_keys.VISION)
    keys = set()
    for config, prefix in zip(configs, prefixes, strict=True):
        own = ldm_keys.table_of(config, prefix, False, empty_network(config).state_dict())
        keys |= {origin.key for origin in own.values()}
    assert keys == published_names()


@pytest.mark.parametrize(
    ("kind", "file", "changes", "says"),
    [
        ("svd", "unet/config.json", {"cross_attention_dim": 24}, "does not fit an image encoder's vector 16"),
        ("svd", "unet/config.json", {"in_channels": 4}, "in_channels = 4 must be 8: the latent and the pict"),
        ("svd", "unet/config.json", {"num_attention_heads": 3}, "attention_head_dim|num_attention_heads"),
        ("svd", "unet/config.json", {"fps": 7}, "unknown key 'fps'"),
        ("svd", "vae/config.json", {"_class_name": "AutoencoderKL"}, "_class_name is 'AutoencoderKL'"),
        ("svd", "scheduler/scheduler_config.json", {"sigma_min": None}, "sigma_min = None must be above 0"),
        ("svd", "model_index.json", {"image_encoder": ["transformers", "X"]}, "a image_encoder of class 'X'"),
        ("modelscope", "unet/config.json", {"attention_head_dim": 5}, "multiple of attention_head_dim = 5"),
        ("modelscope", "unet/config.json", {"cross_attention_dim": 32}, "does not fit text states 24 wide"),
    ],
)  # fmt: skip
def test_a_folder_of_clips_that_contradicts_itself_is_refused_by_name(
    kind, file, changes, says, folder, tmp_path
):
    with pytest.raises(CheckpointError, match=says):
        checkpoint.load(edited(folder(kind), tmp_path, file, **changes))


def test_a_folder_of_stable_video_diffusion_without_its_image_encoder_says_so(folder, tmp_path):
    broken = edited(folder("svd"), tmp_path, "model_index.json")
    (broken / "image_encoder" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="image_encoder holds no weights"):
        checkpoint.load(broken)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (("model.diffusion_model.input_blocks.1.0.time_stack.in_layers.2.weight", None), "is missing"),
        (("model.diffusion_model.input_blocks.1.0.time_stack.out.weight", torch.ones(1)), "out.weight"),
        (("model.diffusion_model.label_emb.0.0.weight", torch.ones(256, 8)), "it is told 8 channels"),
        (("brain.weight", torch.ones(1)), "'brain.weight', which belong to no part"),
        (("first_stage_model.decoder.conv_out.time_mix_conv.bias", None), "is missing"),
        (("conditioner.embedders.0.open_clip.model.visual.", None), "without its image encoder; --base"),
        (("first_stage_model.decoder.", None), "missing"),
    ],
)  # fmt: skip
def test_a_file_of_stable_video_diffusion_that_is_not_whole_is_refused_by_name(changed, says, tmp_path):
    name, tensor = changed
    tensors = original(stable_video_diffusion())
    if tensor is None:
        tensors = {key: value for key, value in tensors.items() if not key.startswith(name)}
    else:
        tensors[name] = tensor
    path = tmp_path / "svd.safetensors"
    safetensors.torch.save_file(tensors, path)
    with pytest.raises(CheckpointError, match=says):
        checkpoint.load(path)


def test_what_a_file_of_stable_video_diffusion_lacks_is_taken_from_another_model(folder, tmp_path):
    path = tmp_path / "tuned.safetensors"
    tensors = original(stable_video_diffusion(seed=1))
    unet = {name: tensor for name, tensor in tensors.items() if name.startswith("model.diffusion_model.")}
    safetensors.torch.save_file(unet, path)
    with pytest.raises(CheckpointError, match="without its autoencoder and its image encoder; --base MODEL"):
        checkpoint.load(path)
    model, base = checkpoint.load(path, base=str(folder("svd"))), checkpoint.load(folder("svd"))
    for name in ("vae", "image_encoder"):
        state = model.networks[name].state_dict()
        assert all(torch.equal(state[key], own) for key, own in base.networks[name].state_dict().items())
    assert not torch.equal(model.unet.conv_in.weight, base.unet.conv_in.weight)
