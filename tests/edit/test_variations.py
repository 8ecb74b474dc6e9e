"""Variations of pictures by the embedded model, as a user asks for them."""

import numpy as np
import pytest

import sfumato
from sfumato.errors import UsageError

SMALL = {"steps": 3, "width": 64, "height": 64}
APPLE = "a red apple, 3d render"
pytestmark = pytest.mark.filterwarnings("ignore:.*far from the:sfumato.errors.SfumatoWarning")


@pytest.fixture(scope="module")
def studio():
    return sfumato.load(device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def apple(studio):
    return studio.generate(APPLE, seed=7, **SMALL)


def distance(one, other):
    return float(np.abs(one.pixels.astype(float) - other.pixels).mean())


@pytest.mark.parametrize("sampler", ["dpmpp-2m", "euler-a"])
def test_amount_0_is_the_picture_itself(studio, sampler):
    fields = {**SMALL, "sampler": sampler, "seed": 7}
    plain = studio.generate(APPLE, **fields)
    varied = studio.generate(APPLE, variation_seed=9, variation_amount=0, **fields)
    assert varied.differs(plain) is None


def test_amount_1_is_the_picture_of_the_other_seed(studio, apple):
    fields = {**SMALL, "sampler": apple.request.sampler}
    varied = studio.generate(APPLE, seed=3, variation_seed=7, variation_amount=1, **fields)
    assert varied.differs(apple) is None


def test_the_noise_of_a_samplers_steps_stays_that_of_the_seed(studio):
    fields = {**SMALL, "sampler": "ddpm", "seed": 7, "variation_amount": 1}
    one = studio.generate(APPLE, variation_seed=7, **fields)
    assert one.differs(studio.generate(APPLE, **SMALL, sampler="ddpm", seed=7)) is None
    other = studio.generate(APPLE, variation_seed=8, **fields)
    assert other.differs(studio.generate(APPLE, **SMALL, sampler="ddpm", seed=8)) is not None


def test_more_of_the_other_noise_changes_more(studio, apple):
    amounts = (0.02, 0.1, 0.4)
    apart = [
        distance(apple, studio.vary(apple, count=1, amount=amount, variation_seed=5)[0]) for amount in amounts
    ]
    assert 0 < apart[0] < apart[1] < apart[2]


def test_variations_of_a_picture_keep_its_seed_and_count_the_other_one_up(studio, apple):
    drawn = studio.vary(apple, count=3, amount=0.2, variation_seed=11)
    assert [each.request.seed for each in drawn] == [7, 7, 7]
    assert [each.request.variation_seed for each in drawn] == [(11,), (12,), (13,)]
    assert {each.request.count for each in drawn} == {1}
    assert drawn[1].differs(drawn[2]) is not None


def test_a_variation_and_a_variation_of_it_are_replayed_by_their_records(studio, apple, tmp_path):
    (first,) = studio.vary(apple, count=1)
    (second,) = studio.vary(first, count=1, amount=0.1)
    assert second.request.variation_amount == (0.2, 0.1)
    assert second.request.variation_seed[0] == first.request.variation_seed[0]
    for name, each in (("first.png", first), ("second.png", second)):
        again = sfumato.Image.open(each.save(tmp_path / name))
        assert studio.generate(again.request).differs(each) is None


def test_any_other_picture_is_varied_from_itself_by_the_amount(studio):
    rows, columns = np.indices((64, 64))
    picture = np.stack([rows * 4, columns * 4, np.full_like(rows, 90)], -1).astype(np.uint8)
    (same,) = studio.vary(picture, count=1, amount=0, **SMALL)
    assert same.differs(studio.generate("", image=picture, strength=0, **SMALL)) is None
    one, two = studio.vary(picture, count=2, amount=0.5, seed=7, **SMALL)
    assert one.differs(two) is not None
    (further,) = studio.vary(picture, count=1, amount=0.8, seed=7, **SMALL)
    assert 0 < distance(one, same) < distance(further, same)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"variation_seed": 3}, "without variation_amount"),
        ({"variation_amount": 1.5}, "variation_amount.0 is 1.5: must be at most 1"),
        ({"variation_seed": -1, "variation_amount": 0.1}, "variation_seed.0 is -1: must be at least 0"),
        ({"variation_seed": (1, 2), "variation_amount": 0.1}, "each needs an amount"),
    ],
)
def test_what_is_wrong_of_a_variation_is_told(fields, words):
    with pytest.raises(UsageError, match=words):
        sfumato.Request(APPLE, **fields)


def test_a_count_beyond_the_last_variation_seed_is_told_before_drawing(studio):
    with pytest.raises(UsageError, match="variation_seed is 9223372036854775807: with 2 images"):
        studio.prepare(APPLE, seed=1, variation_seed=2**63 - 1, variation_amount=0.1, count=2)


def test_the_noise_of_an_inversion_is_not_varied(apple):
    with pytest.raises(UsageError, match="varied by strength"):
        sfumato.Request(APPLE, image=apple, inversion="ddim", variation_amount=0.1)


def test_several_variations_by_amount_0_are_all_the_picture_itself(studio, apple):
    drawn = studio.vary(apple, count=2, amount=0)
    assert [each.differs(apple) for each in drawn] == [None, None]
