"""Style presets: named words around a prompt and its negative prompt.

One's own are TOML. A1111's `styles.csv` is read where it lies, and so is the JSON of Fooocus, the SDXL prompt
styler, SD.Next and InvokeAI.
"""

import csv
import io
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic.dataclasses import dataclass

from sfumato.config.base import Config
from sfumato.errors import CheckpointError, SfumatoError, UsageError, nearest, warn
from sfumato.files import json_value, read_file
from sfumato.folders import folder
from sfumato.prompt.meaning import MAX_CHARACTERS
from sfumato.validation import one_of

HOLE = "{prompt}"
SHIPPED = "sfumato"
MAX_FILE_BYTES = 4 << 20
SUFFIXES = (".toml", ".csv", ".json")
_BESIDE = (".png", ".jpg", ".jpeg", ".webp", ".bak")
"""What other programs keep beside their styles: samples, and the last version."""

_PROMPTS = ("prompt", "positive_prompt", "positive", "text")
_NEGATIVES = ("negative_prompt", "negative")
"""What other programs call a style's words."""

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

    `paths` are files of any of `SUFFIXES`, else those in the user's folder of styles, where files of other
    kinds are warned of, and those of other programs that cannot be read; of two styles with one name the
    later wins. Raises `UsageError` naming the file and the key.
    """
    shipped = Path(str(resources.files("sfumato"))) / "styles"
    styles: dict[str, Style] = {}
    for path in sorted(shipped.glob("*.toml")):
        styles |= _read(path, SHIPPED)
    for path in _own() if paths is None else paths:
        try:
            styles |= _read(path, str(path))
        except UsageError as error:
            if paths is not None or path.suffix.lower() == ".toml":
                raise
            warn(str(error))
    return styles


def _own() -> list[Path]:
    """The user's style files by name, TOML last; the others there are warned of, pictures aside."""
    top = folder("styles")
    visible = [
        path for path in sorted(top.rglob("*")) if not path.relative_to(top).as_posix().startswith(".")
    ]
    others = [
        path.relative_to(top).as_posix()
        for path in visible
        if path.is_file() and path.suffix.lower() not in (*SUFFIXES, *_BESIDE)
    ]
    if others:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        warn(f"not read in {top}: {', '.join(others[:3])}{more}; styles are {', '.join(SUFFIXES)} files")
    read = [path for path in visible if path.suffix.lower() in SUFFIXES]
    return sorted(read, key=lambda path: (path.suffix.lower() == ".toml", path))


def find(name: str, styles: Mapping[str, Style]) -> Style:
    """The style called `name`, whatever the case and whether its words are joined by blanks or hyphens.

    Fooocus shows "sai-3d-model" as "SAI 3D Model". Raises `UsageError` where there is none.
    """
    if name in styles:
        return styles[name]
    alike = [style for known, style in styles.items() if _folded(known) == _folded(name)]
    if not alike:
        raise UsageError(f"unknown style {name!r}; {nearest(name, styles)}")
    return alike[-1]


def _folded(name: str) -> str:
    return " ".join(name.replace("-", " ").lower().split())


def apply(names: Sequence[str], prompt: str, negative: str, styles: Mapping[str, Style]) -> tuple[str, str]:
    """Prompt and negative prompt with the styles put around them, the first one innermost.

    Raises `UsageError` for an unknown name, and for a text that becomes longer than a prompt may be.
    """
    for name in names:
        style = find(name, styles)
        prompt = _around(prompt, style.prompt, name)
        negative = _around(negative, style.negative, name)
    return prompt, negative


def _around(text: str, words: str, name: str) -> str:
    if len(words) + max(1, words.count(HOLE)) * len(text) > MAX_CHARACTERS:
        raise UsageError(f"with the style {name!r} the prompt is longer than {MAX_CHARACTERS:,} characters")
    if HOLE in words:
        return words.replace(HOLE, text) if text.strip() else words.replace(HOLE, "").strip(", ")
    return ", ".join(part for part in (text, words) if part.strip())


