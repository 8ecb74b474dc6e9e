"""Draws figures from the logs of runs: `python docs/draw_training.py curves|grids NAME RUN …`.

`curves`: the losses of several runs side by side, from their logs. `grids`: one run's sample grids over
time, a row for each.
"""

import json
import sys
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import matplotlib as mpl
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

mpl.use("agg")

from matplotlib import pyplot
from matplotlib.ticker import LogLocator, NullLocator

PICTURES = Path(__file__).parent / "pictures"
COLUMNS = 8
"""Pictures in a row of a sample grid."""
ROWS, CELL, MARGIN = 6, 96, 110


def curves(name: str, runs: Sequence[Path]) -> None:
    """The loss of each run against the examples that it has seen, and its learning rate."""
    figure, panels = pyplot.subplots(1, len(runs), figsize=(3.1 * len(runs), 2.5), squeeze=False)
    for run, panel in zip(runs, panels[0], strict=True):
        lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        seen = [line["examples"] / 1e3 for line in lines]
        panel.plot(seen, [line["loss"] for line in lines], color="#2855a0", linewidth=1.4)
        panel.set(title=run.name, xlabel="thousand examples", yscale="log")
        panel.grid(alpha=0.25)
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
        panel.yaxis.set_major_formatter("{x:g}")
        panel.yaxis.set_minor_locator(NullLocator())
        panel.tick_params(labelsize=8)
        rate = panel.twinx()
        rate.fill_between(
            seen, [line["learning_rate"] for line in lines], color="#c08020", alpha=0.15, linewidth=0
        )
        rate.set(yticks=[], ylim=(0, None))
    panels[0][0].set_ylabel("loss; shaded: learning rate", fontsize=8)
    figure.tight_layout()
    drawn = BytesIO()
    figure.savefig(drawn, dpi=110)
    _save(PIL.Image.open(drawn).convert("RGB"), name)


def grids(name: str, run: Path) -> None:
    """The first row of sample grids, from the first to the last, at most `ROWS` of them."""
    paths = sorted((run / "samples").glob("*.webp"))
    chosen = [
        paths[place * (len(paths) - 1) // (min(ROWS, len(paths)) - 1)]
        for place in range(min(ROWS, len(paths)))
    ]
    page = PIL.Image.new("RGB", (MARGIN + COLUMNS * CELL, len(chosen) * CELL), "white")
    pen, font = PIL.ImageDraw.Draw(page), PIL.ImageFont.load_default(15)
    for row, path in enumerate(chosen):
        grid = PIL.Image.open(path).convert("RGB")
        side = grid.width // COLUMNS
        strip = grid.crop((0, 0, grid.width, side)).resize(
            (COLUMNS * CELL, CELL), PIL.Image.Resampling.LANCZOS
        )
        page.paste(strip, (MARGIN, row * CELL))
        text = f"step {int(path.stem):,}" if path.stem.isdigit() else "end"
        pen.text((MARGIN - 10, row * CELL + CELL / 2), text, "black", font, anchor="rm")
    _save(page, name)


def _save(page: PIL.Image.Image, name: str) -> None:
    PICTURES.mkdir(exist_ok=True)
    page.save(PICTURES / name, quality=88, method=6)
    print(PICTURES / name)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["curves", name, *runs] if runs:
            curves(name, [Path(run) for run in runs])
        case ["grids", name, run]:
            grids(name, Path(run))
        case _:
            sys.exit(__doc__)
