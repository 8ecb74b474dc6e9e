"""Programs for diffusers that draw with AnimateDiff give the same clips here; small random models."""

import diffusers
import numpy as np
import PIL.Image
import pytest
import torch
from both import apart, run
from safetensors.torch import save_file

from sfumato import compat
from sfumato.checkpoint.motion import motion_table
from sfumato.errors import CheckpointError, UsageError

pytestmark = pytest.mark.filterwarnings("ignore::sfumato.errors.SfumatoWarning")


@pytest.fixture(scope="module")
def adapters(model, tmp_path_factory):
    """Makes the folder of a random motion adapter for a small model."""

    def made(family="sd1", **more):
        unet = diffusers.UNet2DConditionModel.from_pretrained(model(family), subfolder="unet")
        torch.manual_seed(3)
        network = diffusers.MotionAdapter(
            block_out_channels=unet.config.block_out_channels,
            motion_layers_per_block=unet.config.layers_per_block,
            motion_num_attention_heads=2,
            motion_norm_num_groups=unet.config.norm_num_groups,
            motion_max_seq_length=24,
            **more,
        ).eval()
        for weight in network.parameters():
            torch.nn.init.normal_(weight, std=0.2)
        folder = tmp_path_factory.mktemp("motion") / "adapter"
        network.save_pretrained(folder)
        return folder

    return made


@pytest.fixture(scope="module")
def adapter(adapters):
    return adapters()


DRAWN = """
import torch
from diffusers import AnimateDiffPipeline, MotionAdapter
from diffusers import DDIMScheduler, EulerDiscreteScheduler, LCMScheduler

adapter = MotionAdapter.from_pretrained(ADAPTER)
pipe = AnimateDiffPipeline.from_pretrained(MODEL, motion_adapter=adapter)
pipe.scheduler = SCHEDULER
pipe.set_progress_bar_config(disable=True)
result = pipe(
    PROMPT, height=16, width=32, num_frames=5, num_inference_steps=4, generator=torch.manual_seed(5), **MORE
).frames
"""
LINEAR = 'beta_start=0.00085, beta_end=0.012, beta_schedule="linear"'
DDIM = f'DDIMScheduler(clip_sample=False, timestep_spacing="linspace", steps_offset=1, {LINEAR})'
EULER = f'EulerDiscreteScheduler(timestep_spacing="trailing", {LINEAR})'
LATENTS = torch.randn(1, 4, 5, 8, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("scheduler", "more"),
    [
        (DDIM, {"negative_prompt": "blurry"}),
        (DDIM, {"guidance_scale": 1.0}),
        (DDIM, {"latents": LATENTS, "eta": 0.5}),
        (EULER, {"guidance_scale": 3.0}),
        (f"LCMScheduler({LINEAR})", {"guidance_scale": 1.5}),
    ],
    ids=["ddim", "unguided", "latents", "euler", "lcm"],
)
def test_a_program_for_animatediff_gives_the_same_clip(model, adapter, scheduler, more):
    given = {**more, "output_type": "latent"}
    program = DRAWN.replace("SCHEDULER", scheduler)
    assert apart(program, model("sd1"), ADAPTER=adapter, PROMPT="a cat", MORE=given) <= 1e-4


SDXL = DRAWN.replace("AnimateDiffPipeline", "AnimateDiffSDXLPipeline")
LEFT_OUT = """
from diffusers import StableDiffusionXLPipeline
if "UNetMotion" in type(pipe.unet).__name__:
    # diffusers forgets to take over what reads the sizes, which is random there
    own = StableDiffusionXLPipeline.from_pretrained(MODEL).unet
    pipe.unet.add_embedding.load_state_dict(own.add_embedding.state_dict())
result ="""


@pytest.mark.parametrize(
    "more",
    [
        {"negative_prompt": "blurry", "prompt_2": "a dog", "guidance_rescale": 0.3},
        {"original_size": (64, 64), "crops_coords_top_left": (4, 8), "guidance_scale": 1.0},
    ],
)
def test_a_program_for_animatediff_of_sdxl_gives_the_same_clip(model, adapters, more):
    program = SDXL.replace("SCHEDULER", DDIM).replace("result =", LEFT_OUT.strip("\n"))
    given = {**more, "output_type": "latent"}
    motion = adapters("sdxl", use_motion_mid_block=False)
    assert apart(program, model("sdxl"), ADAPTER=motion, PROMPT="a cat", MORE=given) <= 1e-4


