"""A benchmark from end to end: what is drawn, what it is compared with, and the metrics."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from sfumato.data.icons import to_signal
from sfumato.errors import DataError, UsageError, warn
from sfumato.evaluate import colours, diversity, examples
from sfumato.evaluate.cache import FeatureFn, PictureCache, Sample, cached_features, digest
from sfumato.evaluate.candidates import Candidate, SamplingSettings
from sfumato.evaluate.distances import frechet, kernel
from sfumato.evaluate.examples import Data, Examples
from sfumato.evaluate.features import SHA256, Features
from sfumato.evaluate.fidelity import Fidelity, fidelity
from sfumato.evaluate.scorer import Retrieval, Scorer, retrieval
from sfumato.evaluate.shapes import Shapes

CPU = torch.device("cpu")
AT_ONCE = 32
"""Pictures in a batch."""
FEWEST = 8
"""Pictures below which no metric means anything."""
AMONG = 1000
"""Captions among which a picture's own has to be found."""
ON_SHEET = 64
_NEXT_SEED = 1_000_000
"""Between the seeds of one prompt, so that no two prompts share any."""


@dataclass(frozen=True)
class BenchmarkPlan:
    """Which pictures a benchmark draws with every model: how many, from which prompts and seeds."""

    count: int = 1000
    """Pictures of held-out concepts, and their prompts."""
    seed: int = 0
    """Of the first picture, of the choice of prompts, and of every random subset."""
    things: int = 4
    """Prompts for each colour; 0 leaves colours out."""
    varied: int = 16
    """The first so many prompts are drawn from several seeds (0 leaves diversity out),"""
    seeds: int = 4
    """from so many."""

    def __post_init__(self) -> None:
        if self.count < FEWEST:
            least = f"must be at least {FEWEST}; metrics settle at about 1000"
            raise UsageError(f"count is {self.count}: {least}")


@dataclass(frozen=True)
class Metrics:
    """The metrics of a set of pictures; docs/evaluation.md says what each means."""

    pictures: int
    frechet: float | None = None
    kernel: tuple[float, float] | None = None
    retrieval: Retrieval | None = None
    colour: float | None = None
    diversity: float | None = None
    seconds: float | None = None
    colours: Mapping[str, Mapping[str, int]] | None = None
    """For every colour asked for, how often each was found."""


@dataclass(frozen=True)
class ResultRow:
    """A line of the table: `settings` is `None` for real pictures and reconstructions."""

    name: str
    settings: SamplingSettings | None
    metrics: Metrics


@dataclass(frozen=True)
class Result:
    """The results of one model."""

    name: str
    identity: Mapping[str, str]
    rows: tuple[ResultRow, ...]
    fidelity: Mapping[str, Fidelity]
    """Of its autoencoder, by decoder."""
    shown: tuple[tuple[str, Path], ...]
    """Prompts and pictures under the settings of the least Fréchet distance."""


@dataclass(frozen=True, eq=False)
class Benchmark:
    """The data, features and references that every model is evaluated with, prepared once."""

    plan: BenchmarkPlan
    size: int
    cache: Path
    real: Examples
    features: FeatureFn
    scores: FeatureFn | None
    texts: Tensor | None
    """The scorer's vectors of the prompts."""
    seen: Tensor
    """Features of the real pictures."""
    scorer: str | None
    """A digest of the scorer's weights."""
    apart: float | None
    """Mean distance of the features of real pictures of one style that show different things."""
    coloured: tuple[tuple[str, Sample], ...]
    """Names of colours, and samples that ask for something of that colour."""
    references: tuple[ResultRow, ...]

    @property
    def main(self) -> list[Sample]:
        """A picture for every real one."""
        return [Sample(prompt, self.plan.seed + place) for place, prompt in enumerate(self.real.prompts)]

    @property
    def varied(self) -> list[list[Sample]]:
        """The first prompts, each from several seeds."""
        return [
            [Sample(one.prompt, one.seed + number * _NEXT_SEED) for number in range(self.plan.seeds)]
            for one in self.main[: self.plan.varied]
        ]

    @property
    def samples(self) -> list[Sample]:
        """Everything that is drawn under one choice of settings, each sample once."""
        more = [one for group in self.varied for one in group]
        return list(dict.fromkeys([*self.main, *more, *(one for _, one in self.coloured)]))


