"""What networks read of a prompt, against transformers and compel live and against each dialect's rules."""

import compel
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPTextModel, CLIPTokenizer

from sfumato import checkpoint
from sfumato.errors import UsageError
from sfumato.prompt.chunks import COMMA_REACH, chunks
from sfumato.prompt.encode import (
    MAX_LENGTH,
    TextEmbedding,
    TextEncoder,
    common_length,
    encode,
    refiner_ids,
    size_ids,
)
from sfumato.prompt.language import parse
from sfumato.prompt.meaning import Blend, Break, Concatenation, Phrase, WeightedText

ROOM = 75


@pytest.fixture(scope="module")
def model():
    return checkpoint.load("embedded", dtype=torch.float32)


@pytest.fixture(scope="module")
def peer():
    return CLIPTextModel.from_pretrained(checkpoint.embedded() / "text_encoder", dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def compels(peer):
    tokenizer = CLIPTokenizer.from_pretrained(checkpoint.embedded() / "tokenizer")
    return compel.Compel(tokenizer, peer, truncate_long_prompts=False)


def phrase(*parts):
    return Phrase(tuple(WeightedText(*part) if isinstance(part, tuple) else part for part in parts))


def ids(model, *parts, dialect="sfumato", embeddings=None):
    """The token ids of every chunk, marks and padding left out."""
    cut, _ = chunks(phrase(*parts), model.tokenizers[0], dialect, embeddings)
    return [[slot.id for slot in chunk.slots] for chunk in cut]


def states(model, content, dialect="sfumato", **options):
    return model.encode(content, dialect=dialect, **options).states


def raw(model, *rows, hidden=None):
    """States (K, 77, D) of rows of token ids, without any weighting."""
    tokenizer = model.tokenizers[0]
    full = [[tokenizer.bos, *row, tokenizer.eos] for row in rows]
    full = torch.tensor([row + [tokenizer.pad] * (77 - len(row)) for row in full])
    return model.text_encoders[0](full, hidden=hidden).states


def test_a_chunk_is_begin_text_end_and_padding(model):
    tokenizer = model.tokenizers[0]
    (chunk,), dropped = chunks(phrase(("a red apple",)), tokenizer, "plain")
    text = tokenizer.encode("a red apple")
    assert chunk.ids(tokenizer) == [tokenizer.bos, *text, tokenizer.eos, *[tokenizer.pad] * (75 - len(text))]
    assert dropped == 0


@pytest.mark.parametrize("words", [75, 76, 200])
def test_a_long_plain_prompt_is_cut_and_says_by_how_much(model, words):
    (chunk,), dropped = chunks(phrase(("a " * words,)), model.tokenizers[0], "plain")
    assert len(chunk.slots) == ROOM
    assert dropped == words - ROOM


@pytest.mark.parametrize("dialect", ["sfumato", "a1111", "comfy", "compel"])
@pytest.mark.parametrize("words", [0, 1, 75, 76, 150, 151, 1000])
def test_every_other_dialect_reads_long_prompts_to_their_end(model, dialect, words):
    found = ids(model, ("cat " * words,), dialect=dialect)
    assert sum(map(len, found)) == words
    assert max(map(len, found)) <= ROOM
    assert len(found) == max(1, -(-words // ROOM))


@given(places=st.lists(st.integers(0, 110), max_size=8))
@settings(max_examples=40)
def test_a_full_a1111_chunk_ends_at_a_comma_that_is_near(model, places):
    words = ["," if index in places else "cat" for index in range(111)]
    found = ids(model, (" ".join(words),))
    near = [place for place in set(places) if ROOM - COMMA_REACH <= place < ROOM]
    full = words[ROOM] != "," and near
    assert len(found[0]) == (max(near) + 1 if full else ROOM)
    assert [token for row in found for token in row] == model.tokenizers[0].encode(" ".join(words))


def test_a_comma_ends_a_full_chunk_if_it_is_at_most_20_tokens_back(model):
    def cut(place):
        return [len(row) for row in ids(model, ("cat " * place + "," + " cat" * 60,))]

    assert cut(55) == [56, 60]
    assert cut(54) == [75, 40]
    assert cut(74) == [75, 60]


def test_a_comma_before_a_break_cuts_nothing_after_it(model):
    found = ids(model, ("cat " * 60 + ",",), Break(), ("dog " * 80,))
    assert [len(row) for row in found] == [61, 75, 5]


def test_a_break_leaves_the_rest_of_a_chunk_empty(model):
    cat, dog = (model.tokenizers[0].encode(word) for word in ("cat", "dog"))
    assert ids(model, ("cat",), Break(), ("dog",)) == [cat, dog]
    assert ids(model, ("cat",), Break()) == [cat]
    assert ids(model, Break(), ("dog",)) == [[], dog]


def test_comfy_moves_a_short_stretch_that_does_not_fit_and_cuts_a_long_one(model):
    short = ids(model, ("cat " * 72,), ("dog " * 5, 1.2), dialect="comfy")
    assert [len(row) for row in short] == [72, 5]
    long = ids(model, ("cat " * 72,), ("dog " * 8, 1.2), dialect="comfy")
    assert [len(row) for row in long] == [75, 5]


def test_compel_ends_a_chunk_after_a_sentence_else_a_phrase_else_a_word(model):
    for mark in (".", ","):
        text = "cat " * 50 + mark + " dog" * 60
        assert [len(row) for row in ids(model, (text,), dialect="compel")] == [51, 60]
    assert [len(row) for row in ids(model, ("cat " * 100,), dialect="compel")] == [75, 25]


class Word:
    """A learned embedding of two vectors."""

    def for_width(self, index, width):
        return torch.arange(2 * width).view(2, width) / width


@pytest.mark.parametrize(
    ("dialect", "text"),
    [
        ("sfumato", "a Mine cat"),
        ("a1111", "a mine cat"),
        ("plain", "a MINE cat"),
        ("compel", "a mine cat"),
        ("comfy", "a embedding:mine cat"),
        ("comfy", "a embedding:mine.safetensors cat"),
    ],
)
def test_a_learned_embedding_stands_where_its_name_does(model, dialect, text):
    tokenizer = model.tokenizers[0]
    (chunk,), _ = chunks(phrase((text,)), tokenizer, dialect, {"mine": 2})
    a, cat = tokenizer.encode("a cat")
    assert [slot.vector for slot in chunk.slots] == [None, ("mine", 0), ("mine", 1), None]
    assert (chunk.slots[0].id, chunk.slots[3].id) == (a, cat)
    encoder = model.text_encoders[0]
    seen = states(model, phrase((text,)), dialect, embeddings={"mine": Word()})
    table = encoder.embeddings.token_embedding.weight.data
    kept, row = table[[7, 8]].clone(), torch.tensor([chunk.ids(tokenizer)])
    row[0, 2:4] = torch.tensor([7, 8])
    try:
        table[[7, 8]] = Word().for_width(0, table.shape[1])
        expected = encoder(row).states
    finally:
        table[[7, 8]] = kept
    torch.testing.assert_close(seen, expected)


def test_an_embedding_is_never_cut_and_part_of_a_word_is_no_name(model):
    assert [len(row) for row in ids(model, ("cat " * 74 + "mine",), embeddings={"mine": 2})] == [74, 2]
    assert ids(model, ("miner undermined",), embeddings={"mine": 2}) == ids(model, ("miner undermined",))
    with pytest.raises(UsageError, match="76 vectors; a chunk has room for 75"):
        ids(model, ("mine",), embeddings={"mine": 76})
    with pytest.raises(UsageError, match="unknown embedding 'min'; did you mean 'mine'"):
        ids(model, ("embedding:min",), dialect="comfy", embeddings={"mine": 2})


@pytest.mark.parametrize("clip_skip", [0, 1, 2, 3])
@pytest.mark.parametrize("dialect", ["plain", "sfumato", "a1111", "comfy", "compel"])
def test_unweighted_states_equal_transformers_at_every_clip_skip(model, peer, clip_skip, dialect):
    text = "a red apple, 3d render"
    (chunk,), _ = chunks(phrase((text,)), model.tokenizers[0], "plain")
    with torch.no_grad():
        rows = torch.tensor([chunk.ids(model.tokenizers[0])])
        hidden = peer(rows, output_hidden_states=True).hidden_states[-(clip_skip + 1)]
        theirs = peer.final_layer_norm(hidden)
    ours = model.encode(phrase((text,)), clip_skip, dialect=dialect)
    torch.testing.assert_close(ours.states, theirs, rtol=1e-4, atol=1e-5)
    assert ours.pooled is None


def test_a1111_weights_multiply_states_and_keep_each_chunks_mean(model):
    tokenizer = model.tokenizers[0]
    seen = states(model, phrase(("cat " * 75,), ("a",), ("blue dog", 1.4)), "a1111")[0].view(2, 77, -1)
    rows = ids(model, ("cat " * 75 + "a blue dog",))
    z = raw(model, *rows)
    w = torch.ones(77, 1)
    w[2 : 2 + len(tokenizer.encode("blue dog"))] = 1.4
    torch.testing.assert_close(seen[0], z[0])
    torch.testing.assert_close(seen[1], z[1] * w * (z[1].mean() / (z[1] * w).mean()))


def test_comfy_weights_move_states_away_from_the_empty_text(model):
    tokenizer = model.tokenizers[0]
    seen = states(model, phrase(("a",), ("blue dog", 0.3)), "comfy")[0]
    (z,), (empty,) = raw(model, *ids(model, ("a blue dog",))), raw(model, [])
    w = torch.ones(77, 1)
    w[2 : 2 + len(tokenizer.encode("blue dog"))] = 0.3
    torch.testing.assert_close(seen, empty + (z - empty) * w)


def build(fragments):
    """A prompt in compel's syntax."""
    return " ".join(f"({text}){weight}" for text, weight in fragments)


LONG = "a photograph of a cat on a mat. " * 12


@pytest.mark.parametrize(
    "fragments",
    [
        [("a cat", 1.0)],
        [("a cat", 1.3), ("on a mat", 1.0)],
        [("a cat", 1.0), ("on a mat", 0.5)],
        [("a cat", 0.7), ("with blue eyes", 1.5), ("on a mat", 0.2)],
        [("a cat", 0.0), ("a dog", 1.0)],
        [(LONG.strip(), 1.0), ("with blue eyes", 1.4)],
        [(LONG.strip(), 1.0), ("with blue eyes", 0.6), ("in the rain", 1.2)],
    ],
)
def test_compel_weights_equal_compel(model, compels, fragments):
    theirs = compels(build(fragments))
    ours = states(model, phrase(*fragments), "compel")
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("weight", [-0.5, -1.0, -3.0])
def test_a_weight_below_zero_gives_the_finite_states_of_compel(model, compels, weight):
    read = compels.conditioning_provider.get_embeddings_for_weighted_prompt_fragments
    theirs = read(text_batch=[["a cat", "a dog"]], fragment_weights_batch=[[1.0, weight]])
    ours = states(model, parse(f"a cat (a dog).attend({weight})", "compel").terms(1)[0].contents[0], "compel")
    assert torch.isfinite(ours).all()
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_blends_equal_compel(model, compels):
    cat, dog, long = (phrase((text,)) for text in ("a cat", "a dog", LONG.strip()))
    for content, text in (
        (Blend((cat, dog), (0.7, 0.3)), '("a cat", "a dog").blend(0.7, 0.3)'),
        (Blend((cat, dog), (0.9, 0.6), False), '("a cat", "a dog").blend(0.9, 0.6, no_normalize)'),
        (Blend((cat, long), (1.0, 1.0)), f'("a cat", "{LONG.strip()}").blend(1, 1)'),
    ):
        torch.testing.assert_close(states(model, content, "compel"), compels(text), rtol=1e-4, atol=1e-4)
    with pytest.raises(UsageError, match="sum to 0"):
        states(model, Blend((cat, dog), (1.0, -1.0)), "compel")


def test_joined_prompts_equal_compel(model, compels):
    joined = Concatenation((phrase(("a cat",)), phrase(("a dog",))), (1.0, 0.5))
    theirs = compels('("a cat", "a dog").and(1, 0.5)')
    torch.testing.assert_close(states(model, joined, "compel"), theirs, rtol=1e-4, atol=1e-4)


def test_hidden_tokens_change_nothing_before_them_and_something_after(model):
    row = ids(model, ("a big blue dog",))[0]
    hidden = torch.zeros(1, 77, dtype=torch.bool)
    hidden[0, 2] = True
    plain, masked = raw(model, row)[0], raw(model, row, hidden=hidden)[0]
    torch.testing.assert_close(masked[:2], plain[:2])
    assert not torch.allclose(masked[3], plain[3], atol=1e-3)


def test_sdxl_states_are_both_encoders_side_by_side(model):
    tokenizers, encoders = model.tokenizers * 2, model.text_encoders * 2
    both = encode("an apple", tokenizers, encoders, penultimate=True)
    one = encode("an apple", tokenizers[:1], encoders[:1], penultimate=True)
    assert torch.equal(both.states, torch.cat([one.states, one.states], dim=-1))
    assert both.pooled.shape == (1, 256)
    (chunk,), _ = chunks(phrase(("an apple",)), tokenizers[0], "plain")
    raw_states = encoders[0](torch.tensor([chunk.ids(tokenizers[0])]), skip=1, final_norm=False).states
    assert torch.equal(one.states, raw_states)


def test_the_pooled_row_is_the_first_chunks_without_weights(model):
    def pooled(content, dialect):
        return encode(
            content, model.tokenizers, model.text_encoders, dialect=dialect, penultimate=True
        ).pooled

    first = pooled("cat " * 75, "plain")
    for dialect in ("sfumato", "comfy", "compel"):
        long = pooled(phrase(("cat " * 75, 1.3), ("dog",)), dialect)
        torch.testing.assert_close(long, first)


def test_a_blend_reads_each_of_its_texts_once(model, monkeypatch):
    read, texts = TextEncoder.read, []
    monkeypatch.setattr(TextEncoder, "read", lambda *given: texts.append(given[1]) or read(*given))
    blend = Blend((phrase(("an apple",)), phrase(("a pear",))), (0.3, 0.7))
    encode(blend, model.tokenizers, model.text_encoders, dialect="compel")
    assert len(texts) == 2


def test_repeated_states_are_of_one_length_and_absurd_lengths_are_refused():
    assert common_length([77, 77 * 2, 77 * 3]) == 77 * 6
    two = TextEmbedding(torch.randn(1, 77 * 2, 4), torch.randn(1, 3))
    assert torch.equal(two.repeated(77 * 6).states, torch.cat([two.states] * 3, dim=1))
    assert two.repeated(77 * 6).pooled is two.pooled
    with pytest.raises(UsageError, match=r"77, 2\d*.* too long to be drawn together"):
        common_length([77, 77 * 31, 77 * 37])
    assert common_length([77, MAX_LENGTH]) == MAX_LENGTH


@pytest.mark.parametrize("clip_skip", [-1, 4, 100])
def test_a_clip_skip_out_of_range_names_the_range(model, clip_skip):
    with pytest.raises(UsageError, match=f"clip_skip = {clip_skip} is out of range.* 0 to 3"):
        model.encode("an apple", clip_skip)
    with pytest.raises(UsageError, match="0 to 2"):
        encode("x", model.tokenizers, model.text_encoders, penultimate=True, clip_skip=3)


def test_no_prompt_as_zeros_keeps_the_shapes():
    zero = TextEmbedding(torch.ones(1, 7, 3), torch.ones(1, 2)).zeroed()
    assert torch.equal(zero.states, torch.zeros(1, 7, 3))
    assert torch.equal(zero.pooled, torch.zeros(1, 2))
    assert TextEmbedding(torch.ones(1, 7, 3)).zeroed().pooled is None


def test_size_ids_are_height_before_width_and_top_before_left():
    assert size_ids((832, 1216)).tolist() == [[1216, 832, 0, 0, 1216, 832]]
    ids = size_ids((832, 1216), original=(640, 480), crop=(3, 5))
    assert ids.tolist() == [[480, 640, 5, 3, 1216, 832]]
    assert refiner_ids((832, 1216), crop=(3, 5)).tolist() == [[1216, 832, 5, 3, 6]]
