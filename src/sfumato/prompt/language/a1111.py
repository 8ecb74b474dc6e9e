r"""A1111's dialect as Stable Diffusion WebUI 1.10 reads it, quirks included: what is unmatched is text.

Its passes run over the text one after another, and so do these: comments, `<lora:...>`, AND with trailing
weights, scheduling, and attention in what a step's schedule spells out. No grammar rejects anything there, so
each pass is a regular expression for the tokens and a stack for the brackets: a bracket that does not match
turns what is on the stack into text.
"""

import re
from dataclasses import dataclass, field

from sfumato.errors import UsageError
from sfumato.prompt.language import adapters
from sfumato.prompt.language.tree import (
    MAX_DEPTH,
    Node,
    ScheduleStep,
    finite,
    joined,
    nodes,
    one_term,
    phrase,
    shown,
    too_deep,
)
from sfumato.prompt.meaning import AdapterWeight, Break, WeightedText

_COMMENT_LINE = re.compile(r"(?:^|\n)#[^\n]*(?:\n|$)")
_COMMENT = re.compile(r"#[^\n]*(?:\n|$)")
_TAG = re.compile(r"<(\w+):([^>]+)>")
_AND = re.compile(r"\bAND\b")
_BREAK = re.compile(r"\bBREAK\b")
_SHARE = re.compile(r"[-+]?(?:\d+\.?|\d*\.\d+)")
_SCHEDULE = re.compile(r"\\.|[][():|]|[^][():|\\]+|\\")
_WHEN = re.compile(r"\s*([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)\s*")
_ATTENTION = re.compile(r"\\[][()\\]?|[(\[]|:\s*([+-]?[.\d]+)\s*\)|[)\]]|[^][():\\]+|:")
_PAIR = {")": "(", "]": "["}
_CUT = re.compile(r"(?<=\bA)(?=ND\b)|(?<=\bBR)(?=EAK\b)|(?<=<)(?=\w+:)|(?=[][()\\])")


def read(text: str, negative: bool) -> tuple[Node, tuple[AdapterWeight, ...]]:
    """The tree of `text`, its leaves still holding attention syntax, and the adapters it calls.

    A negative prompt has no adapters, no AND and no trailing weight there. Raises `UsageError`.
    """
    text = _COMMENT.sub("\n", _COMMENT_LINE.sub("\n", text))
    if negative:
        return one_term(_scheduled(text)), ()
    text, calls = _without_tags(text)
    terms = []
    for part in _AND.split(text):
        spoken, weight = _share(part)
        terms.append(Node("term", weight=weight, children=_scheduled(spoken)))
    return Node("prompt", children=tuple(terms)), calls


def escape(text: str) -> str:
    r"""`text` with backslashes where it would mean something. Raises `UsageError` for "#".

    A backslash before any other sign than a bracket or backslash vanishes, so one inside a word hides it;
    a "#" begins a comment whatever stands before it.
    """
    if "#" in text:
        raise UsageError("a1111 prompts cannot say '#': it begins a comment; use another dialect")
    text = _CUT.sub(r"\\", text)
    last = text[-1:]
    return text + "\\" if last.isspace() or last.isdecimal() or last == "." else text


def switch(when: str, steps: int) -> int:
    """The last step, counted from 1, that a switch `when` leaves as it was."""
    value = float(when)
    return int(min(value * steps if "." in when else value, steps))


def times(term: Node, steps: int) -> list[int]:
    """The time that each step reads: WebUI compares the step from 0 with schedules that count from 1.

    So all but the first text hold one step less than they say, and the first one more.
    """
    kinds = {node.kind for node in nodes(term)}
    if "alternate" in kinds:
        return [max(step, 1) for step in range(steps)]
    ends = sorted({steps, *(switch(node.text, steps) for node in nodes(term) if node.kind == "switch")})
    ends = [end for end in ends if end >= 1]
    out: list[int] = []
    for end in ends:
        out += [end] * (min(end + 1, steps) - len(out))
    return out


def parts(term: Node, step: ScheduleStep) -> list[WeightedText | Break]:
    """What `term` says at `step`, weighted: the schedule spelled out, then attention read in it."""
    return _attention("".join(_spelled(term, step)))


def with_weights(term: Node) -> Node:
    """`term` with its attention read, where no schedule has to be spelled out before; for showing."""
    if any(node.kind in ("switch", "alternate") for node in nodes(term)):
        return term
    said: list[Node] = []
    for part in phrase(parts(term, ScheduleStep(1, int))).parts:
        text = Node("break") if isinstance(part, Break) else Node("text", part.text)
        weight = 1.0 if isinstance(part, Break) else part.weight
        said.append(text if weight == 1 else Node("weighted", weight=weight, children=(text,)))
    return Node("term", weight=term.weight, children=tuple(said))


def _without_tags(text: str) -> tuple[str, tuple[AdapterWeight, ...]]:
    """`text` without <kind:...>, and the calls in it; kinds unknown to WebUI are left out there too."""
    end = text.rfind(">") + 1
    calls = []
    for tag in _TAG.finditer(text, 0, end):
        if tag[1] in adapters.KINDS:
            calls.append(adapters.call(tag[2], text_first=True))
        elif tag[1] == "hypernet":
            raise UsageError(f"hypernetworks are not read; take {shown(tag[0])} out of the prompt")
    return _TAG.sub("", text[:end]) + text[end:], tuple(calls)


