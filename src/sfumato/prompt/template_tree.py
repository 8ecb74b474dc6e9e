"""The tree that a template is read into: what is text, what is chosen, and where wildcards get it from."""

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from sfumato.errors import UsageError, warn
from sfumato.prompt.wildcards import MAX_ENTRIES, WildcardList, entries, matching, sources

MAX_WILDCARDS = 1_000
MAX_WEIGHT = 1e6
MAX_COUNT = 999_999
MAX_REPEAT = 100
MAX_NAME_TEXT = 300

Method = Literal["random", "cyclical", "combinatorial"]
_METHODS: dict[str, Method] = {"~": "random", "@": "cyclical", "!": "combinatorial"}

_TOKEN = re.compile(r"\\[\\{}|_$#/@!~%]|[$%]?\{|[|}]|\$\$|__")
_SYNTAX = re.compile(r"[{}]|\\[{}_$#/]|_(?=_)")
_ESCAPE = re.compile(r"\\([{}|_$#/@!~%])")
_NO_NAME = frozenset(' \t\n\r_.,;:?)]}|"')
"""What no wildcard's name begins with: two underscores before one of these are text."""
_NUMBER = r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_METHOD = re.compile(r"\s*([~@!])")
_COUNT = re.compile(
    r"\s*(?:([0-9]+)\s*)?(?:(-)\s*(?:([0-9]+)\s*)?)?\$\$(?:((?:\\.|[^\\{}$])*)\$\$)?", re.DOTALL
)
_WEIGHT = re.compile(rf"\s*{_NUMBER}\s*::")
_WRONG_WEIGHT = re.compile(r"\s*([-+]?[0-9.,/]{0,20}[0-9][-+0-9.,/eE]{0,20}\s*(?:%\s*)?)::")
_WEIGHT_BEHIND = re.compile(rf"::\s*{_NUMBER}\s*\Z")
_VARIABLE = re.compile(r"\s*([^\W\d][\w-]*)\s*(\}|:|\?=!?|=!?)")
_GIVEN = re.compile(r"(.*?)\s*\((\s*[^\W\d][\w-]*\s*=.*)\)\s*", re.DOTALL)
_REPEAT = re.compile(r"([0-9]{1,9})#\Z")

# A number sign opens a comment between blanks, and at the beginning of a line or an option of several lines;
# two strokes do unless they stand in a word or an address. What is escaped, and names, may hold either.
_COMMENT = re.compile(
    r"""\\[\\{}|_$#/]
    | __(?=[^\s_.,;:?)\]}|"])(?:(?!__)(?:[^\n{}|]|\{[^\n{}]*\}))+__
    | (?P<comment>
        /\* (?:.*?\*/)?
        | (?:(?<![^\s{|])//|(?<![:/])//(?=\s|\Z)) [^\n]*
        | (?<![^\s{|])\#(?=\s|\Z) [^\n]*
        | \n[ \t]*\# [^\n]*
        | (?P<begin>\A\s*|[{|]\s*) \#
    )
    """,
    re.DOTALL | re.VERBOSE,
)


@dataclass(frozen=True, eq=False)
class Run:
    """Parts one after another."""

    parts: "tuple[TemplateNode, ...]"


@dataclass(frozen=True, eq=False)
class Wildcard:
    """`__name__`: one entry of its files, chosen by `method`. `where` it stands is for errors."""

    name: str
    where: str
    method: Method | None = None


@dataclass(frozen=True, eq=False)
class Variants:
    """`least` to `most` different ones of the options, in any order; an option of weight 0 is left out.

    `method`: how it is chosen, and what is chosen within, where that is said: `{~a|b}`, `{@a|b}`, `{!a|b}`.
    """

    options: "tuple[TemplateNode, ...]"
    weights: tuple[float, ...]
    least: int = 1
    most: int = 1
    separator: str = ", "
    method: Method | None = None


