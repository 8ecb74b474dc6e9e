"""What pydantic finds wrong, in this package's form: field, value and what is allowed in one line."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile
from os import PathLike
from pathlib import Path
from reprlib import Repr
from typing import TYPE_CHECKING, Any, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
)
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, ErrorDetails, core_schema

from sfumato.errors import UsageError, nearest

# What pydantic says, and what is said here.
_WORDS = (
    ("Value error, ", ""),
    ("Input should", "must"),
    ("input should", "must"),
    ("Tuple should", "must"),
    ("greater than or equal to", "at least"),
    ("less than or equal to", "at most"),
    ("valid tuple", "list"),
    ("Unexpected keyword argument", "no such key is known"),
    ("Extra inputs are not permitted", "no such key is known"),
)
_TYPES = ("int", "float", "str", "bool")
"""What a fault's place may hold besides names of fields and numbers: which member of a union was tried."""

_NUMBERS = ("int", "float", "greater", "less", "finite")
"""How faults of numbers begin."""


class Validated(BaseModel):
    """A value that cannot be changed, whose faults are `UsageError`s when it is made by its name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, /, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise UsageError("; ".join(described(error, type(self).model_fields))) from None

    # As a part of another model it is validated by that one, which collects the faults of all its parts.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    if not TYPE_CHECKING:

        def __setattr__(self, name, value):
            kind = type(self).__name__
            raise UsageError(f"{name} cannot be set: a {kind} is never changed; make another with {name}=…")

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """What differs from the defaults."""
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if not field.repr:
                continue
            if field.is_required() or value != field.get_default(call_default_factory=True):
                yield name, value


def one_of(known: Iterable[str]) -> AfterValidator:
    """For `Annotated[str, one_of(names)]`: any other name is an error that says the nearest."""
    names = sorted(known)

    def check(name: str) -> str:
        if name not in names:
            raise ValueError(f"not supported; {nearest(name[:80], names)}")
        return name

    return AfterValidator(check)


@dataclass(frozen=True)
class Matching:
    """For `Annotated[str, Matching(pattern, what)]`: a text that all of `pattern` fits, or an error that it
    must be `what`.
    """

    pattern: str
    what: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> Any:
        return {**handler(schema), "pattern": f"^{self.pattern}$"}

    def _check(self, text: str) -> str:
        if not re.fullmatch(self.pattern, text):
            raise ValueError(f"must be {self.what}")
        return text


def described(error: ValidationError, fields: Mapping[str, FieldInfo]) -> Iterator[str]:
    """One line a fault, as "steps is 0: must be at least 1 (allowed: 1 to 1000)".

    `fields`: those of the class that was validated, for their ranges.
    """
    faults = error.errors(include_url=False)
    for _, tried in groupby(faults, lambda fault: [*takewhile(_is_name, fault["loc"])]):
        yield described_fault([*tried], fields)


def as_path(path: Any) -> Path:
    """`path` as a `Path`, `~` as the home folder. Raises `UsageError` for what names no file."""
    if not isinstance(path, str | PathLike):
        raise UsageError(f"path is {shown(path)}: must be the name of a file")
    return Path(os.path.expanduser(path))


def shown(value: Any) -> str:
    """`repr(value)` at a bounded length: a hostile file must not fill the screen."""
    value = os.fspath(value) if isinstance(value, PathLike) else value
    short = Repr()
    short.maxstring = short.maxother = 80
    return " ".join(short.repr(value).split())


def described_fault(tried: Sequence[ErrorDetails], fields: Mapping[str, FieldInfo]) -> str:
    """The faults of one value in one line, as `described`: of a union's members, the one whose type fits has
    the say, if there is one.
    """
    typed = [fault for fault in tried if not fault["type"].endswith("_type")]
    fault = (typed or tried)[0]
    texts = [reworded(fault["msg"]) for fault in typed[:1] or tried]
    text = " or ".join([texts[0], *(text.removeprefix("must be ") for text in texts[1:])])
    names = [str(part) for part in fault["loc"] if _is_name(part)]
    if not names:
        return text
    if fault["type"] == "missing":
        if not isinstance(fault["loc"][-1], int):
            return f"{'.'.join(names)} is missing"
        text = f"must have more than {names.pop()} item"
    return f"{'.'.join(names)} is {shown(fault['input'])}: {text}{_allowed(fault, fields.get(names[0]))}"


def _is_name(part: int | str) -> bool:
    return isinstance(part, int) or (part.isidentifier() and part not in _TYPES)


def reworded(message: str) -> str:
    """What pydantic says in the words of this package."""
    text = message.partition(", unable to ")[0].partition(" after validation")[0]
    for theirs, ours in _WORDS:
        text = text.replace(theirs, ours)
    return text


def _allowed(fault: ErrorDetails, field: FieldInfo | None) -> str:
    """The range of a number, where it has two ends."""
    if field is None or not fault["type"].startswith(_NUMBERS):
        return ""
    rules = [*_rules(field.annotation, field.metadata)]
    low, high = ([getattr(rule, end) for rule in rules if hasattr(rule, end)] for end in ("ge", "le"))
    return f" (allowed: {low[0]} to {high[0]})" if low and high else ""


def _rules(annotation: Any, metadata: Iterable[Any]) -> Iterator[Any]:
    """Constraints on a field itself, and inside `Annotated[...] | None` and tuples."""
    for rule in metadata:
        yield from rule.metadata if isinstance(rule, FieldInfo) else (rule,)
    for inner in get_args(annotation):
        yield from inner.metadata if isinstance(inner, FieldInfo) else _rules(inner, ())
