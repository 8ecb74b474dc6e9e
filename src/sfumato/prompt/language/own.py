"""The default dialect: A1111's attention and scheduling by a strict grammar, whose errors say what to write.

The grammar is LALR(1): lark's lexer cuts the text into words, signs and brackets in one pass, its parser
matches the brackets without recursion, and what is unmatched is an error instead of text.
"""

import re
from fractions import Fraction
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

from sfumato.errors import UsageError
from sfumato.prompt.language import adapters
from sfumato.prompt.language.tree import MAX_DEPTH, Node, finite, here, joined, one_term, shown, too_deep
from sfumato.prompt.meaning import AdapterWeight

if TYPE_CHECKING:
    from lark import Lark, Token, Tree, UnexpectedToken

MAX_WEIGHT = 10.0

_GRAMMAR = r"""
start: term (AND term)*
term: _loose* SHARE?
_loose: _tight | COLON | BAR
_tight: TEXT | ANGLE | ESCAPED | BREAK | ADAPTER | round | square
round: "(" _loose* WEIGHT? ")"
square: "[" run ((COLON | BAR) run)* WHEN? "]"
run: _tight*

AND: /\bAND\b/
BREAK: /\bBREAK\b/
ADAPTER.2: /<(lora|lyco|hypernet):[^>]*>?/
ESCAPED: /\\[\s\S]?/
WEIGHT.2: /:\s*[+-]?(?=\.*[0-9])[0-9.]+\s*(?=\))/
WHEN.2: /:\s*[+-]?(?=\.*[0-9])[0-9.]+\s*(?=\])/
SHARE.2: /:\s*[+-]?(?=\.*[0-9])[0-9.]+\s*(?=\bAND\b|\Z)/
COLON: ":"
BAR: "|"
ANGLE: "<"
TEXT: /((?!\b(AND|BREAK)\b)\w+|[^\w\\()\[\]:|<]+)+/
"""
_BRACKETS = re.compile(r"\\[\s\S]|[()\[\]]")
_OPEN = {"LPAR": "(", "LSQB": "["}
_CLOSE = {"RPAR": ")", "RSQB": "]", "WEIGHT": ")", "WHEN": "]"}
_WORD = re.compile(r"\b(?=(?:AND|BREAK)\b)|(?=[\\()\[\]:|<])")


@cache
def _parser() -> "Lark":
    from lark import Lark

    return Lark(_GRAMMAR, parser="lalr", lexer="basic")


def read(text: str) -> tuple[Node, tuple[AdapterWeight, ...]]:
    """The tree of `text`, and the adapters it calls. Raises `UsageError`."""
    if not _WORD.search(text):  # most prompts, and lark takes a while to import
        said = (Node("text", text),) if text else ()
        return one_term(said), ()
    from lark import UnexpectedToken

    depth = 0
    for sign in _BRACKETS.findall(text):
        depth += (sign in "([") - (sign in ")]")
        if depth > MAX_DEPTH:
            raise too_deep()
    try:
        parsed = _parser().parse(text)
    except UnexpectedToken as error:
        raise _misplaced(text, error) from None
    reading = _Reading(text)
    terms = [part for part in parsed.children if not isinstance(part, str)]
    root = Node("prompt", children=tuple(reading.term(term, alone=len(terms) == 1) for term in terms))
    _hold_products(root, 1.0)
    return root, tuple(reading.calls)


def escape(text: str) -> str:
    """`text` with a backslash before every sign and word that means something."""
    return _WORD.sub(r"\\", text)


def switch(when: str, steps: int) -> int:
    """How many steps are drawn before a switch `when`: "5" are five, "0.5" half, rounded down."""
    return int(Fraction(when) * steps) if "." in when else min(int(when), steps)


