"""The tree that a template is read into: what is text, what is chosen, and where wildcards get it from."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from sfumato.errors import UsageError, nearest
from sfumato.files import read_file
from sfumato.folders import folder, found

MAX_WILDCARDS = 1_000
MAX_ENTRIES = 1_000_000
MAX_FILE_BYTES = 16 << 20
MAX_WEIGHT = 1e6
MAX_COUNT = 999_999

_NAME = r"__((?:[^\W_]|\*)(?:(?!__)[\w./* -]){0,199})(?<! )__"
_SYNTAX = re.compile(rf"[{{}}]|\\[{{}}_$]|{_NAME}")
_TOKEN = re.compile(rf"\\[\\{{}}|_$]|\$?\{{|[|}}]|{_NAME}")
_ESCAPE = re.compile(r"\\([{}|_$])")
_VARIABLE = re.compile(r"\s*([^\W\d]\w*)\s*(?:=!?|(?::([^{}$|]*))?\})")
_COUNT = re.compile(r"\s*([0-9]*)(?:(-)([0-9]*))?\$\$(?:((?:\\.|[^\\{}$])*)\$\$)?", re.DOTALL)
_WEIGHT = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)::")


@dataclass(frozen=True, eq=False)
class Run:
    """Parts one after another."""

    parts: "tuple[TemplateNode, ...]"


@dataclass(frozen=True, eq=False)
class Wildcard:
    """`__name__`: one entry of its files. `where` it stands is for errors."""

    name: str
    where: str


@dataclass(frozen=True, eq=False)
class Variants:
    """`least` to `most` different ones of the options, in any order; an option of weight 0 is left out."""

    options: "tuple[TemplateNode, ...]"
    weights: tuple[float, ...]
    least: int = 1
    most: int = 1
    separator: str = ", "


@dataclass(frozen=True, eq=False)
class Assign:
    """`${name=value}`: the value is chosen here and kept; nothing is written."""

    name: str
    value: "TemplateNode"


@dataclass(frozen=True, eq=False)
class Variable:
    """`${name}` or `${name:default}`."""

    name: str
    default: str | None
    where: str


TemplateNode = str | Run | Wildcard | Variants | Assign | Variable


@dataclass(frozen=True, eq=False)
class Tree:
    """Texts that have been read, and by its name what each wildcard in them chooses from."""

    roots: tuple[TemplateNode, ...]
    pools: dict[str, Variants]

    def choice(self, node: Wildcard | Variants) -> Variants:
        """What is chosen from at `node`: never more than there are options.

        A single wildcard in braces lends them its entries: `{2$$__flavour__}` is two different flavours.
        """
        choice = self.pools[node.name] if isinstance(node, Wildcard) else node
        options, weights = choice.options, choice.weights
        while len(options) == 1 and isinstance(options[0], Wildcard):
            pool = self.pools[options[0].name]
            options, weights = pool.options, pool.weights
        most = len(options)
        return Variants(options, weights, min(choice.least, most), min(choice.most, most), choice.separator)


def is_template(text: str) -> bool:
    """Whether `text` holds anything that is read as a template; if not, it stands for itself."""
    return _SYNTAX.search(text) is not None


def read(texts: Sequence[str], wildcards: Mapping[str, Path] | None) -> Tree:
    """The tree of `texts`, which are prompt, negative prompt and those of regions, with their wildcards.

    `wildcards`: the files by name, else those in the user's folder. Raises `UsageError`.
    """
    mentioned: list[Wildcard] = []
    roots = []
    for number, text in enumerate(texts):
        label = ("the prompt", "the negative prompt", f"the prompt of region {number - 1}")[min(number, 2)]
        roots.append(_parse(text, label, mentioned).node() if is_template(text) else text)
    return Tree(tuple(roots), _pools(mentioned, wildcards) if mentioned else {})


@dataclass
class _OpenBrace:
    """A bracket that is being read, or the whole text: the options before, and the parts of this one."""

    at: int = 0
    variable: str | None = None
    least: int = 1
    most: int = 1
    separator: str = ", "
    options: list[TemplateNode] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    weight: float = 1.0
    parts: list[TemplateNode] = field(default_factory=list)

    def node(self) -> TemplateNode:
        """The parts so far as one."""
        parts = [part for part in self.parts if part != ""]
        return parts[0] if len(parts) == 1 else Run(tuple(parts)) if parts else ""

    def end_option(self) -> None:
        if self.weight > 0:
            self.options.append(self.node())
            self.weights.append(self.weight)
        self.parts, self.weight = [], 1.0

    def choice(self) -> Variants:
        """The whole, at its closing brace; blanks around a single wildcard do not count."""
        self.end_option()
        only = self.options[0] if len(self.options) == 1 else ""
        if isinstance(only, Run):
            words = [part for part in only.parts if not (isinstance(part, str) and part.isspace())]
            if len(words) == 1 and isinstance(words[0], Wildcard):
                self.options = words
        return Variants(tuple(self.options), tuple(self.weights), self.least, self.most, self.separator)


def _parse(text: str, label: str, mentioned: list[Wildcard], *, entry: bool = False) -> _OpenBrace:
    """Read one text, with an outermost bracket around it; its wildcards are added to `mentioned`.

    `label` says in errors which text it is. An `entry` of a file may begin with its weight.
    """
    stack = [_OpenBrace()]
    at = _weigh(stack[0], text, 0, label) if entry else 0
    while token := _TOKEN.search(text, at):
        here = stack[-1]
        here.parts.append(text[at : token.start()])
        where, mark, at = f"{label}, character {token.start() + 1}", token[0], token.end()
        in_choice = len(stack) > 1 and here.variable is None
        if mark == "{":
            stack.append(_OpenBrace(token.start()))
            at = _count(stack[-1], text, at, where)
            at = _weigh(stack[-1], text, at, label)
        elif mark == "${":
            variable = _VARIABLE.match(text, at)
            if not variable:
                raise UsageError(f"{where}: after ${{ a name and }} or =value}} is expected; text is \\$\\{{")
            at = variable.end()
            if variable[0].endswith("}"):
                here.parts.append(Variable(variable[1], variable[2] and _plain(variable[2]), where))
            else:
                stack.append(_OpenBrace(token.start(), variable[1]))
        elif mark == "|" and in_choice:
            here.end_option()
            at = _weigh(here, text, at, label)
        elif mark == "}":
            if len(stack) == 1:
                raise UsageError(f"{where}: }} closes nothing; a brace that is meant as text is \\}}")
            closed = stack.pop()
            if closed.variable is not None:
                stack[-1].parts.append(Assign(closed.variable, closed.node()))
                continue
            choice = closed.choice()
            if not choice.options:
                raise UsageError(f"{where}: every option has the weight 0; at least one needs more")
            stack[-1].parts.append(choice)
        elif token[1]:
            mentioned.append(Wildcard(token[1], where))
            here.parts.append(mentioned[-1])
        else:
            kept = mark in ("|", r"\\") or (mark == r"\|" and not in_choice)
            here.parts.append(mark if kept else mark[1:])
    if len(stack) > 1:
        where = f"{label}, character {stack[-1].at + 1}"
        raise UsageError(f"{where}: this brace is never closed by }}; one that is meant as text is \\{{")
    stack[0].parts.append(text[at:])
    return stack[0]


def _plain(text: str) -> str:
    return _ESCAPE.sub(r"\1", text)


def _weigh(option: _OpenBrace, text: str, at: int, label: str) -> int:
    """Read the weight before the option that begins at `at`, if there is one; where its text begins."""
    weight = _WEIGHT.match(text, at)
    if not weight:
        return at
    option.weight = float(weight[1])
    if option.weight > MAX_WEIGHT:
        raise UsageError(f"{label}, character {at + 1}: a weight is at most {MAX_WEIGHT:,.0f}")
    return weight.end()


def _count(choice: _OpenBrace, text: str, at: int, where: str) -> int:
    """Read `2$$`, `1-3$$` or `2$$ and $$` at `at`, if it is there; where the options begin."""
    count = _COUNT.match(text, at)
    if not count or not (count[1] or count[3]):
        return at
    least, to, most, separator = count[1], count[2], count[3] or "", count[4]
    if max(len(least), len(most)) > len(str(MAX_COUNT)):
        raise UsageError(f"{where}: at most {MAX_COUNT:,} options can be picked")
    choice.least = int(least or 1)
    choice.most = int(most or MAX_COUNT) if to else choice.least
    if choice.most < choice.least:
        raise UsageError(f"{where}: at least {choice.least} and at most {choice.most} cannot both be picked")
    if separator is not None:
        choice.separator = _plain(separator)
    return count.end()


def _pools(mentioned: list[Wildcard], wildcards: Mapping[str, Path] | None) -> dict[str, Variants]:
    """What each wildcard chooses from: those mentioned, and those that their entries mention in turn."""
    known = found("wildcards", (".txt",)) if wildcards is None else wildcards
    files: dict[Path, tuple[Variants, list[Wildcard]]] = {}
    pools: dict[str, Variants] = {}
    entries = 0
    trail: list[tuple[str, Iterator[Wildcard]]] = [("", iter(mentioned))]
    while trail:
        wildcard = next(trail[-1][1], None)
        if wildcard is None:
            trail.pop()
            continue
        name = wildcard.name
        inside = [above for above, _ in trail[1:]]
        if name in inside:
            circle = " in ".join(f"__{one}__" for one in reversed([*inside[inside.index(name) :], name]))
            raise UsageError(f"{wildcard.where}: wildcards go in a circle: {circle}")
        if name in pools:
            continue
        options: list[TemplateNode] = []
        weights: list[float] = []
        within: list[Wildcard] = []
        for path in _paths(wildcard, known):
            if path not in files:
                files[path] = _read_file(path)
            options += files[path][0].options
            weights += files[path][0].weights
            within += files[path][1]
        entries += len(options)
        if len(pools) >= MAX_WILDCARDS or entries > MAX_ENTRIES:
            raise UsageError(
                f"{wildcard.where}: more than {MAX_WILDCARDS:,} wildcards or {MAX_ENTRIES:,} entries to read"
            )
        pools[name] = Variants(tuple(options), tuple(weights))
        trail.append((name, iter(within)))
    return pools


def _paths(wildcard: Wildcard, known: Mapping[str, Path]) -> list[Path]:
    """The files that a wildcard means: one, or by its stars any number. Raises `UsageError`."""
    name = wildcard.name
    if name in known:
        return [known[name]]
    matching = [known[key] for key in sorted(known) if fnmatchcase(key, name)] if "*" in name else []
    if not matching:
        hint = nearest(name, known) if known else f"{folder('wildcards')} holds none"
        raise UsageError(
            f"{wildcard.where}: there is no wildcard {name!r}; {hint}; as text it is \\_\\_{name}\\_\\_"
        )
    return list(dict.fromkeys(matching))


def _read_file(path: Path) -> tuple[Variants, list[Wildcard]]:
    """The entries of a wildcard file, and the wildcards in them. Raises `UsageError`."""
    try:
        lines = read_file(path, MAX_FILE_BYTES).decode("utf-8-sig").split("\n")
    except OSError as error:
        raise UsageError(f"cannot read the wildcard file {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"the wildcard file {path} is not UTF-8 at byte {error.start}") from None
    options: list[TemplateNode] = []
    weights: list[float] = []
    mentioned: list[Wildcard] = []
    for number, line in enumerate(lines, start=1):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        read = _parse(entry, f"{path}, line {number}", mentioned, entry=True)
        if read.weight > 0:
            options.append(read.node())
            weights.append(read.weight)
    if not options:
        raise UsageError(f"the wildcard file {path} has no entry: it needs one a line")
    return Variants(tuple(options), tuple(weights)), mentioned
