"""The compiled attention, beside the exact one in float64 and torch's own."""

import pytest
import torch
from torch.nn import functional as F

from sfumato.nets import flash_attention
from sfumato.nets.attention import attend
from sfumato.nets.flash_attention import suits

compiled = pytest.mark.skipif(
    not flash_attention.available(),
    reason="needs AVX-512 BF16, and a C++ compiler when Sfumato is installed: apt-get install g++",
)
# batch, heads, queries, keys, width of a head
SHAPES = [
    (2, 8, 256, 256, 40),
    (2, 8, 64, 77, 160),
    (1, 1, 100, 300, 512),
    (3, 2, 49, 45, 30),
    (2, 3, 1, 1, 16),
    (1, 4, 7, 513, 18),
]


def question(batch, heads, queries, keys, width, scale=1.0):
    torch.manual_seed(0)
    q, k, v = (torch.randn(batch, places, heads * width) for places in (queries, keys, keys))
    return (scale * q).bfloat16(), (scale * k).bfloat16(), v.bfloat16()


def exact(q, k, v, heads, mask=None):
    """By the definition, of the same rounded numbers."""
    q, k, v = (x.double().unflatten(2, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    scores = q @ k.mT / q.shape[3] ** 0.5
    if mask is not None:
        scores = scores + mask.double()[:, None, None]
    return (scores.softmax(3) @ v).transpose(1, 2).flatten(2)


def error(answer, expected):
    return ((answer.double() - expected).norm() / expected.norm()).item()


@compiled
@pytest.mark.parametrize("scale", [0.2, 1.0, 4.0])
@pytest.mark.parametrize("shape", SHAPES)
@torch.inference_mode()
def test_it_is_as_exact_as_the_rounding_of_its_answer_allows(shape, scale):
    heads = shape[1]
    q, k, v = question(*shape, scale)
    assert suits(q, k, v, heads, None)
    expected = exact(q, k, v, heads)
    own = error(attend(q, k, v, heads), expected)
    parts = (x.unflatten(2, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    torchs = error(F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2), expected)
    assert own < max(1.1 * torchs, 2.0**-8)


@compiled
@pytest.mark.parametrize("rows", [1, 2])
@torch.inference_mode()
def test_keys_that_a_mask_hides_have_no_part_and_others_what_it_adds(rows):
    q, k, v = question(2, 4, 50, 80, 24)
    mask = torch.randn(rows, 80)
    mask[:, 61:] = -torch.inf
    answer = attend(q, k, v, 4, mask=mask)
    assert error(answer, exact(q, k, v, 4, mask.expand(2, -1))) < 2.0**-8
    k[:, 61:], v[:, 61:] = 1e4, -1e4
    assert torch.equal(attend(q, k, v, 4, mask=mask), answer)


@compiled
@torch.inference_mode()
def test_views_of_larger_tensors_are_read_as_they_lie():
    q, k, v = question(2, 4, 50, 60, 24)
    expected = attend(q, k, v, 4)
    together = torch.cat([k, v], dim=2)
    rows = torch.stack([q, q], dim=1)[:, 0]
    assert torch.equal(attend(rows, *together.chunk(2, dim=2), 4), expected)
    assert torch.equal(attend(q.mT.contiguous().mT, k.mT.contiguous().mT, v, 4), expected)


@compiled
@torch.inference_mode()
def test_the_number_of_threads_and_the_rows_beside_it_change_no_bit():
    q, k, v = question(3, 4, 200, 300, 40)
    answer, before = attend(q, k, v, 4), torch.get_num_threads()
    try:
        torch.set_num_threads(1 if before > 1 else 2)
        assert torch.equal(attend(q, k, v, 4), answer)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(attend(q[1:2], k[1:2], v[1:2], 4), answer[1:2])
    assert torch.equal(attend(q, k, v, 4, slices=3), answer)


@compiled
@pytest.mark.parametrize("place", ["q", "k", "v"])
@torch.inference_mode()
def test_what_is_no_number_is_not_hidden(place):
    """The engine draws again in float32 where an answer is not finite."""
    parts = dict(zip("qkv", question(1, 2, 20, 30, 24), strict=True))
    parts[place][0, 5, 3] = torch.nan
    assert attend(*parts.values(), 2).isnan().any()


def test_gradients_other_precisions_and_masks_of_every_query_are_torchs_affair():
    q, k, v = question(1, 2, 20, 30, 24)
    assert not suits(q.float(), k.float(), v.float(), 2, None)
    assert not suits(q, k, v, 2, torch.zeros(1, 1, 20, 30))
    for place in range(3):
        parts = [each.clone().requires_grad_(number == place) for number, each in enumerate((q, k, v))]
        assert not suits(*parts, 2, None)
        with torch.no_grad():
            assert suits(*parts, 2, None)
    asked = q.clone().requires_grad_()
    attend(asked, k, v, 2).sum().backward()
    assert asked.grad is not None


@compiled
@pytest.mark.skipif(not flash_attention.tiles(), reason="needs a processor with AMX")
@pytest.mark.parametrize("shape", SHAPES)
@torch.inference_mode()
def test_amx_answers_as_exactly_as_the_processors_without_it(shape, monkeypatch):
    heads = shape[1]
    parts = question(*shape)
    by_tiles, expected = attend(*parts, heads), exact(*parts, heads)
    monkeypatch.setattr(flash_attention, "tiles", lambda: False)
    without = attend(*parts, heads)
    assert error(by_tiles, expected) < max(1.1 * error(without, expected), 2.0**-8)
    assert error(without, expected) < 2.0**-8


@compiled
@torch.inference_mode()
def test_weights_too_small_to_count_cost_no_accuracy():
    """Scores far below the largest, whose weights are less than the smallest number that is normal."""
    q, k, v = question(1, 1, 40, 64, 16)
    q[:], k[:] = 8.0, 8.0
    k[:, 1::2] = -8.0
    assert error(attend(q, k, v, 1), exact(q, k, v, 1)) < 2.0**-8


@torch.inference_mode()
def test_without_it_torchs_attention_answers(monkeypatch):
    q, k, v = question(2, 4, 50, 60, 24)
    monkeypatch.setattr(flash_attention, "available", lambda: False)
    assert not suits(q, k, v, 4, None)
    assert error(attend(q, k, v, 4), exact(q, k, v, 4)) < 2.0**-7