@pytest.mark.parametrize(
    "given",
    [
        {"num_iters": 2},
        {"num_iters": 3, "use_fast_sampling": True, "method": "gaussian"},
        {"num_iters": 2, "method": "ideal", "spatial_stop_frequency": 0.4},
        {"num_iters": 2, "temporal_stop_frequency": 0},
    ],
)
def test_a_clip_is_drawn_again_from_its_low_frequencies_as_in_diffusers(model, adapter, given, monkeypatch):
    # diffusers' own gaussian filter takes the exponent of a tensor by the math module
    program = DRAWN.replace("SCHEDULER", DDIM).replace(
        "result =", f"pipe.enable_free_init(**{given})\nresult ="
    )
    names = {"ADAPTER": adapter, "PROMPT": "a cat", "MORE": {"output_type": "latent"}}
    assert apart(program, model("sd1"), **names) <= 1e-4


def test_what_free_init_cannot_do_is_refused(model, adapter):
    motion = compat.MotionAdapter.from_pretrained(adapter)
    pipe = compat.AnimateDiffPipeline.from_pretrained(model("sd1"), motion_adapter=motion)
    with pytest.raises(UsageError, match="method = 'gauss' is not supported; did you mean 'gaussian'"):
        pipe.enable_free_init(method="gauss")
    with pytest.raises(UsageError, match="num_iters is 0"):
        pipe.enable_free_init(0)
    pipe.enable_free_init()
    assert pipe.free_init_enabled
    pipe.disable_free_init()
    assert not pipe.free_init_enabled


PIA = DRAWN.replace("AnimateDiffPipeline", "PIAPipeline").replace("PROMPT,", "image=IMAGE, prompt=PROMPT,")
IMAGE = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 32, 3), np.uint8))


@pytest.mark.parametrize(
    "more",
    [
        {"negative_prompt": "blurry", "motion_scale": 1},
        {"guidance_scale": 1.0, "motion_scale": 8},
        {"strength": 0.5, "motion_scale": 4},
    ],
    ids=["scale", "unguided", "strength"],
)
def test_a_program_for_pia_gives_the_same_clip(model, adapters, more):
    program = PIA.replace("SCHEDULER", DDIM)
    given = {**more, "output_type": "latent"}
    names = {"ADAPTER": adapters(conv_in_channels=9), "PROMPT": "a cat", "IMAGE": IMAGE, "MORE": given}
    assert apart(program, model("sd1"), **names) <= 1e-4


def test_pictures_are_drawn_beside_pia_as_without_it(model, adapters):
    pictures = compat.StableDiffusionPipeline.from_pretrained(model("sd1"))
    given = {"height": 16, "width": 32, "num_inference_steps": 2, "output_type": "latent"}
    before = pictures("a cat", generator=torch.manual_seed(1), **given).images
    motion = compat.MotionAdapter.from_pretrained(adapters(conv_in_channels=9))
    clips = compat.PIAPipeline.from_pipe(pictures, motion_adapter=motion)
    drawn = clips(IMAGE, "a cat", generator=torch.manual_seed(1), num_frames=3, **given).frames
    assert torch.equal(pictures("a cat", generator=torch.manual_seed(1), **given).images, before)
    again = clips(IMAGE, "a cat", generator=torch.manual_seed(1), num_frames=3, **given).frames
    assert torch.equal(drawn, again)
    with pytest.raises(UsageError, match="motion_scale is 9: must be 0 to 8"):
        clips(IMAGE, "a cat", motion_scale=9, **given)


@pytest.mark.parametrize("form", ["np", "pt", "pil"])
def test_its_frames_come_in_diffusers_forms(model, adapter, form):
    given = {"output_type": form, "decode_chunk_size": 3}
    names = {"ADAPTER": adapter, "PROMPT": ["a cat", "a dog"], "MORE": given}
    program = DRAWN.replace("SCHEDULER", DDIM)
    theirs, ours = (run(program, model("sd1"), each, **names) for each in ("diffusers", "sfumato.compat"))
    if form == "pil":
        theirs, ours = (
            np.array([[np.array(f) for f in clip] for clip in each]) / 255 for each in (theirs, ours)
        )
    assert ours.shape == theirs.shape
    assert abs(np.asarray(ours) - np.asarray(theirs)).max() <= (0.005 if form == "pil" else 1e-4)


