"""What an evaluation has found, for people and for programs: a table, plots, sheets of pictures, JSON."""

import json
import re
import textwrap
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont

from sfumato.evaluate.candidates import SamplingSettings
from sfumato.evaluate.features import SHA256, package_folder
from sfumato.evaluate.run import Benchmark, Metrics, Result, ResultRow
from sfumato.files import replace_folder
from sfumato.version import __version__

REPORT = "report.json"
HEADINGS = (
    "pictures of",
    "sampler",
    "steps",
    "guidance",
    "Fréchet",
    "kernel × 1000",
    "top-1",
    "top-5",
    "median rank",
    "colour",
    "diversity",
    "s/picture",
)
_CELL, _COLUMNS, _LINES = 192, 8, 2
"""Of a sheet: pixels of a picture, pictures in a row, and lines of text under each."""
_LETTERS, _MARGIN = 34, 6
"""Of a line: the most letters that are tried, and pixels left free."""

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


class _NotYetError(Exception):
    """Ends the writing of a report that is only tried."""


@dataclass(frozen=True)
class Report:
    """What was asked of some models, and what came of it."""

    benchmark: Benchmark
    results: tuple[Result, ...]

    @property
    def rows(self) -> tuple[ResultRow, ...]:
        """All lines of the table, real pictures' first."""
        return (*self.benchmark.references, *(row for each in self.results for row in each.rows))

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        return {
            "sfumato": __version__,
            "torch": torch.__version__,
            "features": SHA256,
            "scorer": self.benchmark.scorer,
            "plan": {
                **asdict(self.benchmark.plan),
                "count": len(self.benchmark.real),
                "size": self.benchmark.size,
            },
            "apart": self.benchmark.apart,
            "references": [_line(row) for row in self.benchmark.references],
            "models": [
                {
                    "name": each.name,
                    **each.identity,
                    "fidelity": {decoder: asdict(found) for decoder, found in each.fidelity.items()},
                    "rows": [_line(row) for row in each.rows],
                }
                for each in self.results
            ],
            "prompts": list(self.benchmark.real.prompts),
        }

    @property
    def title(self) -> str:
        """What the tables are of."""
        count, size = len(self.benchmark.real), self.benchmark.size
        seed = self.benchmark.plan.seed
        return f"{count:,} pictures of held-out concepts, {size} pixels a side; seed {seed}."

    def tables(self) -> list[tuple[Sequence[str], list[Sequence[str]]]]:
        """Headings and rows: of all pictures, and of the autoencoders where there are any."""
        lines = list(map(cells, self.rows))
        known = [place for place in range(len(HEADINGS)) if any(line[place] for line in lines)]
        metrics: list[Sequence[str]] = [[line[place] for place in known] for line in lines]
        found: list[tuple[Sequence[str], list[Sequence[str]]]] = [
            ([HEADINGS[place] for place in known], metrics)
        ]
        losses: list[Sequence[str]] = [
            (each.name, decoder, f"{loss.psnr:.2f}", f"{loss.ssim:.4f}")
            for each in self.results
            for decoder, loss in each.fidelity.items()
        ]
        if losses:
            found.append((("autoencoder of", "decoder", "PSNR (dB)", "SSIM"), losses))
        return found

    def markdown(self) -> str:
        """The title and the tables, as Markdown."""
        lines = [self.title]
        for headings, rows in self.tables():
            lines.append("")
            for row in (headings, ["---"] * len(headings), *rows):
                lines.append(f"| {' | '.join(text.replace('|', '/') for text in row)} |")
        return "\n".join(lines) + "\n"


def cells(row: ResultRow) -> tuple[str, ...]:
    """A line of the table, a text for each of `HEADINGS`; empty where there is no figure."""
    chosen, metrics = row.settings, row.metrics
    found, distance = metrics.retrieval, metrics.kernel
    return (
        row.name,
        _way(chosen) if chosen else "",
        f"{chosen.steps}" if chosen else "",
        f"{chosen.guidance:g}" if chosen else "",
        _number(metrics.frechet, "{:.2f}"),
        _thousandths(*distance) if distance else "",
        _number(found.top1 if found else None, "{:.1%}"),
        _number(found.top5 if found else None, "{:.1%}"),
        _number(found.median_rank if found else None, "{:g}"),
        _number(metrics.colour, "{:.1%}"),
        _number(metrics.diversity, "{:.2f}"),
        _number(metrics.seconds, "{:.2f}"),
    )


def _way(settings: SamplingSettings) -> str:
    return f"{settings.sampler}, fast" if settings.fast else settings.sampler


def check_place(folder: Path) -> None:
    """Raise `OutputError` where `write` would not or could not: better told before the work than after."""
    with suppress(_NotYetError), replace_folder(folder, marker=REPORT, overwrite=True):
        raise _NotYetError


def write(report: Report, folder: Path) -> None:
    """Write report.json, report.md, plots and sheets to `folder`, all or nothing, in an older report's place.

    Raises `OutputError`, and `UsageError` where matplotlib is not installed.
    """
    package_folder("matplotlib")
    with replace_folder(folder, marker=REPORT, overwrite=True) as made:
        (made / REPORT).write_text(json.dumps(report.to_dict(), indent=1, ensure_ascii=False) + "\n", "utf-8")
        pictures = [*_plots(report, made), *_sheets(report, made)]
        shown = [f"\n![{name}]({name})" for name in pictures]
        (made / "report.md").write_text("\n".join(["# Evaluation\n", report.markdown(), *shown, ""]), "utf-8")


