"""Motion adapters' files: read strictly in every layout, and clips drawn with them equal diffusers'."""

import subprocess
import sys

import diffusers
import numpy as np
import PIL.Image
import pytest
import torch
from safetensors.torch import load_file, save_file

import sfumato
from sfumato import adapt, checkpoint, weights
from sfumato.checkpoint.motion import (
    OWN_SCHEDULE,
    inspect_motion,
    is_motion_adapter,
    load_motion,
    motion_part,
    motion_table,
)
from sfumato.config import MotionAdapterConfig
from sfumato.diffusion.sampling import SeededNoise
from sfumato.errors import CheckpointError, OutputError, UsageError
from sfumato.nets.motion import MotionAdapter
from sfumato.prompt.meaning import AdapterWeight

pytestmark = pytest.mark.filterwarnings("ignore::sfumato.errors.SfumatoWarning")
CONFIG = {
    "block_out_channels": [8, 16],
    "motion_layers_per_block": 1,
    "motion_num_attention_heads": 2,
    "motion_norm_num_groups": 4,
    "motion_max_seq_length": 24,
}
PUBLISHED = {"v1": (24, False), "v2": (32, True), "v3": (32, False)}
CLIP = {"frames": 5, "steps": 4, "seed": 5, "width": 24, "height": 16}


@pytest.fixture(scope="module")
def adapter():
    torch.manual_seed(3)
    made = diffusers.MotionAdapter(**CONFIG).eval()
    for weight in made.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    return made


@pytest.fixture(scope="module")
def wide():
    """One with AnimateDiff's heads and groups, of which a file says nothing."""
    own = {"block_out_channels": [32, 64], "motion_num_attention_heads": 8, "motion_norm_num_groups": 32}
    return diffusers.MotionAdapter(**{**CONFIG, **own}).eval()


@pytest.fixture(scope="module")
def folder(adapter, tmp_path_factory):
    path = tmp_path_factory.mktemp("motion") / "adapter"
    adapter.save_pretrained(path)
    return path


def original(state):
    """A state dict under the names of AnimateDiff's first program, whose attentions each have positions."""
    names = motion_table("", original=True)(state)
    found = {names[name].key: tensor.clone() for name, tensor in state.items()}
    extra = {
        name.replace("attention_blocks.0.pos", "attention_blocks.1.pos"): tensor.clone()
        for name, tensor in found.items()
        if name.endswith(".pe")
    }
    return found | extra


def test_the_names_of_the_first_program_are_what_diffusers_reads(wide):
    from diffusers.loaders.single_file_utils import convert_animatediff_checkpoint_to_diffusers

    state = wide.state_dict()
    theirs = convert_animatediff_checkpoint_to_diffusers(original(state))
    assert set(theirs) == {name for name in state if not name.endswith(".pe")}
    assert all(torch.equal(tensor, state[name]) for name, tensor in theirs.items())


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("layout", ["first program", "diffusers"])
def test_a_file_is_the_network_that_was_saved(layout, prefix, wide, tmp_path):
    state = wide.state_dict()
    held = original(state) if layout == "first program" else state
    save_file({prefix + name: tensor.clone() for name, tensor in held.items()}, tmp_path / "m.safetensors")
    found = load_motion(str(tmp_path / "m.safetensors"))
    assert all(torch.equal(tensor, state[name]) for name, tensor in found.network.state_dict().items())
    assert found.linear


def header_of(state):
    """The header of a file that holds these tensors in half precision."""
    offset, tensors = 0, {}
    for name, tensor in state.items():
        size = 2 * int(np.prod(tensor.shape))
        tensors[name] = weights.TensorInfo("F16", tuple(tensor.shape), offset, offset + size)
        offset += size
    return weights.Header(tensors, {}, 8, 8 + offset)


@pytest.mark.parametrize("kind", PUBLISHED)
def test_a_published_file_is_told_by_its_tensors(kind, tmp_path, monkeypatch):
    frames, mid = PUBLISHED[kind]
    with torch.device("meta"):
        theirs = diffusers.MotionAdapter(motion_max_seq_length=frames, use_motion_mid_block=mid)
    header = header_of(original(theirs.state_dict()))
    monkeypatch.setattr(weights, "header", lambda path: header)
    part = motion_part(tmp_path / "mm.safetensors")
    with torch.device("meta"):
        ours = MotionAdapter(part.config)
    assert part.config.motion_max_seq_length == frames
    assert part.config.use_motion_mid_block == mid
    assert set(ours.state_dict()) == set(theirs.state_dict())


LINEAR = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "linear"}


