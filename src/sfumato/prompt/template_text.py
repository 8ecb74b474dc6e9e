"""Reading one text of a template: its braces, counts, weights, variables and the names of its wildcards."""

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from sfumato.errors import UsageError
from sfumato.prompt.template_marks import end_of_name, plain, without_comments
from sfumato.prompt.template_nodes import (
    Assign,
    Lookup,
    Method,
    Run,
    Scope,
    TemplateNode,
    Variable,
    Variants,
    Wildcard,
    Wrap,
)

MAX_WEIGHT = 1e6
MAX_COUNT = 999_999
MAX_REPEAT = 100
MAX_TEXTS = 1_000
"""The most names that a wildcard's name with choices in it may stand for."""

_METHODS: dict[str, Method] = {"~": "random", "@": "cyclical", "!": "combinatorial"}

_TOKEN = re.compile(r"\\[\\{}|_$#/@!~%]|[$%]?\{|[|}]|\$\$|__")
_NUMBER = r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_METHOD = re.compile(r"\s*([~@!])")
_COUNT = re.compile(
    r"\s*(?:([0-9]+)\s*)?(?:(-)\s*(?:([0-9]+)\s*)?)?\$\$(?:((?:\\.|[^\\{}$])*)\$\$)?", re.DOTALL
)
_WEIGHT = re.compile(rf"\s*{_NUMBER}\s*::")
_WRONG_WEIGHT = re.compile(r"\s*([-+]?[0-9.,/]{0,20}[0-9][-+0-9.,/eE]{0,20}\s*(?:%\s*)?)::")
_SINGLE_DOLLAR = re.compile(r"\s*([0-9]+\s*(?:-\s*(?:[0-9]+\s*)?)?)\$(?!\$)")
_WEIGHT_BEHIND = re.compile(rf"::\s*{_NUMBER}\s*\Z")
_VARIABLE = re.compile(r"\s*([^\W\d][\w-]*)\s*(\}|:|\?=!?|=!?)")
_GIVEN = re.compile(r"(.*?)\s*\((\s*[^\W\d][\w-]*\s*=.*)\)\s*", re.DOTALL)
_REPEAT = re.compile(r"([0-9]{1,9})#\Z")


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


class TextReader:
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
        self.text, self._removed = without_comments(text, label) if comments else (text, [])
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
            if token[0] == "__" and not end_of_name(self.text, at):
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
            if single := _SINGLE_DOLLAR.match(self.text, at):
                due = single[1].strip()
                raise UsageError(
                    f"{where}: how many options to pick has two $ behind it: {{{due}$$a|b}}; as text it is "
                    "\\$"
                )
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
            choice.separator = plain(separator)
        return count.end()

    def _wildcard(self, place: int, at: int) -> int:
        """Read the wildcard whose name begins at `at`; where the text after it begins."""
        end = end_of_name(self.text, at)
        where, written = self.where(place), self.text[at:end]
        method = None
        if sign := _METHOD.match(written):
            method, written = _METHODS[sign[1]], written[sign.end() :]
        given = _GIVEN.fullmatch(written)
        name = given[1] if given else written
        node: TemplateNode
        if re.search(r"(?<!\\)\{", name):
            inside = TextReader(name, f"{where}, in its name", self.mentioned, self.values, comments=False)
            node = self._named(inside.read().node(), Wildcard("", where, method))
        else:
            node = self._mention(Wildcard(plain(name), where, method))
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
            if None in each or sum(len(texts or ()) for texts in each) > MAX_TEXTS:
                return None
            pairs = zip(each, node.weights, strict=True)
            return [(text, own * weight) for texts, weight in pairs for text, own in texts or ()]
        if isinstance(node, Run):
            found = [("", 1.0)]
            for part in node.parts:
                texts = self._texts(part)
                if texts is None or len(found) * len(texts) > MAX_TEXTS:
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
            inside = TextReader(value.strip(), label, self.mentioned, self.values, comments=False)
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
