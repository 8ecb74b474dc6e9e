"""`sfumato evaluate`: benchmark models, under one choice of sampling settings after another, or an adapter
beside the model without it.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import platformdirs

from sfumato.cli import console
from sfumato.cli.help import MODEL, OUTPUT, PICTURE, RUN
from sfumato.cli.options import Json, Program, Quiet, device_options, option, request_fields
from sfumato.errors import UsageError
from sfumato.files import check_made
from sfumato.names import SAMPLERS
from sfumato.options import DeviceOptions, ModelOptions
from sfumato.request import Request

if TYPE_CHECKING:
    from sfumato.evaluate.personalization import PersonalizationPlan, PersonalizationReport
    from sfumato.evaluate.report import EvaluationReport
    from sfumato.evaluate.run import ResultRow
    from sfumato.studio import Studio

program = Program()
ICONS = Path("data/icons")
GUIDANCE = "1,2,4,7"
NO_SCORER = "none"
SMALL = 64
"""Width and height of the pictures of `--small`."""


@program.add(
    examples="""sfumato evaluate --data data/icons --out report
sfumato evaluate --model embedded --model runs/mine/model --steps 8,20 --guidance 2,4
sfumato evaluate --small --json
sfumato evaluate --adapter mug --data mug --name 'sks mug' --class mug"""
)
def evaluate(
    fields: Annotated[dict[str, Any], request_fields("fast", "spacing", "decoder")],
    device: Annotated[DeviceOptions, device_options("device", "dtype", "quantization", "threads")],
    models: Annotated[
        list[str] | None, option("--model MODEL", MODEL, "As for generate. Default: embedded. Repeatable.")
    ] = None,
    adapter: Annotated[
        str | None,
        option(
            "--adapter NAME", MODEL, "A LoRA or an embedding that `teach` made, or its file. Default: none."
        ),
    ] = None,
    data: Annotated[
        Path | None,
        option("--data FOLDER", RUN, f"Pictures with captions, or those taught. Default: {ICONS}."),
    ] = None,
    name: Annotated[
        str | None,
        option("--name TEXT", RUN, "What prompts call what was taught. Default: its trigger word."),
    ] = None,
    of_class: Annotated[
        str | None,
        option("--class TEXT", RUN, "What it is one of. Default: the name without its first word."),
    ] = None,
    steps: Annotated[
        str | None, option("--steps N,...", PICTURE, "Sampling steps, as 4,8,20. Default: the model's.")
    ] = None,
    guidance: Annotated[
        str | None,
        option("--guidance, --guidance-scale SCALE,...", PICTURE, f"Guidance scales. Default: {GUIDANCE}."),
    ] = None,
    sampler: Annotated[
        str | None,
        option("--sampler NAME,...", PICTURE, "Of sfumato samplers. Default: the model's.", SAMPLERS),
    ] = None,
    size: Annotated[
        int | None, option("--size PX", PICTURE, "Width and height. Default: the first model's.")
    ] = None,
    count: Annotated[
        int | None,
        option("-n, --count N", RUN, "Pictures to compare. Default: 1000; with --adapter 2 of each prompt."),
    ] = None,
    seed: Annotated[int, option("--seed N", RUN, "Seed for sampling the evaluation set. Default: 0.")] = 0,
    small: Annotated[
        bool,
        option("--small", RUN, "Few, small pictures in 4 steps: to see that it works, even without data."),
    ] = False,
    scorer: Annotated[
        str | None,
        option(
            "--scorer FILE",
            RUN,
            "The network that matches pictures with captions, or none. Default: the one for icons.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        option("--out FOLDER", OUTPUT, "Write table, plots, pictures and JSON there. Default: not."),
    ] = None,
    cache: Annotated[
        Path | None,
        option(
            "--cache FOLDER", OUTPUT, "Where drawn pictures are kept, to resume. Default: the user's cache."
        ),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Evaluate every model and print the metrics."""
    if steps is None and small:
        steps = "4"
    if guidance is None and "fast" not in fields and adapter is None:
        guidance = "4" if small else GUIDANCE
    for what, value in (("count", count), ("size", size)):
        if value is not None and value < 1:
            raise UsageError(f"{what} is {value}: must be at least 1")
    models = models or ["embedded"]
    if len(set(models)) < len(models):
        raise UsageError("a model is named twice; name each once")
    requests = [
        Request.build(
            prompt="", seed=seed, steps=n, guidance=scale, sampler=each, width=size, height=size, **fields
        )
        for each in _listed("sampler", sampler, str)
        for n in _listed("steps", steps, int)
        for scale in _listed("guidance", guidance, float)
    ]
    from sfumato import devices
    from sfumato.adapt.information import find
    from sfumato.data.folder import check_is_there
    from sfumato.evaluate import personalization, run
    from sfumato.evaluate.candidates import Candidate, SamplingSettings
    from sfumato.evaluate.features import package_folder
    from sfumato.evaluate.report import EvaluationReport, check_place
    from sfumato.studio import open_studio

    if out is not None:
        package_folder("matplotlib")
        check_place(out)
    cache = cache or Path(platformdirs.user_cache_dir("sfumato", appauthor=False)) / "evaluation"
    check_made(cache)
    if scorer not in (None, NO_SCORER) and not Path(scorer).is_file():
        raise UsageError(f"there is no scorer {scorer!r}: name its file, or {NO_SCORER}")
    if adapter is None and (name is not None or of_class is not None):
        raise UsageError("--name and --class are of what was taught: say what that is by --adapter")
    meter = console.Meter(quiet)
    if adapter is not None:
        if len(requests) > 1 or len(models) > 1:
            raise UsageError(
                "with --adapter one model is evaluated, in one way: --steps, --guidance, --sampler"
            )
        if data is None:
            raise UsageError("--adapter needs --data FOLDER, the pictures that were taught")
        asked = _personalization_plan(adapter, name, of_class, count, seed)
        with _resumable(cache), meter.shown("loading the model"):
            studio = open_studio(ModelOptions(models[0]), devices.native(device))
            side = size or (SMALL if small else _side(studio))
            (square,) = (each.changed(width=side, height=side) for each in requests)
            judges = _scorer(scorer, studio)
            real = personalization.taught_pictures(data, side)
            adapted = Candidate.adapted(studio, find(adapter))
            found = personalization.evaluate(
                Candidate.of(studio),
                adapted,
                SamplingSettings.of(studio, square),
                real,
                asked,
                cache,
                *judges,
                lambda doing: meter.advance(doing, asked.to_draw),
            )
        _finish(found, out, as_json)
        return
    shapes = data is None and small and not ICONS.is_dir()
    if not shapes:
        data = data or ICONS
        check_is_there(data)
    plan = run.BenchmarkPlan(count=24, things=1, varied=4, seeds=2) if small else run.BenchmarkPlan()
    plan = replace(plan, seed=seed, count=count or plan.count)
    with _resumable(cache), meter.shown("loading the model"):
        # all are loaded before any draws: what is wrong with the last is told at once
        studios = [open_studio(ModelOptions(name), devices.native(device)) for name in models]
        side = size or (SMALL if small else _side(studios[0]))
        squares = [one.changed(width=side, height=side) for one in requests]
        candidates = [
            (Candidate.of(studio), [SamplingSettings.of(studio, one) for one in squares])
            for studio in studios
        ]
        judges = _scorer(scorer, studios[0])
        if shapes:
            meter.say(f"there is no {ICONS}: drawn shapes are the real pictures")
        meter.begin(f"measuring {data or 'shapes'}")
        benchmark = run.prepare(data, plan, side, cache, *judges)
        total = sum(run.to_draw(*candidate, benchmark) for candidate in candidates)
        results = tuple(
            run.evaluate(*each, benchmark, lambda doing: meter.advance(doing, total), _row_printer(quiet))
            for each in candidates
        )
    _finish(EvaluationReport(benchmark, results), out, as_json)


