"""Which pictures come at which step: all of them, once an epoch, the same ones however a run was cut."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sfumato.errors import DataError
from sfumato.train.context import StepContext, seed_of
from sfumato.train.order import CAPTIONS, CROPS, Epochs, WeightedSampling, random_of

SMALL, WIDE, TALL = (8, 8), (12, 4), (4, 12)


def context(step, part=0, parts=1, seed=0):
    return StepContext(step, part, parts, torch.Generator().manual_seed(seed_of(seed, step, part)))


def batches(order, steps, count):
    return [order(context(step), count) for step in range(steps)]


@pytest.mark.parametrize("steps", [6, 60])
def test_every_picture_comes_once_an_epoch_in_batches_of_one_size(steps):
    sizes = [SMALL] * 8 + [WIDE] * 12 + [TALL] * 4
    order = Epochs(sizes, [1.0] * 24, 4, seed=1)
    seen = batches(order, steps, 4)
    for size, rows in seen:
        assert {sizes[row] for row in rows} == {size}
    for start in range(0, steps, 6):
        assert sorted(row for _, rows in seen[start : start + 6] for row in rows) == list(range(24))
    assert [order.epoch(step) for step in (0, 5, 6)] == [0, 0, 1]


def test_epochs_differ_and_so_do_seeds():
    order, other = (Epochs([SMALL] * 40, [1.0] * 40, 40, seed) for seed in (1, 2))
    first, second = (rows for _, rows in batches(order, 2, 40))
    assert first != second
    assert first != other(context(0), 40)[1]


def test_batches_are_shuffled_over_the_sizes():
    order = Epochs([SMALL] * 80 + [WIDE] * 80, [1.0] * 160, 4, seed=0)
    sizes = [size for size, _ in batches(order, 40, 4)]
    changes = sum(one != other for one, other in pairwise(sizes))
    assert 10 < changes < 30


@given(
    st.lists(st.sampled_from([SMALL, WIDE, TALL]), min_size=1, max_size=30),
    st.integers(1, 7),
    st.integers(1, 3),
    st.integers(0, 60),
    st.data(),
)
def test_any_step_by_any_number_of_parts_is_what_the_unbroken_run_had(sizes, count, parts, step, data):
    seed = data.draw(st.integers(0, 5))
    batch = count * parts
    weights = data.draw(st.lists(st.sampled_from([0.5, 1.0, 2.5]), min_size=len(sizes), max_size=len(sizes)))
    unbroken, resumed = (Epochs(sizes, weights, batch, seed) for _ in range(2))
    for earlier in range(step):
        unbroken(context(earlier), batch)
    size, rows = unbroken(context(step), batch)
    shares = [resumed(context(step, part, parts), count) for part in range(parts)]
    assert [row for _, share in shares for row in share] == rows
    assert {size} == {each for each, _ in shares}
    assert len(rows) == batch


@given(
    st.lists(st.sampled_from([SMALL, WIDE, TALL]), min_size=1, max_size=20), st.integers(1, 6), st.integers()
)
def test_what_is_left_over_waits_for_the_next_epoch(sizes, batch, seed):
    order = Epochs(sizes, [1.0] * len(sizes), batch, abs(seed))
    steps, counts = 0, Counter()
    while order.epoch(steps) < 5:
        counts.update(order(context(steps), batch)[1])
        steps += 1
    for size in set(sizes):
        own = [row for row, each in enumerate(sizes) if each == size]
        shown = sum(counts[row] for row in own)
        # full epochs, but for less than a batch that is still waiting
        assert 5 * len(own) - batch < shown <= (order.epoch(steps)) * len(own)
        assert max(counts[row] for row in own) - min(counts[row] for row in own) <= -(-batch // len(own))


def test_pictures_come_as_often_as_their_weights_say():
    order = Epochs([SMALL] * 4, [1.0, 3.0, 0.5, 0.0], 9, seed=0)
    counts = Counter(row for _, rows in batches(order, 3, 9) for row in rows)
    assert counts == {0: 6, 1: 18, 2: 3}


def test_a_batch_of_another_size_than_the_recipes_is_refused():
    with pytest.raises(ValueError, match="2 parts of 3 are not a batch of 4"):
        Epochs([SMALL] * 8, [1.0] * 8, 4, 0)(context(0, 0, 2), 3)


def test_weights_that_show_nothing_are_an_error():
    with pytest.raises(DataError, match="every picture has the weight 0"):
        Epochs([SMALL], [0.0], 1, 0)


def test_drawn_rows_come_as_often_as_they_weigh():
    order = WeightedSampling.of([1.0, 0.0, 3.0], SMALL)
    size, rows = order(context(0), 4000)
    counts = np.bincount(rows, minlength=3)
    assert size == SMALL
    assert counts[1] == 0
    assert abs(counts[0] - 1000) < 150
    assert order(context(0), 9)[1] == rows[:9]
    assert order(context(1), 9)[1] != rows[:9]


def test_what_is_drawn_for_one_purpose_says_nothing_of_another():
    words, views = random_of(context(0), CAPTIONS), random_of(context(0), CROPS)
    assert words.random() != views.random()
    assert random_of(context(3), CAPTIONS).random() == random_of(context(3), CAPTIONS).random()
