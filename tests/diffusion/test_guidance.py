"""Guidance as a weighted sum, against the formula of the paper."""

import math

import pytest
import torch

from sfumato.diffusion.guidance import (
    ClassifierFreeGuidance,
    InversionGuidance,
    Term,
    WeightedConditioning,
    active_terms,
    weighted_sum,
)
from sfumato.diffusion.level import Level
from sfumato.diffusion.sampling import Point

LEVEL = Level(a=0.6, s=0.8, t=500)
PURE = Level(a=0.0, s=1.0, t=999)


def estimates(count=2):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 4, 8, 8, generator=generator, dtype=torch.float64) for _ in range(count)]


def point(level=LEVEL, step=0):
    return Point(torch.zeros(2, 4, 8, 8, dtype=torch.float64), level, step)


def weights(guidance, at):
    return [term.weight for term in guidance.terms(at)]


def guided(guidance, x0s, at=None):
    """The guided estimate where conditioning number i gives `x0s[i]`."""
    at = at or point()
    terms = [term for term in guidance.terms(at) if not term.is_zero]
    return guidance.combine(at, [(term, x0s[term.conditioning]) for term in terms])


def classifier_free(scale, **more):
    return ClassifierFreeGuidance.of(0, 1, scale, **more)


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 4.0, 7.5, 20.0])
def test_mixing_clean_estimates_equals_mixing_noise_estimates(scale):
    x = torch.randn(2, 4, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    prompt, empty = estimates()
    eps_prompt, eps_empty = ((x - LEVEL.a * x0) / LEVEL.s for x0 in (prompt, empty))
    mixed = eps_empty + scale * (eps_prompt - eps_empty)
    expected = (x - LEVEL.s * mixed) / LEVEL.a
    torch.testing.assert_close(guided(classifier_free(scale), [prompt, empty]), expected)


def test_scale_one_is_the_prompt_alone_and_gives_the_other_term_weight_zero():
    prompt, empty = estimates()
    assert weights(classifier_free(1.0), point()) == [1.0, 0.0]
    assert classifier_free(1.0).terms(point())[1].is_zero
    assert torch.equal(guided(classifier_free(1.0), [prompt, empty]), prompt)
    assert torch.equal(guided(ClassifierFreeGuidance.of(0), [prompt]), prompt)


def test_outside_its_interval_guidance_is_the_prompt_alone():
    guidance = classifier_free(5.0, interval=(0.5, 2.0))
    assert weights(guidance, point()) == [5.0, -4.0]
    assert weights(guidance, point(Level(a=0.1, s=math.sqrt(0.99), t=900))) == [1.0, 0.0]
    assert weights(guidance, point(PURE)) == [1.0, 0.0]
    assert weights(classifier_free(5.0), point(PURE)) == [5.0, -4.0]


def test_outside_its_interval_a_composed_guidance_is_that_of_scale_one():
    composed = {
        "prompts": (WeightedConditioning(0, 0.7), WeightedConditioning(1, 0.4)),
        "negatives": (WeightedConditioning(2, 3.0), WeightedConditioning(3, 1.0)),
    }
    guidance = ClassifierFreeGuidance(**composed, scale=5.0, interval=(0.5, 2.0))
    assert weights(guidance, point()) == pytest.approx([3.5, 2.0, -4.5 * 0.75, -4.5 * 0.25])
    assert weights(guidance, point(PURE)) == pytest.approx([0.7, 0.4, -0.1 * 0.75, -0.1 * 0.25])
    x0s = estimates(4)
    unguided = guided(ClassifierFreeGuidance(**composed), x0s, point(PURE))
    torch.testing.assert_close(guided(guidance, x0s, point(PURE)), unguided)


def test_full_rescale_gives_the_spread_of_the_prompts_own_estimate():
    prompt, empty = estimates()
    plain = guided(classifier_free(8.0), [prompt, empty])
    full = guided(classifier_free(8.0, rescale=1.0), [prompt, empty])
    half = guided(classifier_free(8.0, rescale=0.5), [prompt, empty])
    axes = (1, 2, 3)
    torch.testing.assert_close(full.std(axes), prompt.std(axes))
    torch.testing.assert_close(half, (plain + full) / 2)
    assert (plain.std(axes) > 2 * prompt.std(axes)).all()


def test_rescaling_the_prompt_alone_changes_nothing():
    prompt, empty = estimates()
    assert torch.equal(guided(classifier_free(1.0, rescale=0.7), [prompt, empty]), prompt)


def test_several_prompts_are_composed_against_several_negatives():
    one, two, not_this, nor_that = x0s = estimates(4)
    guidance = ClassifierFreeGuidance(
        prompts=(WeightedConditioning(0, 0.7), WeightedConditioning(1, 0.4)),
        negatives=(WeightedConditioning(2, 3.0), WeightedConditioning(3, 1.0)),
        scale=5.0,
    )
    empty = 0.75 * not_this + 0.25 * nor_that
    expected = empty + 5 * (0.7 * (one - empty) + 0.4 * (two - empty))
    torch.testing.assert_close(guided(guidance, x0s), expected)


def test_the_rescale_of_several_prompts_is_to_the_spread_of_their_mean():
    one, two, _ = x0s = estimates(3)
    guidance = ClassifierFreeGuidance(
        prompts=(WeightedConditioning(0, 0.6), WeightedConditioning(1, 0.2)),
        negatives=(WeightedConditioning(2),),
        scale=6.0,
        rescale=1.0,
    )
    mean = (0.6 * one + 0.2 * two) / 0.8
    torch.testing.assert_close(guided(guidance, x0s).std((1, 2, 3)), mean.std((1, 2, 3)))


def test_a_conditioning_of_some_steps_is_left_out_of_the_others():
    guidance = ClassifierFreeGuidance(
        prompts=(
            WeightedConditioning(0, steps=frozenset({0, 1})),
            WeightedConditioning(1, steps=frozenset({2})),
        ),
        negatives=(WeightedConditioning(2),),
        scale=3.0,
    )
    assert weights(guidance, point(step=1)) == [3.0, 0.0, -2.0]
    assert weights(guidance, point(step=2)) == [0.0, 3.0, -2.0]


def test_masks_serve_as_weights():
    left, right = estimates()
    mask = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    mask[..., :4] = 1
    mixed = weighted_sum([(Term(0, mask), left), (Term(1, 1 - mask), right)])
    assert torch.equal(mixed[..., :4], left[..., :4])
    assert torch.equal(mixed[..., 4:], right[..., 4:])


def test_masks_that_cover_the_picture_need_no_negative_at_scale_one():
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :4] = 1
    guidance = ClassifierFreeGuidance(
        prompts=(WeightedConditioning(0, mask), WeightedConditioning(1, 1 - mask)),
        negatives=(WeightedConditioning(2),),
    )
    assert [term.is_zero for term in guidance.terms(point())] == [False, False, True]


def test_guidance_without_any_term_is_refused():
    with pytest.raises(ValueError, match="weight zero"):
        weighted_sum([])


def test_an_inversion_has_its_own_guidance_whose_prompts_change_at_the_steps_of_the_drawings():
    first, rest = (WeightedConditioning(number, 1.0, frozenset({number})) for number in (0, 1))
    inversion = ClassifierFreeGuidance(prompts=(first, rest), negatives=())
    guidance = InversionGuidance(drawing=classifier_free(3.0), inversion=inversion)
    assert weights(guidance, point(step=0)) == weights(guidance, point(step=1)) == [3.0, -2.0]
    for step, asked in ((-1, 0), (-2, 1)):
        active = active_terms(guidance, point(step=step))
        assert [term.conditioning for term in active] == [asked]
    swapped = InversionGuidance(drawing=inversion, inversion=classifier_free(3.0))
    for step in (0, 1):
        assert [term.conditioning for term in active_terms(swapped, point(step=step))] == [step]