def _share(text: str) -> tuple[str, float]:
    text = text.rstrip()
    head, colon, tail = text.rpartition(":")
    if colon and _SHARE.fullmatch(tail.lstrip()):
        return head.rstrip(), finite(tail.strip(), "the weight at the end")
    return text, 1.0


@dataclass
class _OpenBracket:
    """A bracket not yet closed: its sign, and the runs between the signs in it."""

    sign: str
    runs: list[list[Node]] = field(default_factory=lambda: [[]])
    signs: list[str] = field(default_factory=list)

    def flat(self) -> list[Node]:
        """Its contents with the signs as text."""
        out = [Node("text", self.sign), *self.runs[0]]
        for sign, run in zip(self.signs, self.runs[1:], strict=True):
            out += [Node("text", sign), *run]
        return out


def _scheduled(text: str) -> tuple[Node, ...]:
    """Text, `switch` and `alternate`. A lone | or a last backslash leaves all of it text, as there."""
    base: list[Node] = []
    opened: list[_OpenBracket] = []
    whole = (Node("text", text),)
    for token in _SCHEDULE.findall(text):
        run = opened[-1].runs[-1] if opened else base
        if token in ("(", "["):
            if len(opened) == MAX_DEPTH:
                raise too_deep()
            opened.append(_OpenBracket(token))
        elif token in (":", "|"):
            if opened:
                opened[-1].signs.append(token)
                opened[-1].runs.append([])
            elif token == "|":
                return whole
            else:
                base.append(Node("text", token))
        elif token in _PAIR:
            built = _built(opened[-1]) if opened and opened[-1].sign == _PAIR[token] else None
            if built is not None:
                opened.pop()
                (opened[-1].runs[-1] if opened else base).extend(built)
                continue
            if any("|" in bracket.signs for bracket in opened):
                return whole
            for bracket in opened:
                base += bracket.flat()
            opened.clear()
            base.append(Node("text", token))
        elif token == "\\":
            return whole
        else:
            run.append(Node("text", token))
    if any("|" in bracket.signs for bracket in opened):
        return whole
    for bracket in opened:
        base += bracket.flat()
    return joined(base)


def _built(bracket: _OpenBracket) -> list[Node] | None:
    """What a matched pair of brackets is, or nothing if it is only signs."""
    kinds = set(bracket.signs)
    close = Node("text", ")" if bracket.sign == "(" else "]")
    if not kinds or (bracket.sign == "(" and bracket.signs == [":"]):
        return [*bracket.flat(), close]
    if bracket.sign == "(":
        return None
    groups = [Node("group", children=joined(run)) for run in bracket.runs]
    if kinds == {"|"}:
        return [Node("alternate", children=tuple(groups))]
    last = groups.pop()
    when = (
        _WHEN.fullmatch(last.children[0].text) if [node.kind for node in last.children] == ["text"] else None
    )
    if kinds != {":"} or when is None or len(groups) > 2:
        return None
    return [Node("switch", when[1], children=(groups[0] if len(groups) == 2 else Node("group"), groups[-1]))]


def _spelled(node: Node, step: ScheduleStep) -> list[str]:
    if node.kind == "text":
        return [node.text]
    if node.kind in ("switch", "alternate"):
        return _spelled(step.chosen(node), step)
    return [text for child in node.children for text in _spelled(child, step)]


def _attention(text: str) -> list[WeightedText | Break]:
    """Pieces with the products of their brackets, innermost first; an unclosed bracket reaches to the end."""
    texts: list[str] = []
    weights: list[float] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}

    def weigh(start: int, factor: float) -> None:
        for index in range(start, len(weights)):
            weights[index] *= factor

    def add(word: str, weight: float = 1.0) -> None:
        texts.append(word)
        weights.append(weight)

    for match in _ATTENTION.finditer(text):
        token = match[0]
        if token[0] == "\\":
            add(token[1:])
        elif token in opened:
            if len(opened["("]) + len(opened["["]) == MAX_DEPTH:
                raise too_deep()
            opened[token].append(len(texts))
        elif match[1] is not None and opened["("]:
            weigh(opened["("].pop(), finite(match[1], "the weight in brackets"))
        elif token == ")" and opened["("]:
            weigh(opened["("].pop(), 1.1)
        elif token == "]" and opened["["]:
            weigh(opened["["].pop(), 1 / 1.1)
        else:
            first, *rest = _BREAK.split(token)
            add(first.rstrip() if rest else first)
            for index, part in enumerate(rest):
                add("BREAK", -1.0)
                add(part.strip() if index < len(rest) - 1 else part.lstrip())
    for start in opened["("]:
        weigh(start, 1.1)
    for start in opened["["]:
        weigh(start, 1 / 1.1)
    return _marked(texts, weights)


def _marked(texts: list[str], weights: list[float]) -> list[WeightedText | Break]:
    """Neighbours of one weight joined; "BREAK" is a break only if no bracket weighted it, as there."""
    out: list[WeightedText | Break] = []
    start = 0
    for end in range(1, len(texts) + 1):
        if end < len(texts) and weights[end] == weights[start]:
            continue
        word = "".join(texts[start:end])
        finite(str(weights[start]), f"the product of the weights around {shown(word)}")
        out.append(
            Break() if word == "BREAK" and weights[start] == -1 else WeightedText(word, weights[start])
        )
        start = end
    return out