def prepare(
    folder: Path | None,
    plan: BenchmarkPlan,
    size: int,
    cache: Path,
    features: Features,
    scorer: Scorer | None,
    device: torch.device = CPU,
) -> Benchmark:
    """The benchmark on the data in `folder`, or on drawn shapes; its references are metrics of real pictures.

    `size`: pixels a side of everything that is compared; `device`: where features and scorer are. Raises
    `DataError` and `UsageError` for data that are not there, too few or too small.
    """
    source: Data = Shapes(size)
    if folder is not None:
        source = examples.data(folder, size, cache / "folders" / f"{digest(bytes(folder.resolve()))}.json")
    real = source.examples(held_out=True, seed=plan.seed, most=plan.count)
    if len(real) < FEWEST:
        raise DataError(
            f"{folder} has {len(real)} captioned pictures held out for tests: at least {FEWEST} are needed, "
            f"as in a folder called test; `sfumato data check {folder}` says what is there"
        )
    if len(real) < plan.count:
        warn(
            f"{folder or 'the set of shapes'} has {len(real):,} pictures held out for tests, not "
            f"{plan.count:,}: these metrics can only be compared with others of as many"
        )
    look = cached_features(cache, f"features-{SHA256[:12]}", features, device)
    scores = texts = which = None
    if scorer is not None:
        which = _fingerprint(scorer)
        scores = cached_features(cache, f"scores-{which}", scorer.of_pictures, device)
        texts = scorer.of_texts(real.prompts).cpu()
    seen = vectors(look, _real(real))
    prompts = colours.prompts(plan.things, source.styles)
    coloured = tuple((name, Sample(text, plan.seed + place)) for place, (name, text) in enumerate(prompts))
    apart = diversity.mean_distance(seen, same=real.styles, different=real.concepts)
    benchmark = Benchmark(plan, size, cache, real, look, scores, texts, seen, which, apart, coloured, ())
    return replace(benchmark, references=(*_real_rows(source, benchmark), *_colour_rows(source, benchmark)))


def _real_rows(source: Data, benchmark: Benchmark) -> Iterator[ResultRow]:
    """The metrics of real pictures: about the best and the worst that a model can reach."""
    real, seen, seed = benchmark.real, benchmark.seen, benchmark.plan.seed
    own = _retrieval(benchmark, _real(real))
    alike = diversity.mean_distance(seen, same=real.concepts, different=real.styles)
    metrics = Metrics(len(real), retrieval=own, diversity=_relative(alike, benchmark.apart))
    yield ResultRow("real", None, metrics)
    others = source.examples(held_out=False, seed=seed, most=len(real))
    if len(others) == len(real):
        features = vectors(benchmark.features, _real(others))
        yield ResultRow("real, other concepts", None, _distances(seen, features, seed))
    half = len(seen) // 2
    yield ResultRow("real, halves", None, _distances(seen[:half], seen[half : 2 * half], seed))
    if benchmark.texts is not None:
        mixed = _retrieval(replace(benchmark, texts=benchmark.texts.roll(1, 0)), _real(real))
        yield ResultRow("real, captions mixed", None, Metrics(len(real), retrieval=mixed))


def _colour_rows(source: Data, benchmark: Benchmark) -> Iterator[ResultRow]:
    """How often the rule finds the colours of real pictures whose colours are known."""
    most, seed = len(colours.NAMES) * benchmark.plan.things * 2, benchmark.plan.seed
    for name, known in source.coloured(seed, most).items():
        if known:
            share, table = _colour_accuracy([(own, colours.main_colour(picture)) for own, picture in known])
            yield ResultRow(f"real, {name}", None, Metrics(len(known), colour=share, colours=table))


def evaluate(
    candidate: Candidate,
    settings: Sequence[SamplingSettings],
    benchmark: Benchmark,
    progress: Callable[[str], None] = lambda _: None,
    report: Callable[[ResultRow], None] = lambda _: None,
) -> Result:
    """Draw the benchmark's samples under each of `settings`, and measure them.

    Pictures in the cache are not drawn again. `progress` is called for every picture, `report` with every
    row. Raises `UsageError` for a candidate that does not draw what it is asked for.
    """
    rows: list[ResultRow] = []
    losses: dict[str, Fidelity] = {}
    for decoder, roundtrip in candidate.roundtrips.items():
        row, losses[decoder] = _reconstruction(candidate, decoder, roundtrip, benchmark, progress)
        rows.append(row)
        report(row)
    shown: tuple[tuple[str, Path], ...] = ()
    least = math.inf
    for choice in settings:
        album = PictureCache(benchmark.cache, {**candidate.identity, **asdict(choice)})
        draw(candidate, choice, benchmark.samples, album, progress)
        metrics = _metrics(album, benchmark)
        rows.append(ResultRow(candidate.name, choice, metrics))
        report(rows[-1])
        if metrics.frechet is not None and metrics.frechet < least:
            least = metrics.frechet
            shown = tuple((one.prompt, album.path(one)) for one in benchmark.main[:ON_SHEET])
    return Result(candidate.name, candidate.identity, tuple(rows), losses, shown)


def draw(
    candidate: Candidate,
    settings: SamplingSettings,
    samples: Sequence[Sample],
    album: PictureCache,
    progress: Callable[[str], None],
) -> None:
    """Draw what the album lacks."""
    doing = f"{candidate.name}, {settings.sampler}, {settings.steps} steps, guidance {settings.guidance:g}"
    missing = [one for one in samples if not album.path(one).is_file()]
    for _ in range(len(samples) - len(missing)):
        progress(doing)
    if not missing:
        return
    since = perf_counter()
    with closing(candidate.draw(missing, settings)) as drawing:
        for one, pixels in drawing:
            seconds = perf_counter() - since
            if pixels.shape != (settings.size, settings.size, 3):
                raise UsageError(
                    f"{candidate.name} drew {pixels.shape}, not {settings.size} × {settings.size} × 3"
                )
            album.keep(one, pixels, seconds)
            progress(doing)
            since = perf_counter()
    lacking = sum(not album.path(one).is_file() for one in missing)
    if lacking:
        raise UsageError(f"{candidate.name} was asked for {len(missing)} pictures and left out {lacking}")


