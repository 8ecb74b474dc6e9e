"""Conditions on how pictures were drawn, read from their records."""

from typing import Any

from sqlalchemy import JSON, ColumnElement, cast, func, text

from sfumato.server.store.tables import pictures


def drawn_with_sampler(sampler: str, dialect: str) -> ColumnElement[bool]:
    """That a picture was drawn with this sampler, for a database of this `dialect`."""
    if dialect == "sqlite":
        found: Any = func.json_extract(pictures.c.record, "$.request.sampler")
    else:
        found = func.json_extract_path_text(cast(pictures.c.record, JSON), "request", "sampler")
    return _bool(found == sampler)


def drawn_in_style(style: str, dialect: str) -> ColumnElement[bool]:
    """That this style was asked for: a record says it where styles made another prompt of what was typed."""
    return _bool(text(_STYLES[dialect]).bindparams(style=style))


def _bool(condition: Any) -> ColumnElement[bool]:
    found: ColumnElement[bool] = condition
    return found


_STYLES = {
    "sqlite": (
        "EXISTS (SELECT 1 FROM json_each(pictures.record, '$.request.origin.style') WHERE value = :style)"
    ),
    "postgresql": (
        "EXISTS (SELECT 1 FROM json_array_elements_text("
        "CAST(pictures.record AS json) #> '{request,origin,style}') AS name WHERE name = :style)"
    ),
}
