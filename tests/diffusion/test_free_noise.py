"""Noise of clips: frame by frame, and shared by the windows of long ones."""

import torch

from sfumato.diffusion.free_noise import free_noise
from sfumato.diffusion.sampling import SeededNoise


def test_more_frames_change_nothing_of_the_first_ones_and_the_first_is_the_pictures():
    long, short = (SeededNoise([7])(torch.empty(1, 4, frames, 3, 5)) for frames in (9, 2))
    assert torch.equal(long[:, :, :2], short)
    assert torch.equal(short[:, :, 0], SeededNoise([7])(torch.empty(1, 4, 3, 5)))


def test_frames_behind_the_window_hold_its_noise_in_another_order():
    eps = torch.arange(20.0).view(1, 1, 20, 1, 1)
    order = free_noise(eps, 8, 4, seed=3).flatten().tolist()
    assert order[:8] == list(range(8))
    for begin in range(8, 20, 4):
        first = begin % 8
        assert sorted(order[begin : begin + 4]) == list(range(first, first + 4))
    assert order != free_noise(eps, 8, 4, seed=4).flatten().tolist()
    assert free_noise(eps, 8, 4, seed=3).flatten().tolist() == order


def test_a_stride_that_does_not_divide_the_window_repeats_all_of_it():
    order = free_noise(torch.arange(21.0).view(1, 1, 21, 1, 1), 7, 3, seed=0).flatten().tolist()
    assert sorted(order[7:14]) == list(range(7))
    assert sorted(order[14:]) == list(range(7))


def test_a_clip_of_one_window_keeps_its_noise():
    eps = torch.randn(1, 4, 8, 2, 2)
    assert torch.equal(free_noise(eps, 8, 4, seed=0), eps)
