"""An evaluation from end to end: what is drawn, what it is compared with, and the figures that come of it."""

import math
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sfumato.data.icons import to_signal
from sfumato.errors import DataError, SfumatoWarning, UsageError
from sfumato.evaluate import colours, diversity, examples
from sfumato.evaluate.cache import FeatureFn, PictureCache, Sample, cached_features, digest
from sfumato.evaluate.distances import frechet, kernel
from sfumato.evaluate.examples import Data, Examples
from sfumato.evaluate.features import SHA256, Features
from sfumato.evaluate.fidelity import Fidelity, fidelity
from sfumato.evaluate.scorer import Retrieval, Scorer, retrieval

CPU = torch.device("cpu")
AT_ONCE = 32
"""Pictures that are looked at in one batch."""
FEWEST = 8
"""Pictures below which no figure says anything."""
AMONG = 1000
"""Captions that a picture's own has to be found among."""
ON_SHEET = 64
_NEXT_SEED = 1_000_000
"""Between the seeds of one prompt, so that no two prompts share any."""

Drawing = Generator[tuple[Sample, NDArray[np.uint8]], None, None]
"""Pictures (S, S, 3) as they are done, each with what was asked for, in any order."""


@dataclass(frozen=True)
class SamplingSettings:
    """How pictures are sampled, every choice made."""

    steps: int
    guidance: float
    size: int
    """Pixels a side."""
    sampler: str
    spacing: str
    decoder: str = "full"
    fast: str | None = None
    """The SHA-256 of the model's own LoRA for few steps, where it draws with that."""


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


@dataclass(frozen=True, eq=False)
class Candidate:
    """A model to evaluate."""

    name: str
    identity: Mapping[str, str]
    """All that its pictures depend on besides prompt, seed and settings: the weights, versions, precision."""
    draw: Callable[[Sequence[Sample], SamplingSettings], Drawing]
    """Draws every picture that is asked for, once."""
    roundtrips: Mapping[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)
    """By the name of the decoder: pictures (B, 3, S, S) in [−1, 1] into latents and back."""


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
    """Of every colour that was asked for, how often which was seen."""


@dataclass(frozen=True)
class ResultRow:
    """A line of the table: `settings` is `None` for real pictures and those that a decoder gave back."""

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
    """What the scorer makes of the prompts."""
    seen: Tensor
    """Features of the real pictures."""
    scorer: str | None
    """Which scorer it is, by its weights."""
    apart: float | None
    """Mean distance of real pictures of one style that show different things."""
    coloured: tuple[tuple[str, Sample], ...]
    """What is asked for by the names of colours, and those."""
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
        """Everything that is drawn under one choice of settings, nothing twice."""
        more = [one for group in self.varied for one in group]
        return list(dict.fromkeys([*self.main, *more, *(one for _, one in self.coloured)]))


def prepare(
    folder: Path,
    plan: BenchmarkPlan,
    size: int,
    cache: Path,
    features: Features,
    scorer: Scorer | None,
    device: torch.device = CPU,
) -> Benchmark:
    """The benchmark on the data in `folder`, with the metrics of real pictures as references.

    `size`: pixels a side of everything that is compared; `device`: where features and scorer are. Raises
    `DataError` and `UsageError` for data that are not there, too few or too small.
    """
    if plan.count < FEWEST:
        raise UsageError(f"count is {plan.count}: must be at least {FEWEST}; figures settle at about 1000")
    source = examples.data(folder, size, cache / "folders" / f"{digest(bytes(folder.resolve()))}.json")
    real = source.examples(held_out=True, seed=plan.seed, most=plan.count)
    if len(real) < FEWEST:
        raise DataError(
            f"{folder} has {len(real)} captioned pictures held out for tests: at least {FEWEST} are needed; "
            f"`sfumato data check {folder}` says what is there"
        )
    if len(real) < plan.count:
        warnings.warn(
            f"{folder} has {len(real):,} pictures held out for tests, not {plan.count:,}: these figures can "
            "only be compared with others of as many",
            SfumatoWarning,
            stacklevel=2,
        )
    look = cached_features(cache, f"features-{SHA256[:12]}", features, device)
    scores = texts = which = None
    if scorer is not None:
        which = _fingerprint(scorer)
        scores = cached_features(cache, f"scores-{which}", scorer.of_pictures, device)
        texts = scorer.of_texts(real.prompts).cpu()
    seen = _vectors(look, _real(real))
    wanted = colours.prompts(plan.things, source.styles)
    coloured = tuple((name, Sample(said, plan.seed + place)) for place, (name, said) in enumerate(wanted))
    apart = diversity.apart(seen, real.styles, real.concepts)
    benchmark = Benchmark(plan, size, cache, real, look, scores, texts, seen, which, apart, coloured, ())
    return replace(benchmark, references=(*_real_rows(source, benchmark), *_colour_rows(source, benchmark)))


