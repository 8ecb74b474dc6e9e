"""What the dialects share: the tree a prompt is read into, its limits, numbers and errors."""

import math
import re
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sfumato.errors import UsageError
from sfumato.prompt.meaning import Break, Phrase, WeightedText

MAX_DEPTH = 100
"""How many brackets may stand inside one another."""
MAX_READ = 2_000_000
"""How many characters a schedule may spell out over all the steps."""


@dataclass(frozen=True)
class Node:
    """One part of a prompt as it was parsed; `sfumato prompt` shows it by `lines()`.

    Kinds: `prompt` of `term`s (an `AND`'s parts, with their weights); `text`; `break`; `weighted` (its
    children count `weight` times, in comfy whatever is around); `group` (children one after another);
    `switch` (from and to, two groups, and in `text` when: "5" is a step, "0.5" a fraction); `alternate` (one
    group for each turn); `blend` and `joined` (groups with weights; the `text` of a blend is "no_normalize"
    if they are not to sum to 1); `adapter` (compel's withLora(), its name in `text`).
    """

    kind: str
    text: str = ""
    weight: float = 1.0
    children: tuple["Node", ...] = ()

    def lines(self, depth: int = 0) -> Iterator[str]:
        """One line for this node, then its children's, two spaces further in."""
        words = [self.kind]
        if self.kind == "switch":
            words.append(f"at {self.text} of the steps" if "." in self.text else f"at step {self.text}")
        elif self.text:
            words.append(self.text if self.kind == "blend" else f'"{_printable(self.text)}"')
        if self.weight != 1:
            words.append(f"×{self.weight:g}")
        yield "  " * depth + " ".join(words)
        for child in self.children:
            yield from child.lines(depth + 1)


def one_term(children: tuple[Node, ...]) -> Node:
    """A prompt without AND."""
    return Node("prompt", children=(Node("term", children=children),))


@dataclass(frozen=True)
class ScheduleStep:
    """Which of a schedule's texts hold: from while t ≤ `switch(when)`, and turn (t − 1) mod n."""

    t: int
    switch: Callable[[str], int]

    def chosen(self, node: Node) -> Node:
        """The child of a `switch` or `alternate` that holds."""
        if node.kind == "switch":
            return node.children[0 if self.t <= self.switch(node.text) else 1]
        return node.children[(self.t - 1) % len(node.children)]


def nodes(node: Node) -> Iterator[Node]:
    """`node` and everything below it."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(reversed(node.children))


def distinct_steps(
    term: Node, ts: list[int], switch: Callable[[str], int], characters: int
) -> tuple[list[ScheduleStep], list[int]]:
    """Of the times `ts` of each step those at which `term` differs, and for each step which of them it is."""
    switches = sorted({switch(node.text) for node in nodes(term) if node.kind == "switch"})
    turns = sorted({len(node.children) for node in nodes(term) if node.kind == "alternate"})
    differing: dict[tuple[int, ...], int] = {}
    kept: list[ScheduleStep] = []
    at = []
    for t in ts:
        key = (bisect_left(switches, t), *((t - 1) % n for n in turns))
        if key not in differing:
            differing[key] = len(kept)
            kept.append(ScheduleStep(t, switch))
        at.append(differing[key])
    if len(kept) > 1 and len(kept) * characters > MAX_READ:
        raise UsageError(
            f"the prompt has {characters:,} characters and reads differently at {len(kept)} steps; "
            f"together at most {MAX_READ:,} characters can be spelled out: shorten it or take fewer steps"
        )
    return kept, at


def phrase(parts: list[WeightedText | Break]) -> Phrase:
    """A phrase of the parts: no space around breaks, neighbours of one weight joined, nothing empty.

    A phrase that says nothing is one empty piece.
    """
    tidy: list[WeightedText | Break] = []
    run: list[str] = []
    weight = 1.0
    begins = False

    def close(*, ends: bool) -> None:
        text = "".join(run)
        text = text.lstrip() if begins else text
        text = text.rstrip() if ends else text
        run.clear()
        if text:
            tidy.append(WeightedText(text, weight))

    for part in parts:
        if isinstance(part, Break):
            close(ends=True)
            tidy.append(part)
            begins = True
        elif part.text:
            if run and part.weight != weight:
                kept = len(tidy)
                close(ends=False)
                begins = begins and len(tidy) == kept
            weight = part.weight
            run.append(part.text)
    close(ends=False)
    return Phrase(tuple(tidy) or (WeightedText(""),))


def joined(parts: list[Node]) -> tuple[Node, ...]:
    """The nodes with neighbouring texts made one."""
    out: list[Node] = []
    run: list[str] = []
    for part in [*parts, Node("break")]:
        if part.kind == "text":
            run.append(part.text)
            continue
        if run:
            out.append(Node("text", "".join(run)))
            run = []
        out.append(part)
    return tuple(out[:-1])


def finite(written: str, what: str, where: str = "") -> float:
    """The number that stands for a weight. Raises `UsageError` unless it is one number and finite."""
    try:
        value = float(written)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        place = f" ({where})" if where else ""
        raise UsageError(f"{what} is {shown(written)}; it must be a finite number such as 1.2{place}")
    return value


def shown(text: str) -> str:
    """`text` in quotes, cut to sixty characters, what cannot be printed as dots."""
    text = text if len(text) <= 60 else text[:57] + "..."
    return f'"{_printable(text)}"'


def here(text: str, position: int) -> str:
    """Where something stands: 'character 7, at "(sitting"', counted from 1."""
    rest = text[position : position + 20] + ("..." if len(text) > position + 20 else "")
    return f"character {position + 1}, at " + (f'"{_printable(rest)}"' if rest else "the end")


def position_in(message: str) -> int | None:
    """The position, from 0, that an error's text names as `here` does; `None` where it names none."""
    match = re.search(r"\bcharacter (\d+)(, at |: )", message)
    return int(match[1]) - 1 if match else None


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "·" for letter in text)


def too_deep() -> UsageError:
    """The error for brackets beyond `MAX_DEPTH`."""
    return UsageError(f"the prompt nests brackets more than {MAX_DEPTH} deep")
