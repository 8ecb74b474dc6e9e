"""Grids: one request drawn for every combination of values of up to three of its fields, on one page."""

import csv
import io
import math
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Self

import PIL.Image

from sfumato import expansion
from sfumato.contact_sheet import cell_size, contact_sheet, shrunk, stacked
from sfumato.errors import UsageError
from sfumato.metadata import Record
from sfumato.request import ALIASES, MAX_COUNT, Request
from sfumato.series.record import SetRecord

TEXTS = ("prompt", "negative")
LORA = "lora"
NO_AXES = ("count", "origin", "templates")
_RANGE = re.compile(
    r"(?P<first>-?[\d.]+)-(?P<last>-?[\d.]+)(?:\s*(?::|\(\+)\s*(?P<step>[\d.]+)\)?|\s*\[(?P<count>\d+)\])?"
)
"""`1-4`, `0-1:0.25`, and the web UI's `1-10 (+3)` and `0-1 [5]`."""
_QUOTED_FIELD = re.compile(r'\s*"(?P<field>(?:[^"]|"")+)"\s*=(?P<values>.*)', re.DOTALL)


def read_value(field: str, text: str) -> Any:
    """The value of a field of `Request` that `text` stands for; "none" is none, where there may be none."""
    known = Request.model_fields.get(field)
    if known is not None and text in ("", "none") and known.default in (None, ()):
        return known.default
    return text


@dataclass(frozen=True)
class Axis:
    """One direction of a grid: a `field` of the request, or a word in its prompt, and its `values`.

    `field`: a field's name; `prompt~word` or `negative~word`, which the values take the place of; or
    `lora~name`, whose values are weights of that adapter. `texts`: what a page calls the values, if not
    themselves.
    """

    field: str
    values: tuple[Any, ...]
    texts: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str, read: Callable[[str, str], Any] = read_value) -> Self:
        """From `field=value,value`: values with commas in double quotes, ranges as `1-4` and `0-1:0.25`.

        A field with `=` in it is in double quotes too: `"prompt~a=b"=c,d`. `read` makes a field's value from
        its text. Raises `UsageError`.
        """
        if quoted := _QUOTED_FIELD.fullmatch(text):
            field, listed = quoted["field"].replace('""', '"'), quoted["values"]
        else:
            field, _, listed = text.partition("=")
        return cls.of(field, listed, read)

    @classmethod
    def of(
        cls, field: str, values: str | Sequence[str], read: Callable[[str, str], Any] = read_value
    ) -> Self:
        """From a field and its values: a text as for `parse`, or each as it is. Raises `UsageError`."""
        told = f"{field}={values if isinstance(values, str) else ','.join(values)}"
        name, tilde, word = field.strip().partition("~")
        if not name or not (values.strip() if isinstance(values, str) else values) or (tilde and not word):
            raise UsageError(
                f"the axis {told!r} must be FIELD=VALUE,VALUE, as steps=4,8,20 or prompt~apple=pear,plum"
            )
        if tilde and name not in (*TEXTS, LORA):
            raise UsageError(f"the axis {told!r}: before ~ stands {', '.join(TEXTS)} or {LORA}")
        if not tilde:
            name = ALIASES.get(name.replace("-", "_"), name.replace("-", "_"))
        if isinstance(values, str):
            listed = next(csv.reader([values], skipinitialspace=True), [""])
            values = [each for value in listed for each in _spread(told, name, value.strip())]
        found = tuple(each if tilde else read(name, each) for each in values)
        return cls(f"{name}{tilde}{word}", found, tuple(values))

    @property
    def labels(self) -> tuple[str, ...]:
        """What stands on a page at each value: words alone, numbers with their field."""
        shown = self.texts or tuple(map(str, self.values))
        name, _, word = self.field.partition("~")
        if name in (*TEXTS, "sampler", "spacing", "model", "style"):
            return shown
        field = (word if name == LORA else name).replace("_", " ")
        return tuple(f"{field} {text}" for text in shown)

    def applied(self, request: Request, index: int) -> Request:
        """`request` with value number `index`. Raises `UsageError`, which names the axis and the value."""
        name, tilde, word = self.field.partition("~")
        value: Any = self.values[index]
        try:
            if name in NO_AXES:
                raise UsageError(f"{name} cannot be an axis: each cell is one picture")
            if name == LORA and tilde:
                return _weighed(request, word, value)
            if tilde:
                text = getattr(request, name)
                if word not in text:
                    raise UsageError(f"{word!r} is not in the {name} {text!r}")
                value = text.replace(word, str(value))
            changes: Any = {name: value}
            return request.changed(**changes)
        except UsageError as error:
            shown = (self.texts or self.values)[index]
            raise UsageError(f"axis {self.field}, value {shown!r}: {error}") from None