@contextmanager
def _resumable(cache: Path) -> Iterator[None]:
    """Who interrupts is told how to go on."""
    try:
        yield
    except console.Interrupted as interrupted:
        interrupted.add_note(f"what is drawn is kept in {cache}: run again to go on")
        raise


def _personalization_plan(
    adapter: str, name: str | None, of_class: str | None, count: int | None, seed: int
) -> "PersonalizationPlan":
    """What is drawn of an adapter. Raises `UsageError` where it does not say what it is called."""
    from sfumato.adapt.description import describe
    from sfumato.adapt.information import find
    from sfumato.evaluate.personalization import PersonalizationPlan

    if name is None:
        found = describe(find(adapter))
        if found is None or not found.triggers:
            raise UsageError(f"{adapter} does not say what prompts call it: give --name, as 'sks mug'")
        name = found.triggers[0]
    of_class = of_class or name.partition(" ")[2] or name
    return PersonalizationPlan(name, of_class, seed=seed, **({} if count is None else {"seeds": count}))


def _finish(report: "EvaluationReport | PersonalizationReport", out: Path | None, as_json: bool) -> None:
    """Write a report and print it."""
    from sfumato.evaluate.report import markdown, write

    if out is not None:
        write(report, out)
    if as_json:
        console.result(console.as_json(report.to_dict()))
    elif sys.stdout.isatty():
        _show(report)
    else:
        console.result(markdown(report).rstrip("\n"))


def _listed(name: str, text: str | None, kind: type) -> list[Any]:
    """The values in a text such as "4,8,20", each once; `None` alone where there is no text."""
    if text is None:
        return [None]
    try:
        return list(dict.fromkeys(kind(part) for part in text.split(",")))
    except ValueError:
        raise UsageError(f"{name} is {text!r}: must be numbers with commas between, as 4,8,20") from None


def _scorer(name: str | None, studio: "Studio") -> tuple[Any, Any, Any]:
    """The networks that look at pictures, and their device: the features, and the scorer if there is one."""
    from sfumato.evaluate import features
    from sfumato.evaluate.scorer import Scorer

    if name == NO_SCORER:
        return features.load(studio.device), None, studio.device
    scorer = Scorer.load(Path(name) if name else None, studio.device)
    return scorer.features, scorer, studio.device


def _side(studio: "Studio") -> int:
    """Width and height of the pictures that the model was trained at."""
    width, height = studio.native_size
    if width != height:
        raise UsageError(f"{studio.source} draws {width}×{height}, no squares: say what to draw with --size")
    return width


def _row_printer(quiet: bool) -> "Callable[[ResultRow], None]":
    """Prints a line for every finished row, where no progress bar shows what is going on."""
    from sfumato.evaluate.report import HEADINGS, cells

    def report(row: "ResultRow") -> None:
        if not quiet and not sys.stderr.isatty():
            found = [
                f"{name} {text}" for name, text in zip(HEADINGS[1:], cells(row)[1:], strict=True) if text
            ]
            console.complain(f"{row.name}: {', '.join(found)}")

    return report


def _show(report: "EvaluationReport | PersonalizationReport") -> None:
    """The tables, drawn for a terminal."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    terminal = Console(highlight=False)
    terminal.print(report.title)
    for headings, rows in report.tables():
        table = Table(box=box.SIMPLE_HEAD)
        for number, heading in enumerate(headings):
            table.add_column(heading, justify="right" if number else "left")
        for row in rows:
            table.add_row(*map(escape, row))
        terminal.print(table)
