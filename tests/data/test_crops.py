"""Buckets, and the crops of pictures that fill them."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato.data.crops import Crop, CropPolicy, bucket_sizes, nearest_bucket

SIDES = st.integers(1, 5000)


@pytest.mark.parametrize(
    ("side", "step", "ratio", "sizes"),
    [
        (512, 64, 1.0, {(512, 512)}),
        (512, 64, 2.0, {(384, 640), (448, 576), (512, 512), (576, 448), (640, 384)}),
        (32, 8, 3.0, {(16, 64), (24, 40), (32, 32), (40, 24), (64, 16)} - {(16, 64), (64, 16)}),
        (20, 8, 2.0, {(16, 24), (20, 20), (24, 16)}),
    ],
)
def test_buckets_of_a_square(side, step, ratio, sizes):
    assert set(bucket_sizes(side, step, ratio)) == sizes


@given(st.integers(1, 40), st.integers(1, 64), st.floats(1, 8))
def test_sizes_are_multiples_of_the_step_of_about_one_area_and_no_longer_than_allowed(times, step, ratio):
    side = times * step
    sizes = bucket_sizes(side, step, ratio)
    assert (side, side) in sizes
    for width, height in sizes:
        assert width % step == height % step == 0
        assert side * side - step * max(width, height) < width * height <= side * side
        assert max(width, height) <= ratio * min(width, height)
        assert (height, width) in sizes


@pytest.mark.parametrize(
    ("original", "size"),
    [
        ((100, 100), (512, 512)),
        ((4000, 3000), (576, 448)),
        ((3000, 4000), (448, 576)),
        ((1, 99), (384, 640)),
        ((640, 384), (640, 384)),
    ],
)
def test_a_picture_goes_to_the_size_of_the_nearest_shape(original, size):
    assert nearest_bucket(original, bucket_sizes(512, 64, 2.0)) == size


@given(SIDES, SIDES, SIDES, SIDES, st.floats(0, 1), st.floats(0, 1), st.booleans())
def test_a_crop_lies_in_the_picture_and_one_of_its_sides_is_whole(w, h, to_w, to_h, across, down, mirrored):
    crop = Crop((w, h), (to_w, to_h), across, down, mirrored)
    left, top, right, bottom = crop.box
    assert -1e-6 <= left < right <= w + 1e-6
    assert -1e-6 <= top < bottom <= h + 1e-6
    assert crop.scaled[0] == to_w or crop.scaled[1] == to_h
    for cut, whole, shown in zip(crop.visible_corner, crop.scaled, (to_w, to_h), strict=True):
        assert 0 <= cut <= whole - shown


def test_what_is_cropped_is_told_as_it_looks():
    crop = Crop((200, 100), (50, 50), across=0.25, mirrored=True)
    assert crop.scaled == (100, 50)
    assert crop.corner == (12, 0)
    assert crop.visible_corner == (38, 0)


@given(SIDES, SIDES, st.integers(0, 99))
def test_a_zoomed_crop_enlarges_no_pixel(w, h, seed):
    policy = CropPolicy(random=True, horizontal_flip=True, random_zoom=True)
    crop = policy.crop((w, h), (64, 64), Random(seed))
    if min(w, h) >= 64:
        left, top, right, bottom = crop.box
        assert right - left >= 63
        assert bottom - top >= 63


def test_only_a_policy_without_chance_is_fixed():
    assert CropPolicy().is_fixed
    assert not any(CropPolicy(**{key: True}).is_fixed for key in ("random", "horizontal_flip", "random_zoom"))
    crops = {CropPolicy().crop((30, 20), (10, 10), Random(seed)) for seed in range(9)}
    assert crops == {Crop((30, 20), (10, 10))}
    assert len({CropPolicy(random=True).crop((30, 20), (10, 10), Random(seed)) for seed in range(9)}) == 9
    turned = [
        CropPolicy(horizontal_flip=True).crop((30, 20), (10, 10), Random(seed)).mirrored for seed in range(99)
    ]
    assert 25 < sum(turned) < 75
