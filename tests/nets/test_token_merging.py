"""Token merging: self-attention over fewer places."""

import diffusers
import pytest
import tomesd
import torch

import sfumato
from sfumato.config import UNetConfig
from sfumato.nets.token_merging import Merging
from sfumato.nets.unet import UNet

WIDE = {
    "sample_size": 16,
    "block_out_channels": [8, 16],
    "down_block_types": ["CrossAttnDownBlock2D"] * 2,
    "up_block_types": ["CrossAttnUpBlock2D"] * 2,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 2,
    "cross_attention_dim": 24,
}


@pytest.mark.parametrize("size", [(16, 16), (10, 13)], ids=str)
@pytest.mark.parametrize("ratio", [0.2, 0.5, 0.75])
def test_a_network_answers_as_with_the_tomesd_package(ratio, size):
    torch.manual_seed(1)
    theirs = diffusers.UNet2DConditionModel(**WIDE).eval()
    ours = UNet(UNetConfig.from_dict(WIDE, "the UNet")).eval()
    ours.load_state_dict(theirs.state_dict())
    x, states, t = torch.randn(2, 4, *size), torch.randn(2, 7, 24), torch.tensor([400, 30])
    tomesd.apply_patch(theirs, ratio=ratio, use_rand=False)
    with torch.no_grad():
        expected = theirs(x, t, encoder_hidden_states=states).sample
        asked = x, ours.embed_time(t), ours.context(states)
        found = ours.denoise(*asked, token_merging=ratio)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
        assert (ours.denoise(*asked) - found).abs().max() > 1e-3


def test_places_that_are_alike_are_made_their_mean():
    h = torch.eye(16)[None].clone()
    h[0, 1], h[0, 4] = 2 * h[0, 0], 4 * h[0, 0]  # in the direction of the first place of their square
    merging = Merging.of(h, (4, 4), 2 / 16)
    merged = merging.merge(h)
    assert merged.shape == (1, 14, 16)
    whole = merging.unmerge(merged)
    for place in (0, 1, 4):
        torch.testing.assert_close(whole[0, place], torch.eye(16)[0] * (1 + 2 + 4) / 3)
    others = [place for place in range(16) if place not in (0, 1, 4)]
    torch.testing.assert_close(whole[0, others], h[0, others])


def test_a_row_is_merged_as_it_is_alone():
    h = torch.randn(3, 30, 8)
    together = Merging.of(h, (5, 6), 0.6)
    for row in range(3):
        alone = Merging.of(h[row : row + 1], (5, 6), 0.6)
        assert torch.equal(alone.merged[0], together.merged[row])


def test_the_request_says_how_much_and_the_record_repeats_it(tmp_path):
    studio = sfumato.load(device="cpu", dtype="float32")
    asked = {"prompt": "a red apple", "steps": 2, "seed": 3, "width": 128, "height": 128}
    plain, merged = (studio.generate(**asked, token_merging=ratio) for ratio in (0, 0.5))
    assert merged.differs(plain) is not None
    again = sfumato.Image.open(merged.save(tmp_path / "merged.png"))
    assert again.request.token_merging == 0.5
    assert studio.generate(again.request).differs(merged) is None
