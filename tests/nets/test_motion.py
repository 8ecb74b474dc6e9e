"""Motion modules in a UNet against diffusers, live, and against the same UNet without them."""

import diffusers
import pytest
import torch
from nets_families import assert_close, norms, shapes

from sfumato.config import MotionAdapterConfig, UNetConfig
from sfumato.nets.inputs import TextKV
from sfumato.nets.motion import MotionAdapter, detach_motion
from sfumato.nets.unet import UNet

FRAMES = 5
UNET = {
    "in_channels": 4,
    "block_out_channels": [32, 64],
    "layers_per_block": 2,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "cross_attention_dim": 24,
    "attention_head_dim": 4,
    "norm_num_groups": 8,
}
MOTION = {
    "block_out_channels": [32, 64],
    "motion_layers_per_block": 2,
    "motion_num_attention_heads": 4,
    "motion_norm_num_groups": 8,
    "motion_max_seq_length": 8,
}
PUBLISHED = {
    "SD 1.5, v2": {},
    "SD 1.5, v3": {"use_motion_mid_block": False},
    "SDXL": {
        "block_out_channels": [320, 640, 1280],
        "use_motion_mid_block": False,
    },
    "PIA": {"use_motion_mid_block": True, "conv_in_channels": 9},
}


@pytest.fixture(scope="module")
def nets():
    """A UNet of ours with motion modules, and diffusers' with the same random weights."""
    torch.manual_seed(0)
    flat = diffusers.UNet2DConditionModel(**UNET).eval()
    adapter = diffusers.MotionAdapter(**MOTION).eval()
    for weight in adapter.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    theirs = diffusers.UNetMotionModel.from_unet2d(flat, adapter).eval()
    unet = UNet(UNetConfig.from_dict(UNET, "unet")).eval()
    unet.load_state_dict(flat.state_dict())
    motion = MotionAdapter(MotionAdapterConfig.from_dict(MOTION, "motion")).eval()
    motion.load_state_dict(adapter.state_dict())
    motion.attach(unet)
    return unet, theirs, motion


def clip(rows=2, frames=FRAMES, seed=1):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 4, frames, 8, 6, generator=generator)
    return x, torch.tensor([700.0, 30.0])[:rows], torch.randn(rows, 7, 24, generator=generator)


@pytest.mark.parametrize("kind", PUBLISHED)
def test_a_published_motion_adapter_has_the_keys_and_shapes_of_diffusers(kind):
    with torch.device("meta"):
        theirs = diffusers.MotionAdapter(**PUBLISHED[kind])
        ours = MotionAdapter(MotionAdapterConfig.from_dict(PUBLISHED[kind], kind))
    assert shapes(ours) == shapes(theirs)
    assert norms(ours) == norms(theirs)


def test_the_positions_of_frames_are_those_of_diffusers():
    theirs = diffusers.MotionAdapter(**MOTION).state_dict()
    for name, value in MotionAdapter(MotionAdapterConfig.from_dict(MOTION, "")).state_dict().items():
        if name.endswith(".pe"):
            assert_close(value, theirs[name])


@torch.no_grad()
def test_clips_are_evaluated_as_by_diffusers(nets):
    unet, theirs, _ = nets
    x, t, states = clip()
    assert_close(unet(x, t, states), theirs(x, t, states.repeat_interleave(FRAMES, 0)).sample)


@torch.no_grad()
def test_rows_that_share_a_clip_are_evaluated_as_each_alone(nets):
    unet, _, _ = nets
    x, t, states = clip()
    rows = torch.tensor([0, 1, 0])
    texts = torch.cat([states, states[:1] + 1])
    shared = unet.denoise(x, unet.embed_time(t), unet.context(texts), rows)
    assert_close(shared, unet(x[rows], t[rows], texts))


@torch.no_grad()
def test_each_frame_can_have_a_text_of_its_own(nets):
    unet, theirs, _ = nets
    x, t, _ = clip()
    texts = torch.randn(2 * FRAMES, 7, 24, generator=torch.Generator().manual_seed(2))
    answer = unet.denoise(x, unet.embed_time(t), unet.context(texts))
    assert_close(answer, theirs(x, t, texts).sample)


@torch.no_grad()
def test_single_pictures_are_evaluated_as_without_motion_modules(nets):
    unet, _, motion = nets
    x, t, states = clip()
    moved = unet(x[:, :, 0], t, states)
    detach_motion(unet)
    assert torch.equal(moved, unet(x[:, :, 0], t, states))
    motion.attach(unet)


@torch.no_grad()
def test_new_motion_modules_leave_every_frame_the_still_picture():
    torch.manual_seed(3)
    unet = UNet(UNetConfig.from_dict(UNET, "")).eval()
    MotionAdapter(MotionAdapterConfig.from_dict(MOTION, "")).attach(unet)
    x, t, states = clip()
    answer = unet(x, t, states)
    for frame in range(FRAMES):
        assert (answer[:, :, frame] - unet(x[:, :, frame], t, states)).abs().max() < 1e-5


@torch.no_grad()
def test_frames_know_their_order(nets):
    unet, _, _ = nets
    x, t, states = clip()
    back = unet(x.flip(2), t, states).flip(2)
    assert (back - unet(x, t, states)).abs().max() > 1e-3


def test_more_frames_than_the_modules_know_are_an_error(nets):
    unet, _, _ = nets
    with pytest.raises(ValueError, match="9 frames at once: these motion modules know 8"):
        unet(*clip(frames=9))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"block_out_channels": [32, 32]}, "its blocks are 32-32 channels wide, those of the model 32-64"),
        ({"motion_layers_per_block": 1}, "1"),
    ],
)
def test_modules_of_another_base_are_refused(change, why):
    unet = UNet(UNetConfig.from_dict(UNET, ""))
    with pytest.raises(ValueError, match=why):
        MotionAdapter(MotionAdapterConfig.from_dict(MOTION | change, "")).attach(unet)


def test_text_of_a_wrong_number_of_rows_is_an_error(nets):
    unet, _, _ = nets
    x, t, states = clip()
    with pytest.raises(ValueError, match="text of 3 rows was given for 2"):
        unet.denoise(x, unet.embed_time(t), unet.context(torch.cat([states, states[:1]])))
    assert isinstance(unet.context(states), TextKV)
