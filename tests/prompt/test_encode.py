import pytest
import torch
from transformers import CLIPTextModel

from sfumato import checkpoint
from sfumato.errors import UsageError
from sfumato.prompt import Cond, encode, refiner_ids, size_ids, window


@pytest.fixture(scope="module")
def model():
    return checkpoint.load("embedded", dtype=torch.float32)


def test_a_window_is_begin_text_end_and_padding(model):
    tokenizer = model.tokenizers[0]
    ids, dropped = window("a red apple", tokenizer)
    text = tokenizer.encode("a red apple")
    assert ids.tolist() == [[tokenizer.bos, *text, tokenizer.eos, *[tokenizer.pad] * (75 - len(text))]]
    assert dropped == 0


def test_a_long_prompt_is_cut_and_says_by_how_much(model):
    tokenizer = model.tokenizers[0]
    for words in (75, 76, 200):
        text = "a " * words
        ids, dropped = window(text, tokenizer)
        assert ids.shape == (1, 77)
        assert (ids[0, 0], ids[0, -1]) == (tokenizer.bos, tokenizer.eos)
        assert dropped == words - 75


@pytest.mark.parametrize("clip_skip", [0, 1, 2, 3])
def test_states_equal_transformers_at_every_clip_skip(model, clip_skip):
    peer = CLIPTextModel.from_pretrained(checkpoint.embedded() / "text_encoder", dtype=torch.float32).eval()
    ids, _ = window("a red apple, 3d render", model.tokenizers[0])
    with torch.no_grad():
        hidden = peer(ids, output_hidden_states=True).hidden_states[-(clip_skip + 1)]
        theirs = peer.final_layer_norm(hidden)
    ours = model.encode("a red apple, 3d render", clip_skip)
    torch.testing.assert_close(ours.states, theirs, rtol=1e-4, atol=1e-5)
    assert ours.pooled is None


def test_sdxl_states_are_both_encoders_side_by_side(model):
    tokenizers, encoders = model.tokenizers * 2, model.text_encoders * 2
    both = encode("an apple", tokenizers, encoders, penultimate=True)
    one = encode("an apple", tokenizers[:1], encoders[:1], penultimate=True)
    assert torch.equal(both.states, torch.cat([one.states, one.states], dim=-1))
    assert both.pooled.shape == (1, 256)
    ids, _ = window("an apple", tokenizers[0])
    raw = encoders[0](ids, skip=1, final_norm=False).states
    assert torch.equal(one.states, raw)


@pytest.mark.parametrize("clip_skip", [-1, 4, 100])
def test_a_clip_skip_out_of_range_names_the_range(model, clip_skip):
    with pytest.raises(UsageError, match=f"clip_skip = {clip_skip} is out of range.* 0 to 3"):
        model.encode("an apple", clip_skip)
    with pytest.raises(UsageError, match="0 to 2"):
        encode("x", model.tokenizers, model.text_encoders, penultimate=True, clip_skip=3)


def test_no_prompt_as_zeros_keeps_the_shapes():
    zero = Cond(torch.ones(1, 7, 3), torch.ones(1, 2)).zeroed()
    assert torch.equal(zero.states, torch.zeros(1, 7, 3))
    assert torch.equal(zero.pooled, torch.zeros(1, 2))
    assert Cond(torch.ones(1, 7, 3)).zeroed().pooled is None


def test_size_ids_are_height_before_width_and_top_before_left():
    assert size_ids((832, 1216)).tolist() == [[1216, 832, 0, 0, 1216, 832]]
    ids = size_ids((832, 1216), original=(640, 480), crop=(3, 5))
    assert ids.tolist() == [[480, 640, 5, 3, 1216, 832]]
    assert refiner_ids((832, 1216), crop=(3, 5)).tolist() == [[1216, 832, 5, 3, 6]]
