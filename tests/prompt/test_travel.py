"""Prompt travel: which text each frame of a clip reads, in closed form."""

import json

import numpy as np
import pytest

from sfumato.errors import UsageError
from sfumato.expansion import Prepared
from sfumato.prompt.meaning import Phrase, Travel, WeightedText
from sfumato.request import Request

pytestmark = pytest.mark.filterwarnings("ignore::sfumato.errors.SfumatoWarning")


def phrase(text):
    return Phrase((WeightedText(text),))


def contents(request, steps=1):
    (term,) = Prepared.of(request).prompt.terms(steps)
    return [term.contents[which] for which in term.at]


@pytest.mark.parametrize(
    ("keys", "frames", "loop", "of_second"),
    [
        ((0, 4), 5, False, [0, 0.25, 0.5, 0.75, 1]),
        ((1, 3), 6, False, [0, 0, 0.5, 1, 1, 1]),
        ((0, 4), 8, True, [0, 0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25]),
        ((1, 3), 6, True, [0.25, 0, 0.5, 1, 0.75, 0.5]),
    ],
)
def test_each_frame_reads_the_two_texts_around_it_by_its_distance_from_them(keys, frames, loop, of_second):
    shares = Travel((phrase("a"), phrase("b")), keys, frames, loop).shares()
    assert np.allclose(shares, [[1 - share, share] for share in of_second])


@pytest.mark.parametrize("loop", [False, True])
def test_one_text_is_that_of_every_frame(loop):
    assert Travel((phrase("a"),), (3,), 5, loop).shares() == [[1.0]] * 5


@pytest.mark.parametrize(
    "given",
    [
        {8: "an open flower", 0: "a bud"},
        {"0": "a bud", "8": "an open flower"},
        "0: a bud\n8: an open flower\n",
        ["8: an open flower", " 0 :a bud"],
    ],
)
def test_what_users_of_animatediff_write_is_read(given):
    request = Request("a rose", frames=16, travel=given)
    assert list(request.travel.items()) == [(0, "a bud"), (8, "an open flower")]
    assert Request.build(**json.loads(request.model_dump_json())) == request
    assert contents(request) == [
        Travel((phrase("a rose, a bud"), phrase("a rose, an open flower")), (0, 8), 16)
    ]


def test_weights_and_schedules_of_the_texts_are_read_as_in_any_prompt():
    request = Request("", frames=4, travel={0: "[cat:dog:0.5]", 3: "(sun:1.5)"})
    sun = Phrase((WeightedText("sun", 1.5),))
    assert contents(request, 2) == [Travel((phrase(word), sun), (0, 3), 4) for word in ("cat", "dog")]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"travel": {0: "a"}}, "travel is given without frames"),
        ({"frames": 8, "travel": {8: "a"}}, "travel names frame 8: the clip has 8 frames, 0 to 7"),
        ({"frames": 8, "travel": {-1: "a"}}, "travel.-1"),
        ({"frames": 8, "travel": "a bud"}, "must be FRAME: TEXT, as 8: an open flower"),
        ({"frames": 8, "travel": ["1: a", "1: b"]}, "frame 1 is given twice"),
        ({"frames": 8, "travel": 3}, "travel is 3"),
    ],
)
def test_what_is_no_travel_is_refused_by_name(fields, message):
    with pytest.raises(UsageError, match=message):
        Request("a cat", **fields)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a cat AND a dog", "travel and AND exclude each other"),
        ("a <lora:x:1>", "frame 0 of travel calls the adapter 'x'"),
        ("a (cat", "never closed"),
    ],
)
def test_texts_that_no_frame_can_read_are_refused(text, message):
    with pytest.raises(UsageError, match=message):
        Prepared.of(Request("", frames=8, travel={0: text}))
