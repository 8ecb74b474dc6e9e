"""The metrics of an adapter, in closed form and for candidates whose pictures are known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sfumato.data.icons import to_signal
from sfumato.errors import UsageError
from sfumato.evaluate.candidates import Candidate, SamplingSettings
from sfumato.evaluate.personalization import (
    TEMPLATES,
    UNRELATED,
    PersonalizationPlan,
    agreement,
    cross_similarity,
    evaluate,
    self_similarity,
)

SETTINGS = SamplingSettings(1, 1.0, 4, "ddim", "trailing")
PLAN = PersonalizationPlan("sks mug", "mug", seeds=2)
RED, GREEN, BLUE = np.eye(3, dtype=np.uint8) * 255


def means(pictures):
    """Three numbers of a picture: how much it has of each colour."""
    return (pictures.mean((2, 3)) + 1) / 2


def painter(name, colour_of):
    """A candidate that fills every picture with one colour."""

    def draw(samples, settings):
        for sample in samples:
            yield sample, np.broadcast_to(colour_of(sample), (4, 4, 3)).copy()

    return Candidate(name, {"painter": name}, draw)


def measured(tmp_path, base, adapted, real, plan=PLAN):
    candidates = painter("base", base), painter("taught", adapted)
    pixels = torch.from_numpy(np.stack([np.broadcast_to(each, (4, 4, 3)) for each in real]))
    cpu = torch.device("cpu")
    report = evaluate(*candidates, SETTINGS, to_signal(pixels), plan, tmp_path, means, None, cpu)
    return report, {row.name: row for row in report.rows}


def test_similarities_are_means_of_cosines():
    x = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    y = torch.tensor([[3.0, 0.0], [1.0, 1.0], [-1.0, 0.0]])
    half = 2**-0.5
    assert cross_similarity(x, y) == pytest.approx((1 + half - 1 + 0 + half + 0) / 6)
    assert self_similarity(y) == pytest.approx((half - 1 - half) / 3)
    assert self_similarity(x[:1]) is None
    assert agreement(x, y[:2]) == pytest.approx((1 + half) / 2)
    z = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    pairs = [F.cosine_similarity(z[i], z[j], dim=0) for i in range(7) for j in range(7) if i != j]
    assert self_similarity(z) == pytest.approx(float(sum(pairs)) / 42, abs=1e-6)


def test_an_adapter_that_draws_what_it_was_taught_and_keeps_the_rest_has_full_marks(tmp_path):
    def base(sample):
        return GREEN if sample.prompt in UNRELATED else BLUE

    def adapted(sample):
        return RED if "sks mug" in sample.prompt else base(sample)

    report, rows = measured(tmp_path, base, adapted, [RED, RED])
    assert rows["pictures taught"].fidelity == pytest.approx(1)
    assert rows["mug, by base"].fidelity == pytest.approx(0)
    taught = rows["sks mug, by taught"]
    assert (taught.fidelity, taught.kept) == (pytest.approx(1), pytest.approx(1))
    assert taught.pictures == PLAN.seeds * len(TEMPLATES)
    assert taught.faithfulness is None
    assert [prompt for prompt, _ in report.shown] == [each.format("sks mug") for each in TEMPLATES]


def test_what_an_adapter_changes_of_the_rest_and_that_all_are_alike_is_told(tmp_path):
    def base(sample):
        return [RED, BLUE][sample.seed > 999_999] if "mug" in sample.prompt else GREEN

    def adapted(sample):
        return RED if "sks mug" in sample.prompt else [GREEN, RED][UNRELATED.index(sample.prompt) % 2]

    _, rows = measured(tmp_path, base, adapted, [RED, BLUE])
    assert rows["mug, by base"].fidelity == pytest.approx(0.5)
    assert rows["mug, by base"].diversity == pytest.approx(1)
    taught = rows["sks mug, by taught"]
    assert (taught.fidelity, taught.kept) == (pytest.approx(0.5), pytest.approx(0.5))
    assert taught.diversity == pytest.approx(0, abs=1e-6)


def test_faithfulness_is_the_cosine_of_pictures_with_their_prompts_by_the_class(tmp_path):
    class ByColour:
        """Texts about the moon are red, all others blue."""

        of_pictures = staticmethod(means)

        def of_texts(self, texts):
            assert not any("sks" in text for text in texts)
            return torch.tensor([[1.0, 0, 0] if "moon" in text else [0, 0, 1.0] for text in texts])

    candidates = [painter("base", lambda sample: BLUE), painter("taught", lambda sample: RED)]
    real = to_signal(torch.zeros(1, 4, 4, 3))
    report = evaluate(*candidates, SETTINGS, real, PLAN, tmp_path, means, ByColour(), torch.device("cpu"))
    share = sum("moon" in each for each in TEMPLATES) / len(TEMPLATES)
    assert [row.faithfulness for row in report.rows] == [None, pytest.approx(1 - share), pytest.approx(share)]


def test_the_same_again_draws_nothing_and_more_seeds_only_what_is_new(tmp_path):
    drawn = []

    def colour_of(sample):
        drawn.append(sample)
        return RED

    measured(tmp_path, colour_of, colour_of, [RED])
    assert len(drawn) == PLAN.to_draw
    measured(tmp_path, colour_of, colour_of, [RED])
    assert len(drawn) == PLAN.to_draw
    more = replace(PLAN, seeds=3)
    measured(tmp_path, colour_of, colour_of, [RED], more)
    assert len(drawn) == more.to_draw
    assert len(set(drawn)) < len(drawn)  # what is unrelated is drawn by both
    with pytest.raises(UsageError, match="count is 0"):
        replace(PLAN, seeds=0)
