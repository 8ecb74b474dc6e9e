"""Templates: one text with choices, `a {red|blue} __animal__`, that stands for many prompts.

The syntax is that of dynamic prompts and its wildcard files. Random choices from a seed and the enumeration
of all combinations traverse the same tree. Nothing recurses and everything is bounded, so that no prompt can
exhaust the machine.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import factorial, prod
from pathlib import Path
from random import Random
from typing import Protocol

from sfumato.errors import UsageError, nearest, warn
from sfumato.prompt.meaning import MAX_CHARACTERS
from sfumato.prompt.template_marks import is_template
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
from sfumato.prompt.template_tree import Tree, read

__all__ = ["combination", "combinations", "expand", "is_template"]

MAX_COMBINATIONS = 10**18
MAX_STEPS = 1_000_000
"""A step is one part of the tree that is come to; an option that is only weighed or counted is less."""
_DOTS = re.compile(r"\.{3,}|[…⋮⋯⋰⋱︙᠁]+")
"""Where a wrapper is around what it wraps."""


class _Chooser(Protocol):
    def pick(self, choice: Variants) -> list[int]:
        """Places of different options, in the order in which they are to be written."""

    def within(self) -> "_Chooser":
        """What chooses within what was picked last."""


def expand(
    texts: Sequence[str], *, seed: int, turn: int = 0, wildcards: Mapping[str, Path] | None = None
) -> list[str]:
    """Each text with its choices made at random; the same `seed` makes the same ones everywhere.

    `texts` are the prompt, the negative prompt and those of regions, if any; variables of one hold in the
    next. `turn`, from 0, is which of its options `{@a|b}` is at, and counts on for ever. `wildcards` are the
    files by name, else those in the user's folder. A text without syntax comes back as it is. Raises
    `UsageError` for broken syntax, an unknown wildcard, a variable without value, wildcards that go in a
    circle, and whatever is beyond the bounds; warns of entries of wildcards that had to be left out.
    """
    drawing = _Drawing(seed)
    return _write(_tree(texts, wildcards), drawing, drawing, turn)


def combinations(texts: Sequence[str], *, wildcards: Mapping[str, Path] | None = None) -> int:
    """How many ways there are to choose. Raises as `expand`, and for more than `MAX_COMBINATIONS`.

    `{~a|b}` and `{@a|b}` count as one: they change from picture to picture, and are not combined.
    """
    return _Counting(_tree(texts, wildcards)).total


def combination(
    texts: Sequence[str],
    index: int,
    *,
    seed: int = 0,
    turn: int = 0,
    wildcards: Mapping[str, Path] | None = None,
) -> list[str]:
    """The texts with the choices of combination `index`, modulo their number.

    The last choice changes fastest, and options come in the order in which they stand. Where several are
    picked, fewer come before more, and then what is written first counts most. `seed` is for `{~a|b}` and
    `turn` for `{@a|b}`, as in `expand`. Raises as `combinations`.
    """
    tree = _tree(texts, wildcards)
    return _write(tree, _Counting(tree, index), _Drawing(seed), turn)


def _tree(texts: Sequence[str], wildcards: Mapping[str, Path] | None) -> Tree:
    for text in filter(is_template, texts):
        if len(text) > MAX_CHARACTERS:
            raise UsageError(
                f"the template has {len(text):,} characters; at most {MAX_CHARACTERS:,} are read"
            )
    return read(texts, wildcards)


@dataclass(frozen=True)
class _Written:
    """What has been written since `mark` is the first part of `node`: a value, a name, a wrapper."""

    node: Assign | Lookup | Wrap
    mark: int


@dataclass(frozen=True)
class _Leave:
    """The end of a scope: its variables have their former values again."""

    before: Mapping[str, str | None]


def _write(tree: Tree, chooser: _Chooser, drawing: "_Drawing", turn: int) -> list[str]:
    """The texts with `chooser`'s choices, and with others where a method is said. Raises `UsageError`."""
    variables: dict[str, str] = {}
    written: list[str] = []
    steps = length = 0
    for root in tree.roots:
        if isinstance(root, str):
            written.append(root)
            continue
        pieces: list[str] = []
        todo: list[tuple[TemplateNode | _Written | _Leave, _Chooser]] = [(root, chooser)]
        while todo:
            node, current = todo.pop()
            steps += 1
            parts: Iterable[TemplateNode | _Written | _Leave] = ()
            if isinstance(node, str):
                pieces.append(node)
                length += len(node)
            elif isinstance(node, Variable):
                parts = [_value(node, variables)]
            elif isinstance(node, Run):
                parts = node.parts
            elif isinstance(node, Assign):
                if not (node.keep and node.name in variables):
                    parts = [node.value, _Written(node, len(pieces))]
            elif isinstance(node, Lookup):
                parts = [node.name, _Written(node, len(pieces))]
            elif isinstance(node, Wrap):
                parts = [node.wrapper, _Written(node, len(pieces))]
            elif isinstance(node, Scope):
                before = {each.name: variables.get(each.name) for each in node.assigns}
                parts = [*node.assigns, node.inside, _Leave(before)]
            elif isinstance(node, _Written):
                text = "".join(pieces[node.mark :])
                del pieces[node.mark :]
                parts = _used(node.node, text, tree, variables)
            elif isinstance(node, _Leave):
                variables.update({name: value for name, value in node.before.items() if value is not None})
                for name in [name for name, value in node.before.items() if value is None]:
                    variables.pop(name, None)
            else:
                choice = tree.choice(node)
                current = _chooser(choice.method, current, drawing, turn)
                steps += len(choice.options) * choice.most // 16
                if steps <= MAX_STEPS:
                    picked = [choice.options[place] for place in current.pick(choice)]
                    current = current.within()
                    parts = [part for one in picked for part in (choice.separator, one)][1:]
            todo.extend(reversed([(part, current) for part in parts]))
            if steps > MAX_STEPS:
                raise UsageError(f"the template takes more than {MAX_STEPS:,} steps to expand")
            if length > MAX_CHARACTERS:
                raise UsageError(f"the template expands to more than {MAX_CHARACTERS:,} characters")
        written.append("".join(pieces))
    return written


