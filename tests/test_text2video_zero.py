"""Clips without a motion adapter: a picture moved as the prompt says, and drawn on in every frame."""

import math

import numpy as np
import pytest
import torch

import sfumato
from sfumato.edit.motion import MOTIONS, motion_in, without_motion
from sfumato.evaluate.motion import motion_of
from sfumato.nets.attention import SelfAttention
from sfumato.nets.cross_frame import attends_across_frames, cross_frame

pytestmark = pytest.mark.filterwarnings("ignore::sfumato.errors.SfumatoWarning")
SMALL = {"fast": True, "width": 128, "height": 128, "seed": 7}


@pytest.fixture(scope="module")
def studio():
    return sfumato.load(device="cpu", dtype="float32")


def pixels(video):
    return np.stack([frame.pixels for frame in video.frames]).astype(int)


@torch.no_grad()
def test_every_frame_attends_to_the_first_of_its_clip():
    torch.manual_seed(0)
    attention = SelfAttention(8, 2, 8)
    h, frames = torch.randn(6, 5, 8), 3
    found = attention.across_frames(h, frames, None, add=h)
    for index in range(6):
        first = h[index // frames * frames]
        q, k, v = (
            each.unflatten(1, (2, 4)).transpose(0, 1)
            for each in (attention.to_q(h[index]), attention.to_k(first), attention.to_v(first))
        )
        seen = torch.softmax(q @ k.mT / math.sqrt(4), dim=-1) @ v
        expected = attention.to_out[0](seen.transpose(0, 1).flatten(1)) + h[index]
        assert torch.allclose(found[index], expected, atol=1e-6)


@torch.no_grad()
def test_a_clip_whose_frames_are_alike_is_attended_to_as_a_picture():
    torch.manual_seed(0)
    attention, h = SelfAttention(8, 2, 8), torch.randn(1, 5, 8).repeat(4, 1, 1)
    assert torch.allclose(attention.across_frames(h, 4, None, add=h), attention(h, None, add=h), atol=1e-6)


def test_attention_across_frames_is_of_the_evaluation_that_asks_for_it():
    assert not attends_across_frames()
    with cross_frame(True):
        assert attends_across_frames()
        with cross_frame(False):
            assert not attends_across_frames()
    assert not attends_across_frames()


def test_windows_of_any_length_draw_the_same_clip(studio):
    clips = [studio.animate("a red heart pulsing", frames=6, context=c, **SMALL) for c in (3, 6)]
    assert np.abs(pixels(clips[0]) - pixels(clips[1])).max() <= 2


@pytest.mark.parametrize("word", ["pulsing", "bouncing"])
def test_what_the_prompt_says_moves_so(word, studio):
    video = studio.animate(f"a red heart {word}, noto style", frames=12, loop=True, fast=True, seed=7)
    frames = torch.from_numpy(pixels(video)).permute(0, 3, 1, 2) / 127.5 - 1
    assert word in MOTIONS[motion_of(frames)]
    red = (pixels(video)[..., 0] - pixels(video)[..., 1] > 60).mean((1, 2))
    assert red.min() > 0.05


def test_a_picture_that_is_given_moves_itself(studio):
    still = studio.generate("a blue car, flat emoji", **SMALL)
    video = studio.animate("a blue car shaking", image=still.pil, strength=0.25, frames=3, **SMALL)
    blue = pixels(video)[..., 2] - pixels(video)[..., 0]
    assert blue.max() > 60
    assert np.abs(pixels(video)[0] - pixels(video)[1]).max() > 30


def test_what_does_not_lead_back_is_said_of_a_loop(studio):
    (grows,), (bounces,) = (
        studio.prepare(f"a cat {word}", frames=2, loop=True, **SMALL) for word in ("growing", "bouncing")
    )
    assert any("is no loop" in note for note in grows.notes)
    assert not any("is no loop" in note for note in bounces.notes)


def test_progress_counts_every_evaluation(studio):
    steps = list(studio.stream("a cat", frames=2, **{**SMALL, "fast": False, "steps": 8}))
    assert len(steps[-2].preview_video()) == 2
    assert [step.index for step in steps] == list(range(1, steps[0].total + 1))
    assert steps[-1].video is not None
    assert len(steps[0].preview_video()) == 1


@pytest.mark.parametrize(
    ("text", "motion", "still"),
    [
        ("a red apple bouncing, 3d render", "bounce", "a red apple, 3d render"),
        ("a bell, swinging like a pendulum, noto style", "swing", "a bell, noto style"),
        ("a cat spins", "spin", "a cat"),
        ("A FLOWER GROWING", "grow", "A FLOWER"),
        ("camera zoom in, a house", "zoom", "a house"),
        ("a cat", None, "a cat"),
        ("a panda", None, "a panda"),
    ],
)
def test_a_prompt_is_read_for_its_motion_and_for_what_stands_still(text, motion, still):
    assert motion_in(text) == motion
    assert without_motion(text) == still