def _real_rows(source: Data, benchmark: Benchmark) -> Iterator[ResultRow]:
    """What real pictures achieve: the best and the worst that a model's can be hoped and feared to."""
    real, seen, seed = benchmark.real, benchmark.seen, benchmark.plan.seed
    own = _retrieval(benchmark.scores, _real(real), benchmark.texts, seed)
    alike = _relative(diversity.alike(seen, real.styles, real.concepts), benchmark.apart)
    yield ResultRow("real", None, Metrics(len(real), retrieval=own, diversity=alike))
    others = source.examples(held_out=False, seed=seed, most=len(real))
    if len(others) == len(real):
        yield _distant("real, other concepts", seen, _vectors(benchmark.features, _real(others)), seed)
    half = len(seen) // 2
    yield _distant("real, halves", seen[:half], seen[half : 2 * half], seed)
    if benchmark.texts is not None:
        mixed = _retrieval(benchmark.scores, _real(real), benchmark.texts.roll(1, 0), seed)
        yield ResultRow("real, captions mixed", None, Metrics(len(real), retrieval=mixed))


def _distant(name: str, real: Tensor, others: Tensor, seed: int) -> ResultRow:
    metrics = Metrics(len(others), frechet=frechet(real, others), kernel=kernel(real, others, seed))
    return ResultRow(name, None, metrics)


def _colour_rows(source: Data, benchmark: Benchmark) -> Iterator[ResultRow]:
    """How often the rule finds the colours of real pictures that are known to have them."""
    most, seed = len(colours.NAMES) * benchmark.plan.things * 2, benchmark.plan.seed
    for name, known in source.coloured(seed, most).items():
        if known:
            share, table = _colour_accuracy(
                [(wanted, colours.main_colour(picture)) for wanted, picture in known]
            )
            yield ResultRow(f"real, {name}", None, Metrics(len(known), colour=share, colours=table))


def evaluate(
    candidate: Candidate,
    settings: Sequence[SamplingSettings],
    benchmark: Benchmark,
    progress: Callable[[str], None] = lambda _: None,
    tell: Callable[[ResultRow], None] = lambda _: None,
) -> Result:
    """Draw the benchmark's samples under each of `settings`, and measure it.

    Pictures in the cache are not drawn again. `progress` is called for every picture, `tell` with every row.
    """
    rows: list[ResultRow] = []
    kept: dict[str, Fidelity] = {}
    for decoder, roundtrip in candidate.roundtrips.items():
        row, kept[decoder] = _reconstruction(candidate, decoder, roundtrip, benchmark, progress)
        rows.append(row)
        tell(row)
    shown: tuple[tuple[str, Path], ...] = ()
    least = math.inf
    for choice in settings:
        album = PictureCache(benchmark.cache, {**candidate.identity, **asdict(choice)})
        _draw(candidate, choice, benchmark.samples, album, progress)
        metrics = _metrics(album, benchmark)
        rows.append(ResultRow(candidate.name, choice, metrics))
        tell(rows[-1])
        if metrics.frechet is not None and metrics.frechet < least:
            least = metrics.frechet
            shown = tuple((one.prompt, album.path(one)) for one in benchmark.main[:ON_SHEET])
    return Result(candidate.name, candidate.identity, tuple(rows), kept, shown)


