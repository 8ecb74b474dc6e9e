"""Guidance as a weighted sum, against the formula of the paper."""

import math

import pytest
import torch

from sfumato.diffusion.guidance import ClassifierFree, Unguided, weighted_sum
from sfumato.diffusion.level import Level

LEVEL = Level(a=0.6, s=0.8, t=500)


def estimates(count=2):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 4, 8, 8, generator=generator, dtype=torch.float64) for _ in range(count)]


def combine(guidance, x0s, level=LEVEL):
    return guidance.combine(x0s, guidance.weights(level))


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 4.0, 7.5, 20.0])
def test_mixing_clean_estimates_equals_mixing_noise_estimates(scale):
    x = torch.randn(2, 4, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    prompt, empty = estimates()
    eps_prompt, eps_empty = ((x - LEVEL.a * x0) / LEVEL.s for x0 in (prompt, empty))
    guided = eps_empty + scale * (eps_prompt - eps_empty)
    expected = (x - LEVEL.s * guided) / LEVEL.a
    torch.testing.assert_close(combine(ClassifierFree(scale), [prompt, empty]), expected)


def test_scale_one_is_the_prompt_alone_and_gives_the_other_term_weight_zero():
    prompt, empty = estimates()
    assert ClassifierFree(1.0).weights(LEVEL) == (1.0, 0.0)
    assert torch.equal(combine(ClassifierFree(1.0), [prompt, empty]), prompt)
    assert torch.equal(combine(Unguided(), [prompt]), prompt)


def test_outside_its_interval_guidance_is_the_prompt_alone():
    guidance = ClassifierFree(5.0, interval=(0.5, 2.0))
    inside, above = LEVEL, Level(a=0.1, s=math.sqrt(0.99), t=900)
    assert guidance.weights(inside) == (5.0, -4.0)
    assert guidance.weights(above) == (1.0, 0.0)
    assert guidance.weights(Level(a=0.0, s=1.0, t=999)) == (1.0, 0.0)
    assert ClassifierFree(5.0).weights(Level(a=0.0, s=1.0, t=999)) == (5.0, -4.0)


def test_full_rescale_gives_the_spread_of_the_prompts_own_estimate():
    prompt, empty = estimates()
    plain = combine(ClassifierFree(8.0), [prompt, empty])
    full = combine(ClassifierFree(8.0, rescale=1.0), [prompt, empty])
    half = combine(ClassifierFree(8.0, rescale=0.5), [prompt, empty])
    axes = (1, 2, 3)
    torch.testing.assert_close(full.std(axes), prompt.std(axes))
    torch.testing.assert_close(half, (plain + full) / 2)
    assert (plain.std(axes) > 2 * prompt.std(axes)).all()


def test_masks_serve_as_weights():
    left, right = estimates()
    mask = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    mask[..., :4] = 1
    mixed = weighted_sum([left, right], [mask, 1 - mask])
    assert torch.equal(mixed[..., :4], left[..., :4])
    assert torch.equal(mixed[..., 4:], right[..., 4:])


def test_guidance_without_any_term_is_refused():
    with pytest.raises(ValueError, match="weight zero"):
        weighted_sum([None, None], [0.0, 0.0])
