"""A hook of MkDocs: the pages of the site that are files of the repository, or made from the code.

Pages are written for the repository, as GitHub shows it; here their links become those of the site.
"""

import json
import os
import posixpath
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import typer
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
COPIES = {
    "index.md": "README.md",
    "embedded-model.md": "src/sfumato/models/icons/README.md",
    "attribution.md": "src/sfumato/models/icons/ATTRIBUTION.md",
    "clip-attribution.md": "src/sfumato/models/clip/ATTRIBUTION.md",
    "changes.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "security.md": "SECURITY.md",
    "licence.md": "LICENSE",
}
"""Pages that are a file of the repository."""
COLLECTIONS = {"examples.md": ("examples", "*.py"), "recipes.md": ("recipes", "**/*.toml")}
"""Pages that show the files of a folder, each below a heading of its name."""
ELSEWHERE = {"src/sfumato/request.py": "reference/request.md#sfumato.Request"}
"""Where the site documents other files that pages link to."""
LINK = re.compile(r"(?<=\]\()([^)#\s]*)(#[^)\s]*)?(?=\))")
CODE = re.compile(r"`[^`\n]+`")
MANY = 10**6
"""A bound above this one is not worth stating."""


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages that do not lie in `docs/`."""
    for uri, text in generated():
        files.append(File.generated(config, uri, content=text))
    return files


def generated() -> Iterator[tuple[str, str]]:
    """(path in the site, Markdown) of every page that is not a file of `docs/`."""
    for uri, path in COPIES.items():
        text = (ROOT / path).read_text("utf-8")
        yield uri, text if path.endswith(".md") else f"# Licence\n\n```\n{text}```\n"
    for uri, (folder, pattern) in COLLECTIONS.items():
        yield uri, collection(folder, pattern)
    yield "reference/command.md", command_page()
    yield "reference/request.md", request_page()


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turns a page's links into those of the site, and `\\|` in the code of its tables into `|`."""
    uri = page.file.src_uri
    source = COPIES.get(uri, f"docs/{uri}")
    shown = {path: place for place, path in COPIES.items()} | ELSEWHERE
    for place, (folder, pattern) in COLLECTIONS.items():
        shown |= {path: f"{place}#{path}" for path in repository_files(folder, pattern)} | {folder: place}

    def rewritten(link: re.Match[str]) -> str:
        target, anchor = link[1], link[2] or ""
        if not target or "://" in target or target.startswith("mailto:"):
            return link[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        place = shown.get(path, path.removeprefix("docs/"))
        there, own, inside = place.partition("#")
        return posixpath.relpath(there, posixpath.dirname(uri) or ".") + (anchor or own + inside)

    # in a table's code GitHub takes the backslash away, and Python-Markdown does not
    lines = [
        CODE.sub(lambda code: code[0].replace("\\|", "|"), line) if line.startswith("| ") else line
        for line in markdown.split("\n")
    ]
    return LINK.sub(rewritten, "\n".join(lines))


def repository_files(folder: str, pattern: str) -> list[str]:
    """The files of a folder of the repository, as paths from its root."""
    return sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / folder).glob(pattern))


def collection(folder: str, pattern: str) -> str:
    """A page of the files of `folder`, each with an anchor of its path."""
    parts = [f"# {folder.capitalize()}", f"The files of `{folder}/` in the repository."]
    for path in repository_files(folder, pattern):
        code = fenced((ROOT / path).read_text("utf-8"), Path(path).suffix[1:])
        parts.append(f"## `{path.removeprefix(f'{folder}/')}` {{ #{path} }}\n\n{code}")
    return "\n\n".join(parts) + "\n"


def command_page() -> str:
    """The help of `sfumato` and of each of its subcommands, as a terminal shows it."""
    os.environ.update(NO_COLOR="1", COLUMNS="92")
    from sfumato.cli.app import app

    parts = ["# The command", "What `--help` prints, for every subcommand."]
    for name, text in helps(typer.main.get_command(app), None, "sfumato"):
        parts.append(f"## `{name}` {{ #{name.replace(' ', '-')} }}\n\n{fenced(text, 'text')}")
    return "\n\n".join(parts) + "\n"


def helps(command: Any, above: Any, name: str) -> Iterable[tuple[str, str]]:
    """(name, help) of a command and of all below it."""
    context = command.make_context(name, [], parent=above, resilient_parsing=True)
    yield context.command_path, command.get_help(context)
    for each in getattr(command, "commands", {}):
        _, below, _ = command.resolve_command(context, [each])
        yield from helps(below, context, each)


def request_page() -> str:
    """A table of the fields of `Request`, and the types of its parts."""
    from sfumato.request import Request

    lines = [
        "# The request",
        "",
        "What to draw: the fields of `sfumato.Request`, and of `Studio.generate`.",
        "",
    ]
    lines += ["| field | values | default | meaning |", "|---|---|---|---|"]
    for name, field in Request.model_json_schema()["properties"].items():
        meaning, _, model_s = field["description"].partition(" Default: ")
        lines.append(f"| `{name}` | {values(field)} | {default(field) or model_s.rstrip('.')} | {meaning} |")
    for name in ("Request", "prompt.meaning.AdapterWeight", "request.Region", "request.Origin"):
        lines += ["", f"::: sfumato.{name}"]
    return "\n".join(lines) + "\n"


def values(schema: dict[str, Any]) -> str:
    """What a field may be, from its JSON schema: "integer, 8 to 4096"."""
    schema = {**schema, **schema.get("anyOf", [{}])[0]}
    if "$ref" in schema:
        return f"`{schema['$ref'].rpartition('/')[2]}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "prefixItems" in schema:
        return "two numbers"
    if "items" in schema:
        return f"up to {schema['maxItems']} of: {values(schema['items'])}"
    kind: str = {"string": "text", "boolean": "true or false"}.get(schema["type"], schema["type"])
    if "minimum" not in schema:
        return kind
    least, largest = schema["minimum"], schema.get("maximum", MANY)
    return f"{kind}, {least} to {largest}" if largest < MANY else f"{kind}, {least} or more"


def default(schema: dict[str, Any]) -> str:
    """What a field is where nothing is given; blank where that is nothing, or its description says it."""
    if "default" not in schema:
        return "required"
    value = schema["default"]
    return "" if value in (None, "", []) else f"`{value if isinstance(value, str) else json.dumps(value)}`"


def fenced(text: str, language: str) -> str:
    """A code block."""
    return f"````{language}\n{text.rstrip()}\n````"