@dataclass(frozen=True, eq=False)
class Lookup:
    """A wildcard whose name depends on variables: it is known when they are, and becomes that of `choice`."""

    name: "TemplateNode"
    wildcard: Wildcard
    choice: Variants | None = None


@dataclass(frozen=True, eq=False)
class Assign:
    """`${name=value}`: the value is chosen here and kept; nothing is written. `?=` keeps an older value."""

    name: str
    value: "TemplateNode"
    keep: bool = False


@dataclass(frozen=True, eq=False)
class Variable:
    """`${name}` or `${name:default}`."""

    name: str
    default: "TemplateNode | None"
    where: str


@dataclass(frozen=True, eq=False)
class Scope:
    """`__name(c=red)__`: variables that have their values only within."""

    assigns: tuple[Assign, ...]
    inside: "TemplateNode"


@dataclass(frozen=True, eq=False)
class Wrap:
    """`%{before ... after$$inner}`: the inner text in the place of the dots."""

    wrapper: "TemplateNode"
    inner: "TemplateNode"


TemplateNode = str | Run | Wildcard | Variants | Lookup | Assign | Variable | Scope | Wrap


class Tree:
    """Texts that have been read, and what each wildcard in them chooses from."""

    def __init__(self, roots: Sequence[TemplateNode], pools: "_Pools") -> None:
        self.roots = tuple(roots)
        self._pools = pools

    def choice(self, node: Wildcard | Variants) -> Variants:
        """What is chosen from at `node`: never more than there are options.

        A single wildcard in braces lends them its entries: `{2$$__flavour__}` is two different flavours.
        """
        choice = self._pools.pool(node) if isinstance(node, Wildcard) else node
        options, weights = choice.options, choice.weights
        method = node.method
        while len(options) == 1 and isinstance(options[0], Wildcard):
            method = method or options[0].method
            pool = self._pools.pool(options[0])
            options, weights = pool.options, pool.weights
        least, most = (min(bound, len(options)) for bound in (choice.least, choice.most))
        return Variants(options, weights, least, most, choice.separator, method)

    def named(self, lookup: Lookup, name: str) -> Wildcard | Variants:
        """What `lookup` stands for, its name being known. Raises `UsageError` as `read` does."""
        wildcard = replace(lookup.wildcard, name=name)
        self._pools.load([wildcard])
        return wildcard if lookup.choice is None else replace(lookup.choice, options=(wildcard,))


def is_template(text: str) -> bool:
    """Whether `text` holds anything that is read as a template; if not, it stands for itself."""
    return any(
        mark[0] != "_" or _end_of_name(text, mark.start() + 2) for mark in _SYNTAX.finditer(text)
    ) or any(True for _ in _comments(text))


def read(texts: Sequence[str], wildcards: Mapping[str, Path] | None) -> Tree:
    """The tree of `texts`, which are prompt, negative prompt and those of regions, with their wildcards.

    `wildcards`: the files by name, else those in the user's folder. Raises `UsageError`.
    """
    mentioned: list[Wildcard] = []
    values: dict[str, str | bool] = {}
    roots = []
    for number, text in enumerate(texts):
        label = ("the prompt", "the negative prompt", f"the prompt of region {number - 1}")[min(number, 2)]
        roots.append(_TextReader(text, label, mentioned, values).read().node() if is_template(text) else text)
    pools = _Pools(wildcards)
    pools.load(mentioned)
    return Tree(roots, pools)


