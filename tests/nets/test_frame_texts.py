"""Texts and image prompts of rows: one for each frame of a clip, mixed, and one by one."""

from contextlib import suppress

import pytest
import torch

from sfumato.config import UNetConfig
from sfumato.diffusion.guidance import Term
from sfumato.diffusion.level import Level
from sfumato.diffusion.sampling import Point
from sfumato.nets.cross_frame import attends_across_frames, cross_frame
from sfumato.nets.denoiser import Denoiser
from sfumato.nets.inputs import ImageKV, SizeConditioning, TextKV
from sfumato.nets.unet import UNet


def pairs(rows, tokens, seed=0):
    """Keys and values of two attentions of different widths."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        tuple(torch.randn(rows, tokens, width, generator=generator) for _ in range(2)) for width in (6, 10)
    )


def images(rows, tokens=4):
    return ImageKV(pairs(rows, tokens, 7), torch.arange(2.0 * rows).view(rows, 2))


def test_a_frame_reads_its_share_of_every_text():
    text, shares = TextKV.of(pairs(2, 16)), torch.tensor([[1.0, 0.0], [0.25, 0.75], [0.0, 1.0]])
    mixed = text.mixed(shares)
    assert len(mixed) == 3
    for found, known in zip(mixed.pairs, text.pairs, strict=True):
        for one, rows in zip(found, known, strict=True):
            torch.testing.assert_close(one[0], rows[0])
            torch.testing.assert_close(one[1], 0.25 * rows[0] + 0.75 * rows[1])
            torch.testing.assert_close(one[2], rows[1])


def test_one_text_and_its_image_prompt_are_those_of_every_frame():
    text = TextKV.of(pairs(1, 5)).with_images([images(1)])
    mixed = text.mixed(torch.ones(3, 1))
    assert (len(mixed), mixed.length, mixed.group) == (3, 5, (4,))
    for found, known in ((mixed.pairs, text.pairs), (mixed.images[0].pairs, text.images[0].pairs)):
        for frame in range(3):
            for pair, alone in zip(found, known, strict=True):
                assert all(torch.equal(one[frame], row[0]) for one, row in zip(pair, alone, strict=True))
    assert torch.equal(mixed.images[0].weights, text.images[0].weights.expand(3, -1))


def test_a_row_of_an_image_prompt_is_that_row_alone():
    both = images(3)
    for index in range(3):
        own = both.row(index)
        assert torch.equal(own.weights, both.weights[index][None])
        for (k, v), (keys, values) in zip(own.pairs, both.pairs, strict=True):
            assert torch.equal(k, keys[index][None])
            assert torch.equal(v, values[index][None])


def test_texts_of_different_lengths_are_filled_up_and_what_fills_them_is_masked():
    short, long = TextKV.of(pairs(1, 5)), TextKV.of(pairs(2, 20))
    both = TextKV.cat([short, long])
    assert (len(both), both.length, both.pairs[0][0].shape[1]) == (3, 20, 32)
    assert [int((row == 0).sum()) for row in both.mask] == [5, 20, 20]
    assert torch.isinf(both.mask[0, 5:]).all()
    assert torch.equal(both.pairs[1][1][0, :5], short.pairs[1][1][0, :5])
    assert not both.pairs[0][0][0, 5:].any()


def narrow(**added):
    sizes = {"block_out_channels": [8, 16], "layers_per_block": 1, "norm_num_groups": 4}
    kinds = {"down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"]}
    kinds["up_block_types"] = ["CrossAttnUpBlock2D", "UpBlock2D"]
    config = {**sizes, **kinds, "cross_attention_dim": 8, "attention_head_dim": 4, **added}
    torch.manual_seed(0)
    return UNet(UNetConfig.from_dict(config, "unet")).eval()


@torch.no_grad()
def test_sdxl_mixes_its_pooled_texts_too():
    """A row of the time embedding for each text becomes one for each frame."""
    net = narrow(
        addition_embed_type="text_time", addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=24 + 6,
    )  # fmt: skip
    denoiser = Denoiser(net, "epsilon", torch.device("cpu"))
    states, pooled, ids = torch.randn(2, 5, 8), torch.randn(2, 6), torch.full((2, 6), 64.0)
    shares = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    clip = denoiser.condition(states, SizeConditioning(pooled, ids), frame_shares=shares)
    x, level = torch.randn(1, 4, 3, 8, 8), Level(0.8, 0.6, 300.0)
    (found,) = denoiser([(Point(x, level, 0), Term(clip))])
    for frame, row in enumerate((0, 1, 0)):
        own = slice(row, row + 1)
        still = denoiser.condition(states[own], SizeConditioning(pooled[own], ids[own]))
        (due,) = denoiser([(Point(x[:, :, frame], level, 0), Term(still))])
        assert torch.allclose(found[:, :, frame], due, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("slices", [None, 2])
def test_across_frames_every_frame_asks_the_first_of_its_own_clip(slices):
    attention = next(
        module for name, module in narrow().named_modules() if name.endswith("transformer_blocks.0.attn1")
    )
    h, add = torch.randn(6, 9, 16), torch.randn(6, 9, 16)
    found = attention.across_frames(h, 3, slices, add)
    for frame in range(6):
        first = frame // 3 * 3
        both = torch.stack([h[frame], h[first]])
        q, k, v = attention.to_q(both[:1]), attention.to_k(both[1:]), attention.to_v(both[1:])
        due = attention.to_out[0](attention.attend(q, k, v, None), add=add[frame][None])
        torch.testing.assert_close(found[frame], due[0], atol=1e-5, rtol=0)


def test_attention_is_across_frames_only_within_and_where_asked():
    assert not attends_across_frames()
    with cross_frame(True):
        assert attends_across_frames()
        with cross_frame(False):
            assert not attends_across_frames()
        assert attends_across_frames()
    assert not attends_across_frames()
    with suppress(KeyError), cross_frame(True):
        raise KeyError
    assert not attends_across_frames()
