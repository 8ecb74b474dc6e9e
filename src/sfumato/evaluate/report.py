"""The report of an evaluation: a table, plots, sheets of pictures, JSON."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from sfumato.contact_sheet import contact_sheet
from sfumato.evaluate.features import SHA256, package_folder
from sfumato.evaluate.personalization import PersonalizationReport
from sfumato.evaluate.run import Benchmark, Metrics, Result, ResultRow
from sfumato.files import check_folder, replace_folder
from sfumato.version import __version__

REPORT = "report.json"
_CELL, _ACROSS = 192, 8
"""Of a sheet: pixels of a picture, and pictures in a row."""


@dataclass(frozen=True)
class EvaluationReport:
    """A benchmark and the results of some models in it."""

    benchmark: Benchmark
    results: tuple[Result, ...]

    @property
    def rows(self) -> tuple[ResultRow, ...]:
        """All lines of the table, real pictures' first."""
        return (*self.benchmark.references, *(row for each in self.results for row in each.rows))

    def to_dict(self) -> dict[str, Any]:
        """Everything, as values of JSON."""
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
        """A line above the tables."""
        count, size = len(self.benchmark.real), self.benchmark.size
        seed = self.benchmark.plan.seed
        return f"{count:,} pictures of held-out concepts, {size} pixels a side; seed {seed}."

    def tables(self) -> list[tuple[Sequence[str], Sequence[Sequence[str]]]]:
        """Headings and rows of the metrics, and of the autoencoders' fidelity where there are any."""
        lines = list(map(cells, self.rows))
        known = [place for place in range(len(HEADINGS)) if any(line[place] for line in lines)]
        metrics = [[line[place] for place in known] for line in (HEADINGS, *lines)]
        losses = [
            (result.name, decoder, f"{loss.psnr:.2f}", f"{loss.ssim:.4f}")
            for result in self.results
            for decoder, loss in result.fidelity.items()
        ]
        found: list[tuple[Sequence[str], Sequence[Sequence[str]]]] = [(metrics[0], metrics[1:])]
        return [*found, (("autoencoder of", "decoder", "PSNR (dB)", "SSIM"), losses)] if losses else found


_COLUMNS: dict[str, tuple[str, Callable[[ResultRow], object]]] = {
    "pictures of": ("{}", lambda row: row.name),
    "sampler": ("{}", lambda row: row.settings and row.settings.label),
    "steps": ("{}", lambda row: row.settings and row.settings.steps),
    "guidance": ("{:g}", lambda row: row.settings and row.settings.guidance),
    "Fréchet": ("{:.2f}", lambda row: row.metrics.frechet),
    "kernel × 1000": ("{}", lambda row: row.metrics.kernel and _thousandths(*row.metrics.kernel)),
    "top-1": ("{:.1%}", lambda row: row.metrics.retrieval and row.metrics.retrieval.top1),
    "top-5": ("{:.1%}", lambda row: row.metrics.retrieval and row.metrics.retrieval.top5),
    "median rank": ("{:g}", lambda row: row.metrics.retrieval and row.metrics.retrieval.median_rank),
    "colour": ("{:.1%}", lambda row: row.metrics.colour),
    "diversity": ("{:.2f}", lambda row: row.metrics.diversity),
    "s/picture": ("{:.2f}", lambda row: row.metrics.seconds),
}
"""The table's columns: how a value is shown, and the value, `None` where there is none."""
HEADINGS = tuple(_COLUMNS)


def cells(row: ResultRow) -> tuple[str, ...]:
    """A line of the table: a text for each of `HEADINGS`, empty where there is no value."""
    values = [(form, value(row)) for form, value in _COLUMNS.values()]
    return tuple("" if value is None else form.format(value) for form, value in values)


def markdown(report: EvaluationReport | PersonalizationReport) -> str:
    """The title and the tables, as Markdown."""
    lines = [report.title]
    for headings, rows in report.tables():
        lines.append("")
        for row in (headings, ["---"] * len(headings), *rows):
            lines.append(f"| {' | '.join(text.replace('|', '/') for text in row)} |")
    return "\n".join(lines) + "\n"


def check_place(folder: Path) -> None:
    """Raise `OutputError` where `write` would not or could not: to be called before the work."""
    check_folder(folder, marker=REPORT, overwrite=True)


