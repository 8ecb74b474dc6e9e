import json
import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch.nn import functional as F

from sfumato import weights
from sfumato.data.captions import TINTS
from sfumato.data.icons import to_signal
from sfumato.errors import CheckpointError, UsageError
from sfumato.evaluate import scorer
from sfumato.evaluate.scorer import SHIPPED, Head, HeadConfig, Scorer, retrieval


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


@pytest.mark.parametrize("number", [0.0, math.nan])
def test_vectors_that_tell_nothing_apart_find_nothing(number):
    texts = unit(20, 8, seed=4)
    found = retrieval(torch.full_like(texts, number), texts, among=20, seed=0)
    assert (found.top1, found.median_rank) == (0, 20)


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
        ({"config": '{"blocks": -1}'}, {}, "blocks is -1: must be at least 0"),
        ({"config": "[]"}, {}, "the config in the header of .* must hold a JSON object"),
        (None, {"extra": torch.zeros(1)}, "'extra' is unknown"),
        (None, {"mean": torch.zeros(5)}, r"'mean' has shape \[5\] where \[6\] is due"),
    ],
)
def test_a_file_that_is_no_scorer_is_refused(head_file, metadata, changes, said):
    with pytest.raises(CheckpointError, match=said):
        scorer.load_head(head_file(metadata, **changes))


def circles_on_a_point(draw, ink):
    draw.ellipse((32, 48, 132, 148), fill=ink)
    draw.ellipse((124, 48, 224, 148), fill=ink)
    draw.polygon([(41, 127), (215, 127), (128, 226)], fill=ink)


def ten_corners(draw, ink):
    corners = [(k * math.pi / 5, 42 if k % 2 else 100) for k in range(10)]
    draw.polygon([(128 + r * math.sin(a), 134 - r * math.cos(a)) for a, r in corners], fill=ink)


def walls_and_roof(draw, ink):
    draw.polygon([(128, 30), (236, 128), (20, 128)], fill=ink)
    draw.rectangle((52, 120, 204, 226), fill=ink)
    draw.rectangle((108, 160, 148, 226), fill="white")


def shaft_and_head(draw, ink):
    draw.rectangle((30, 104, 140, 152), fill=ink)
    draw.polygon([(130, 56), (230, 128), (130, 200)], fill=ink)


THINGS = {"heart": circles_on_a_point, "star": ten_corners, "house": walls_and_roof, "arrow": shaft_and_head}
COLOURS = ("red", "green", "blue", "yellow")


@pytest.fixture(scope="module")
def shipped():
    return Scorer.load(None, torch.device("cpu"))


def test_the_shipped_scorer_finds_the_captions_of_drawings_it_never_saw(shipped):
    captions, pictures = [], []
    for thing, draw in THINGS.items():
        for colour in COLOURS:
            image = Image.new("RGB", (256, 256), "white")
            draw(ImageDraw.Draw(image), TINTS[colour])
            captions.append(f"{colour} {thing}, solid icon")
            pictures.append(torch.from_numpy(np.array(image)))
    found = retrieval(
        shipped.of_pictures(to_signal(torch.stack(pictures))), shipped.of_texts(captions), 16, seed=0
    )
    assert found.top1 > 0.8


def test_vectors_are_unit_and_depend_on_no_neighbour(shipped):
    pictures = torch.rand(3, 3, 40, 56, generator=torch.Generator().manual_seed(8)) * 2 - 1
    vectors = shipped.of_pictures(pictures)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(shipped.of_pictures(pictures[1:2])[0], vectors[1], atol=1e-4, rtol=0)
    texts = ["a cat", "a very long text about nothing much at all, told slowly", "dog"]
    together = shipped.of_texts(texts)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(3))
    for text, vector in zip(texts, together, strict=True):
        torch.testing.assert_close(shipped.of_texts([text])[0], vector, atol=1e-5, rtol=0)


def test_the_shipped_file_is_small_and_says_what_made_it():
    told = weights.metadata(SHIPPED)
    assert SHIPPED.stat().st_size <= 2_000_000
    assert "pictures" in told["trained"]
    figures = json.loads(told["figures"])
    assert figures["top1_held_out"] > 0.25
    assert figures["colour_held_out"] > 0.8
