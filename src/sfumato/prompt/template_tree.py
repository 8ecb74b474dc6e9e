"""The tree that a template is read into, and where its wildcards get their entries from."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sfumato.errors import UsageError, warn
from sfumato.prompt.template_marks import is_template
from sfumato.prompt.template_nodes import Lookup, TemplateNode, Variants, Wildcard
from sfumato.prompt.template_text import TextReader
from sfumato.prompt.wildcards import MAX_ENTRIES, WildcardList, entries, matching, sources

MAX_WILDCARDS = 1_000


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


def read(texts: Sequence[str], wildcards: Mapping[str, Path] | None) -> Tree:
    """The tree of `texts`, which are prompt, negative prompt and those of regions, with their wildcards.

    `wildcards`: the files by name, else those in the user's folder. Raises `UsageError`.
    """
    mentioned: list[Wildcard] = []
    values: dict[str, str | bool] = {}
    roots = []
    for number, text in enumerate(texts):
        label = ("the prompt", "the negative prompt", f"the prompt of region {number - 1}")[min(number, 2)]
        roots.append(TextReader(text, label, mentioned, values).read().node() if is_template(text) else text)
    pools = _Pools(wildcards)
    pools.load(mentioned)
    return Tree(roots, pools)


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
                read = TextReader(entry.text, entry.where, mentioned).read(entry=True)
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