MOVED = """
import torch
from diffusers import AnimateDiffPipeline, MotionAdapter

adapter = MotionAdapter.from_pretrained(ADAPTER)
pipe = AnimateDiffPipeline.from_pretrained(MODEL, motion_adapter=adapter)
pipe.set_progress_bar_config(disable=True)
pipe.load_lora_weights(LORA, adapter_name="zoom-out")
pipe.load_lora_weights(OTHER, adapter_name="pan-left")
pipe.set_adapters(["zoom-out", "pan-left"], adapter_weights=[0.8, -0.5])
pipe.vae.enable_tiling()
result = pipe(
    "a cat", height=16, width=32, num_frames=4, num_inference_steps=3, generator=torch.manual_seed(5),
    output_type="latent",
).frames
"""


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`")
def test_motion_loras_move_a_clip_as_in_diffusers(model, adapter, tmp_path):
    network = diffusers.MotionAdapter.from_pretrained(adapter)
    for seed, name in enumerate(("zoom-out", "pan-left")):
        torch.manual_seed(seed)
        state = {}
        for path, layer in network.named_modules():
            if path.endswith(("attn1.to_q", "attn2.to_v", "attn1.to_out.0")):
                begin = f"unet.{path.removesuffix('.0').replace('.to_', '.processor.to_')}_lora"
                state[f"{begin}.down.weight"] = torch.randn(2, layer.in_features) * 0.3
                state[f"{begin}.up.weight"] = torch.randn(layer.out_features, 2) * 0.3
        (tmp_path / name).mkdir()
        save_file(state, tmp_path / name / "diffusion_pytorch_model.safetensors")
    places = {"LORA": str(tmp_path / "zoom-out"), "OTHER": str(tmp_path / "pan-left")}
    assert apart(MOVED, model("sd1"), ADAPTER=adapter, **places) <= 1e-4


def test_a_motion_adapter_is_loaded_from_a_single_file_and_taken_from_diffusers(model, adapter, tmp_path):
    torch.manual_seed(0)
    theirs = diffusers.MotionAdapter(
        block_out_channels=[32, 64], motion_layers_per_block=1, motion_max_seq_length=24
    )
    state = theirs.state_dict()
    names = motion_table("", original=True)(state)
    held = {names[name].key: tensor.clone() for name, tensor in state.items()}
    save_file(held, tmp_path / "mm.safetensors")
    ours = compat.MotionAdapter.from_single_file(tmp_path / "mm.safetensors", torch_dtype=torch.float32)
    assert ours.config.motion_max_seq_length == 24
    assert all(torch.equal(each, state[name]) for name, each in ours.state_dict().items())
    base = compat.StableDiffusionPipeline.from_pretrained(model("sd1")).components
    parts = {name: base[name] for name in ("vae", "text_encoder", "tokenizer", "unet", "scheduler")}
    given = diffusers.MotionAdapter.from_pretrained(adapter)
    pipe = compat.AnimateDiffPipeline(**parts, motion_adapter=given)
    assert type(pipe.motion_adapter) is compat.MotionAdapter
    assert pipe.components["motion_adapter"] is pipe.motion_adapter
    with pytest.raises(CheckpointError, match="made for another base than"):
        compat.AnimateDiffPipeline(**parts, motion_adapter=theirs)("a cat")
    with pytest.raises(UsageError, match="motion_adapter must be a MotionAdapter, not str"):
        compat.AnimateDiffPipeline(**parts, motion_adapter="mm.safetensors")
    with pytest.raises(UsageError, match="AnimateDiffPipeline needs motion_adapter"):
        compat.AnimateDiffPipeline.from_pretrained(model("sd1"))


def test_pictures_of_the_same_model_are_drawn_and_saved_as_before(model, adapter, tmp_path):
    pictures = compat.StableDiffusionPipeline.from_pretrained(model("sd1"))
    given = {"height": 16, "width": 32, "num_inference_steps": 2, "output_type": "latent"}
    before = pictures("a cat", generator=torch.manual_seed(1), **given).images
    own = compat.MotionAdapter.from_pretrained(adapter)
    clips = compat.AnimateDiffPipeline.from_pipe(pictures, motion_adapter=own)
    assert clips.unet is pictures.unet
    drawn = clips("a cat", generator=torch.manual_seed(1), num_frames=3, **given).frames
    assert drawn.shape == (1, 4, 3, 8, 16)
    assert torch.equal(pictures("a cat", generator=torch.manual_seed(1), **given).images, before)
    clips.save_pretrained(tmp_path / "saved")
    again = compat.StableDiffusionPipeline.from_pretrained(tmp_path / "saved")
    assert torch.equal(again("a cat", generator=torch.manual_seed(1), **given).images, before)
    after = clips("a cat", generator=torch.manual_seed(1), num_frames=3, **given).frames
    assert torch.equal(after, drawn)
    clips.enable_vae_tiling()
    assert torch.equal(clips("a cat", generator=torch.manual_seed(1), num_frames=3, **given).frames, drawn)
    with pytest.raises(UsageError, match="num_frames is 25: the motion adapter knows 24"):
        clips("a cat", num_frames=25)
