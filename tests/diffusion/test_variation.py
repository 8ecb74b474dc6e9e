"""Noise between noises, in closed form."""

import math

import pytest
import torch

from sfumato.diffusion.sampling import SeededNoise
from sfumato.diffusion.variation import slerp, varied


def noise(seed):
    return SeededNoise([seed])(torch.empty(1, 4, 64, 64))


def angle(a, b):
    u, v = a.flatten().double(), b.flatten().double()
    return math.acos(min(1.0, float(u @ v / (u.norm() * v.norm()))))


def test_the_ends_are_the_noises_to_the_bit():
    a, b = noise(0), noise(1)
    assert torch.equal(slerp(a, b, 0.0), a)
    assert torch.equal(slerp(a, b, 1.0), b)


@pytest.mark.parametrize("amount", [0.1, 0.5, 0.9])
def test_noise_in_between_has_mean_0_and_spread_1_as_a_plain_mean_has_not(amount):
    between = slerp(noise(0), noise(1), amount)
    assert float(between.mean()) == pytest.approx(0, abs=0.02)
    assert float(between.std()) == pytest.approx(1, abs=0.02)
    plain = (1 - amount) * noise(0) + amount * noise(1)
    assert float(plain.std()) < 0.93


def test_equal_amounts_are_equal_angles():
    a, b = noise(0), noise(1)
    whole = angle(a, b)
    for amount in (0.1, 0.25, 0.7):
        assert angle(a, slerp(a, b, amount)) == pytest.approx(amount * whole, rel=2e-2)


def test_unit_vectors_at_a_right_angle_turn_as_cosine_and_sine():
    a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    third = slerp(a, b, 1 / 3)
    torch.testing.assert_close(third, torch.tensor([[math.cos(math.pi / 6), math.sin(math.pi / 6)]]))


def test_parallel_tensors_are_mixed_plainly():
    a = noise(0)
    torch.testing.assert_close(slerp(a, a, 0.3), a)
    torch.testing.assert_close(slerp(a, 2 * a, 0.5), 1.5 * a)


def test_several_noises_are_mixed_in_one_after_another():
    a = noise(7)
    torch.testing.assert_close(
        varied(a, (1, 2), (0.2, 0.4)), slerp(slerp(a, noise(1), 0.2), noise(2), 0.4), rtol=0, atol=0
    )
    assert varied(a, (), ()) is a
    assert torch.equal(varied(a, (1, 2), (0.0, 0.0)), a)
