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
from sfumato.evaluate.cache import Album, Asked, Vectors, digest, remembered
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

Drawing = Generator[tuple[Asked, NDArray[np.uint8]], None, None]
"""Pictures (S, S, 3) as they are done, each with what was asked for, in any order."""


@dataclass(frozen=True)
class Settings:
    """How pictures are drawn, every choice made."""

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
class Plan:
    """What is asked of every model alike."""

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
class Subject:
    """A model as an evaluation sees it."""

    name: str
    identity: Mapping[str, str]
    """All that its pictures depend on besides prompt, seed and settings: the weights, versions, precision."""
    draw: Callable[[Sequence[Asked], Settings], Drawing]
    """Draws every picture that is asked for, once."""
    roundtrips: Mapping[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)
    """By the name of the decoder: pictures (B, 3, S, S) in [−1, 1] into latents and back."""


@dataclass(frozen=True)
class Figures:
    """What is known of a set of pictures; docs/evaluation.md says what each figure means."""

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
class Row:
    """A line of the table: `settings` is `None` for real pictures and those that a decoder gave back."""

    name: str
    settings: Settings | None
    figures: Figures


@dataclass(frozen=True)
class Rated:
    """What came of one model."""

    name: str
    identity: Mapping[str, str]
    rows: tuple[Row, ...]
    fidelity: Mapping[str, Fidelity]
    """Of its autoencoder, by decoder."""
    shown: tuple[tuple[str, Path], ...]
    """Prompts and pictures under the settings of the least Fréchet distance."""


@dataclass(frozen=True, eq=False)
class Trial:
    """What every model is measured with and against, worked out once."""

    plan: Plan
    size: int
    cache: Path
    real: Examples
    features: Vectors
    scores: Vectors | None
    texts: Tensor | None
    """What the scorer makes of the prompts."""
    seen: Tensor
    """Features of the real pictures."""
    scorer: str | None
    """Which scorer it is, by its weights."""
    apart: float | None
    """Mean distance of real pictures of one style that show different things."""
    coloured: tuple[tuple[str, Asked], ...]
    """What is asked for by the names of colours, and those."""
    references: tuple[Row, ...]

    @property
    def main(self) -> list[Asked]:
        """A picture for every real one."""
        return [Asked(prompt, self.plan.seed + place) for place, prompt in enumerate(self.real.prompts)]

    @property
    def varied(self) -> list[list[Asked]]:
        """The first prompts, each from several seeds."""
        return [
            [Asked(one.prompt, one.seed + number * _NEXT_SEED) for number in range(self.plan.seeds)]
            for one in self.main[: self.plan.varied]
        ]

    @property
    def asked(self) -> list[Asked]:
        """Everything that is drawn under one choice of settings, nothing twice."""
        more = [one for group in self.varied for one in group]
        return list(dict.fromkeys([*self.main, *more, *(one for _, one in self.coloured)]))


def prepare(
    folder: Path,
    plan: Plan,
    size: int,
    cache: Path,
    features: Features,
    scorer: Scorer | None,
    device: torch.device = CPU,
) -> Trial:
    """The trial on the data in `folder`, and what real pictures themselves achieve in it.

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
    look = remembered(cache, f"features-{SHA256[:12]}", features, device)
    scores = texts = which = None
    if scorer is not None:
        which = _fingerprint(scorer)
        scores = remembered(cache, f"scores-{which}", scorer.of_pictures, device)
        texts = scorer.of_texts(real.prompts).cpu()
    seen = _vectors(look, _real(real))
    wanted = colours.prompts(plan.things, source.styles)
    coloured = tuple((name, Asked(said, plan.seed + place)) for place, (name, said) in enumerate(wanted))
    apart = diversity.apart(seen, real.styles, real.concepts)
    trial = Trial(plan, size, cache, real, look, scores, texts, seen, which, apart, coloured, ())
    return replace(trial, references=(*_real_rows(source, trial), *_colour_rows(source, trial)))


def _real_rows(source: Data, trial: Trial) -> Iterator[Row]:
    """What real pictures achieve: the best and the worst that a model's can be hoped and feared to."""
    real, seen, seed = trial.real, trial.seen, trial.plan.seed
    own = _found(trial.scores, _real(real), trial.texts, seed)
    alike = _relative(diversity.alike(seen, real.styles, real.concepts), trial.apart)
    yield Row("real", None, Figures(len(real), retrieval=own, diversity=alike))
    others = source.examples(held_out=False, seed=seed, most=len(real))
    if len(others) == len(real):
        yield _distant("real, other concepts", seen, _vectors(trial.features, _real(others)), seed)
    half = len(seen) // 2
    yield _distant("real, halves", seen[:half], seen[half : 2 * half], seed)
    if trial.texts is not None:
        mixed = _found(trial.scores, _real(real), trial.texts.roll(1, 0), seed)
        yield Row("real, captions mixed", None, Figures(len(real), retrieval=mixed))


