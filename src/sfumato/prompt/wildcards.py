"""Wildcard files: which lists of entries a name means, and the entries of each list.

A list is a text file with an entry on each line, or what stands under one key of a YAML or JSON file.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from sfumato import files, folders
from sfumato.errors import CheckpointError, UsageError, nearest, warn

SUFFIXES = (".txt", ".yaml", ".yml", ".json")
MAX_FILE_BYTES = 16 << 20
MAX_ENTRIES = 1_000_000
MAX_NAME = 200

_LOADER: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


@dataclass(frozen=True)
class WildcardList:
    """One list of entries: a text file, or with a `key` a part of a YAML or JSON file."""

    path: Path
    key: str | None = None


@dataclass(frozen=True)
class WildcardEntry:
    """One entry as it is written, and `where`, for errors."""

    text: str
    where: str
    weight: float = 1.0


def sources(wildcards: Mapping[str, Path] | None = None) -> tuple[dict[str, WildcardList], list[str]]:
    """Every list by its name, of the files `wildcards` or in the user's folder; and what could not be read.

    A list in a subfolder or under a key is "pets/cat", and "cat" as well where nothing else is called so.
    """
    problems = []
    top = folders.folder("wildcards")
    paths = folders.found("wildcards", SUFFIXES) if wildcards is None else wildcards
    found: dict[str, WildcardList] = {}
    structured: dict[str, Path] = {}
    for name, path in paths.items():
        if path.suffix.lower() in SUFFIXES[1:]:
            structured.setdefault(
                name if wildcards is not None else path.relative_to(top).with_suffix("").as_posix(), path
            )
        else:
            found[name] = WildcardList(path)
    short: dict[str, WildcardList] = {}
    for name, path in structured.items():
        above = name.rpartition("/")[0]
        try:
            keys = _lists(path)
        except UsageError as error:
            problems.append(str(error))
            continue
        for key in keys:
            whole = "/".join(part for part in (above, key or name.rpartition("/")[2]) if part)
            found.setdefault(whole, WildcardList(path, key))
            short.setdefault(whole.rpartition("/")[2], WildcardList(path, key))
    return {**short, **found}, problems


def matching(name: str, known: Mapping[str, WildcardList]) -> list[WildcardList]:
    """The lists that `name` means: one of `known`, or by `*`, `?` and `[…]` any number, sorted by name.

    A name that fits nothing is tried in any subfolder, then whatever the case of its letters. Raises
    `UsageError` where there is none.
    """
    name = re.sub(r"[\\/]+", "/", name).strip("/")
    if name in known:
        return [known[name]]
    for fold in (str, str.lower):
        for each in (name, name.removeprefix("**/").removeprefix("*/"), f"*/{name}"):
            if found := [known[key] for key in sorted(known) if fnmatchcase(fold(key), fold(each))]:
                return list(dict.fromkeys(found))
    top = folders.folder("wildcards")
    if other := next((path for path in top.rglob("*") if name in (path.stem, path.name)), None):
        raise UsageError(
            f"there is no wildcard {name!r}: {other} is no {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} file"
        )
    hint = nearest(name, known) if known else f"{top} holds none"
    raise UsageError(f"there is no wildcard {name!r}; {hint}")


def entries(source: WildcardList) -> Iterator[WildcardEntry]:
    """The entries of a list, in their order. Raises `UsageError` for a file that cannot be read."""
    if source.key is None:
        for number, line in enumerate(_text(source.path).split("\n"), start=1):
            entry = line.strip()
            if entry and not entry.startswith("#"):
                yield WildcardEntry(entry, f"{source.path}, line {number}")
        return
    for number, item in enumerate(_lists(source.path)[source.key], start=1):
        where = f"{source.path}, {source.key or 'entry'} {number}"
        table = item if isinstance(item, dict) else {"text": item}
        text, weight = table.get("text", table.get("content")), table.get("weight", 1)
        try:
            written, factor = ("" if text is None else str(text)).strip(), float(weight)
        except (TypeError, ValueError):
            factor = -1.0
        if isinstance(text, dict | list) or (text is None and table is item) or not 0 <= factor < math.inf:
            warn(f"{where} is left out: a colon inside or a brace at the beginning needs quotes around it")
        elif written:
            yield WildcardEntry(written, where, factor)


def _text(path: Path) -> str:
    try:
        content = files.read_file(path, MAX_FILE_BYTES)
    except OSError as error:
        raise UsageError(f"cannot read the wildcard file {path}: {error.strerror}") from None
    encoding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise UsageError(f"the wildcard file {path} is not UTF-8 at byte {error.start}") from None


def _lists(path: Path) -> dict[str, list[Any]]:
    """The lists of a YAML or JSON file by their keys, "clothes/hat"; "" where the file is one list."""
    try:
        changed = path.stat()
    except OSError as error:
        raise UsageError(f"cannot read the wildcard file {path}: {error.strerror}") from None
    return _lists_of(path, changed.st_mtime_ns, changed.st_size)


@lru_cache(64)
def _lists_of(path: Path, _time: int, _size: int) -> dict[str, list[Any]]:
    text = _text(path)
    try:
        if path.suffix.lower() == ".json":
            content = files.json_value(text.encode(), f"the wildcard file {path}")
        else:
            content = _from_yaml(text)
    except CheckpointError as error:
        raise UsageError(str(error)) from None
    except (yaml.YAMLError, ValueError) as error:
        raise UsageError(f"the wildcard file {path} is not YAML: {' '.join(str(error).split())}") from None
    lists: dict[str, list[Any]] = {}
    todo = [("", content)]
    count = 0
    while todo:
        key, value = todo.pop()
        count += 1
        if isinstance(value, dict):
            inside = [(f"{key}/{name}" if key else name, each) for name, each in value.items()]
            todo += reversed([(name, each) for name, each in inside if len(name) <= MAX_NAME])
        elif value not in (None, "", []):
            lists[key] = value if isinstance(value, list) else [value]
            count += len(lists[key])
        if count + len(todo) > MAX_ENTRIES:
            raise UsageError(f"the wildcard file {path} has more than {MAX_ENTRIES:,} entries")
    return lists


def _from_yaml(text: str) -> Any:
    """The first document of a YAML text, every scalar as it is written: `no` and `1girl` alike are text.

    It is made from the parser's events, as nothing there recurses and no object is constructed.
    """
    root: list[Any] = []
    inside: list[tuple[Any, list[str]]] = [(root, [])]
    anchors: dict[str, Any] = {}
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionEndEvent):
            inside.pop()
            continue
        if isinstance(event, yaml.AliasEvent):
            value = anchors.get(event.anchor)
        elif isinstance(event, yaml.ScalarEvent):
            value = event.value
        elif isinstance(event, yaml.CollectionStartEvent):
            value = [] if isinstance(event, yaml.SequenceStartEvent) else {}
        else:
            continue
        if isinstance(event, yaml.NodeEvent) and event.anchor and not isinstance(event, yaml.AliasEvent):
            anchors[event.anchor] = value
        into, key = inside[-1]
        if isinstance(into, list):
            into.append(value)
        elif key:
            into[key.pop()] = value
        elif isinstance(value, str):
            key.append(value)
        else:
            raise ValueError(f"a key in line {event.start_mark.line + 1} is no text")
        if isinstance(event, yaml.CollectionStartEvent):
            inside.append((value, []))
    return root[0] if root else None
