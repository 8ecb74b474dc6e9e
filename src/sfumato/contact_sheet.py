"""Pictures laid out on one page, row by row, with captions under them and labels at columns and rows."""

import math
import textwrap
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont, ImageOps

from sfumato.formats import MAX_SIDES
from sfumato.pictures import MAX_PIXELS, srgb

Size = tuple[int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

GAP = 4
"""Pixels left free beside a picture's caption and a label."""
CAPTION_LINES = 2
LABEL_LINES = 3


def columns_for(count: int) -> int:
    """How many pictures stand in a row of `count` in all, unless that is said: the page is about square."""
    return math.ceil(math.sqrt(count))


def cell_size(size: Size, count: int, columns: int | None = None) -> Size:
    """Width and height that each of `count` pictures of `size` has on a page that can be read back.

    Their own, or as much smaller as a page needs of at most `pictures.MAX_PIXELS`, in any format.
    """
    columns = columns or columns_for(count)
    rows = -(-count // columns)
    width, height = size
    # captions and labels take a part of both too
    room, side = 0.7 * MAX_PIXELS, 0.8 * min(MAX_SIDES.values())
    across, down = columns * width, rows * height
    scale = min(1.0, math.sqrt(room / (across * down)), side / across, side / down)
    return max(int(width * scale), 1), max(int(height * scale), 1)


def shrunk(picture: Image.Image, count: int, columns: int | None = None) -> Image.Image:
    """`picture` as large as it is on a page of `count`, so that many are kept in little memory."""
    return picture.resize(cell_size(picture.size, count, columns), Image.Resampling.LANCZOS)


def caption(prompt: str, seed: int | None, *, several: bool) -> str:
    """What tells a picture from the others of its sheet: its seed, and its prompt if there are `several`."""
    return f"{prompt} (seed {seed})" if several else f"seed {seed}"


def contact_sheet(
    pictures: Sequence[Image.Image | None],
    captions: Sequence[str] = (),
    *,
    columns: int | None = None,
    column_labels: Sequence[str] = (),
    row_labels: Sequence[str] = (),
    cell: Size | None = None,
    font_size: int | None = None,
) -> Image.Image:
    """One page (RGB, white) with the `pictures` in rows of `columns`; the place of a `None` stays empty.

    `captions`: a text for each picture, in at most two lines under it. `column_labels` stand above the
    columns and `row_labels` before the rows, as on an X/Y grid, each no wider than a picture. `cell`: (width,
    height) that the pictures are fitted into, by default `cell_size` of the first. `font_size`: by default in
    proportion to the cell.
    """
    columns = columns or len(column_labels) or columns_for(len(pictures))
    rows = -(-len(pictures) // columns)
    if cell is None:
        first = next(picture for picture in pictures if picture is not None)
        cell = cell_size(first.size, len(pictures), columns)
    width, height = cell
    font_size = font_size or min(max(width // 16, 11), 24)
    font, line = ImageFont.load_default(font_size), round(font_size * 1.3)
    below = line * CAPTION_LINES + GAP if captions else 0
    above = [wrapped(label, font, width - GAP, lines=LABEL_LINES) for label in column_labels]
    before = [wrapped(label, font, width - GAP, lines=LABEL_LINES) for label in row_labels]
    widest = max((font.getlength(part) for parts in before for part in parts), default=-2 * GAP)
    left, top = round(widest) + 2 * GAP, line * max(map(len, above)) + 2 * GAP if above else 0
    across = min(columns, max(len(pictures), len(column_labels)))
    page = Image.new("RGB", (left + width * across, top + (height + below) * rows), "white")
    pen = ImageDraw.Draw(page)
    for column, parts in enumerate(above):
        middle = left + width * (column + 0.5), top / 2
        pen.text(middle, "\n".join(parts), "black", font, anchor="mm", align="center")
    for row, parts in enumerate(before):
        middle = left - GAP, top + (height + below) * row + height / 2
        pen.text(middle, "\n".join(parts), "black", font, anchor="rm", align="right")
    for place, picture in enumerate(pictures):
        corner = left + place % columns * width, top + place // columns * (height + below)
        if picture is not None:
            page.paste(ImageOps.pad(srgb(picture), (width, height), color="white"), corner)
        if captions:
            text = "\n".join(wrapped(captions[place], font, width - GAP))
            pen.text((corner[0] + GAP // 2, corner[1] + height + 1), text, "black", font)
    return page


def stacked(pages: Sequence[Image.Image], titles: Sequence[str]) -> Image.Image:
    """The `pages` (RGB) under one another, each below its title."""
    widest = max(page.width for page in pages)
    size = min(max(widest // 40, 14), 28)
    font, line = ImageFont.load_default(size), round(size * 1.3) + 2 * GAP
    whole = Image.new("RGB", (widest, sum(page.height + line for page in pages)), "white")
    pen, top = ImageDraw.Draw(whole), 0
    for page, title in zip(pages, titles, strict=True):
        text = "".join(wrapped(title, font, widest - 2 * GAP, lines=1))
        pen.text((widest / 2, top + line / 2), text, "black", font, anchor="mm")
        whole.paste(page, (0, top + line))
        top += line + page.height
    return whole


def wrapped(text: str, font: Font, width: int, *, lines: int = CAPTION_LINES) -> list[str]:
    """A text in at most `lines` lines, none wider than `width` pixels; an ellipsis stands for the rest."""
    found: list[str] = []
    for letters in range(max(width // 4, 3), 2, -1):
        found = textwrap.wrap(text[: lines * width], letters, max_lines=lines, placeholder=" …")
        if all(font.getlength(line) <= width for line in found):
            break
    return found
