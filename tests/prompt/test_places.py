"""Where the tokens of a prompt stand in its text, for those who colour it."""

import pytest

from sfumato.checkpoint.vocabulary import clip_tokenizer
from sfumato.prompt.explain import explain, phrases_of
from sfumato.prompt.places import Places

CLIP = clip_tokenizer()


def shown(text, dialect="sfumato", embeddings=None):
    """Each token, and the part of the text that is said to be its place."""
    read = explain(text, CLIP, dialect, steps=1, embeddings=embeddings)
    places = Places(text, CLIP)
    found = []
    for term in read.terms:
        for phrase in phrases_of(term.contents[0]):
            chunks, _ = read.chunks(phrase)
            tokens = [token for chunk in chunks for token, _ in read.tokens(chunk)]
            where = places.of(phrase, [slot for chunk in chunks for slot in chunk.slots])
            found += zip(tokens, (place and text[slice(*place)] for place in where), strict=True)
    return found


def test_every_word_is_found_where_it_stands_whatever_its_letters():
    assert shown("A Red, (red:1.3) APPLE") == [
        ("a", "A"), ("red", "Red"), (",", ","), ("red", "red"), ("apple", "APPLE"),
    ]  # fmt: skip


def test_the_same_word_is_found_once_after_the_other():
    text = "cat, a cat and a cat"
    read = explain(text, CLIP, steps=1)
    phrase = read.terms[0].contents[0]
    (chunk,), _ = read.chunks(phrase)
    places = Places(text, CLIP).of(phrase, chunk.slots)
    assert [place for place in places if text[slice(*place)] == "cat"] == [(0, 3), (7, 10), (17, 20)]


def test_a_word_within_another_is_not_taken_for_it():
    text = "scatter (cat:1.2)"
    assert shown(text)[-1] == ("cat", "cat")
    read = explain(text, CLIP, steps=1)
    phrase = read.terms[0].contents[0]
    (chunk,), _ = read.chunks(phrase)
    assert Places(text, CLIP).of(phrase, chunk.slots)[-1] == (9, 12)


def test_the_pieces_of_a_word_lie_side_by_side_and_make_it():
    found = shown("sfumatoesque light")
    assert len(found) > 2
    assert found[-1] == ("light", "light")
    assert "".join(place for _, place in found[:-1]) == "sfumatoesque"
    assert all(token == place for token, place in found)


def test_all_vectors_of_an_embedding_are_its_name():
    assert shown("a My-Cat, red", embeddings={"my-cat": 2})[1:3] == [
        ("my-cat[0]", "My-Cat"),
        ("my-cat[1]", "My-Cat"),
    ]


def test_a_word_that_is_written_otherwise_is_not_found_and_those_after_it_are():
    found = shown(r"a ca\t, red", dialect="a1111")
    assert ("red", "red") in found
    assert [token for token, place in found if place is None] == ["cat"]


@pytest.mark.parametrize("text", ["red AND (blue:1.2) sky", "red BREAK blue sky"])
def test_later_parts_are_looked_for_after_earlier_ones(text):
    assert [place for _, place in shown(text)] == ["red", "blue", "sky"]


def test_letters_that_grow_when_they_are_made_small_keep_their_places():
    assert shown("İ red")[-1] == ("red", "red")
