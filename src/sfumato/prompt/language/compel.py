r"""compel's dialect: word+, (text)1.2, "text"-, .blend() and .and(), as its 2.x parser reads it.

compel tries each rule in turn where a word begins and takes the whole word as text if none fits, so what a
bracket means depends on whether it can be read to its end. This is a reader by position that does the same;
it remembers what failed or fitted where, so that no stretch is read twice.
"""

import re
from dataclasses import dataclass, field

from sfumato.errors import UsageError
from sfumato.prompt.language.tree import MAX_DEPTH, Node, finite, here, nodes, one_term, shown, too_deep
from sfumato.prompt.meaning import AdapterWeight, Blend, Concatenation, Content, Phrase, WeightedText

_SPACE = re.compile(r"[ \t\r\n\v\f]*")
_FREE = re.compile(r"[^ \t\r\n\v\f]+")
_WORD = re.compile(
    r'(?:\\[()",.+\-=]|[+-](?![ \t\r\n\v\f()",.+\-=]|\Z)|[^ \t\r\n\v\f()",.+\-=])+'
)  # a sign of the syntax belongs to a word if escaped, and + and - also if more of the word follows
_QUOTED = re.compile(r'"((?:\\"|[^"\n\r])*)"')
_NUMBER = r"(?:[+-]?(?:[0-9]+\.[0-9]*|\.[0-9]+)|-?[0-9]+)"
_STRENGTH = re.compile(rf"\++|-+|{_NUMBER}")
_SIGNS = re.compile(r"\++|-+")
_ATTEND = re.compile(rf"\s*\.attend\s*\(\s*(\++|-+|{_NUMBER})\s*\)")
_SWAP = re.compile(r"\s*\.swap\s*\(")
_LORA = re.compile(rf"(?:useLora|withLora)\s*\(\s*([A-Za-z0-9_-]+)\s*(?:,\s*({_NUMBER})\s*)?\)")
_OPERATOR = re.compile(r"\s*\.(blend|and|add)\s*\(([^()]*)\)")

_Found = tuple[int, tuple[Node, ...]]


def read(text: str) -> tuple[Node, tuple[AdapterWeight, ...]]:
    """The tree of `text`, and the adapters of its withLora(). Raises `UsageError`."""
    reader = _Reader(re.sub(r",(\S)", r", \1", text))
    root = one_term(reader.prompt())
    calls = (AdapterWeight(node.text, node.weight) for node in nodes(root) if node.kind == "adapter")
    return root, tuple(calls)


def escape(text: str) -> str:
    """`text` with backslashes before brackets and quotes, spaces as compel leaves them: one between words.

    Raises `UsageError` where compel has no way to say it: its escaped + and - keep the backslash.
    """
    escaped = re.sub(r'(?=[()"])', r"\\", text)
    wanted = " ".join(re.sub(r",(\S)", r", \1", text).split())
    try:
        root, calls = read(escaped)
        said = content(root.children[0])
    except UsageError:
        said, calls = None, ()
    if calls or said != Phrase((WeightedText(wanted),)):
        raise UsageError(f"compel prompts cannot say {shown(text)} as it is; use another dialect")
    return escaped


def content(node: Node) -> Content:
    """What a `term` or `group` says."""
    operator = next((child for child in node.children if child.kind in ("blend", "joined")), None)
    if operator is not None:
        said = tuple(content(child) for child in operator.children)
        weights = tuple(child.weight for child in operator.children)
        if operator.kind == "blend":
            return Blend(said, weights, normalised=not operator.text)
        return Concatenation(said, weights)
    fragments: list[tuple[list[str], float]] = []
    for child in node.children:
        _spell(child, 1.0, fragments)
    pieces = (WeightedText(" ".join(words), weight) for words, weight in fragments)
    return Phrase(tuple(pieces) or (WeightedText(""),))


def _spell(node: Node, weight: float, out: list[tuple[list[str], float]]) -> None:
    """Fragments with their weights multiplied; neighbours of one weight become one, a space between."""
    if node.kind == "text":
        finite(str(weight), f"the product of the weights around {shown(node.text)}")
        if out and out[-1][1] == weight:
            out[-1][0].append(node.text)
        else:
            out.append(([node.text], weight))
    for child in node.children:
        _spell(child, weight * (node.weight if node.kind == "weighted" else 1.0), out)


def _text(word: str) -> tuple[Node, ...]:
    word = word.replace(r"\(", "(").replace(r"\)", ")").replace(r"\"", '"')
    return (Node("text", word),) if word else ()