def write(report: EvaluationReport | PersonalizationReport, folder: Path) -> None:
    """Write report.json, report.md, plots and sheets to `folder`, all or nothing, in an older report's place.

    Raises `OutputError`, and `UsageError` where matplotlib is not installed.
    """
    package_folder("matplotlib")
    with replace_folder(folder, marker=REPORT, overwrite=True) as made:
        (made / REPORT).write_text(json.dumps(report.to_dict(), indent=1, ensure_ascii=False) + "\n", "utf-8")
        if isinstance(report, EvaluationReport):
            pictures = _plots(report, made) | _sheets(report.results, made)
        else:
            pictures = _sheets([report], made)
        shown = [f"\n![{text}]({name})" for name, text in pictures.items()]
        (made / "report.md").write_text("\n".join(["# Evaluation\n", markdown(report), *shown, ""]), "utf-8")


def _line(row: ResultRow) -> dict[str, Any]:
    metrics = {key: value for key, value in asdict(row.metrics).items() if value is not None}
    return {"name": row.name, **({"settings": asdict(row.settings)} if row.settings else {}), **metrics}


def _thousandths(mean: float, deviation: float) -> str:
    """The mean, and the deviation over subsets where there is more than one, times 1000."""
    return f"{1000 * mean:.2f}" + (f" ± {1000 * deviation:.2f}" if deviation > 1e-9 else "")


_CURVES: dict[str, tuple[str, Callable[[Metrics], float | None]]] = {
    "distance": ("Fréchet distance", lambda metrics: metrics.frechet),
    "kernel": ("kernel distance × 1000", lambda metrics: metrics.kernel and 1000 * metrics.kernel[0]),
    "retrieval": (
        "right caption found (%)",
        lambda metrics: 100 * metrics.retrieval.top1 if metrics.retrieval else None,
    ),
    "diversity": ("diversity over seeds", lambda metrics: metrics.diversity),
}
"""The plots, by the name of the file: title of the axis, and the figure."""


def _plots(report: EvaluationReport, folder: Path) -> dict[str, str]:
    """Curves of the figures over guidance and over steps, where there are several; what each file shows."""
    made = {}
    for name, (title, figure) in _CURVES.items():
        for along, apart in (("guidance", "steps"), ("steps", "guidance")):
            curves = _curves(report, figure, along, apart)
            if any(len(points) > 1 for points in curves.values()):
                file = f"{name}-{along}.png"
                _plot(curves, title, along, _levels(report, figure), folder / file)
                made[file] = f"{title[0].upper()}{title[1:]}, by {along}"
    return made


def _curves(
    report: EvaluationReport, figure: Callable[[Metrics], float | None], along: str, apart: str
) -> dict[str, list[tuple[float, float]]]:
    """Points (`along`, figure), a curve for each model and value of `apart`."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for row in (row for each in report.results for row in each.rows):
        value = figure(row.metrics)
        if row.settings is not None and value is not None:
            label = f"{row.name}, {row.settings.label}, {apart} {getattr(row.settings, apart):g}"
            curves.setdefault(label, []).append((getattr(row.settings, along), value))
    return {label: sorted(points) for label, points in curves.items()}


def _levels(report: EvaluationReport, figure: Callable[[Metrics], float | None]) -> dict[str, float]:
    """The same figure of as many real pictures, by the name of their row."""
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


def _sheets(results: Sequence[Result | PersonalizationReport], folder: Path) -> dict[str, str]:
    """A sheet of pictures for each model, each over its prompt; what each file shows."""
    made = {}
    for number, result in enumerate(results, 1):
        if result.shown:
            name = re.sub(r"[^A-Za-z0-9]+", "-", result.name).strip("-")[-40:]
            file = f"sheet-{number}-{name}.webp"
            _sheet(result.shown, folder / file)
            made[file] = f"Pictures that {result.name} drew, with their prompts"
    return made


def _sheet(shown: Sequence[tuple[str, Path]], path: Path) -> None:
    pictures = []
    for _, picture in shown:
        with Image.open(picture) as drawn:
            pictures.append(drawn.convert("RGB"))
    prompts = [prompt for prompt, _ in shown]
    page = contact_sheet(pictures, prompts, columns=_ACROSS, cell=(_CELL, _CELL), font_size=11)
    page.save(path, "WEBP", quality=88)