def _draw(
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
    features = _vectors(benchmark.features, _drawn(album, benchmark.main))
    varied = [_vectors(benchmark.features, _drawn(album, group)) for group in benchmark.varied]
    seen = [(name, colours.main_colour(next(_drawn(album, [one]))[0])) for name, one in benchmark.coloured]
    share, table = _colour_accuracy(seen)
    return Metrics(
        pictures=len(features),
        frechet=frechet(benchmark.seen, features),
        kernel=kernel(benchmark.seen, features, benchmark.plan.seed),
        retrieval=_retrieval(
            benchmark.scores, _drawn(album, benchmark.main), benchmark.texts, benchmark.plan.seed
        ),
        colour=share,
        diversity=_relative(diversity.mean_spread(varied), benchmark.apart),
        seconds=math.fsum(album.seconds(one) for one in benchmark.main) / len(features),
        colours=table,
    )


def _reconstruction(
    candidate: Candidate,
    decoder: str,
    roundtrip: Callable[[Tensor], Tensor],
    benchmark: Benchmark,
    progress: Callable[[str], None],
) -> tuple[ResultRow, Fidelity]:
    """The metrics of real pictures encoded and decoded: no denoiser in these latents can do better."""
    album = PictureCache(
        benchmark.cache, {**candidate.identity, "roundtrip": decoder, "size": benchmark.size}
    )
    named: list[Sample] = []
    for place in range(len(benchmark.real)):
        x = benchmark.real.pictures([place])
        one = Sample(digest(x.numpy().tobytes()), 0)
        named.append(one)
        if not album.path(one).is_file():
            since = perf_counter()
            back = roundtrip(x)[0].float().cpu().clamp(-1, 1)
            pixels = ((back + 1) * 127.5).round().byte().permute(1, 2, 0).contiguous().numpy()
            album.keep(one, pixels, perf_counter() - since)
        progress(f"{candidate.name}, {decoder} decoder")
    features = _vectors(benchmark.features, _drawn(album, named))
    row = ResultRow(
        f"real, decoded by {candidate.name}{'' if decoder == 'full' else f' ({decoder})'}",
        None,
        Metrics(
            len(features),
            frechet=frechet(benchmark.seen, features),
            kernel=kernel(benchmark.seen, features, benchmark.plan.seed),
            retrieval=_retrieval(
                benchmark.scores, _drawn(album, named), benchmark.texts, benchmark.plan.seed
            ),
        ),
    )
    return row, fidelity(zip(_real(benchmark.real), _drawn(album, named), strict=True))


def to_draw(candidate: Candidate, settings: Sequence[SamplingSettings], benchmark: Benchmark) -> int:
    """How often `evaluate` will report progress."""
    return len(benchmark.samples) * len(settings) + len(benchmark.real) * len(candidate.roundtrips)


def _real(real: Examples) -> Iterator[Tensor]:
    for start in range(0, len(real), AT_ONCE):
        yield real.pictures(range(start, min(start + AT_ONCE, len(real))))


def _drawn(album: PictureCache, samples: Sequence[Sample]) -> Iterator[Tensor]:
    for start in range(0, len(samples), AT_ONCE):
        pixels = [album.pixels(one) for one in samples[start : start + AT_ONCE]]
        yield to_signal(torch.from_numpy(np.stack(pixels)))


def _vectors(vectors: FeatureFn, batches: Iterable[Tensor]) -> Tensor:
    return torch.cat([vectors(batch) for batch in batches])


def _retrieval(
    scores: FeatureFn | None, batches: Iterable[Tensor], texts: Tensor | None, seed: int
) -> Retrieval | None:
    """How well pictures find their captions, if there is a scorer to tell."""
    if scores is None or texts is None:
        return None
    return retrieval(_vectors(scores, batches), texts, AMONG, seed)


def _fingerprint(scorer: Scorer) -> str:
    state = scorer.head.state_dict()
    return digest(b"".join(state[name].cpu().numpy().tobytes() for name in sorted(state)))


def _relative(distance: float | None, apart: float | None) -> float | None:
    return None if distance is None or not apart else distance / apart


def _colour_accuracy(
    seen: Sequence[tuple[str, str | None]],
) -> tuple[float | None, dict[str, dict[str, int]]]:
    """The share of things in the right colour, if there are any, and what was seen for each."""
    table: dict[str, Counter[str]] = {}
    for wanted, found in seen:
        table.setdefault(wanted, Counter())[found or "nothing"] += 1
    right = [colours.right(wanted, found) for wanted, found in seen]
    share = sum(right) / len(right) if right else None
    return share, {name: dict(counts) for name, counts in table.items()}