def _line(row: ResultRow) -> dict[str, Any]:
    metrics = {key: value for key, value in asdict(row.metrics).items() if value is not None}
    return {"name": row.name, **({"settings": asdict(row.settings)} if row.settings else {}), **metrics}


def _thousandths(mean: float, deviation: float) -> str:
    """With the deviation over subsets, where there is more than one."""
    return f"{1000 * mean:.2f}" + (f" ± {1000 * deviation:.2f}" if deviation > 1e-9 else "")


def _number(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _top1(metrics: Metrics) -> float | None:
    return 100 * metrics.retrieval.top1 if metrics.retrieval else None


_CURVES: dict[str, tuple[str, Callable[[Metrics], float | None]]] = {
    "distance": ("Fréchet distance", lambda metrics: metrics.frechet),
    "kernel": ("kernel distance × 1000", lambda metrics: metrics.kernel and 1000 * metrics.kernel[0]),
    "retrieval": ("right caption found (%)", _top1),
    "diversity": ("diversity over seeds", lambda metrics: metrics.diversity),
}
"""What is plotted, by the name of the file: its axis and the figure."""


def _plots(report: Report, folder: Path) -> list[str]:
    """Curves of the figures over guidance and over steps, where there are several; the files' names."""
    made = []
    for name, (title, figure) in _CURVES.items():
        for along, apart in (("guidance", "steps"), ("steps", "guidance")):
            curves = _curves(report, figure, along, apart)
            if any(len(points) > 1 for points in curves.values()):
                made.append(f"{name}-{along}.png")
                _plot(curves, title, along, _levels(report, figure), folder / made[-1])
    return made


def _curves(
    report: Report, figure: Callable[[Metrics], float | None], along: str, apart: str
) -> dict[str, list[tuple[float, float]]]:
    """Points (`along`, figure), a curve for each model and value of `apart`."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for row in (row for each in report.results for row in each.rows):
        value = figure(row.metrics)
        if row.settings is not None and value is not None:
            label = f"{row.name}, {_way(row.settings)}, {apart} {getattr(row.settings, apart):g}"
            curves.setdefault(label, []).append((getattr(row.settings, along), value))
    return {label: sorted(points) for label, points in curves.items()}


def _levels(report: Report, figure: Callable[[Metrics], float | None]) -> dict[str, float]:
    """What as many real pictures achieve."""
    count = len(report.benchmark.real)
    real = [row for row in report.rows if row.settings is None and row.metrics.pictures == count]
    found = {row.name: figure(row.metrics) for row in real}
    return {name: value for name, value in found.items() if value is not None}


def _plot(
    curves: dict[str, list[tuple[float, float]]],
    title: str,
    along: str,
    levels: dict[str, float],
    path: Path,
) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for label, points in curves.items():
        axes.plot(*zip(*points, strict=True), marker="o", label=label)
    for number, (name, value) in enumerate(levels.items()):
        axes.axhline(value, color="gray", linestyle=((0, (1 + 2 * number, 2))), linewidth=1, label=name)
    axes.set(xlabel=along, ylabel=title, ylim=(min(0, axes.get_ylim()[0]), None))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)


def _sheets(report: Report, folder: Path) -> list[str]:
    """A sheet of pictures for each model, each over its prompt; the files' names."""
    made = []
    for number, result in enumerate(report.results, 1):
        if result.shown:
            name = re.sub(r"[^A-Za-z0-9]+", "-", result.name).strip("-")[-40:]
            made.append(f"sheet-{number}-{name}.webp")
            _sheet(result.shown, folder / made[-1])
    return made


def _sheet(shown: Sequence[tuple[str, Path]], path: Path) -> None:
    font = ImageFont.load_default(11)
    height, rows = _CELL + 14 * _LINES + 4, -(-len(shown) // _COLUMNS)
    page = Image.new("RGB", (_CELL * min(_COLUMNS, len(shown)), height * rows), "white")
    pen = ImageDraw.Draw(page)
    for place, (prompt, picture) in enumerate(shown):
        left, top = place % _COLUMNS * _CELL, place // _COLUMNS * height
        with Image.open(picture) as drawn:
            page.paste(drawn.convert("RGB").resize((_CELL, _CELL), Image.Resampling.LANCZOS), (left, top))
        lines = _wrapped(prompt, font)
        pen.text((left + _MARGIN // 2, top + _CELL + 1), "\n".join(lines), "black", font)
    page.save(path, "WEBP", quality=88)


def _wrapped(prompt: str, font: Font) -> list[str]:
    """Lines that no picture beside is in the way of."""
    for letters in range(_LETTERS, 2, -1):
        lines = textwrap.wrap(prompt, letters, max_lines=_LINES, placeholder=" …")
        if all(font.getlength(line) <= _CELL - _MARGIN for line in lines):
            break
    return lines
