"""An evaluation from end to end with models that are known: perfect ones, dull ones, interrupted ones."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sfumato.data.captions import TINTS
from sfumato.errors import DataError, SfumatoWarning, UsageError
from sfumato.evaluate.candidates import Candidate, SamplingSettings
from sfumato.evaluate.colours import NAMES
from sfumato.evaluate.run import BenchmarkPlan, evaluate, prepare, to_draw

SIZE = 32
PLAN = BenchmarkPlan(count=16, things=1, varied=3, seeds=3)
CHOICE = SamplingSettings(4, 2.0, SIZE, "ddim", "trailing")


def features(pictures):
    """Colours of a thumbnail: (B, 48)."""
    return F.adaptive_avg_pool2d(pictures.float(), 4).flatten(1)


class Reader:
    """A scorer that knows which prompt asks for which real picture."""

    def __init__(self, folder, cache):
        self.head = torch.nn.Linear(1, 1)
        self.known = prepare(folder, PLAN, SIZE, cache, features, None)

    def of_texts(self, prompts):
        assert tuple(prompts) == self.known.real.prompts
        return F.normalize(self.known.seen - self.known.seen.mean(0), dim=1)

    def of_pictures(self, pictures):
        return F.normalize(features(pictures) - self.known.seen.mean(0), dim=1)


@pytest.fixture(scope="module")
def benchmark(icon_data, tmp_path_factory):
    cache = tmp_path_factory.mktemp("benchmark")
    return prepare(icon_data, PLAN, SIZE, cache, features, Reader(icon_data, cache))


@pytest.fixture
def fresh(benchmark, tmp_path):
    """The benchmark with a cache of its own."""
    return replace(benchmark, cache=tmp_path)


def to_pixels(picture):
    return ((picture + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()


def perfect(benchmark, name="perfect", asked_for=None):
    """Draws the real picture for every seed; things in the colours that are asked for."""

    def draw(asked, settings):
        for one in asked:
            if asked_for is not None:
                asked_for.append(one)
            if one.prompt in benchmark.real.prompts:
                yield one, to_pixels(benchmark.real.pictures([benchmark.real.prompts.index(one.prompt)])[0])
            else:
                pixels = np.full((SIZE, SIZE, 3), 255, np.uint8)
                pixels[8:24, 8:24] = next(TINTS[name] for name in NAMES if f" {name} " in one.prompt)
                yield one, pixels

    return Candidate(name, {"fingerprint": name}, draw, {"full": lambda x: x})


def dull(name="dull"):
    """Draws noise that no prompt changes."""

    def draw(asked, settings):
        for one in reversed(asked):
            random = np.random.default_rng(one.seed)
            yield one, random.integers(0, 256, (SIZE, SIZE, 3), np.uint8)

    return Candidate(name, {"fingerprint": name}, draw)


def test_a_model_that_draws_the_real_pictures_has_nothing_to_be_blamed_for(fresh):
    result = evaluate(perfect(fresh), [CHOICE], fresh)
    given_back, drawn = result.rows
    assert drawn.metrics.frechet == pytest.approx(0, abs=1e-3)
    assert drawn.metrics.retrieval.median_rank == 1
    assert drawn.metrics.colour == 1
    assert drawn.metrics.diversity == 0
    assert given_back.metrics.frechet == pytest.approx(0, abs=1e-3)
    assert result.fidelity["full"].psnr > 55
    assert [prompt for prompt, _ in result.shown] == list(fresh.real.prompts)


def test_a_model_that_draws_noise_is_worse_in_everything(fresh):
    drawn = evaluate(dull(), [CHOICE], fresh).rows[0].metrics
    assert drawn.frechet > 1
    assert drawn.retrieval.median_rank > 1
    assert drawn.colour < 0.5
    assert drawn.diversity > 0


def test_real_pictures_say_what_can_be_hoped_for(benchmark):
    found = {row.name: row.metrics for row in benchmark.references}
    assert found["real"].retrieval.top1 == 1
    assert found["real, captions mixed"].retrieval.top1 < 0.5
    assert found["real, other concepts"].frechet > 0
    assert found["real, halves"].pictures == 8
    assert found["real, tinted"].colour == 1
    assert found["real, named by colour"].colour == 1


def test_nothing_is_drawn_twice(fresh):
    asked = []
    first = evaluate(perfect(fresh, asked_for=asked), [CHOICE], fresh)
    assert len(asked) == len(set(asked)) == 16 + 3 * 2 + len(NAMES)
    again = evaluate(perfect(fresh, asked_for=asked), [CHOICE], fresh)
    assert len(asked) == len(fresh.samples)
    assert again.shown == first.shown
    for row, other in zip(again.rows, first.rows, strict=True):
        assert row.metrics.frechet == pytest.approx(other.metrics.frechet, abs=1e-6)
        assert row.metrics.retrieval == other.metrics.retrieval


def test_what_was_interrupted_goes_on_where_it_stopped(fresh):
    class StopError(BaseException):
        pass

    asked = []
    whole = perfect(fresh, asked_for=asked)

    def stopping(wanted, settings):
        for number, drawn in enumerate(whole.draw(wanted, settings)):
            if number == 7:
                raise StopError
            yield drawn

    with pytest.raises(StopError):
        evaluate(replace(whole, draw=stopping), [CHOICE], fresh)
    assert len(asked) == 8
    result = evaluate(whole, [CHOICE], fresh)
    assert len(asked) == len(fresh.samples) + 1
    assert result.rows[1].metrics.frechet == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda drawn: drawn[1:], "lazy was asked for 35 pictures and left out 1"),
        (
            lambda drawn: [(one, pixels[:9]) for one, pixels in drawn],
            r"lazy drew \(9, 32, 3\), not 32 × 32 × 3",
        ),
    ],
)
def test_a_model_that_does_not_draw_what_it_is_asked_for_is_named(fresh, change, said):
    def draw(asked, settings):
        yield from change(list(dull().draw(asked, settings)))

    with pytest.raises(UsageError, match=said):
        evaluate(Candidate("lazy", {}, draw), [CHOICE], fresh)


def test_more_pictures_are_drawn_besides_those_that_there_are(icon_data, tmp_path):
    few, more = (
        prepare(icon_data, replace(PLAN, count=count), SIZE, tmp_path, features, None) for count in (8, 12)
    )
    asked = []
    evaluate(perfect(few, asked_for=asked), [CHOICE], few)
    assert len(asked) == len(few.samples)
    evaluate(perfect(more, asked_for=asked), [CHOICE], more)
    assert len(asked) == len(more.samples)


@pytest.mark.parametrize(
    "other", [{"steps": 8}, {"guidance": 3.0}, {"sampler": "euler"}, {"decoder": "tiny"}]
)
def test_other_settings_are_drawn_anew(fresh, other):
    asked = []
    candidate = perfect(fresh, asked_for=asked)
    evaluate(candidate, [CHOICE, replace(CHOICE, **other)], fresh)
    assert len(asked) == 2 * len(fresh.samples)


def test_another_model_is_drawn_anew(fresh):
    evaluate(dull("a"), [CHOICE], fresh)
    asked = []
    evaluate(perfect(fresh, "b", asked), [CHOICE], fresh)
    assert len(asked) == len(fresh.samples)


def test_progress_is_told_for_every_picture_and_every_row(fresh):
    doing, rows = [], []
    candidate, settings = perfect(fresh), [CHOICE, replace(CHOICE, guidance=3.0)]
    result = evaluate(candidate, settings, fresh, doing.append, rows.append)
    assert len(doing) == to_draw(candidate, settings, fresh)
    assert doing[-1] == "perfect, ddim, 4 steps, guidance 3"
    assert tuple(rows) == result.rows


def test_the_pictures_of_the_least_distance_are_shown(fresh):
    good, bad = perfect(fresh), dull()

    def draw(asked, settings):
        yield from (good if settings.guidance == 3 else bad).draw(asked, settings)

    result = evaluate(replace(good, draw=draw), [CHOICE, replace(CHOICE, guidance=3.0)], fresh)
    _, path = result.shown[0]
    assert '"guidance": 3.0' in (path.parent / "identity.json").read_text()


def test_without_a_scorer_there_is_no_retrieval(icon_data, tmp_path):
    bare = prepare(icon_data, PLAN, SIZE, tmp_path, features, None)
    drawn = evaluate(perfect(bare), [CHOICE], bare).rows[1].metrics
    assert drawn.retrieval is None
    assert drawn.frechet is not None
    assert "real, captions mixed" not in {row.name for row in bare.references}


def test_colours_and_diversity_can_be_left_out(icon_data, tmp_path):
    bare = prepare(icon_data, replace(PLAN, things=0, varied=0), SIZE, tmp_path, features, None)
    assert bare.samples == bare.main
    drawn = evaluate(perfect(bare), [CHOICE], bare).rows[1].metrics
    assert (drawn.colour, drawn.diversity) == (None, None)
    assert drawn.frechet is not None


def test_ones_own_pictures_can_be_compared_with(own_data, tmp_path):
    benchmark = prepare(own_data, replace(PLAN, count=10), SIZE, tmp_path, features, None)
    assert len(benchmark.real) == 10
    assert all(", " not in asked.prompt for _, asked in benchmark.coloured)
    assert evaluate(dull(), [CHOICE], benchmark).rows[0].metrics.frechet > 0


def test_a_comparison_of_fewer_than_eight_is_refused(icon_data, tmp_path):
    with pytest.raises(UsageError, match="count is 7: must be at least 8"):
        prepare(icon_data, replace(PLAN, count=7), SIZE, tmp_path, features, None)


def test_a_folder_without_pictures_held_out_is_refused(tmp_path):
    with pytest.raises(DataError, match="has 0 captioned pictures held out for tests: at least 8"):
        prepare(tmp_path, PLAN, SIZE, tmp_path / "cache", features, None)


def test_fewer_pictures_than_asked_for_are_said_to_be_fewer(own_data, tmp_path):
    with pytest.warns(SfumatoWarning, match="has 12 pictures held out for tests, not 16"):
        assert len(prepare(own_data, PLAN, SIZE, tmp_path, features, None).real) == 12
