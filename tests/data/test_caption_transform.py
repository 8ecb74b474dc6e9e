"""What is said of a picture: captions in templates, tags in changing order, sometimes nothing."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato.data.caption_transform import CaptionTransform
from sfumato.errors import UsageError

TAGS = ("red", "round", "small", "shiny")
TAGGED = (", ".join(TAGS),)


def said(transform, captions=TAGGED, count=200):
    return [transform.text(captions, Random(seed)) for seed in range(count)]


def test_a_caption_is_said_as_it_is():
    assert set(said(CaptionTransform())) == set(TAGGED)


def test_captions_and_templates_take_turns():
    transform = CaptionTransform(("{caption}, my style", "photo of sks"))
    assert set(said(transform, ("a cat", "a pet"))) == {"a cat, my style", "a pet, my style", "photo of sks"}


def test_a_template_without_a_place_for_a_caption_needs_none():
    transform = CaptionTransform(("photo of sks",))
    assert not transform.needs_captions
    assert set(said(transform, ())) == {"photo of sks"}
    assert CaptionTransform(("photo of sks", "{caption}")).needs_captions


def test_what_a_caption_says_is_never_a_template():
    assert said(CaptionTransform(("a {caption} b",)), ("{caption} {0}",), 1) == ["a {caption} {0} b"]


def test_texts_are_dropped_as_often_as_asked():
    assert 30 < said(CaptionTransform(caption_dropout=0.25)).count("") < 70
    assert set(said(CaptionTransform(caption_dropout=1.0))) == {""}


def test_dropping_texts_changes_no_text_that_stays():
    captions, others = tuple("abcdef"), said(CaptionTransform(), tuple("abcdef"))
    for text, other in zip(said(CaptionTransform(caption_dropout=0.5), captions), others, strict=True):
        assert text in ("", other)


def test_shuffled_tags_are_all_there_and_the_first_stay():
    texts = said(CaptionTransform(shuffle_tags=True, keep_tags=1))
    assert all(text.split(", ")[0] == "red" for text in texts)
    assert all(sorted(text.split(", ")) == sorted(TAGS) for text in texts)
    assert len(set(texts)) == 6


def test_tags_are_dropped_as_often_as_asked_and_stay_in_order():
    texts = [text.split(", ") for text in said(CaptionTransform(tag_dropout=0.5))]
    assert all(text == [tag for tag in TAGS if tag in text] for text in texts)
    assert all(text for text in texts)
    assert 60 < sum("shiny" in text for text in texts) < 140


def test_one_tag_stays_whatever_is_dropped():
    assert set(said(CaptionTransform(tag_dropout=1.0))) == {"red"}
    assert set(said(CaptionTransform(tag_dropout=1.0, keep_tags=2))) == {"red, round"}


@given(
    st.lists(st.text("ab,{} ", max_size=9), max_size=3),
    st.lists(st.sampled_from(["{caption}", "x {caption} y", "z"]), min_size=1, max_size=2),
    st.integers(),
)
def test_every_text_is_one_that_was_listed(captions, templates, seed):
    transform = CaptionTransform(tuple(templates), caption_dropout=0.3)
    assert transform.text(captions, Random(seed)) in transform.texts(captions)


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        (dict(caption_template=[]), r"caption_template is \(\): must"),
        (dict(caption_template="a {captoin}"), r"\{captoin\} is not known, only \{caption\}"),
        (dict(caption_dropout=1.5), "caption_dropout is 1.5: must be .*at most 1"),
        (dict(tag_dropout=-0.1), "tag_dropout is -0.1: must be .*at least 0"),
        (dict(keep_tags=-1), "keep_tags is -1: must be .*at least 0"),
    ],
)
def test_a_transform_that_makes_no_sense_is_refused(keys, fault):
    with pytest.raises(UsageError, match=fault):
        CaptionTransform.from_dict(keys, "recipe")
