"""Compares models, samplers and steps: `python docs/compare_few_steps.py COMPARISON.toml OUT CACHE`.

    data = "data/icons"
    count = 200                                  # held-out pictures
    prompts = ["a red apple", "a cat"]           # of the grid
    seed = 7

    [reference]                                  # what students approximate: the teacher, with many steps
    model = "embedded"
    sampler = "ddim"
    guidance = 4.0
    steps = 50

    [[row]]                                      # rows of one name are one line, of several models
    name = "teacher, DDIM"
    model = "embedded"
    sampler = "ddim"
    guidance = 4.0
    steps = [1, 2, 4, 8]

    [[row]]
    name = "LCM-LoRA"
    model = "embedded"
    fast = true
    steps = [1, 2, 4, 8]

OUT gets everything as few-steps.json, the table as few-steps.md, curves.webp and grid.webp. Pictures are
drawn and measured as `sfumato evaluate` does it, and kept in CACHE: the same again draws only what is new.
The distance is the root mean square of the difference to the reference's picture of the same prompt and
seed, white being 1.
"""

import json
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
import torch
from numpy.typing import NDArray

mpl.use("agg")

from matplotlib import pyplot

from sfumato.evaluate.cache import PictureCache, Sample
from sfumato.evaluate.candidates import Candidate, SamplingSettings
from sfumato.evaluate.report import HEADINGS, cells
from sfumato.evaluate.run import Benchmark, BenchmarkPlan, ResultRow, evaluate, prepare
from sfumato.evaluate.scorer import Scorer
from sfumato.request import Request
from sfumato.studio import Studio, load

CELL, LABEL, MARGIN = 96, 24, 190
PANELS = ("Fréchet distance", "right caption among first five (%)", "distance from the reference")


@dataclass(frozen=True, eq=False)
class Way:
    """A way of drawing, with one number of steps."""

    name: str
    candidate: Candidate
    settings: SamplingSettings


@dataclass(frozen=True, eq=False)
class Found:
    """What came of it."""

    way: Way
    row: ResultRow
    distance: float

    @property
    def line(self) -> tuple[str, ...]:
        return (*cells(self.row), f"{self.distance:.3f}")

    @property
    def heights(self) -> tuple[float, ...]:
        """In each of `PANELS`."""
        metrics = self.row.metrics
        assert metrics.frechet is not None
        assert metrics.retrieval is not None
        return metrics.frechet, 100 * metrics.retrieval.top5, self.distance


class Models:
    """Each is loaded once, when it is first asked for."""

    def __init__(self) -> None:
        self.loaded: dict[str, tuple[Studio, Candidate]] = {}

    def way(self, name: str, row: dict[str, Any], steps: int) -> Way:
        """What a row of the comparison says. Raises `UsageError` for what its model cannot draw."""
        if row["model"] not in self.loaded:
            studio = load(row["model"])
            self.loaded[row["model"]] = studio, replace(Candidate.of(studio), roundtrips={})
        studio, candidate = self.loaded[row["model"]]
        said = {key: row[key] for key in ("sampler", "guidance", "fast", "decoder") if key in row}
        width, height = studio.native_size
        request = Request.build(prompt="", steps=steps, width=width, height=height, **said)
        return Way(name, replace(candidate, name=name), SamplingSettings.of(studio, request))


def compare(comparison: dict[str, Any], out: Path, cache: Path) -> None:
    """Draw, measure, and write what came of it."""
    models = Models()
    reference = models.way("the reference", comparison["reference"], comparison["reference"]["steps"])
    ways = [models.way(row["name"], row, steps) for row in comparison["row"] for steps in row["steps"]]
    scorer = Scorer.load(None, torch.device("cpu"))
    plan = BenchmarkPlan(count=comparison["count"], things=0, varied=0)
    benchmark = prepare(
        Path(comparison["data"]), plan, reference.settings.size, cache, scorer.features, scorer
    )
    goal = drawn(reference, benchmark)[1]
    found = []
    for way in ways:
        row, pictures = drawn(way, benchmark)
        found.append(Found(way, row, distance(pictures, goal)))
        print(" | ".join(found[-1].line), flush=True)
    chance = distance(np.roll(goal, 1, 0), goal)
    out.mkdir(parents=True, exist_ok=True)
    told = {
        "comparison": comparison,
        "distance by chance": chance,
        "references": [asdict(row) for row in benchmark.references],
        "found": [
            {**asdict(each.row), "identity": each.way.candidate.identity, "distance": each.distance}
            for each in found
        ],
    }
    (out / "few-steps.json").write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", "utf-8")
    (out / "few-steps.md").write_text(table(benchmark, found, chance), "utf-8")
    curves(benchmark, found, chance, out / "curves.webp")
    grid([reference, *ways], comparison["prompts"], comparison["seed"], out / "grid.webp")