@dataclass(frozen=True)
class Grid:
    """`request` with every combination of the values of `axes`: of columns, rows and pages, in that order."""

    request: Request
    axes: tuple[Axis, ...]

    @classmethod
    def of(cls, request: Request, *axes: Axis) -> Self:
        """The grid of one to three axes; without a seed all cells have the same random one.

        Raises `UsageError` for axes that cannot be, and for more pictures than can be drawn at once.
        """
        if not 1 <= len(axes) <= 3:
            raise UsageError(f"a grid has one to three axes, not {len(axes)}")
        fields = [axis.field for axis in axes]
        if twice := next((field for field in fields if fields.count(field) > 1), None):
            raise UsageError(f"two axes are {twice}; a field can be one")
        if request.seed is None and "seed" not in fields:
            request = request.filled(seed=secrets.randbelow(2**32))
        grid = cls(request, axes)
        if grid.cells > MAX_COUNT:
            raise UsageError(f"the grid has {grid.cells:,} pictures; at most {MAX_COUNT:,} are drawn at once")
        for index, each in enumerate(grid.requests):
            with grid.told(index):
                if (count := expansion.pictures(each)) != 1:
                    raise UsageError(
                        f"it would be {count} pictures: leave out count and combinatorial templates; more "
                        "seeds or words are an axis, as seed=1-4 or prompt~apple=pear,plum"
                    )
        return grid

    @property
    def cells(self) -> int:
        """How many there are."""
        return math.prod(len(axis.values) for axis in self.axes)

    @property
    def requests(self) -> list[Request]:
        """That of every cell: page by page, row by row."""
        found = [self.request]
        for axis in reversed(self.axes):
            found = [axis.applied(each, index) for each in found for index in range(len(axis.values))]
        return found

    @property
    def labels(self) -> dict[str, tuple[str, ...]]:
        """The axes for a record: each field, and its values as they are shown."""
        return {axis.field: axis.texts or tuple(map(str, axis.values)) for axis in self.axes}

    @contextmanager
    def told(self, index: int) -> Iterator[None]:
        """In the block, a `UsageError` is one of cell number `index`."""
        named = []
        for axis in self.axes:
            index, place = divmod(index, len(axis.values))
            named.append(axis.labels[place])
        try:
            yield
        except UsageError as error:
            raise UsageError(f"the cell of {', '.join(named)}: {error}") from None

    def cell(self, picture: PIL.Image.Image) -> PIL.Image.Image:
        """`picture` as large as it is on the page, so that many are kept in little memory."""
        return shrunk(picture, self.cells, len(self.axes[0].values))

    def encoded(
        self,
        pictures: Sequence[PIL.Image.Image | None],
        records: Sequence[Record],
        kind: str = "PNG",
        *,
        embed: bool = True,
    ) -> bytes:
        """The file of a page with its `records`; `embed`: with what the pictures began from, if it is small.

        Where a cell has no picture the record says no axes: its pictures would be taken for others.
        """
        axes = {} if None in pictures else self.labels
        record = SetRecord.of(records, kind="grid", axes=axes, embed=embed)
        buffer = io.BytesIO()
        self.page(pictures).save(buffer, kind, quality=95, **record.held(kind))
        return buffer.getvalue()

    def page(self, pictures: Sequence[PIL.Image.Image | None]) -> PIL.Image.Image:
        """One page with the `pictures` of all cells, labelled; those of the third axis under one another.

        A cell without a picture, `None`, stays empty; one must have one.
        """
        columns, rows, pages = (*(axis.labels for axis in self.axes), ("",), ("",))[:3]
        each = len(columns) * len(rows)
        first = next(picture for picture in pictures if picture is not None)
        sheets = [
            contact_sheet(
                pictures[start : start + each],
                columns=len(columns),
                column_labels=columns,
                row_labels=rows if len(self.axes) > 1 else (),
                cell=cell_size(first.size, len(pictures), len(columns)),
            )
            for start in range(0, len(pictures), each)
        ]
        return sheets[0] if len(self.axes) < 3 else stacked(sheets, pages)


def _spread(axis: str, name: str, text: str) -> list[str]:
    """The values of a range, or the one value."""
    match = None if name in TEXTS else _RANGE.fullmatch(text)
    if match is None:
        return [text]
    kind = float if "." in text or match["count"] else int
    try:
        first, last = kind(match["first"]), kind(match["last"])
        step = kind(match["step"] or (1 if kind is int else 0))
        count = int(match["count"] or math.floor((last - first) / step + 1e-9) + 1)
    except (ValueError, ZeroDivisionError):
        raise UsageError(f"the axis {axis!r}: the range {text} needs a step, as in 0-1:0.25") from None
    if not 1 <= count <= MAX_COUNT:
        raise UsageError(
            f"the axis {axis!r}: the range {text} has {max(count, 0):,} values; "
            f"at most {MAX_COUNT:,} pictures are drawn at once"
        )
    if match["count"]:
        step = (last - first) / max(count - 1, 1)
    return [
        str(first + step * index) if kind is int else f"{first + step * index:.10g}" for index in range(count)
    ]


def _weighed(request: Request, name: str, weight: Any) -> Request:
    """`request` with the adapter `name` at a weight, among its others or beside them."""
    own = [asdict(use) for use in request.adapters]
    if name not in (use["name"] for use in own):
        own.append({"name": name})
    return request.changed(
        adapters=[{**use, "weight": weight} if use["name"] == name else use for use in own]
    )