class _Reading:
    """From lark's tree to ours; the adapters met on the way are kept."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.calls: list[AdapterWeight] = []
        self.scheduled = 0

    def term(self, tree: "Tree[Token]", *, alone: bool) -> Node:
        parts = list(tree.children)
        weight = 1.0
        share = parts[-1] if parts else None
        if not alone and isinstance(share, str) and share.type == "SHARE":
            weight = self.weight(share)
            parts.pop()
        children = list(self.nodes(parts))
        if not alone:
            if children and children[0].kind == "text":
                children[0] = Node("text", children[0].text.lstrip())
            if children and children[-1].kind == "text":
                children[-1] = Node("text", children[-1].text.rstrip())
            children = [child for child in children if child != Node("text")]
            if not children:
                raise UsageError(
                    r"AND joins two parts of a prompt, and one of them is empty; write \AND for the word"
                )
        return Node("term", weight=weight, children=tuple(children))

    def nodes(self, parts: "list[Token | Tree[Token]]") -> tuple[Node, ...]:
        return joined([node for part in parts for node in self.node(part)])

    def node(self, part: "Token | Tree[Token]") -> tuple[Node, ...]:
        if not isinstance(part, str):
            return (self.round(part) if part.data == "round" else self.square(part),)
        if part.type == "BREAK":
            return (Node("break"),)
        if part.type == "ADAPTER":
            self.adapter(part)
            return ()
        if part.type == "ESCAPED":
            if part == "\\":
                raise UsageError(
                    r"the prompt ends with a backslash, which says to take the next sign as it is; "
                    r"write \\ for a backslash"
                )
            return (Node("text", part[1:]),)
        return (Node("text", str(part)),)

    def round(self, tree: "Tree[Token]") -> Node:
        parts = list(tree.children)
        weight = 1.1
        last = parts[-1] if parts else None
        if isinstance(last, str) and last.type == "WEIGHT":
            weight = self.weight(last)
            parts.pop()
        return Node("weighted", weight=weight, children=self.nodes(parts))

    def square(self, tree: "Tree[Token]") -> Node:
        runs = [part for part in tree.children if not isinstance(part, str)]
        signs = [part for part in tree.children if isinstance(part, str)]
        when = signs.pop() if signs and signs[-1].type == "WHEN" else None
        bars = [index for index, sign in enumerate(signs) if sign == "|"]
        if when is None and not bars:
            if len(signs) > 1:
                raise UsageError(
                    f"[from:to:when] needs a step or a fraction of the steps at its end, as in "
                    rf"[cat:dog:0.5]; write \: for a colon ({here(self.text, signs[1].start_pos or 0)})"
                )
            return Node("weighted", weight=1 / 1.1, children=self.nodes(_interleaved(runs, signs)))
        self.scheduled += 1
        if when is None:
            edges = [0, *(index + 1 for index in bars), len(runs)]
            options = [
                Node("group", children=self.nodes(_interleaved(runs[low:high], signs[low : high - 1])))
                for low, high in pairwise(edges)
            ]
            node = Node("alternate", children=tuple(options))
        else:
            if bars or len(runs) > 2:
                raise UsageError(
                    f"[from:to:when] has two texts at most, and no |; put brackets inside brackets, as in "
                    rf"[[a|b]:c:0.5], or write \: and \| ({here(self.text, when.start_pos or 0)})"
                )
            groups = [Node("group", children=self.nodes(list(run.children))) for run in runs]
            before = groups[0] if len(groups) == 2 else Node("group")
            node = Node("switch", self.when(when), children=(before, groups[-1]))
        self.scheduled -= 1
        return node

    def weight(self, token: "Token") -> float:
        written = token[1:].strip()
        value = finite(written, "the weight", here(self.text, token.start_pos or 0))
        if abs(value) > MAX_WEIGHT:
            raise UsageError(
                f"the weight {shown(written)} is outside {-MAX_WEIGHT:g} to {MAX_WEIGHT:g}; "
                rf"write \: if it is no weight ({here(self.text, token.start_pos or 0)})"
            )
        return value

    def when(self, token: "Token") -> str:
        written = token[1:].strip()
        value = finite(written, "when to switch", here(self.text, token.start_pos or 0))
        whole = "." not in written
        if value < 0 or (value > 1 and not whole) or len(written) > 20:
            raise UsageError(
                f"a switch at {shown(written)} is neither a step from 0 nor a fraction from 0.0 to 1.0; "
                rf"write \: if it is no switch ({here(self.text, token.start_pos or 0)})"
            )
        return written.lstrip("+-")

    def adapter(self, token: "Token") -> None:
        where = here(self.text, token.start_pos or 0)
        if not token.endswith(">"):
            raise UsageError(rf"<lora: lacks its >; write \< for the sign itself ({where})")
        if token.startswith("<hypernet"):
            raise UsageError(rf"hypernetworks are not read; take it out, or write \< ({where})")
        if self.scheduled:
            raise UsageError(f"an adapter works at every step; call it outside [ ] ({where})")
        call = adapters.call(token[1:-1].partition(":")[2], text_first=False)
        if max(abs(call.weight), abs(call.text_weight or 0)) > MAX_WEIGHT:
            raise UsageError(f"the weight of {shown(token)} is outside {-MAX_WEIGHT:g} to {MAX_WEIGHT:g}")
        self.calls.append(call)


def _interleaved(runs: "list[Tree[Token]]", signs: "list[Token]") -> "list[Token | Tree[Token]]":
    parts = list(runs[0].children)
    for sign, run in zip(signs, runs[1:], strict=True):
        parts += [sign, *run.children]
    return parts


def _hold_products(node: Node, weight: float) -> None:
    """Brackets inside brackets multiply; the product has the bounds of a written weight."""
    weight *= node.weight if node.kind == "weighted" else 1.0
    if node.kind == "text" and abs(weight) > MAX_WEIGHT:
        raise UsageError(
            f"the weights around {shown(node.text)} multiply to {weight:g}; "
            f"together they may be {-MAX_WEIGHT:g} to {MAX_WEIGHT:g}"
        )
    for child in node.children:
        _hold_products(child, weight)


def _misplaced(text: str, error: "UnexpectedToken") -> UsageError:
    """What is wrong where lark stopped: a bracket without its other half, or an AND inside one."""
    from lark import Token

    token = error.token
    opened = [item for item in error.state.value_stack if isinstance(item, Token) and item.type in _OPEN]
    at = token.start_pos or 0
    if token.type in _CLOSE:
        close = _CLOSE[token.type]
        at = at if token.type in ("RPAR", "RSQB") else at + len(token)
        if not opened:
            return UsageError(
                rf"'{close}' closes nothing; write \{close} for the sign itself ({here(text, at)})"
            )
        open_ = opened[-1]
        return UsageError(
            f"'{close}' cannot close '{open_}' of character {(open_.start_pos or 0) + 1}; "
            rf"write \{open_} or \{close} for the sign itself ({here(text, at)})"
        )
    if token.type == "AND" or (token.type == "SHARE" and at + len(token) < len(text)):
        return UsageError(
            rf"AND joins whole parts of a prompt and cannot stand in brackets; write \AND for the word "
            f"({here(text, at)})"
        )
    open_ = opened[-1]
    return UsageError(
        rf"'{open_}' is never closed; write \{open_} for the sign itself ({here(text, open_.start_pos or 0)})"
    )