def _distant(name: str, real: Tensor, others: Tensor, seed: int) -> Row:
    figures = Figures(len(others), frechet=frechet(real, others), kernel=kernel(real, others, seed))
    return Row(name, None, figures)


def _colour_rows(source: Data, trial: Trial) -> Iterator[Row]:
    """How often the rule finds the colours of real pictures that are known to have them."""
    most, seed = len(colours.NAMES) * trial.plan.things * 2, trial.plan.seed
    for name, known in source.coloured(seed, most).items():
        if known:
            share, table = _told([(wanted, colours.main_colour(picture)) for wanted, picture in known])
            yield Row(f"real, {name}", None, Figures(len(known), colour=share, colours=table))


def rate(
    subject: Subject,
    settings: Sequence[Settings],
    trial: Trial,
    progress: Callable[[str], None] = lambda _: None,
    tell: Callable[[Row], None] = lambda _: None,
) -> Rated:
    """Draw what the trial asks for under each of `settings`, and measure it.

    Pictures in the cache are not drawn again. `progress` is called for every picture, `tell` with every row.
    """
    rows: list[Row] = []
    kept: dict[str, Fidelity] = {}
    for decoder, roundtrip in subject.roundtrips.items():
        row, kept[decoder] = _given_back(subject, decoder, roundtrip, trial, progress)
        rows.append(row)
        tell(row)
    shown: tuple[tuple[str, Path], ...] = ()
    least = math.inf
    for choice in settings:
        album = Album(trial.cache, {**subject.identity, **asdict(choice)})
        _draw(subject, choice, trial.asked, album, progress)
        figures = _figures(album, trial)
        rows.append(Row(subject.name, choice, figures))
        tell(rows[-1])
        if figures.frechet is not None and figures.frechet < least:
            least = figures.frechet
            shown = tuple((one.prompt, album.path(one)) for one in trial.main[:ON_SHEET])
    return Rated(subject.name, subject.identity, tuple(rows), kept, shown)


def _draw(
    subject: Subject,
    settings: Settings,
    asked: Sequence[Asked],
    album: Album,
    progress: Callable[[str], None],
) -> None:
    """Draw what the album lacks."""
    doing = f"{subject.name}, {settings.sampler}, {settings.steps} steps, guidance {settings.guidance:g}"
    missing = [one for one in asked if not album.path(one).is_file()]
    for _ in range(len(asked) - len(missing)):
        progress(doing)
    if not missing:
        return
    since = perf_counter()
    with closing(subject.draw(missing, settings)) as drawing:
        for one, pixels in drawing:
            seconds = perf_counter() - since
            if pixels.shape != (settings.size, settings.size, 3):
                raise UsageError(
                    f"{subject.name} drew {pixels.shape}, not {settings.size} × {settings.size} × 3"
                )
            album.keep(one, pixels, seconds)
            progress(doing)
            since = perf_counter()
    lacking = sum(not album.path(one).is_file() for one in missing)
    if lacking:
        raise UsageError(f"{subject.name} was asked for {len(missing)} pictures and left out {lacking}")