@dataclass
class _Reader:
    """One text, and what was found where in it; a quotation is a text of its own."""

    text: str
    depth: int = 0
    known: dict[tuple[str, int], _Found | None] = field(default_factory=dict)

    def prompt(self) -> tuple[Node, ...]:
        """All of the text: one blend or conjunction, or words, brackets and quotations."""
        start, out = self.loras(self.space(0))
        found = self.operator(start)
        if found:
            end, more = self.loras(self.space(found[0]))
            if end < len(self.text):
                raise UsageError(f".blend() and .and() take the whole prompt ({here(self.text, end)})")
            return (*out, *found[1], *more)
        position = start
        while position < len(self.text):
            unit = self.unit(position, bare=False)
            if unit is None:
                word = _FREE.match(self.text, position)
                unit = (word.end(), _text(word[0])) if word else (position + 1, ())
            out += unit[1]
            position = self.space(unit[0])
        return tuple(out)

    def quotation(self) -> tuple[Node, ...] | None:
        """All of the text by the rules inside brackets, or nothing if they do not fit it."""
        end, found = self.run(0)
        return found if end == len(self.text) else None

    def space(self, position: int) -> int:
        found = _SPACE.match(self.text, position)
        return found.end() if found else position

    def loras(self, position: int) -> tuple[int, list[Node]]:
        out: list[Node] = []
        while lora := self.lora(position):
            position = self.space(lora[0])
            out += lora[1]
        return position, out

    def lora(self, position: int) -> _Found | None:
        found = _LORA.match(self.text, position)
        if found is None:
            return None
        weight = finite(found[2], "the weight in withLora()") if found[2] else 1.0
        return found.end(), (Node("adapter", found[1], weight),)

    def run(self, position: int) -> _Found:
        """Units, words, commas and full stops, up to what is none of them."""
        out: list[Node] = []
        position = self.space(position)
        while position < len(self.text):
            unit = self.unit(position, bare=True)
            if unit is None:
                if self.text[position] not in ",.":
                    break
                unit = position + 1, (Node("text", self.text[position]),)
            out += unit[1]
            position = self.space(unit[0])
        return position, tuple(out)

    def unit(self, position: int, *, bare: bool) -> _Found | None:
        """An adapter, or a quotation, bracket or word with what is written behind it.

        A word with nothing behind it counts only if `bare`.
        """
        if lora := self.lora(position):
            return lora
        group = self.group(position)
        if group is None and (word := _WORD.match(self.text, position)):
            target, strength = (word.end(), _text(word[0])), _SIGNS
        elif group is not None:
            target, strength = group, _STRENGTH
        else:
            return None
        end, inner = target
        if _SWAP.match(self.text, end):
            raise UsageError(
                ".swap() is not supported; use [from:to:when] of the sfumato dialect "
                f"({here(self.text, end)})"
            )
        attend = _ATTEND.match(self.text, end)
        written = attend[1] if attend else (found[0] if (found := strength.match(self.text, end)) else None)
        if written is None:
            return target if bare or group else None
        after = attend.end() if attend else end + len(written)
        return after, (Node("weighted", weight=_strength(written), children=inner),)

    def group(self, position: int) -> _Found | None:
        """A quotation or a bracket, if it can be read to its end."""
        key = "group", position
        if key not in self.known:
            sign = self.text[position]
            self.known[key] = (
                self.quoted(position) if sign == '"' else self.bracket(position) if sign == "(" else None
            )
        return self.known[key]

    def quoted(self, position: int) -> _Found | None:
        found = _QUOTED.match(self.text, position)
        if found is None:
            return None
        inner = _Reader(found[1], self.depth).quotation() if found[1].strip() else ()
        return None if inner is None else (found.end(), inner)

    def bracket(self, position: int) -> _Found | None:
        self.enter()
        end, inner = self.run(position + 1)
        self.depth -= 1
        return (end + 1, inner) if self.text[end : end + 1] == ")" else None

    def enter(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise too_deep()

    def operator(self, position: int) -> _Found | None:
        """`(part, part).blend(weight, weight)` or `.and()`; a part may be such an expression itself."""
        if self.text[position : position + 1] != "(":
            return None
        key = "operator", position
        if key not in self.known:
            self.enter()
            self.known[key] = self.operands(position)
            self.depth -= 1
        return self.known[key]

    def operands(self, position: int) -> _Found | None:
        parts: list[tuple[Node, ...]] = []
        start = position
        while not parts or self.text[position : position + 1] == ",":
            position = self.space(position + 1)
            found = self.operator(position) or self.operand(position)
            if found is None:
                return None
            parts.append(found[1])
            position = self.space(found[0])
        if self.text[position : position + 1] != ")":
            return None
        written = _OPERATOR.match(self.text, position + 1)
        if written is None:
            return None
        kind = "blend" if written[1] == "blend" else "joined"
        weights = [weight.strip() for weight in written[2].split(",")] if written[2].strip() else []
        option = weights.pop() if kind == "blend" and weights[-1:] == ["no_normalize"] else ""
        if weights and len(weights) != len(parts):
            raise UsageError(
                f".{written[1]}() joins {len(parts)} parts and has {len(weights)} weights; "
                f"give one for each, or none ({here(self.text, start)})"
            )
        shares = [finite(weight, f"a weight of .{written[1]}()") for weight in weights] or [1.0] * len(parts)
        groups = (Node("group", weight=w, children=part) for w, part in zip(shares, parts, strict=True))
        return written.end(), (Node(kind, option, children=tuple(groups)),)

    def operand(self, position: int) -> _Found | None:
        """A quotation, a bracket or a word; a quotation may also be a prompt of its own."""
        if position >= len(self.text):
            return None
        if group := self.group(position):
            return group
        if word := _WORD.match(self.text, position):
            return word.end(), _text(word[0])
        quoted = _QUOTED.match(self.text, position)
        if quoted is None:
            return None
        return quoted.end(), _Reader(quoted[1], self.depth).prompt()


def _strength(written: str) -> float:
    if written[0] in "+-" and not written.strip(written[0]):
        return float((1.1 if written[0] == "+" else 0.9) ** len(written))
    return finite(written, "a weight")
