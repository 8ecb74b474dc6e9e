"""Draws figures from the logs of runs: `python docs/draw_training.py curves|grids|taught NAME RUN …`.

`curves`: the losses of several runs side by side, from their logs. `grids`: one run's sample grids over
time, a row for each. `taught`: the pictures that runs of `sfumato teach` learned from, and what each has
drawn in the end.
"""

import json
import sys
import tomllib
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
TAUGHT = 128
"""Pixels of a picture's side in `taught`."""


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


def grids(name: str, run: Path, columns: int = COLUMNS) -> None:
    """The first row of sample grids, from the first to the last, at most `ROWS` of them.

    `columns`: pictures in a row, as many as the recipe's prompts where those are fewer than eight.
    """
    paths = sorted((run / "samples").glob("*.webp"))
    chosen = [
        paths[place * (len(paths) - 1) // max(min(ROWS, len(paths)) - 1, 1)]
        for place in range(min(ROWS, len(paths)))
    ]
    page = PIL.Image.new("RGB", (MARGIN + columns * CELL, len(chosen) * CELL), "white")
    pen, font = PIL.ImageDraw.Draw(page), PIL.ImageFont.load_default(15)
    for row, path in enumerate(chosen):
        grid = PIL.Image.open(path).convert("RGB")
        side = grid.width // columns
        strip = grid.crop((0, 0, grid.width, side)).resize(
            (columns * CELL, CELL), PIL.Image.Resampling.LANCZOS
        )
        page.paste(strip, (MARGIN, row * CELL))
        text = f"step {int(path.stem):,}" if path.stem.isdigit() else "end"
        pen.text((MARGIN - 10, row * CELL + CELL / 2), text, "black", font, anchor="rm")
    _save(page, name)


def taught(name: str, runs: Sequence[Path]) -> None:
    """The pictures of a subject, and what each run has drawn, under the prompts that it has been drawn by."""
    recipes = [tomllib.loads((run / "recipe.toml").read_text()) for run in runs]
    grids = [run / "lora" if "stages" in recipe else run for run, recipe in zip(runs, recipes, strict=True)]
    recipe = next(recipe for recipe in recipes if "stages" not in recipe)
    prompts, subject = recipe["samples"]["prompts"], sorted(Path(recipe["data"]["folder"]).glob("*.png"))
    width = MARGIN + max(len(prompts), len(subject)) * TAUGHT
    page = PIL.Image.new("RGB", (width, (len(runs) + 1) * TAUGHT + 24), "white")
    pen, font = PIL.ImageDraw.Draw(page), PIL.ImageFont.load_default(15)
    small = PIL.ImageFont.load_default(11)
    for column, path in enumerate(subject):
        with PIL.Image.open(path) as picture:
            page.paste(picture.convert("RGB").resize((TAUGHT, TAUGHT)), (MARGIN + column * TAUGHT, 0))
    pen.text((MARGIN - 10, TAUGHT / 2), "pictures", "black", font, anchor="rm")
    for column, prompt in enumerate(prompts):
        place = MARGIN + column * TAUGHT + TAUGHT / 2, TAUGHT + 12
        pen.text(place, prompt, "black", small, anchor="mm")
    for row, (run, folder) in enumerate(zip(runs, grids, strict=True)):
        top = (row + 1) * TAUGHT + 24
        with PIL.Image.open(folder / "samples" / "last.webp") as grid:
            strip = grid.convert("RGB").crop((0, 0, len(prompts) * grid.height, grid.height))
            page.paste(strip.resize((len(prompts) * TAUGHT, TAUGHT)), (MARGIN, top))
        pen.text((MARGIN - 10, top + TAUGHT / 2), run.name, "black", font, anchor="rm")
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
        case ["grids", name, run, columns]:
            grids(name, Path(run), int(columns))
        case ["taught", name, *runs] if runs:
            taught(name, [Path(run) for run in runs])
        case _:
            sys.exit(__doc__)
