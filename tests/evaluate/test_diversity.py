"""Spread over seeds and among real pictures, where distances are known."""

import pytest
import torch

from sfumato.evaluate.diversity import mean_distance, mean_spread, spread

TRIANGLE = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])


def test_the_spread_is_the_mean_of_all_pairs():
    assert spread(TRIANGLE) == pytest.approx((3 + 4 + 5) / 3)


def test_equal_pictures_have_no_spread():
    assert spread(torch.ones(4, 7)) == 0


def test_groups_of_one_do_not_count():
    assert mean_spread([TRIANGLE, TRIANGLE[:1], 2 * TRIANGLE]) == pytest.approx(6)
    assert mean_spread([TRIANGLE[:1]]) is None


def test_pairs_of_one_style_and_of_one_concept_are_told_apart():
    features = torch.tensor([[0.0], [1.0], [10.0], [110.0]])
    styles, concepts = ("flat", "flat", "flat", "3d"), ("cat", "cat", "dog", "dog")
    assert mean_distance(features, same=styles, different=concepts) == pytest.approx((10 + 9) / 2)
    assert mean_distance(features, same=concepts, different=styles) == pytest.approx(100)


def test_where_there_are_no_such_pairs_there_is_no_figure():
    assert mean_distance(TRIANGLE, same="abc", different="abc") is None
    assert mean_distance(TRIANGLE, same="abc", different="aaa") is None