def peers_clip(
    pipe, adapter, prompt, *, frames, steps, seed, width, height, guidance, noise, scheduler=None, loras=()
):
    """What AnimateDiff of diffusers draws with the parts of a text-to-image pipeline, (F, H, W, 3)."""
    scheduler = scheduler or diffusers.DDIMScheduler(clip_sample=False, timestep_spacing="trailing", **LINEAR)
    made = diffusers.AnimateDiffPipeline(
        vae=pipe.vae, text_encoder=pipe.text_encoder, tokenizer=pipe.tokenizer, unet=pipe.unet,
        motion_adapter=adapter, scheduler=scheduler,
    )  # fmt: skip
    made.set_progress_bar_config(disable=True)
    for number, (state, _) in enumerate(loras):
        made.load_lora_weights(dict(state), adapter_name=f"lora{number}")
    if loras:
        made.set_adapters([f"lora{number}" for number in range(len(loras))], [weight for _, weight in loras])
    return made(
        prompt, num_frames=frames, num_inference_steps=steps, width=width, height=height,
        guidance_scale=guidance, latents=noise, output_type="np",
    ).frames[0]  # fmt: skip


@pytest.mark.parametrize("guidance", [1.0, 6.0])
def test_a_clip_of_an_ordinary_model_equals_diffusers(guidance, pipelines, saved, adapter, folder):
    noise = SeededNoise([CLIP["seed"]])(torch.empty(1, 4, CLIP["frames"], 8, 12))
    theirs = peers_clip(pipelines("sd1"), adapter, "a red apple", guidance=guidance, noise=noise, **CLIP)
    studio = sfumato.load(saved("sd1"), device="cpu", dtype="float32")
    ours = studio.animate(
        "a red apple", motion=str(folder), sampler="ddim", spacing="trailing", guidance=guidance, **CLIP
    )
    drawn = np.stack([frame.pixels for frame in ours.frames])
    assert np.abs(drawn - 255 * theirs).max() <= 0.6
    assert theirs.std() > 0.01
    assert np.abs(theirs[0] - theirs[3]).max() > 0.01


def test_pictures_are_drawn_as_before_where_a_clip_has_been(saved, folder):
    studio = sfumato.load(saved("sd1"), device="cpu", dtype="float32")
    still = {"steps": 2, "seed": 1, "width": 24, "height": 16}
    before = studio.generate("a red apple", **still)
    studio.animate("a red apple", motion=str(folder), **CLIP)
    assert before.differs(studio.generate("a red apple", **still)) is None


def test_a_file_that_says_so_is_drawn_on_the_noise_of_its_base(saved, adapter, folder, tmp_path):
    state = {name: tensor.clone() for name, tensor in adapter.state_dict().items()}
    own = tmp_path / "own"
    own.mkdir()
    (own / "config.json").write_text((folder / "config.json").read_text())
    save_file(state, own / "diffusion_pytorch_model.safetensors", metadata={OWN_SCHEDULE: "true"})
    studio = sfumato.load(saved("sd1"), device="cpu", dtype="float32")
    schedule = studio.model.schedule
    assert load_motion(str(own)).schedule(schedule) is schedule
    assert load_motion(str(folder)).schedule(schedule).beta_schedule == "linear"
    clips = [studio.animate("a red apple", motion=str(path), **CLIP) for path in (own, folder)]
    assert clips[0].frames[0].differs(clips[1].frames[0])
    assert clips[0].record.motion != clips[1].record.motion


def test_a_motion_adapter_of_another_base_is_refused_by_name(saved, tmp_path):
    other = diffusers.MotionAdapter(**{**CONFIG, "block_out_channels": [8, 24]})
    other.save_pretrained(tmp_path / "other")
    studio = sfumato.load(saved("sd1"), device="cpu", dtype="float32")
    with pytest.raises(CheckpointError, match=r"made for another base than .*8-24 channels wide.* 8-16"):
        studio.animate("a red apple", motion=str(tmp_path / "other"), **CLIP)


def test_a_motion_adapter_is_converted_to_the_other_layout_and_back(wide, tmp_path):
    state = wide.state_dict()
    wide.save_pretrained(tmp_path / "first")
    file, folder = tmp_path / "mm.safetensors", tmp_path / "second"
    done = checkpoint.convert(tmp_path / "first", file)
    assert (done.layout, done.parameters) == ("single file", sum(p.numel() for p in wide.parameters()))
    held = load_file(file)
    assert {name: held[name].tolist() for name in held} == {
        name: tensor.tolist() for name, tensor in original(state).items()
    }
    checkpoint.convert(file, folder, dtype=torch.float16)
    again = diffusers.MotionAdapter.from_pretrained(folder).state_dict()
    assert {name: tensor.dtype for name, tensor in again.items()} == dict.fromkeys(state, torch.float32)
    assert all(torch.equal(again[name], tensor.half().float()) for name, tensor in state.items())
    with pytest.raises(OutputError, match="will not replace"):
        checkpoint.convert(file, folder)
    with pytest.raises(UsageError, match=r"vae is given: .* is a motion adapter"):
        checkpoint.convert(file, tmp_path / "third", vae="other")


