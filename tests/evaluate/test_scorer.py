import json

import pytest
import torch
from torch.nn import functional as F

from sfumato import weights
from sfumato.errors import CheckpointError, UsageError
from sfumato.evaluate import scorer
from sfumato.evaluate.scorer import Head, HeadConfig, retrieval


def unit(*shape, seed):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_vectors_that_are_their_captions_find_them():
    texts = unit(50, 8, seed=0)
    found = retrieval(texts, texts, among=20, seed=0)
    assert (found.top1, found.top5, found.median_rank, found.among) == (1, 1, 1, 20)


def test_vectors_that_know_nothing_find_captions_by_chance():
    found = retrieval(unit(2000, 32, seed=1), unit(2000, 32, seed=2), among=100, seed=0)
    assert found.top1 == pytest.approx(0.01, abs=0.008)
    assert found.top5 == pytest.approx(0.05, abs=0.02)
    assert found.median_rank == pytest.approx(50, abs=5)


def test_vectors_that_are_opposite_to_their_captions_find_them_last():
    texts = unit(30, 4, seed=3)
    assert retrieval(-texts, texts, among=30, seed=0).median_rank == 30


def test_equal_captions_are_all_right():
    texts = unit(5, 8, seed=4).repeat(4, 1)
    assert retrieval(texts, texts, among=20, seed=0).top1 == 1


def test_who_is_to_be_chosen_from_is_drawn_by_lot():
    pictures, texts = unit(300, 6, seed=5), unit(300, 6, seed=6)
    first, again, other = (retrieval(pictures, texts, among=10, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


def test_few_pictures_choose_from_all_their_captions():
    texts = unit(7, 8, seed=7)
    assert retrieval(texts, texts, among=1000, seed=0).among == 7
    with pytest.raises(UsageError, match="retrieval needs pictures"):
        retrieval(texts[:0], texts[:0], among=1000, seed=0)


@pytest.fixture
def head_file(tmp_path):
    """A function that writes a head's file with some of it changed."""

    def write(metadata=None, **changes):
        torch.manual_seed(0)
        config = HeadConfig(readings=6, width=4, blocks=1, vector=3)
        told = {"config": json.dumps(config.to_dict())} if metadata is None else metadata
        path = tmp_path / "head.safetensors"
        weights.write(path, {**Head(config).state_dict(), **changes}, told)
        return path

    return write


def test_a_head_comes_back_as_it_was_written(head_file):
    head = scorer.load_head(head_file(mean=torch.arange(6.0)))
    assert head.config == HeadConfig(readings=6, width=4, blocks=1, vector=3)
    assert torch.equal(head.mean, torch.arange(6.0))
    assert not any(weight.requires_grad for weight in head.parameters())


@pytest.mark.parametrize(
    ("metadata", "changes", "said"),
    [
        ({}, {}, "is no scorer: its header has no config"),
        ({"config": "{"}, {}, "the config in the header of .* is not"),
        ({"config": '{"wide": 3}'}, {}, "unknown key 'wide'; did you mean 'width'"),
        ({"config": '{"blocks": -1}'}, {}, "blocks = -1 must be from 0"),
        ({"config": "[]"}, {}, "the config in the header of .* must hold a JSON object"),
        (None, {"extra": torch.zeros(1)}, "'extra' is unknown"),
        (None, {"mean": torch.zeros(5)}, r"'mean' has shape \[5\] where \[6\] is due"),
    ],
)
def test_a_file_that_is_no_scorer_is_refused(head_file, metadata, changes, said):
    with pytest.raises(CheckpointError, match=said):
        scorer.load_head(head_file(metadata, **changes))
