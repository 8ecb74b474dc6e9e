"""Style presets: named words around a prompt and its negative prompt, from TOML files."""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from sfumato.errors import UsageError, nearest
from sfumato.folders import folder
from sfumato.prompt.meaning import MAX_CHARACTERS

HOLE = "{prompt}"
SHIPPED = "sfumato"
MAX_FILE_BYTES = 1 << 20

MODELS: dict[str, str] = {
    "embedded": "the model that comes with Sfumato",
    "stable-diffusion": "Stable Diffusion 1.x, 2.x and XL, and what was fine-tuned from them",
}
"""The kinds of model that a style can be made for."""


@dataclass(frozen=True)
class Style:
    """A preset. `prompt` and `negative` hold `{prompt}` where the text goes, or follow it after a comma.

    `models`: the kinds it was made for, of `MODELS`; none means any. `source`: "sfumato", or the user's file.
    """

    name: str
    prompt: str = ""
    negative: str = ""
    description: str = ""
    models: tuple[str, ...] = ()
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
        with open(path, "rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise UsageError(f"the style file {path} is larger than {MAX_FILE_BYTES:,} bytes")
        tables = tomllib.loads(content.decode("utf-8-sig"))
    except OSError as error:
        raise UsageError(f"cannot read the style file {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the style file {path} is not TOML: {error}") from None
    above = tables.pop("models", []) if not isinstance(tables.get("models"), dict) else []
    models = _models(above, f"{path}: models")
    styles = {}
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise UsageError(f"{path}: {name} must be a table, [{name}], with the style's keys")
        styles[name] = _style(name, table, models, path, source)
    return styles


def _style(name: str, table: dict[str, Any], models: tuple[str, ...], path: Path, source: str) -> Style:
    texts = {}
    for key, value in table.items():
        where = f"{path}: [{name}] {key}"
        if key == "models":
            models = _models(value, where)
        elif key not in ("prompt", "negative", "description"):
            known = ("prompt", "negative", "description", "models")
            raise UsageError(f"{where} is no key of a style; {nearest(key, known)}")
        elif not isinstance(value, str):
            raise UsageError(f"{where} must be text in quotes")
        else:
            texts[key] = " ".join(value.split()) if key == "description" else value
    if not any(texts.get(key, "").strip() for key in ("prompt", "negative")):
        raise UsageError(f"{path}: [{name}] needs words: a prompt, a negative, or both")
    return Style(name=name, models=models, source=source, **texts)


def _models(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(kind, str) for kind in value):
        raise UsageError(f"{where} must be a list of names: {', '.join(MODELS)}")
    for kind in value:
        if kind not in MODELS:
            raise UsageError(f"{where} names {kind!r}; {nearest(kind, MODELS)}")
    return tuple(value)