@dataclass
class _Open:
    """A bracket that is being read, or the whole text: the options before, and the parts of this one."""

    kind: Literal["text", "choice", "assign", "default", "wrap"] = "text"
    at: int = 0
    variable: str = ""
    keep: bool = False
    method: Method | None = None
    least: int = 1
    most: int = 1
    separator: str = ", "
    options: list[TemplateNode] = field(default_factory=list)
    """Of a wrap, its wrapper."""
    weights: list[float] = field(default_factory=list)
    weight: float = 1.0
    repeat: int = 1
    parts: list[TemplateNode] = field(default_factory=list)

    def node(self) -> TemplateNode:
        """The parts so far as one."""
        parts = [part for part in self.parts if part != ""]
        return parts[0] if len(parts) == 1 else Run(tuple(parts)) if parts else ""

    def end_option(self) -> None:
        if self.weight > 0:
            self.options += [self.node()] * self.repeat
            self.weights += [self.weight] * self.repeat
        self.parts, self.weight, self.repeat = [], 1.0, 1

    def choice(self) -> TemplateNode:
        """The whole, at its closing brace; blanks around a single wildcard do not count."""
        only = self.options[0] if len(self.options) == 1 else ""
        if isinstance(only, Run):
            words = [part for part in only.parts if not (isinstance(part, str) and part.isspace())]
            if len(words) == 1 and isinstance(words[0], Wildcard | Scope | Lookup):
                only = words[0]
        options = (only.inside if isinstance(only, Scope) else only,) if only else tuple(self.options)
        choice = Variants(options, tuple(self.weights), self.least, self.most, self.separator, self.method)
        lookup = options[0] if len(options) == 1 else ""
        whole = replace(lookup, choice=choice) if isinstance(lookup, Lookup) else choice
        return Scope(only.assigns, whole) if isinstance(only, Scope) else whole


