"""Templates: one text with choices, `a {red|blue} __animal__`, that stands for many prompts.

The syntax is that of dynamic prompts and its wildcard files. Random choices from a seed and the enumeration
of all combinations traverse the same tree. Nothing recurses and everything is bounded, so that no prompt can
exhaust the machine.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import factorial
from pathlib import Path
from random import Random
from typing import Protocol

from sfumato.errors import UsageError, nearest
from sfumato.prompt.meaning import MAX_CHARACTERS
from sfumato.prompt.template_tree import (
    Assign,
    Run,
    TemplateNode,
    Tree,
    Variable,
    Variants,
    Wildcard,
    is_template,
    read,
)

__all__ = ["combination", "combinations", "expand", "is_template"]

MAX_COMBINATIONS = 10**18
MAX_STEPS = 1_000_000
"""A step is one part of the tree that is come to; an option that is only weighed or counted is less."""


class _Chooser(Protocol):
    def pick(self, choice: Variants) -> list[int]:
        """Places of different options, in the order in which they are to be written."""


def expand(texts: Sequence[str], *, seed: int, wildcards: Mapping[str, Path] | None = None) -> list[str]:
    """Each text with its choices made at random; the same `seed` makes the same ones everywhere.

    `texts` are the prompt, the negative prompt and those of regions, if any; variables of one hold in the
    next. `wildcards` are the files by name, else those in the user's folder. A text without syntax comes
    back as it is. Raises `UsageError` for broken syntax, an unknown wildcard, a variable without value,
    wildcards that go in a circle, and whatever is beyond the bounds.
    """
    return _write(_tree(texts, wildcards), _Drawing(seed))


def combinations(texts: Sequence[str], *, wildcards: Mapping[str, Path] | None = None) -> int:
    """How many ways there are to choose. Raises as `expand`, and for more than `MAX_COMBINATIONS`."""
    return _Counting(_tree(texts, wildcards)).total


def combination(
    texts: Sequence[str], index: int, *, wildcards: Mapping[str, Path] | None = None
) -> list[str]:
    """The texts with the choices of combination `index`, modulo their number.

    The last choice changes fastest, and options come in the order in which they stand. Where several are
    picked, fewer come before more, and then what is written first counts most. Raises as `combinations`.
    """
    tree = _tree(texts, wildcards)
    return _write(tree, _Counting(tree, index))


def _tree(texts: Sequence[str], wildcards: Mapping[str, Path] | None) -> Tree:
    for text in filter(is_template, texts):
        if len(text) > MAX_CHARACTERS:
            raise UsageError(
                f"the template has {len(text):,} characters; at most {MAX_CHARACTERS:,} are read"
            )
    return read(texts, wildcards)


@dataclass(frozen=True)
class _Keep:
    """What has been written since `mark` is a variable's value."""

    name: str
    mark: int


def _write(tree: Tree, chooser: _Chooser) -> list[str]:
    """The texts with `chooser`'s choices. Raises `UsageError`."""
    variables: dict[str, str] = {}
    written: list[str] = []
    steps = length = 0
    for root in tree.roots:
        if isinstance(root, str):
            written.append(root)
            continue
        pieces: list[str] = []
        todo: list[TemplateNode | _Keep] = [root]
        while todo:
            node = todo.pop()
            steps += 1
            if isinstance(node, str | Variable):
                pieces.append(node if isinstance(node, str) else _value(node, variables))
                length += len(pieces[-1])
            elif isinstance(node, Run):
                todo.extend(reversed(node.parts))
            elif isinstance(node, Assign):
                todo += [_Keep(node.name, len(pieces)), node.value]
            elif isinstance(node, _Keep):
                variables[node.name] = "".join(pieces[node.mark :])
                del pieces[node.mark :]
            else:
                choice = tree.choice(node)
                steps += len(choice.options) * choice.most // 16
                if steps <= MAX_STEPS:
                    picked = [choice.options[place] for place in chooser.pick(choice)]
                    todo.extend(reversed([part for one in picked for part in (choice.separator, one)][1:]))
            if steps > MAX_STEPS:
                raise UsageError(f"the template takes more than {MAX_STEPS:,} steps to expand")
            if length > MAX_CHARACTERS:
                raise UsageError(f"the template expands to more than {MAX_CHARACTERS:,} characters")
        written.append("".join(pieces))
    return written


def _value(use: Variable, variables: dict[str, str]) -> str:
    value = variables.get(use.name, use.default)
    if value is None:
        hint = nearest(use.name, variables) if variables else f"write ${{{use.name}=...}} before it"
        raise UsageError(f"{use.where}: ${{{use.name}}} has no value yet; {hint}")
    return value


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


class _Counting:
    """The choices of one combination: `index` of the `total` that are left to choose among.

    Every choice splits what is left into blocks, one for each thing it can pick, and goes on in the block
    that `index` lies in. Of options with c_i combinations each, k in any order give k!·e_k(c), where e_k is
    the elementary symmetric polynomial.
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
        count = choice.least
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
        self.index, self.total = index * rest + later, chosen * rest
        return picked


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
        elif isinstance(node, Wildcard):
            children = (tree.pools[node.name],)
        elif isinstance(node, Variants):
            children = tree.choice(node).options
        steps += len(children) // 4
        if steps > MAX_STEPS:
            raise UsageError(f"the combinations take more than {MAX_STEPS:,} steps to count")
        missing = [child for child in children if not isinstance(child, str) and child not in sizes]
        if missing:
            todo += missing
            continue
        each = [1 if isinstance(child, str) else sizes[child] for child in children]
        if isinstance(node, Variants):
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
