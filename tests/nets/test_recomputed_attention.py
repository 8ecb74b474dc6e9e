"""Attention whose weights are computed again on the way back: the same gradients."""

import pytest
import torch
from torch.nn import functional as F

from sfumato.nets import recomputed_attention
from sfumato.nets.attention import attend
from sfumato.nets.recomputed_attention import RecomputedAttention

MASKS = {
    "none": None,
    "one for all": (1, 1, 9),
    "of every group": (3, 1, 9),
    "of every query": (3, 5, 9),
}


@pytest.fixture(params=[1 << 20, 100, 30, 1], ids=["at once", "some heads", "some rows", "row by row"])
def _blocks(request, monkeypatch):
    monkeypatch.setattr(recomputed_attention, "BLOCK", request.param)


@pytest.mark.usefixtures("_blocks")
@pytest.mark.parametrize("mask", MASKS)
def test_its_gradients_are_those_of_the_definition(mask):
    torch.manual_seed(0)
    shape = MASKS[mask]
    added = None if shape is None else torch.randn(shape, dtype=torch.float64)
    q, k, v = (torch.randn(3, places, 4, dtype=torch.float64, requires_grad=True) for places in (5, 9, 9))
    assert torch.autograd.gradcheck(lambda *x: RecomputedAttention.apply(*x, added), (q, k, v))
    scores = q @ k.mT / 2 + (0 if added is None else added)
    torch.testing.assert_close(RecomputedAttention.apply(q, k, v, added), scores.softmax(2) @ v)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("hidden", [None, (1, 9), (2, 9), (2, 1, 9, 9)])
def test_what_is_learned_through_is_what_is_drawn_with(causal, hidden):
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 9, 12, requires_grad=True) for _ in range(3))
    mask = None if hidden is None or causal else torch.randn(hidden)
    answer = attend(q, k, v, 3, causal=causal, mask=mask)
    with torch.no_grad():
        torch.testing.assert_close(answer, attend(q, k, v, 3, causal=causal, mask=mask))
    gradients = torch.autograd.grad(answer.square().sum(), (q, k, v))
    parts = (x.unflatten(2, (3, -1)).transpose(1, 2) for x in (q, k, v))
    broad = mask if mask is None or mask.ndim == 4 else mask[:, None, None]
    expected = F.scaled_dot_product_attention(*parts, broad, is_causal=causal).square().sum()
    for own, theirs in zip(gradients, torch.autograd.grad(expected, (q, k, v)), strict=True):
        torch.testing.assert_close(own, theirs)


def test_in_bfloat16_gradients_are_as_near_as_rounding_allows():
    torch.manual_seed(0)
    exact = [torch.randn(4, 64, 16, dtype=torch.float64).bfloat16().double() for _ in range(3)]
    gradients = []
    for dtype in (torch.float64, torch.bfloat16):
        given = [x.to(dtype).requires_grad_() for x in exact]
        answer = RecomputedAttention.apply(*given, None)
        gradients.append(torch.autograd.grad(answer.square().sum(), given))
    for expected, own in zip(*gradients, strict=True):
        assert own.dtype == torch.bfloat16
        assert (own.double() - expected).norm() < 0.02 * expected.norm()