class _TextReader:
    """Reads one text; its wildcards are added to `mentioned`.

    `label` says in errors which text it is. `values`: what is known of the variables so far, their texts or
    whether they surely have a value; `None` in an entry, whose variables come from elsewhere.
    """

    def __init__(
        self,
        text: str,
        label: str,
        mentioned: list[Wildcard],
        values: dict[str, str | bool] | None = None,
        *,
        comments: bool = True,
    ) -> None:
        self.label, self.mentioned, self.values = label, mentioned, values
        self.text, self._removed = _without_comments(text, label) if comments else (text, [])
        self._stack = [_Open()]

    def where(self, at: int) -> str:
        """A place of the text as errors call it; comments count."""
        before = bisect_right(self._removed, at, key=lambda each: each[0])
        return f"{self.label}, character {at + 1 + (self._removed[before - 1][1] if before else 0)}"

    def read(self, *, entry: bool = False) -> _Open:
        """The outermost bracket, around the whole. An `entry` may begin with its weight."""
        start = at = self._weigh(self._stack[0], 0) if entry else 0
        while token := _TOKEN.search(self.text, at):
            kind = self._stack[-1].kind
            at = token.end()
            if token[0] == "__" and not _end_of_name(self.text, at):
                at -= 1
            elif not (token[0] in ("|", "$$") and kind in ("text", "assign")):
                self._stack[-1].parts.append(self.text[start : token.start()])
                start = at = self._read_token(token[0], token.start(), at)
        if len(self._stack) > 1:
            where = self.where(self._stack[-1].at)
            raise UsageError(f"{where}: this brace is never closed by }}; one that is meant as text is \\{{")
        self._stack[0].parts.append(self.text[start:])
        return self._stack[0]

    def _read_token(self, mark: str, place: int, at: int) -> int:
        """Read what `mark`, which ends at `at`, begins or ends; where the text after it begins."""
        here = self._stack[-1]
        if mark == "__":
            return self._wildcard(place, at)
        if mark in ("{", "${", "%{"):
            return self._open(mark, place, at)
        if mark == "}":
            self._close(place)
        elif mark == "|" and here.kind == "choice":
            self._end_option(place)
            return self._weigh(here, at)
        elif mark == "|":
            raise UsageError(f"{self.where(place)}: | is between options, and those need braces: {{a|b}}")
        elif mark == "$$" and here.kind == "wrap" and not here.options:
            here.options.append(here.node())
            here.parts = []
        elif mark == "$$":
            raise UsageError(
                f"{self.where(place)}: before $$ stands how many options to pick, as in {{2$$a|b}}; as text "
                "it is \\$\\$"
            )
        else:
            kept = mark == r"\\" or (mark == r"\|" and here.kind != "choice")
            here.parts.append(mark if kept else mark[1:])
        return at

    def _open(self, mark: str, place: int, at: int) -> int:
        where = self.where(place)
        if mark == "${":
            variable = _VARIABLE.match(self.text, at)
            if not variable:
                raise UsageError(f"{where}: after ${{ a name and }} or =value}} is expected; text is \\$\\{{")
            name, sign = variable.groups()
            if sign == "}":
                self._stack[-1].parts.append(self._use(name, None, where))
            else:
                kind: Literal["default", "assign"] = "default" if sign == ":" else "assign"
                self._stack.append(_Open(kind, place, name, keep=sign.startswith("?")))
            return variable.end()
        if mark == "%{":
            self._stack.append(_Open("wrap", place))
            return at
        if self.text.startswith("%", at) and "%}" in self.text[at:]:
            raise UsageError(f"{where}: {{% … %}} is of Jinja templates, which are not read")
        opened = _Open("choice", place)
        self._stack.append(opened)
        if method := _METHOD.match(self.text, at):
            opened.method, at = _METHODS[method[1]], method.end()
        return self._weigh(opened, self._count(opened, at, where))

    def _close(self, place: int) -> None:
        where = self.where(place)
        if len(self._stack) == 1:
            raise UsageError(f"{where}: }} closes nothing; a brace that is meant as text is \\}}")
        closed, here = self._stack[-1], self._stack[-2]
        if closed.kind == "choice":
            self._end_option(place)
            if not closed.options:
                raise UsageError(f"{where}: every option has the weight 0; at least one needs more")
            here.parts.append(closed.choice())
        elif closed.kind == "assign":
            here.parts.append(Assign(closed.variable, closed.node(), closed.keep))
            self._remember(closed)
        elif closed.kind == "default":
            here.parts.append(self._use(closed.variable, closed.node(), self.where(closed.at)))
        elif closed.options:
            here.parts.append(Wrap(closed.options[0], closed.node()))
        else:
            raise UsageError(
                f"{self.where(closed.at)}: %{{ needs two parts, as in %{{before ... after$$text}}; "
                "as text it is \\%\\{"
            )
        self._stack.pop()

    def _end_option(self, place: int) -> None:
        here = self._stack[-1]
        last = here.parts[-1] if here.parts else ""
        if isinstance(last, str) and (weight := _WEIGHT_BEHIND.search(last)):
            raise UsageError(
                f"{self.where(place - len(weight[0]))}: a weight stands before its option: {weight[1]}::"
            )
        here.end_option()

    def _weigh(self, option: _Open, at: int) -> int:
        """Read the weight before the option that begins at `at`, if there is one; where its text begins."""
        weight = _WEIGHT.match(self.text, at)
        if not weight:
            if wrong := _WRONG_WEIGHT.match(self.text, at):
                raise UsageError(
                    f"{self.where(at)}: the weight {wrong[1].strip()} must be a number such as 0.5, 0 or more"
                )
            return at
        option.weight = float(weight[1])
        if option.weight > MAX_WEIGHT:
            raise UsageError(f"{self.where(at)}: a weight is at most {MAX_WEIGHT:,.0f}")
        return weight.end()

    def _count(self, choice: _Open, at: int, where: str) -> int:
        """Read `2$$`, `1-3$$` or `2$$ and $$` at `at`, if it is there; where the options begin."""
        count = _COUNT.match(self.text, at)
        if not count or not (count[1] or count[3]):
            return at
        least, to, most, separator = count[1], count[2], count[3] or "", count[4]
        if max(len(least or ""), len(most)) > len(str(MAX_COUNT)):
            raise UsageError(f"{where}: at most {MAX_COUNT:,} options can be picked")
        choice.least = int(least or 1)
        choice.most = int(most or MAX_COUNT) if to else choice.least
        if choice.most < choice.least:
            raise UsageError(
                f"{where}: at least {choice.least} and at most {choice.most} cannot both be picked"
            )
        if separator is not None:
            choice.separator = _plain(separator)
        return count.end()

    def _wildcard(self, place: int, at: int) -> int:
        """Read the wildcard whose name begins at `at`; where the text after it begins."""
        end = _end_of_name(self.text, at)
        where, written = self.where(place), self.text[at:end]
        method = None
        if sign := _METHOD.match(written):
            method, written = _METHODS[sign[1]], written[sign.end() :]
        given = _GIVEN.fullmatch(written)
        name = given[1] if given else written
        node: TemplateNode
        if re.search(r"(?<!\\)\{", name):
            inside = _TextReader(name, f"{where}, in its name", self.mentioned, self.values, comments=False)
            node = self._named(inside.read().node(), Wildcard("", where, method))
        else:
            node = self._mention(Wildcard(_plain(name), where, method))
        if given:
            node = Scope(tuple(self._assigns(given[2], where)), node)
        self._repeat(where)
        self._stack[-1].parts.append(node)
        return end + 2

    def _mention(self, wildcard: Wildcard) -> Wildcard:
        self.mentioned.append(wildcard)
        return wildcard

    def _named(self, name: TemplateNode, wildcard: Wildcard) -> TemplateNode:
        """The wildcards that a name with choices means; a `Lookup` where it is known only later."""
        texts = self._texts(name)
        if texts is None:
            return Lookup(name, wildcard)
        options = tuple(self._mention(replace(wildcard, name=text)) for text, _ in texts)
        weights = tuple(weight for _, weight in texts)
        return options[0] if len(options) == 1 else Variants(options, weights, method=wildcard.method)

    def _texts(self, node: TemplateNode) -> list[tuple[str, float]] | None:
        """Everything that `node` can become, with weights, where that is known by now."""
        if isinstance(node, str):
            return [(node, 1.0)]
        if isinstance(node, Variable) and self.values is not None:
            known = self.values.get(node.name, node.default)
            return [(known, 1.0)] if isinstance(known, str) else None
        if isinstance(node, Variants) and node.least == node.most == 1 and not node.method:
            each = [self._texts(option) for option in node.options]
            if None in each or sum(len(texts or ()) for texts in each) > MAX_WILDCARDS:
                return None
            pairs = zip(each, node.weights, strict=True)
            return [(text, own * weight) for texts, weight in pairs for text, own in texts or ()]
        if isinstance(node, Run):
            found = [("", 1.0)]
            for part in node.parts:
                texts = self._texts(part)
                if texts is None or len(found) * len(texts) > MAX_WILDCARDS:
                    return None
                found = [(a + b, one * two) for a, one in found for b, two in texts]
            return found
        return None

    def _assigns(self, given: str, where: str) -> Iterator[Assign]:
        """The variables of `__name(c=red, d={a|b})__`."""
        depth, pieces = 0, [""]
        for letter in given:
            depth += (letter in "{(") - (letter in "})")
            if letter == "," and not depth:
                pieces.append("")
            else:
                pieces[-1] += letter
        for piece in pieces:
            name, equals, value = piece.partition("=")
            if not equals or not re.fullmatch(r"\s*[^\W\d][\w-]*\s*", name):
                raise UsageError(
                    f"{where}: {piece.strip()!r} is no name=value; between two of them is a comma"
                )
            label = f"{where}, in {name.strip()}="
            inside = _TextReader(value.strip(), label, self.mentioned, self.values, comments=False)
            yield Assign(name.strip(), inside.read().node())

    def _repeat(self, where: str) -> None:
        """Read `5#` before a wildcard: five options of it."""
        here = self._stack[-1]
        last = here.parts[-1]
        if not isinstance(last, str) or not (repeat := _REPEAT.search(last)):
            return
        times, alone = int(repeat[1]), len(here.parts) == 1 and not last[: repeat.start()].strip()
        if here.kind != "choice" or not alone or not 0 < times <= MAX_REPEAT:
            raise UsageError(
                f"{where}: {repeat[0]} before a wildcard means as many options, at most {MAX_REPEAT}; it "
                "stands in braces by itself: {2$$3#__name__}"
            )
        here.repeat, here.parts = times, []

    def _use(self, name: str, default: TemplateNode | None, where: str) -> Variable:
        """The variable; a default that surely is not needed does not count."""
        needed = self.values is None or self.values.get(name, False) is False
        return Variable(name, default if needed else None, where)

    def _remember(self, assigned: _Open) -> None:
        """Know of an assignment, which is sure at the outermost level only."""
        if self.values is None:
            return
        name, value = assigned.variable, assigned.node()
        before = self.values.get(name, False)
        if len(self._stack) > 2:
            self.values[name] = before is not False
        elif not assigned.keep or before is False:
            sure = isinstance(value, str) and not (assigned.keep and name in self.values)
            self.values[name] = value if sure and isinstance(value, str) else True


