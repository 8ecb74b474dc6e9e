"""`sfumato evaluate`: how good models are, under one choice of settings after another."""

import hashlib
import json
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

from sfumato.cli import console
from sfumato.cli.generate import Loading
from sfumato.cli.outcome import Interrupted
from sfumato.errors import UsageError
from sfumato.request import Request

if TYPE_CHECKING:
    from torch import Tensor

    from sfumato.evaluate.cache import Sample
    from sfumato.evaluate.report import Report
    from sfumato.evaluate.run import (
        Benchmark,
        BenchmarkPlan,
        Candidate,
        Drawing,
        Result,
        ResultRow,
        SamplingSettings,
    )
    from sfumato.studio import Studio

GUIDANCE = "1,2,4,7"
NO_SCORER = "none"
SMALL = 64
"""Pixels a side where few and small pictures will do."""


@dataclass(frozen=True)
class Options:
    """What `sfumato evaluate` was asked, numbers still text; `None` is for it to choose."""

    models: Sequence[str]
    data: Path
    steps: str | None = None
    guidance: str | None = None
    sampler: str | None = None
    fast: bool = False
    spacing: str | None = None
    decoder: str = "full"
    count: int | None = None
    seed: int = 0
    size: int | None = None
    small: bool = False
    scorer: str | None = None
    out: Path | None = None
    cache: Path | None = None
    device: str | None = None
    dtype: str | None = None
    as_json: bool = False
    quiet: bool = False


def evaluate(options: Options) -> None:
    """Measure every model and say what came of it."""
    requests = _requests(options)
    loading = Loading(options.device, options.dtype)
    loading.check()
    from sfumato.evaluate.features import package_folder
    from sfumato.evaluate.report import Report, check_place, write

    if options.out is not None:
        package_folder("matplotlib")
        check_place(options.out)
    cache = options.cache or Path(platformdirs.user_cache_dir("sfumato", appauthor=False)) / "evaluation"
    meter = console.Meter(options.quiet)
    try:
        with meter.shown("loading the model"):
            benchmark, results = _measured(options, loading, requests, cache, meter)
    except Interrupted as interrupted:
        interrupted.add_note(f"what is drawn is kept in {cache}: run again to go on")
        raise
    report = Report(benchmark, results)
    if options.out is not None:
        write(report, options.out)
    if options.as_json:
        console.result(json.dumps(report.to_dict(), ensure_ascii=False))
    else:
        _show(report)


def _measured(
    options: Options, loading: Loading, requests: Sequence[Request], cache: Path, meter: console.Meter
) -> tuple["Benchmark", tuple["Result", ...]]:
    """The benchmark, at the first model's size, and what came of every model.

    All are loaded before any draws: what is wrong with the last is told at once.
    """
    from sfumato.evaluate.run import evaluate, prepare, to_draw

    studios = [loading.load(name) for name in options.models]
    first = studios[0]
    size = _size(options, first)
    settings = [[_settings(studio, request, size) for request in requests] for studio in studios]
    benchmark = prepare(options.data, _plan(options), size, cache, *_eyes(options, first), first.device)
    candidates = [candidate_of(studio) for studio in studios]
    total = sum(
        to_draw(candidate, own, benchmark) for candidate, own in zip(candidates, settings, strict=True)
    )

    def progress(doing: str) -> None:
        meter.advance(doing, total)

    tell = _tell(options)
    results = [
        evaluate(candidate, own, benchmark, progress, tell)
        for candidate, own in zip(candidates, settings, strict=True)
    ]
    return benchmark, tuple(results)


def candidate_of(studio: "Studio") -> "Candidate":
    """`studio` as an evaluation sees it: it draws what `sfumato generate` draws."""
    import torch

    from sfumato.engine import Engine, Failed
    from sfumato.evaluate.run import Candidate
    from sfumato.version import __version__

    def request(asked: "Sample", settings: "SamplingSettings") -> Request:
        return studio.resolve(_request(asked.prompt, asked.seed, settings))

    def draw(asked: Sequence["Sample"], settings: "SamplingSettings") -> "Drawing":
        engine = Engine(studio.denoiser, studio.most_points)
        jobs = (studio.job(request(one, settings), one) for one in asked)
        with closing(engine.run(jobs)) as running:
            for event in running:
                one: Any = event.key
                if isinstance(event, Failed):
                    yield one, studio.generate(request(one, settings)).pixels
                elif event.latent is not None:
                    yield one, studio.develop(event.latent, request(one, settings)).pixels

    @torch.inference_mode()
    def roundtrip(pictures: "Tensor", decoder: str) -> "Tensor":
        vae = studio.model.vae
        weight = next(vae.parameters())
        latent = vae.scale(vae.encode(pictures.to(weight.device, weight.dtype)).mean)
        return studio.decoders.decode(latent, decoder)

    identity = {
        "fingerprint": studio.fingerprint,
        "sfumato": __version__,
        "torch": torch.__version__,
        "device": studio.device.type,
        "dtype": str(studio.dtype).removeprefix("torch."),
    }
    return Candidate(
        studio.source,
        identity,
        draw,
        {each: partial(roundtrip, decoder=each) for each in studio.decoders.names},
    )