def _used(
    node: Assign | Lookup | Wrap, text: str, tree: Tree, variables: dict[str, str]
) -> list[TemplateNode]:
    """What is to be written once `text`, the first part of `node`, is known."""
    if isinstance(node, Assign):
        variables[node.name] = text
        return []
    if isinstance(node, Lookup):
        return [tree.named(node, text)]
    before, *after = _DOTS.split(text, maxsplit=1)
    if not after:
        warn(f"%{{...$$...}} has no dots in {text[:60]!r} where the inner text goes: it goes behind")
    return [before, node.inner, *after]


def _value(use: Variable, variables: dict[str, str]) -> TemplateNode:
    value = variables.get(use.name, use.default)
    if value is None:
        hint = nearest(use.name, variables) if variables else f"write ${{{use.name}=...}} before it"
        raise UsageError(f"{use.where}: ${{{use.name}}} has no value yet; {hint}")
    return value


def _chooser(method: Method | None, current: _Chooser, drawing: "_Drawing", turn: int) -> _Chooser:
    """What chooses where `method` is said, and within; else `current`."""
    if method == "random":
        return drawing
    if method == "cyclical" and not isinstance(current, _Cycling):
        return _Cycling(turn)
    if method == "combinatorial" and not isinstance(current, _Counting):
        warn("{!a|b} takes every option where templates are combinatorial; here it is {a|b}")
    return current


class _Drawing:
    """Choices at random.

    Only `Random.random` is used, whose sequence Python guarantees for an integer seed; each pick takes one
    number, and where the count is open that takes one before.
    """

    def __init__(self, seed: int) -> None:
        self._random = Random(seed).random

    def pick(self, choice: Variants) -> list[int]:
        span = choice.most - choice.least
        count = choice.least + (int(self._random() * (span + 1)) if span else 0)
        left, picked = list(range(len(choice.options))), []
        for _ in range(count):
            sums = list(accumulate(choice.weights[place] for place in left))
            at = bisect_right(sums, self._random() * sums[-1])
            picked.append(left.pop(min(at, len(left) - 1)))
        return picked

    def within(self) -> _Chooser:
        return self


class _Cycling:
    """Each of a choice's picks in its turn; what is within moves on when all have had theirs."""

    def __init__(self, turn: int) -> None:
        self._turn = turn

    def pick(self, choice: Variants) -> list[int]:
        sizes = [1] * len(choice.options)
        e = _symmetric(sizes, choice.most)
        self._turn, index = divmod(self._turn, _ways(e, choice.least))
        return _nth(sizes, e, choice.least, index)[0]

    def within(self) -> _Chooser:
        return _Cycling(self._turn)