def _end_of_name(text: str, at: int) -> int:
    """Where the name of a wildcard that begins at `at` ends; 0 if the underscores before are text."""
    if at >= len(text) or text[at] in _NO_NAME:
        return 0
    depth, place, last = 0, at, min(at + MAX_NAME_TEXT, len(text) - 1)
    while place < last:
        letter = text[place]
        if letter == "\n" or (not depth and letter in "|}"):
            return 0
        depth += (letter == "{") - (letter == "}")
        if not depth and place > at and text.startswith("__", place):
            return 0 if text[place - 1].isspace() else place
        place += 2 if letter == "\\" else 1
    return 0


def _comments(text: str) -> Iterator[tuple[int, int]]:
    """Where each comment of `text` begins and ends."""
    at, last_line = 0, text.rfind("\n") + 1
    while found := _COMMENT.search(text, at):
        begin, at = found.span()
        if found["begin"] is not None:
            begin = at - 1
            if begin >= last_line and not text[at : at + 1].isspace() and at < len(text):
                continue
            at = text.find("\n", at) if begin < last_line else len(text)
        if found["comment"]:
            yield begin, at


def _without_comments(text: str, label: str) -> tuple[str, list[tuple[int, int]]]:
    """`text` without its comments, and for each place that had one how much is missing up to there."""
    kept: list[str] = []
    removed: list[tuple[int, int]] = []
    end = length = missing = 0
    for begin, after in _comments(text):
        if text.startswith("/*", begin) and not text.endswith("*/", begin + 2, after):
            raise UsageError(
                f"{label}, character {begin + 1}: this comment is never closed by */; as text it is \\/*"
            )
        kept.append(text[end:begin])
        length += begin - end
        missing += after - begin
        end = after
        removed.append((length, missing))
    return "".join([*kept, text[end:]]), removed


