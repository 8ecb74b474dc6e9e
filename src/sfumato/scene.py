"""Scenes: a background and elements in front of it, from a TOML file or as an object."""

import re
import tomllib
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from sfumato.control import Fraction
from sfumato.element import Element
from sfumato.errors import UsageError, nearest
from sfumato.files import read_file
from sfumato.prompt.meaning import MAX_CHARACTERS
from sfumato.request import ALIASES, Region, Request
from sfumato.validation import Validated, as_path

MAX_FILE_BYTES = 1 << 20
_OWN = ("prompt", "negative", "style", "seed", "steps", "guidance")
"""Fields of a request that a background has for itself."""


class Background(Validated):
    """What is behind the elements of a scene. What is `None` is as in the scene."""

    prompt: str = Field(max_length=MAX_CHARACTERS)
    negative: str | None = Field(None, max_length=MAX_CHARACTERS)
    style: tuple[str, ...] | str | None = None
    seed: int | None = None
    steps: int | None = None
    guidance: float | None = None


class Scene(Validated):
    """A background and elements in front of it.

    `method`: "passes" draws each for itself, and then all once more at the strength `harmonise` (default 0.2;
    0 leaves every pixel as it was put together). "regions" draws all in one pass, each element's prompt in
    its box. `settings`: other fields of a `Request`, for all of it; they may be given as keywords.

        scene = sfumato.Scene(background="a wooden table", elements=[{"prompt": "a red apple"}], steps=20)
        studio.generate(scene.request)
    """

    background: Background
    elements: tuple[Element, ...]
    method: Literal["passes", "regions"] = "passes"
    harmonise: Fraction | None = None
    settings: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _settings_apart(cls, given: Any) -> Any:
        """Fields of a request among the keys into `settings`; a text is a background's prompt."""
        if not isinstance(given, dict):
            return given
        settings = {**given.get("settings", {})}
        fields: dict[str, Any] = {}
        known = {*Request.model_fields, *ALIASES} - {"prompt", *cls.model_fields}
        for key, value in given.items():
            if key in cls.model_fields:
                fields[key] = value
            elif key in known:
                settings[key] = value
            else:
                raise ValueError(f"unknown key {key!r}; {nearest(key, known | {*cls.model_fields})}")
        if isinstance(fields.get("background"), str):
            fields["background"] = {"prompt": fields["background"]}
        return {**fields, "settings": settings}

    @model_validator(mode="after")
    def _has_elements(self) -> Self:
        if not self.elements:
            raise ValueError("elements is empty: a scene has at least one")
        return self

    @property
    def request(self) -> Request:
        """The request that draws it. Raises `UsageError`."""
        own = {name: value for name in _OWN if (value := getattr(self.background, name)) is not None}
        fields: dict[str, Any] = {**self.settings, **own}
        if self.method == "passes":
            common = {name: self.settings[name] for name in ("guidance", "steps") if name in self.settings}
            elements = [
                each.model_copy(
                    update={name: value for name, value in common.items() if getattr(each, name) is None}
                )
                for each in self.elements
            ]
            return Request.build(**fields, elements=elements, harmonise=self.harmonise)
        for number, each in enumerate(self.elements, start=1):
            if each.box is None:
                name = each.name or each.prompt
                raise UsageError(f"element {number} ({name!r}): box is missing, which method 'regions' needs")
        regions = [Region(prompt=each.prompt, box=each.box) for each in self.elements if each.box]
        return Request.build(**fields, regions=regions)

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """The scene in a TOML file; pictures in it are beside it. Raises `UsageError`."""
        path = as_path(path)
        try:
            table = tomllib.loads(read_file(path, MAX_FILE_BYTES).decode("utf-8-sig"))
        except OSError as error:
            raise UsageError(f"cannot read the scene {path}: {error.strerror or error}") from None
        except (ValueError, RecursionError) as error:
            raise UsageError(f"the scene {path} is not TOML: {error}") from None
        elements = table.get("elements")
        each = [one for one in elements if isinstance(one, dict)] if isinstance(elements, list) else []
        for one, key in ((table, "image"), (table, "mask"), *((one, "mask") for one in each)):
            if isinstance(one.get(key), str) and one[key] != "alpha":
                one[key] = path.parent / one[key]
        try:
            return cls(**table)
        except UsageError as error:
            raise UsageError(f"{path}: {_named(str(error), each)}") from None


def _named(message: str, elements: list[dict[str, Any]]) -> str:
    """`message` with elements called by number and name, as "element 2 ('apple'): box is …"."""

    def name(match: re.Match[str]) -> str:
        number = int(match[1])
        one = elements[number] if number < len(elements) else {}
        words = one.get("name") or one.get("prompt")
        called = f" ({str(words)[:40]!r})" if words else ""
        return f"element {number + 1}{called}{':' if match[2] else ''} "

    return re.sub(r"elements\.(\d+)(\.?) ?", name, message)