def _metrics(album: PictureCache, benchmark: Benchmark) -> Metrics:
    """The metrics of the pictures of an album."""
    varied = [vectors(benchmark.features, drawn(album, group)) for group in benchmark.varied]
    found = [(name, colours.main_colour(next(drawn(album, [one]))[0])) for name, one in benchmark.coloured]
    share, table = _colour_accuracy(found)
    return replace(
        _comparison(album, benchmark.main, benchmark),
        colour=share,
        colours=table,
        diversity=_relative(diversity.mean_spread(varied), benchmark.apart),
        seconds=math.fsum(album.seconds(one) for one in benchmark.main) / len(benchmark.main),
    )


def _reconstruction(
    candidate: Candidate,
    decoder: str,
    roundtrip: Callable[[Tensor], Tensor],
    benchmark: Benchmark,
    progress: Callable[[str], None],
) -> tuple[ResultRow, Fidelity]:
    """The metrics of real pictures encoded and decoded: no denoiser in these latents can do better."""
    identity = {**candidate.identity, "roundtrip": decoder, "size": benchmark.size}
    album = PictureCache(benchmark.cache, identity)
    samples: list[Sample] = []
    for place in range(len(benchmark.real)):
        x = benchmark.real.pictures([place])
        one = Sample(digest(x.numpy().tobytes()), 0)
        samples.append(one)
        if not album.path(one).is_file():
            since = perf_counter()
            back = roundtrip(x)[0].float().cpu().clamp(-1, 1)
            pixels = ((back + 1) * 127.5).round().byte().permute(1, 2, 0).contiguous().numpy()
            album.keep(one, pixels, perf_counter() - since)
        progress(f"{candidate.name}, {decoder} decoder")
    name = f"real, decoded by {candidate.name}{'' if decoder == 'full' else f' ({decoder})'}"
    row = ResultRow(name, None, _comparison(album, samples, benchmark))
    return row, fidelity(zip(_real(benchmark.real), drawn(album, samples), strict=True))


def to_draw(candidate: Candidate, settings: Sequence[SamplingSettings], benchmark: Benchmark) -> int:
    """How often `evaluate` will report progress."""
    return len(benchmark.samples) * len(settings) + len(benchmark.real) * len(candidate.roundtrips)


def _comparison(album: PictureCache, samples: Sequence[Sample], benchmark: Benchmark) -> Metrics:
    """Distances and retrieval of one picture for each real one."""
    features = vectors(benchmark.features, drawn(album, samples))
    metrics = _distances(benchmark.seen, features, benchmark.plan.seed)
    return replace(metrics, retrieval=_retrieval(benchmark, drawn(album, samples)))


def _distances(real: Tensor, others: Tensor, seed: int) -> Metrics:
    return Metrics(len(others), frechet=frechet(real, others), kernel=kernel(real, others, seed))


def _retrieval(benchmark: Benchmark, batches: Iterable[Tensor]) -> Retrieval | None:
    """How well pictures find their captions, if there is a scorer."""
    if benchmark.scores is None or benchmark.texts is None:
        return None
    return retrieval(vectors(benchmark.scores, batches), benchmark.texts, AMONG, benchmark.plan.seed)


def _real(real: Examples) -> Iterator[Tensor]:
    for start in range(0, len(real), AT_ONCE):
        yield real.pictures(range(start, min(start + AT_ONCE, len(real))))


def drawn(album: PictureCache, samples: Sequence[Sample]) -> Iterator[Tensor]:
    """The pictures of an album in batches (B, 3, S, S) in [−1, 1]."""
    for start in range(0, len(samples), AT_ONCE):
        pixels = [album.pixels(one) for one in samples[start : start + AT_ONCE]]
        yield to_signal(torch.from_numpy(np.stack(pixels)))


def vectors(network: FeatureFn, batches: Iterable[Tensor]) -> Tensor:
    """What `network` makes of all batches, (N, D)."""
    return torch.cat([network(batch) for batch in batches])


def _fingerprint(scorer: Scorer) -> str:
    state = scorer.head.state_dict()
    return digest(b"".join(state[name].cpu().numpy().tobytes() for name in sorted(state)))


def _relative(distance: float | None, apart: float | None) -> float | None:
    return None if distance is None or not apart else distance / apart


def _colour_accuracy(
    pairs: Sequence[tuple[str, str | None]],
) -> tuple[float | None, dict[str, dict[str, int]]]:
    """From pairs of colours, asked for and found: the share that is right, and counts of each pair."""
    table: dict[str, Counter[str]] = {}
    for wanted, found in pairs:
        table.setdefault(wanted, Counter())[found or "nothing"] += 1
    right = [colours.right(wanted, found) for wanted, found in pairs]
    share = sum(right) / len(right) if right else None
    return share, {name: dict(counts) for name, counts in table.items()}