def _plain(text: str) -> str:
    return _ESCAPE.sub(r"\1", text)


@dataclass(frozen=True)
class _Option:
    """One entry that has been read, and the wildcards in it."""

    node: TemplateNode
    weight: float
    where: str
    mentioned: tuple[Wildcard, ...]


class _Pools:
    """What wildcards choose from, each read when it is first mentioned.

    An entry that cannot be read, or that mentions a wildcard which has none, is warned of and left out.
    """

    def __init__(self, wildcards: Mapping[str, Path] | None) -> None:
        self._wildcards = wildcards
        self._known: dict[str, WildcardList] | None = None
        self._unread: list[str] = []
        self._pools: dict[str, Variants] = {}
        self._failed: dict[str, str] = {}
        self._lists: dict[WildcardList, list[_Option]] = {}
        self._entries = 0

    def pool(self, wildcard: Wildcard) -> Variants:
        """The entries that a loaded wildcard chooses from."""
        return self._pools[wildcard.name]

    def load(self, mentioned: Sequence[Wildcard]) -> None:
        """Read these wildcards, and those that their entries mention in turn. Raises `UsageError`."""
        trail: list[tuple[str, list[_Option], Iterator[Wildcard]]] = [("", [], iter(mentioned))]
        while trail:
            name, options, waiting = trail[-1]
            wildcard = next(waiting, None)
            if wildcard is None:
                trail.pop()
                if trail:
                    self._finish(name, options)
            elif wildcard.name not in self._pools and wildcard.name not in self._failed:
                _check_circle(wildcard, [above for above, _, _ in trail[1:]])
                if len(self._pools) >= MAX_WILDCARDS or self._entries > MAX_ENTRIES:
                    raise UsageError(
                        f"{wildcard.where}: more than {MAX_WILDCARDS:,} wildcards or {MAX_ENTRIES:,} entries "
                        "to read"
                    )
                found = self._options(wildcard.name)
                trail.append((wildcard.name, found, iter([each for one in found for each in one.mentioned])))
        for wildcard in mentioned:
            if reason := self._failed.get(wildcard.name):
                raise UsageError(f"{wildcard.where}: {reason}; as text it is \\_\\_{wildcard.name}\\_\\_")

    def _options(self, name: str) -> list[_Option]:
        """Every entry of the lists that `name` means; without any, why is kept."""
        if self._known is None:
            self._known, self._unread = sources(self._wildcards)
        try:
            lists = matching(name, self._known)
        except UsageError as error:
            self._failed[name] = "; ".join([str(error), *self._unread])
            return []
        found: list[_Option] = []
        problems = list(self._unread) if name not in self._known else []
        for source in lists:
            try:
                found += self._list(source)
            except UsageError as error:
                problems.append(str(error))
        self._entries += len(found)
        if not found:
            self._failed[name] = problems[0]
        else:
            for problem in problems:
                warn(f"{problem}; __{name}__ goes without it")
        return found

    def _list(self, source: WildcardList) -> list[_Option]:
        if source in self._lists:
            return self._lists[source]
        found: list[_Option] = []
        problems = []
        for entry in entries(source):
            mentioned: list[Wildcard] = []
            try:
                read = _TextReader(entry.text, entry.where, mentioned).read(entry=True)
            except UsageError as error:
                problems.append(str(error))
                continue
            if read.weight * entry.weight > 0:
                found.append(_Option(read.node(), read.weight * entry.weight, entry.where, tuple(mentioned)))
        if not found:
            reason = problems[0] if problems else "it needs one a line"
            under = f" under {source.key!r}" if source.key else ""
            raise UsageError(f"the wildcard file {source.path} has no entry{under}: {reason}")
        for problem in problems:
            warn(f"{problem}; the entry is left out")
        self._lists[source] = found
        return found

    def _finish(self, name: str, options: Sequence[_Option]) -> None:
        """Make the pool of `name`, all that its `options` mention having been read."""
        usable = []
        for option in options:
            lost = next((each for each in option.mentioned if each.name in self._failed), None)
            if lost:
                reason = f"{option.where} is left out: {self._failed[lost.name]}"
                warn(reason)
            else:
                usable.append(option)
        if usable:
            nodes, weights = [each.node for each in usable], [each.weight for each in usable]
            self._pools[name] = Variants(tuple(nodes), tuple(weights))
        elif options:
            self._failed[name] = f"the wildcard {name!r} has no entry that can be used: {reason}"


def _check_circle(wildcard: Wildcard, inside: Sequence[str]) -> None:
    if wildcard.name in inside:
        around = reversed([*inside[inside.index(wildcard.name) :], wildcard.name])
        circle = " in ".join(f"__{one}__" for one in around)
        raise UsageError(f"{wildcard.where}: wildcards go in a circle: {circle}")