class _Counting:
    """The choices of one combination: `index` of the `total` that are left to choose among.

    Every choice splits what is left into blocks, one for each thing it can pick, and goes on in the block
    that `index` lies in.
    """

    def __init__(self, tree: Tree, index: int = 0) -> None:
        self._sizes = _sizes(tree)
        self.total = _product(self._size(root) for root in tree.roots)
        self.index = index % self.total

    def _size(self, node: TemplateNode) -> int:
        return 1 if isinstance(node, str) else self._sizes[node]

    def pick(self, choice: Variants) -> list[int]:
        sizes = [self._size(option) for option in choice.options]
        e = _symmetric(sizes, choice.most)
        rest = self.total // _ways(e, choice.least)
        index, later = divmod(self.index, rest)
        picked, index = _nth(sizes, e, choice.least, index)
        self.index, self.total = index * rest + later, prod(sizes[place] for place in picked) * rest
        return picked

    def within(self) -> _Chooser:
        return self


def _nth(sizes: Sequence[int], e: Sequence[int], least: int, index: int) -> tuple[list[int], int]:
    """The pick that combination `index` lies in, and its place among those of the pick.

    Of options with c_i combinations each, k in any order give k!·e_k(c), where e_k is the elementary
    symmetric polynomial.
    """
    count = least
    while index >= (block := factorial(count) * e[count]):
        index -= block
        count += 1
    left, picked, chosen = list(range(len(sizes))), [], 1
    for after in reversed(range(count)):
        for place in left:
            others = _without(e, sizes[place])
            block = chosen * sizes[place] * factorial(after) * others[after]
            if index < block:
                break
            index -= block
        left.remove(place)
        picked.append(place)
        chosen, e = chosen * sizes[place], others
    return picked, index


def _symmetric(sizes: Sequence[int], most: int) -> list[int]:
    """e_0 to e_most of `sizes`. Raises `UsageError` where there are too many to count."""
    ways = 1
    for taken in range(most):
        ways = _bounded(ways * (len(sizes) - taken))
    e = [1] + [0] * most
    for size in sizes:
        for k in range(most, 0, -1):
            e[k] += size * e[k - 1]
    return e


def _ways(e: Sequence[int], least: int) -> int:
    """In how many ways `least` or more, up to as many as `e` goes, are picked in any order."""
    return sum(factorial(k) * e[k] for k in range(least, len(e)))


def _without(e: Sequence[int], size: int) -> list[int]:
    """The e_k of one `size` less."""
    return list(accumulate(e[1:], lambda before, here: here - size * before, initial=1))


def _sizes(tree: Tree) -> dict[TemplateNode, int]:
    """The number of combinations of every node that is not text. Raises `UsageError`."""
    sizes: dict[TemplateNode, int] = {}
    todo: list[TemplateNode] = list(tree.roots)
    steps = 0
    while todo:
        node = todo[-1]
        if isinstance(node, str) or node in sizes:
            todo.pop()
            continue
        children: tuple[TemplateNode, ...] = ()
        if isinstance(node, Run):
            children = node.parts
        elif isinstance(node, Assign):
            children = (node.value,)
        elif isinstance(node, Variable):
            children = () if node.default is None else (node.default,)
        elif isinstance(node, Scope):
            children = (*node.assigns, node.inside)
        elif isinstance(node, Wrap):
            children = (node.wrapper, node.inner)
        elif isinstance(node, Lookup):
            raise UsageError(
                f"{node.wildcard.where}: combinations cannot be counted where a variable names a wildcard; "
                "choose at random"
            )
        elif (choice := tree.choice(node)).method in (None, "combinatorial"):
            children = choice.options
        steps += len(children) // 4
        if steps > MAX_STEPS:
            raise UsageError(f"the combinations take more than {MAX_STEPS:,} steps to count")
        missing = [child for child in children if not isinstance(child, str) and child not in sizes]
        if missing:
            todo += missing
            continue
        each = [1 if isinstance(child, str) else sizes[child] for child in children]
        if children and isinstance(node, Variants | Wildcard):
            choice = tree.choice(node)
            sizes[node] = _bounded(_ways(_symmetric(each, choice.most), choice.least))
        else:
            sizes[node] = _product(each)
    return sizes


def _product(sizes: Iterable[int]) -> int:
    product = 1
    for size in sizes:
        product = _bounded(product * size)
    return product


def _bounded(count: int) -> int:
    if count > MAX_COMBINATIONS:
        raise UsageError(f"the template has more than {MAX_COMBINATIONS:,} combinations; choose at random")
    return count
