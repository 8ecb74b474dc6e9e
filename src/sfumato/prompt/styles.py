"""Style presets: named words around a prompt and its negative prompt, from TOML files."""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic.dataclasses import dataclass

from sfumato.config.base import Config
from sfumato.errors import SfumatoError, UsageError, nearest
from sfumato.files import read_file
from sfumato.folders import folder
from sfumato.prompt.meaning import MAX_CHARACTERS
from sfumato.validation import one_of

HOLE = "{prompt}"
SHIPPED = "sfumato"
MAX_FILE_BYTES = 1 << 20

MODELS: dict[str, str] = {
    "embedded": "the model that comes with Sfumato",
    "stable-diffusion": "Stable Diffusion 1.x, 2.x and XL, and what was fine-tuned from them",
}
"""The kinds of model that a style can be made for."""


@dataclass(frozen=True)
class Style(Config):
    """A preset. `prompt` and `negative` contain `{prompt}` where the text goes, or follow it after a comma.

    `models`: the kinds it was made for, of `MODELS`; none means any. `source`: "sfumato", or the user's file.
    """

    ERROR: ClassVar[type[SfumatoError]] = UsageError
    DERIVED: ClassVar[frozenset[str]] = frozenset({"name", "source"})

    name: str = ""
    prompt: str = ""
    negative: str = ""
    description: str = ""
    models: tuple[Annotated[str, one_of(MODELS)], ...] = ()
    source: str = SHIPPED


def load_styles(paths: Iterable[Path] | None = None) -> dict[str, Style]:
    """All styles by name: the shipped ones, then those of `paths`, which win over them by name.

    `paths` are TOML files, else those in the user's folder of styles; of two with one name the later wins.
    Raises `UsageError` naming the file and the key.
    """
    shipped = Path(str(resources.files("sfumato"))) / "styles"
    styles: dict[str, Style] = {}
    for path in sorted(shipped.glob("*.toml")):
        styles |= _read(path, SHIPPED)
    for path in sorted(folder("styles").glob("*.toml")) if paths is None else paths:
        styles |= _read(path, str(path))
    return styles


def apply(names: Sequence[str], prompt: str, negative: str, styles: Mapping[str, Style]) -> tuple[str, str]:
    """Prompt and negative prompt with the styles put around them, the first one innermost.

    Raises `UsageError` for an unknown name, and for a text that becomes longer than a prompt may be.
    """
    for name in names:
        if name not in styles:
            raise UsageError(f"unknown style {name!r}; {nearest(name, styles)}")
        prompt = _around(prompt, styles[name].prompt, name)
        negative = _around(negative, styles[name].negative, name)
    return prompt, negative


def _around(text: str, words: str, name: str) -> str:
    if len(words) + max(1, words.count(HOLE)) * len(text) > MAX_CHARACTERS:
        raise UsageError(f"with the style {name!r} the prompt is longer than {MAX_CHARACTERS:,} characters")
    if HOLE in words:
        return words.replace(HOLE, text) if text.strip() else words.replace(HOLE, "").strip(", ")
    return ", ".join(part for part in (text, words) if part.strip())


def _read(path: Path, source: str) -> dict[str, Style]:
    """The styles of one file: a table each, and above them `models` for those that do not say their own."""
    try:
        tables = tomllib.loads(read_file(path, MAX_FILE_BYTES).decode("utf-8-sig"))
    except OSError as error:
        raise UsageError(f"cannot read the style file {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the style file {path} is not TOML: {error}") from None
    above = tables.pop("models", []) if not isinstance(tables.get("models"), dict) else []
    Style.from_dict({"models": above, "prompt": HOLE}, str(path))
    styles = {}
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise UsageError(f"{path}: {name} must be a table, [{name}], with the style's keys")
        style = Style.from_dict({"models": above, **table}, f"{path}: [{name}]")
        if not (style.prompt.strip() or style.negative.strip()):
            raise UsageError(f"{path}: [{name}] needs words: a prompt, a negative, or both")
        description = " ".join(style.description.split())
        styles[name] = replace(style, name=name, description=description, source=source)
    return styles