def drawn(way: Way, benchmark: Benchmark) -> tuple[ResultRow, NDArray[np.float32]]:
    """The metrics of the pictures of the benchmark, and those (N, S, S, 3) in [0, 1]."""
    (row,) = evaluate(way.candidate, [way.settings], benchmark).rows
    album = PictureCache(benchmark.cache, {**way.candidate.identity, **asdict(way.settings)})
    return row, np.stack([album.pixels(one) for one in benchmark.main]).astype(np.float32) / 255


def distance(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    return float(np.sqrt(np.mean((one - other) ** 2)))


def table(benchmark: Benchmark, found: Sequence[Found], chance: float) -> str:
    """As Markdown, without the columns that say nothing here."""
    real = [(*cells(row), "") for row in benchmark.references if row.settings is None]
    other = ("the reference's, of another prompt", *[""] * (len(HEADINGS) - 1), f"{chance:.3f}")
    rows = [*real, other, *(each.line for each in found)]
    headings = ("method", *HEADINGS[1:], "distance")
    known = [place for place in range(len(headings)) if any(row[place] for row in rows)]
    lines = [[row[place] for place in known] for row in (headings, ["---"] * len(headings), *rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def curves(benchmark: Benchmark, found: Sequence[Found], chance: float, path: Path) -> None:
    """Every figure over the steps, a line for each name."""
    figure, panels = pyplot.subplots(1, len(PANELS), figsize=(13, 4.4))
    for place, (title, panel) in enumerate(zip(PANELS, panels, strict=True)):
        for name in dict.fromkeys(each.way.name for each in found):
            points = sorted(
                (each.way.settings.steps, each.heights[place]) for each in found if each.way.name == name
            )
            panel.plot(*zip(*points, strict=True), marker="o", markersize=4, linewidth=1.4, label=name)
        panel.set(title=title, xlabel="steps", xscale="log")
        counts = sorted({each.way.settings.steps for each in found})
        panel.set_xticks(counts, [str(count) for count in counts])
        panel.minorticks_off()
        panel.grid(alpha=0.25)
    ceiling = next(row for row in benchmark.references if row.name == "real").metrics.retrieval
    if ceiling is not None:
        panels[1].axhline(100 * ceiling.top5, color="gray", linestyle=":", linewidth=1)
    panels[2].axhline(chance, color="gray", linestyle=":", linewidth=1)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="lower center", ncols=4, fontsize="small", frameon=False)
    figure.tight_layout(rect=(0, 0.13, 1, 1))
    kept = BytesIO()
    figure.savefig(kept, dpi=110)
    PIL.Image.open(kept).convert("RGB").save(path, quality=90, method=6)


def grid(ways: Sequence[Way], prompts: Sequence[str], seed: int, path: Path) -> None:
    """A line for each name, a column for each number of steps, in each a square of the prompts' pictures."""
    names = list(dict.fromkeys(way.name for way in ways))
    counts = sorted({way.settings.steps for way in ways})
    across = max(1, round(len(prompts) ** 0.5))
    down = -(-len(prompts) // across)
    wide, high = across * CELL + 6, down * CELL + 6
    page = PIL.Image.new("RGB", (MARGIN + len(counts) * wide, LABEL + len(names) * high), "white")
    pen, font = PIL.ImageDraw.Draw(page), PIL.ImageFont.load_default(15)
    for column, count in enumerate(counts):
        text = f"{count} step{'s' if count > 1 else ''}"
        pen.text((MARGIN + column * wide + wide / 2, LABEL / 2), text, "black", font, anchor="mm")
    for line, name in enumerate(names):
        pen.text((MARGIN - 10, LABEL + line * high + high / 2), name, "black", font, anchor="rm")
    asked = {Sample(prompt, seed): place for place, prompt in enumerate(prompts)}
    for way in ways:
        left = MARGIN + counts.index(way.settings.steps) * wide
        top = LABEL + names.index(way.name) * high
        for one, picture in way.candidate.draw(list(asked), way.settings):
            place = asked[one]
            small = PIL.Image.fromarray(picture).resize((CELL, CELL), PIL.Image.Resampling.LANCZOS)
            page.paste(small, (left + place % across * CELL, top + place // across * CELL))
    page.save(path, quality=90, method=6)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    comparison, folder, kept_in = map(Path, sys.argv[1:])
    compare(tomllib.loads(comparison.read_text("utf-8")), folder, kept_in)