def _read(path: Path, source: str) -> dict[str, Style]:
    """The styles of one file. Raises `UsageError`."""
    try:
        text = _decoded(read_file(path, MAX_FILE_BYTES))
    except OSError as error:
        raise UsageError(f"cannot read the style file {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"the style file {path} is not UTF-8 at byte {error.start}") from None
    read = {".csv": _from_csv, ".json": _from_json}.get(path.suffix.lower(), _from_toml)
    return {style.name: replace(style, source=source) for style in read(path, text)}


def _decoded(content: bytes) -> str:
    return content.decode("utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")


def _from_toml(path: Path, text: str) -> Iterator[Style]:
    """A table for each style, and above them `models` for those that do not say their own."""
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the style file {path} is not TOML: {error}") from None
    above = tables.pop("models", []) if not isinstance(tables.get("models"), dict) else []
    Style.from_dict({"models": above, "prompt": HOLE}, str(path))
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise UsageError(f"{path}: {name} must be a table, [{name}], with the style's keys")
        style = Style.from_dict({"models": above, **table}, f"{path}: [{name}]")
        if not (style.prompt.strip() or style.negative.strip()):
            raise UsageError(f"{path}: [{name}] needs words: a prompt, a negative, or both")
        yield replace(style, name=name, description=" ".join(style.description.split()))


def _from_csv(path: Path, text: str) -> Iterator[Style]:
    """A1111's table: name, prompt (once called text), negative_prompt; rows without words part the list.

    A spreadsheet may have saved it with semicolons or tabs.
    """
    first = text.lstrip().partition("\n")[0]
    separator = max(",;\t", key=first.count)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True))
    except csv.Error as error:
        raise UsageError(f"the style file {path} is not CSV: {error}") from None
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    columns = [cell.strip().lower() for cell in rows[0]] if rows else []
    if "name" not in columns or not {"prompt", "text"} & set(columns):
        raise UsageError(
            f"the style file {path} has no columns name, prompt and negative_prompt in its first line, "
            f"but {', '.join(columns) or 'nothing'}"
        )
    for number, row in enumerate(rows[1:], start=2):
        cells = dict(zip(columns, row, strict=False))
        yield from _brought(cells, f"{path}, row {number}")


def _from_json(path: Path, text: str) -> Iterator[Style]:
    """A list of styles, as Fooocus and the SDXL prompt styler have; one style, or styles by their names."""
    try:
        content = json_value(text.encode(), f"the style file {path}")
    except CheckpointError as error:
        raise UsageError(str(error)) from None
    if isinstance(content, dict):
        single = any(isinstance(content.get(key), str) for key in (*_PROMPTS, *_NEGATIVES))
        content = (
            [{"name": path.stem, **content}]
            if single
            else [
                {"name": name, **each} if isinstance(each, dict) else each for name, each in content.items()
            ]
        )
    named = {*_PROMPTS, *_NEGATIVES}
    if not isinstance(content, list) or not any(
        isinstance(each, dict) and named & each.keys() for each in content
    ):
        raise UsageError(f"the style file {path} must hold a list of styles with name and prompt")
    for number, each in enumerate(content, start=1):
        yield from _brought(each, f"{path}, style {number}")


def _brought(entry: Any, where: str) -> Iterator[Style]:
    """The style of another program's `entry`; what cannot be one is warned of and left out."""
    found = entry if isinstance(entry, dict) else {}
    prompt, negative = (
        next((found[key] for key in keys if found.get(key)), "") for keys in (_PROMPTS, _NEGATIVES)
    )
    name, description = found.get("name", ""), found.get("description") or ""
    if not all(isinstance(each, str) for each in (name, prompt, negative)) or not name.strip():
        warn(f"{where} is left out: a style has a name, and a prompt or negative_prompt, as text")
    elif (prompt.strip() or negative.strip()) and not name.startswith("#"):
        yield Style(name.strip(), prompt.strip(), negative.strip(), " ".join(str(description).split()))