def _figures(album: Album, trial: Trial) -> Figures:
    """Everything that can be told of the pictures of an album."""
    features = _vectors(trial.features, _drawn(album, trial.main))
    varied = [_vectors(trial.features, _drawn(album, group)) for group in trial.varied]
    seen = [(name, colours.main_colour(next(_drawn(album, [one]))[0])) for name, one in trial.coloured]
    share, table = _told(seen)
    return Figures(
        pictures=len(features),
        frechet=frechet(trial.seen, features),
        kernel=kernel(trial.seen, features, trial.plan.seed),
        retrieval=_found(trial.scores, _drawn(album, trial.main), trial.texts, trial.plan.seed),
        colour=share,
        diversity=_relative(diversity.mean_spread(varied), trial.apart),
        seconds=math.fsum(album.seconds(one) for one in trial.main) / len(features),
        colours=table,
    )


def _given_back(
    subject: Subject,
    decoder: str,
    roundtrip: Callable[[Tensor], Tensor],
    trial: Trial,
    progress: Callable[[str], None],
) -> tuple[Row, Fidelity]:
    """What an autoencoder makes of the real pictures: no denoiser in its latents can do better."""
    album = Album(trial.cache, {**subject.identity, "roundtrip": decoder, "size": trial.size})
    named: list[Asked] = []
    for place in range(len(trial.real)):
        x = trial.real.pictures([place])
        one = Asked(digest(x.numpy().tobytes()), 0)
        named.append(one)
        if not album.path(one).is_file():
            since = perf_counter()
            back = roundtrip(x)[0].float().cpu().clamp(-1, 1)
            pixels = ((back + 1) * 127.5).round().byte().permute(1, 2, 0).contiguous().numpy()
            album.keep(one, pixels, perf_counter() - since)
        progress(f"{subject.name}, {decoder} decoder")
    features = _vectors(trial.features, _drawn(album, named))
    row = Row(
        f"real, decoded by {subject.name}{'' if decoder == 'full' else f' ({decoder})'}",
        None,
        Figures(
            len(features),
            frechet=frechet(trial.seen, features),
            kernel=kernel(trial.seen, features, trial.plan.seed),
            retrieval=_found(trial.scores, _drawn(album, named), trial.texts, trial.plan.seed),
        ),
    )
    return row, fidelity(zip(_real(trial.real), _drawn(album, named), strict=True))


def to_draw(subject: Subject, settings: Sequence[Settings], trial: Trial) -> int:
    """How often `rate` will report progress."""
    return len(trial.asked) * len(settings) + len(trial.real) * len(subject.roundtrips)


def _real(real: Examples) -> Iterator[Tensor]:
    for start in range(0, len(real), AT_ONCE):
        yield real.pictures(range(start, min(start + AT_ONCE, len(real))))


def _drawn(album: Album, asked: Sequence[Asked]) -> Iterator[Tensor]:
    for start in range(0, len(asked), AT_ONCE):
        pixels = [album.pixels(one) for one in asked[start : start + AT_ONCE]]
        yield to_signal(torch.from_numpy(np.stack(pixels)))


def _vectors(vectors: Vectors, batches: Iterable[Tensor]) -> Tensor:
    return torch.cat([vectors(batch) for batch in batches])


def _found(
    scores: Vectors | None, batches: Iterable[Tensor], texts: Tensor | None, seed: int
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


def _told(seen: Sequence[tuple[str, str | None]]) -> tuple[float | None, dict[str, dict[str, int]]]:
    """The share of things in the right colour, if there are any, and what was seen for each."""
    table: dict[str, Counter[str]] = {}
    for asked, found in seen:
        table.setdefault(asked, Counter())[found or "nothing"] += 1
    right = [colours.right(asked, found) for asked, found in seen]
    share = sum(right) / len(right) if right else None
    return share, {name: dict(counts) for name, counts in table.items()}