def _request(prompt: str, seed: int, settings: "SamplingSettings") -> Request:
    """What `generate --dialect plain --templates off` would make of it."""
    return Request.build(
        prompt=prompt,
        seed=seed,
        steps=settings.steps,
        guidance=settings.guidance,
        sampler=settings.sampler,
        spacing=settings.spacing,
        decoder=settings.decoder,
        fast=settings.fast is not None,
        width=settings.size,
        height=settings.size,
        dialect="plain",
        templates="off",
    )


def _requests(options: Options) -> list[Request]:
    """A request for every choice of settings; what is wrong with any is found before torch is imported."""
    steps = options.steps if options.steps is not None else "4" if options.small else None
    scales = options.guidance
    if scales is None and not options.fast:
        scales = "4" if options.small else GUIDANCE
    numbers = [None] if steps is None else _numbers("steps", steps, int)
    samplers = [None] if options.sampler is None else list(dict.fromkeys(options.sampler.split(",")))
    for name in ("count", "size"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UsageError(f"{name} is {value}: must be at least 1")
    if len(set(options.models)) < len(options.models):
        raise UsageError("a model is named twice; name each once")
    return [
        Request.build(
            prompt="",
            seed=options.seed,
            steps=number,
            guidance=scale,
            sampler=sampler,
            spacing=options.spacing,
            decoder=options.decoder,
            fast=options.fast,
            width=options.size,
            height=options.size,
        )
        for sampler in samplers
        for number in numbers
        for scale in ([None] if scales is None else _numbers("guidance", scales, float))
    ]


def _numbers(name: str, text: str, kind: type) -> list[Any]:
    """The numbers in a text such as "4,8,20", each once."""
    try:
        return list(dict.fromkeys(kind(part) for part in text.split(",")))
    except ValueError:
        raise UsageError(f"{name} is {text!r}: must be numbers with commas between, as 4,8,20") from None


def _plan(options: Options) -> "BenchmarkPlan":
    from sfumato.evaluate.run import BenchmarkPlan

    plan = BenchmarkPlan(count=24, things=1, varied=4, seeds=2) if options.small else BenchmarkPlan()
    return replace(plan, seed=options.seed, count=options.count or plan.count)


def _eyes(options: Options, studio: "Studio") -> tuple[Any, Any]:
    """What looks at the pictures: the features, and the scorer unless it is not wanted."""
    from sfumato.evaluate import features
    from sfumato.evaluate.scorer import Scorer

    if options.scorer == NO_SCORER:
        return features.load(studio.device), None
    scorer = Scorer.load(Path(options.scorer) if options.scorer else None, studio.device)
    return scorer.features, scorer


def _size(options: Options, studio: "Studio") -> int:
    """The side of the pictures to draw: as asked, else as the model was trained."""
    if asked := options.size or (SMALL if options.small else None):
        return asked
    width, height = studio.native_size
    if width != height:
        raise UsageError(f"{studio.source} draws {width}×{height}, no squares: say what to draw with --size")
    return width


def _settings(studio: "Studio", request: Request, size: int) -> "SamplingSettings":
    """`request` with every choice made as the model likes it. Raises `UsageError` for what it cannot draw."""
    from sfumato.evaluate.run import SamplingSettings

    full = studio.resolve(request.changed(width=size, height=size))
    file = studio.model.fast if full.fast else None
    fast = None if file is None else hashlib.sha256(file.read_bytes()).hexdigest()
    chosen = {
        one.name: getattr(full, one.name)
        for one in fields(SamplingSettings)
        if one.name not in ("size", "fast")
    }
    return SamplingSettings(**chosen, size=size, fast=fast)


def _tell(options: Options) -> Any:
    """A line for every finished row, where no progress bar shows what is going on."""
    from sfumato.evaluate.report import HEADINGS, cells

    def tell(row: "ResultRow") -> None:
        if not options.quiet and not sys.stderr.isatty():
            told = [f"{name} {text}" for name, text in zip(HEADINGS[1:], cells(row)[1:], strict=True) if text]
            console.complain(f"{row.name}: {', '.join(told)}")

    return tell


def _show(report: "Report") -> None:
    """The tables, drawn for a terminal and as Markdown for everything else."""
    if not sys.stdout.isatty():
        console.result(report.markdown().rstrip("\n"))
        return
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    drawn = Console(highlight=False)
    drawn.print(report.title)
    for headings, rows in report.tables():
        table = Table(box=box.SIMPLE_HEAD)
        for number, heading in enumerate(headings):
            table.add_column(heading, justify="right" if number else "left")
        for row in rows:
            table.add_row(*map(escape, row))
        drawn.print(table)
