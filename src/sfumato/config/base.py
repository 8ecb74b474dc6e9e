"""What all configurations share: reading with every key accounted for, bounds, and writing.

The names are those of diffusers and transformers, so that a folder needs no translation, and so are the
defaults, because a published file leaves out what its library's class already says. Every key is a field, or
listed as one that changes nothing, or an error: a key nobody reads could change the picture unnoticed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Annotated, Any, ClassVar, Self

from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass
from pydantic.fields import FieldInfo

from sfumato.errors import CheckpointError, SfumatoError, nearest
from sfumato.validation import described, shown

MOST_LEVELS = 8
MOST_BLOCKS = 1024
MOST_CHANNELS = 1 << 16
MOST_TOKENS = 1 << 20

Channels = Annotated[int, Field(ge=1, le=MOST_CHANNELS)]
Layers = Annotated[int, Field(ge=1, le=64)]
Depth = Annotated[int, Field(ge=0, le=64)]
Tokens = Annotated[int, Field(ge=1, le=MOST_TOKENS)]
Positive = Annotated[float, Field(gt=0)]
Levels = Field(min_length=1, max_length=MOST_LEVELS)
"""One entry for each level of a network, widest picture first."""
PerLevel = int | tuple[int, ...]
"""One number for every level of a network, or one for each."""


@dataclass(frozen=True)
class Config:
    """Reading and writing, the same for all. Fields are of the type that they say, within its bounds.

    Raises `ValueError` otherwise, also in `dataclasses.replace`.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, allow_inf_nan=False)
    __pydantic_fields__: ClassVar[dict[str, FieldInfo]]
    CLASS: ClassVar[str] = ""
    """The library's class that the file names."""
    FIXED: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    """Keys that this package knows only at the values at which they change nothing."""
    IGNORED: ClassVar[frozenset[str]] = frozenset()
    """Keys that change nothing here, whatever they hold."""
    DERIVED: ClassVar[frozenset[str]] = frozenset()
    """Fields that no key of their own sets."""
    ERROR: ClassVar[type[SfumatoError]] = CheckpointError
    """What `from_dict` raises."""

    def __post_init__(self) -> None:
        self.check()

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any], where: str) -> Self:
        """The configuration in `mapping`, the content of the file called `where` in errors.

        Raises `ERROR` for an unknown key, a value of the wrong type or out of range, and for a network that
        this package does not build.
        """
        if cls.CLASS and mapping.get("_class_name", cls.CLASS) != cls.CLASS:
            raise cls.ERROR(f"{where}: _class_name is {shown(mapping['_class_name'])}: must be {cls.CLASS!r}")
        names = cls.names()
        values = cls.defaults(mapping, where)
        for key, value in mapping.items():
            if key in names:
                values[key] = _with_tuples(value)
            elif key in cls.FIXED:
                if value not in cls.FIXED[key]:
                    right = " or ".join(repr(right) for right in cls.FIXED[key])
                    raise cls.ERROR(f"{where}: {key} is {shown(value)}: not supported, only {right}")
            elif not key.startswith("_") and key not in cls.IGNORED:
                raise cls.ERROR(f"{where}: unknown key {shown(key)}; {nearest(key[:80], names)}")
        try:
            return cls(**values)
        except ValidationError as error:
            fault = next(described(error, cls.__pydantic_fields__))
            raise cls.ERROR(f"{where}: {fault}") from None

    @classmethod
    def names(cls) -> set[str]:
        """The keys that set a field."""
        return {field.name for field in fields(cls)} - cls.DERIVED

    @classmethod
    def defaults(cls, mapping: Mapping[str, Any], where: str) -> dict[str, Any]:
        """What the file says other than by a field's own key."""
        return {}

    def check(self) -> None:
        """Raise `ValueError` where values that are sound by themselves do not go together."""

    def to_dict(self) -> dict[str, Any]:
        """The configuration as its library's `config.json`; keys left out hold the class's default."""
        values = {"_class_name": self.CLASS} if self.CLASS else {}
        return values | {
            field.name: _with_lists(getattr(self, field.name))
            for field in fields(self)
            if field.name not in self.DERIVED
        }


def same_length(key: str, values: Sequence[Any], count: int) -> None:
    """Raise `ValueError` unless there are `count` values."""
    if len(values) != count:
        raise ValueError(f"{key} has {len(values)} entries, must have {count}")


def divides(key: str, divisor: int, other: str, number: int) -> None:
    """Raise `ValueError` unless `number` is a multiple of `divisor`."""
    if number % divisor:
        raise ValueError(f"{other} = {number} must be a multiple of {key} = {divisor}")


def _with_tuples(value: Any) -> Any:
    return tuple(_with_tuples(item) for item in value) if isinstance(value, list) else value


def _with_lists(value: Any) -> Any:
    return [_with_lists(item) for item in value] if isinstance(value, tuple) else value