def test_what_files_of_animatediff_cannot_say_is_refused(folder, tmp_path):
    with pytest.raises(UsageError, match="has 2-2 heads, and files of AnimateDiff 8: write it as a folder"):
        checkpoint.convert(folder, tmp_path / "mm.safetensors")
    assert not (tmp_path / "mm.safetensors").exists()


def test_the_noise_that_it_is_drawn_on_is_kept(adapter, folder, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    (own / "config.json").write_text((folder / "config.json").read_text())
    state = {name: tensor.clone() for name, tensor in adapter.state_dict().items()}
    save_file(state, own / "diffusion_pytorch_model.safetensors", metadata={OWN_SCHEDULE: "true"})
    checkpoint.convert(own, tmp_path / "again")
    assert not load_motion(str(tmp_path / "again")).linear


def test_a_motion_lora_is_converted_to_the_other_layout_and_back(
    pipelines, saved, adapter, motion_lora, tmp_path
):
    one, peft, back = (tmp_path / f"{name}.safetensors" for name in ("one", "peft", "back"))
    save_file(first_programs(motion_lora), one)
    model = str(saved("sd1"))
    adapt.convert(one, peft, layout="peft", model=model)
    noise = SeededNoise([CLIP["seed"]])(torch.empty(1, 4, CLIP["frames"], 8, 12))
    theirs, converted = (
        peers_clip(
            pipelines("sd1"), adapter, "a red apple", guidance=3.0, noise=noise, loras=[(state, 0.7)], **CLIP
        )
        for state in (motion_lora, load_file(peft))
    )
    assert np.abs(theirs - converted).max() <= 1e-5
    assert theirs.std() > 0.01
    adapt.convert(peft, back, layout="kohya", model=model)
    state = load_file(one)
    assert {name: tensor.shape for name, tensor in load_file(back).items()} == {
        name: tensor.shape for name, tensor in state.items()
    }
    assert all(torch.equal(tensor, state[name]) for name, tensor in load_file(back).items())


def test_what_is_no_motion_adapter_is_named(saved, tmp_path):
    file = saved("sd1") / "unet" / "diffusion_pytorch_model.safetensors"
    assert not is_motion_adapter(weights.header(file).tensors)
    with pytest.raises(CheckpointError, match="a motion adapter is AnimateDiff's"):
        load_motion(str(file))
    with pytest.raises(CheckpointError, match="holds no motion adapter"):
        load_motion(str(tmp_path))
    with pytest.raises(CheckpointError, match="is no motion adapter; MotionAdapter is"):
        load_motion(str(saved("sd1") / "unet"))


def test_a_cut_motion_adapter_names_what_is_missing(wide, tmp_path):
    state = {name: tensor.clone() for name, tensor in original(wide.state_dict()).items()}
    gone = next(name for name in state if name.endswith("proj_out.weight"))
    del state[gone]
    save_file(state, tmp_path / "cut.safetensors")
    with pytest.raises(CheckpointError, match=gone.replace(".", r"\.")):
        load_motion(str(tmp_path / "cut.safetensors"))


def test_pias_adapter_moves_a_picture(saved, tmp_path):
    """Its first convolution reads the picture; pictures are drawn without it."""
    torch.manual_seed(0)
    pia = diffusers.MotionAdapter(**CONFIG, conv_in_channels=9)
    pia.save_pretrained(tmp_path / "pia")
    state = {name: tensor.clone() for name, tensor in pia.state_dict().items()}
    save_file({**original(state)}, tmp_path / "pia.safetensors")
    studio = sfumato.load(saved("sd1"), device="cpu", dtype="float32")
    still = {"steps": 2, "seed": 1, "width": 24, "height": 16}
    before = studio.generate("a red apple", **still)
    given = {"motion": str(tmp_path / "pia"), **CLIP}
    red, blue = (PIL.Image.new("RGB", (24, 16), colour) for colour in ("red", "blue"))
    video = studio.animate("a red apple", image=red, loop=True, **given)
    assert (video.request.motion_amount, video.request.strength) == (3, 1.0)
    again = studio.animate(video.request)
    assert video.frames[4].differs(again.frames[4]) is None
    assert video.frames[0].differs(studio.animate("a red apple", image=blue, loop=True, **given).frames[0])
    more = studio.animate("a red apple", image=red, loop=True, **given, motion_amount=2)
    assert more.request.motion_amount == 5
    assert before.differs(studio.generate("a red apple", **still)) is None
    for changed, message in (
        ({}, "is PIA's, which moves a picture: give image"),
        ({"image": red, "motion_amount": 9}, "motion_amount is 9: PIA knows 0 to 8"),
    ):
        with pytest.raises(UsageError, match=message):
            studio.animate("a red apple", **given, **changed)
    assert inspect_motion(tmp_path / "pia").value("reads") == "a picture (PIA)"


def test_pias_adapter_is_of_models_that_have_its_channels(saved, tmp_path):
    diffusers.MotionAdapter(**CONFIG, conv_in_channels=8).save_pretrained(tmp_path / "pia")
    studio = sfumato.load(saved("sd1"), device="cpu", dtype="float32")
    with pytest.raises(CheckpointError, match="it reads 8 channels, and the model with a picture 9"):
        studio.animate("a red apple", motion=str(tmp_path / "pia"), **CLIP)


def test_a_saved_configuration_is_diffusers(adapter):
    ours = MotionAdapterConfig.from_dict(CONFIG, "")
    again = diffusers.MotionAdapter.from_config(ours.to_dict())
    assert {k: v.shape for k, v in again.state_dict().items()} == {
        k: v.shape for k, v in adapter.state_dict().items()
    }


def lora_of(network, names, prefix="unet.", down="_lora.down.weight", up="_lora.up.weight", seed=0):
    """A LoRA of rank 2 of the linear layers with these endings."""
    torch.manual_seed(seed)
    state = {}
    for path, layer in network.named_modules():
        if isinstance(layer, torch.nn.Linear) and path.endswith(names):
            layer_name = f"{prefix}{path.removesuffix('.0')}"
            state[layer_name + down] = torch.randn(2, layer.in_features) * 0.3
            state[layer_name + up] = torch.randn(layer.out_features, 2) * 0.3
    return state


@pytest.fixture(scope="module")
def motion_lora(adapter):
    """A camera's motion LoRA, in the names that diffusers once had."""
    state = lora_of(adapter, ("to_q", "to_k", "to_v", "to_out.0"))
    return {
        name.replace("attn1.", "attn1.processor.").replace("attn2.", "attn2.processor."): tensor
        for name, tensor in state.items()
    }


def first_programs(state):
    """A motion LoRA in the names of AnimateDiff's own program."""
    return {
        name.removeprefix("unet.")
        .replace(".attn1.", ".attention_blocks.0.")
        .replace(".attn2.", ".attention_blocks.1.")
        .replace(".transformer_blocks.", ".temporal_transformer.transformer_blocks."): tensor
        for name, tensor in state.items()
    }


@pytest.mark.parametrize("layout", ["first program", "diffusers", "PEFT"])
def test_a_motion_lora_moves_a_clip_as_in_diffusers(
    layout, pipelines, saved, adapter, folder, motion_lora, tmp_path
):
    noise = SeededNoise([CLIP["seed"]])(torch.empty(1, 4, CLIP["frames"], 8, 12))
    theirs = peers_clip(
        pipelines("sd1"),
        adapter,
        "a red apple",
        guidance=3.0,
        noise=noise,
        loras=[(motion_lora, 0.7)],
        **CLIP,
    )
    state = first_programs(motion_lora) if layout == "first program" else motion_lora
    if layout == "PEFT":
        state = {
            name.replace(".processor.", ".")
            .replace("to_out_lora", "to_out.0_lora")
            .replace("_lora.down", ".lora_A")
            .replace("_lora.up", ".lora_B"): tensor
            for name, tensor in state.items()
        }
    save_file(state, tmp_path / "pan-left.safetensors")
    studio = sfumato.load(saved("sd1"), device="cpu", dtype="float32")
    given = {"motion": str(folder), "sampler": "ddim", "spacing": "trailing", "guidance": 3.0, **CLIP}
    uses = [AdapterWeight(str(tmp_path / "pan-left.safetensors"), 0.7)]
    ours = studio.animate("a red apple", adapters=uses, **given)
    drawn = np.stack([frame.pixels for frame in ours.frames])
    assert np.abs(drawn - 255 * theirs).max() <= 0.6
    plain = studio.animate("a red apple", **given)
    assert ours.frames[3].differs(plain.frames[3])
    again = studio.animate("a red apple", adapters=uses, **given)
    assert ours.frames[3].differs(again.frames[3]) is None


def test_a_motion_lora_without_a_motion_adapter_is_refused_by_name(saved, folder, motion_lora, tmp_path):
    path = str(tmp_path / "pan-left.safetensors")
    save_file(motion_lora, path)
    studio = sfumato.load(saved("sd1"), device="cpu", dtype="float32")
    still = {"steps": 2, "seed": 1, "width": 24, "height": 16}
    with pytest.raises(CheckpointError, match=r"is a motion LoRA, .* drawn with one"):
        studio.generate("a red apple", adapters=[path], **still)
    studio.animate("a red apple", motion=str(folder), adapters=[path], **CLIP)
    for draw, given in ((studio.generate, still), (studio.animate, {**CLIP, "motion": "text2video-zero"})):
        with pytest.raises(UsageError, match="changes a motion adapter, and this is drawn without one"):
            draw("a red apple", adapters=[path], **given)


def test_an_lcm_lora_draws_a_clip_as_diffusers_lcm_scheduler_does(
    pipelines, saved, adapter, folder, tmp_path, monkeypatch
):
    pipe = pipelines("sd1")
    lora = lora_of(pipe.unet, ("attn1.to_q", "attn2.to_v"), down=".lora_A.weight", up=".lora_B.weight")
    save_file(lora, tmp_path / "lcm.safetensors")
    noise = SeededNoise([CLIP["seed"]])
    first = noise(torch.empty(1, 4, CLIP["frames"], 8, 12))
    monkeypatch.setattr(
        "diffusers.schedulers.scheduling_lcm.randn_tensor",
        lambda shape, **given: noise(torch.empty(shape)),
    )
    theirs = peers_clip(
        pipe, adapter, "a red apple", guidance=1.0, noise=first, loras=[(lora, 0.8)],
        scheduler=diffusers.LCMScheduler(**LINEAR), **CLIP,
    )  # fmt: skip
    studio = sfumato.load(saved("sd1"), device="cpu", dtype="float32")
    uses = [AdapterWeight(str(tmp_path / "lcm.safetensors"), 0.8)]
    ours = studio.animate(
        "a red apple", motion=str(folder), adapters=uses, sampler="lcm", guidance=1.0, **CLIP
    )
    drawn = np.stack([frame.pixels for frame in ours.frames])
    assert np.abs(drawn - 255 * theirs).max() <= 0.6
    assert theirs.std() > 0.01


def test_inspect_says_what_a_motion_adapter_is(wide, folder, motion_lora, tmp_path):
    save_file(original(wide.state_dict()), tmp_path / "mm.safetensors")
    save_file(first_programs(motion_lora), tmp_path / "pan.safetensors")
    diffusers.MotionAdapter(**CONFIG, conv_in_channels=9).save_pretrained(tmp_path / "pia")
    done = subprocess.run(
        [sys.executable, "-m", "sfumato", "inspect", "mm.safetensors", "pan.safetensors", "pia"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found, lora, pia = done.stdout.split("\n\n")
    assert "reads: a picture (PIA) (its first convolution has 9 channels)" in pia
    count = sum(tensor.numel() for tensor in wide.state_dict().values())
    assert f"motion: MotionAdapter, {count / 1e6:,.1f} M parameters, F32" in found
    assert "kind: motion adapter (7 motion modules, and no UNet around them)" in found
    assert "base: a UNet of that shape (its blocks are 32-64 channels wide)" in found
    assert "frames: 24" in found
    assert "names: AnimateDiff's" in found
    assert "a motion adapter of AnimateDiff, used with --motion" in lora
    report = inspect_motion(folder)
    assert (report.value("names"), report.problems) == ("diffusers'", [])
    assert report.fingerprint == load_motion(str(folder)).fingerprint


@pytest.mark.parametrize("kind", PUBLISHED)
def test_inspect_tells_the_published_versions(kind, tmp_path, monkeypatch):
    frames, mid = PUBLISHED[kind]
    with torch.device("meta"):
        theirs = diffusers.MotionAdapter(motion_max_seq_length=frames, use_motion_mid_block=mid)
    head = header_of(original(theirs.state_dict()))
    monkeypatch.setattr(weights, "header", lambda path: head)
    monkeypatch.setattr("sfumato.checkpoint.layout.fingerprint", lambda *parts: "0")
    report = inspect_motion(tmp_path / "mm.safetensors")
    assert report.value("version") == f"AnimateDiff {kind}"
    assert report.value("base") == "Stable Diffusion 1.x"
