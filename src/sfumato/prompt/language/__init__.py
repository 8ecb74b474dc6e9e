"""The prompt dialects: from a text in any of the five to its weighted texts at every step."""

from dataclasses import dataclass, field

from sfumato.errors import UsageError, nearest
from sfumato.names import DIALECTS
from sfumato.prompt.language import a1111, comfy, compel, own
from sfumato.prompt.language.tree import Node, ScheduleStep, distinct_steps, here, one_term, phrase
from sfumato.prompt.meaning import MAX_CHARACTERS, AdapterWeight, Break, Content, PromptTerm, WeightedText

__all__ = ["Node", "Prompt", "escape", "parse"]

MAX_TERMS = 100


@dataclass(frozen=True)
class Prompt:
    """A prompt that has been read: `parse` makes it, `terms` says what each step of a drawing reads."""

    text: str
    dialect: str
    adapters: tuple[AdapterWeight, ...]
    _root: Node = field(repr=False)

    def tree(self) -> Node:
        """The parse; its `lines()` show it."""
        if self.dialect != "a1111":
            return self._root
        return Node("prompt", children=tuple(a1111.with_weights(term) for term in self._root.children))

    def terms(self, steps: int) -> tuple[PromptTerm, ...]:
        """The parts of an `AND`, or the one part, of a drawing in `steps` steps (1 or more).

        Each term's contents stand in the order in which steps first read them. Raises `UsageError`.
        """
        if steps < 1:
            raise UsageError(f"a drawing has 1 step or more, not {steps}")
        return tuple(self._term(node, steps) for node in self._root.children)

    def _term(self, node: Node, steps: int) -> PromptTerm:
        dialect = a1111 if self.dialect == "a1111" else own
        ts = a1111.times(node, steps) if dialect is a1111 else list(range(1, steps + 1))
        distinct, at = distinct_steps(node, ts, lambda when: dialect.switch(when, steps), len(self.text))
        contents: dict[Content, int] = {}
        places = [contents.setdefault(self._content(node, step), len(contents)) for step in distinct]
        return PromptTerm(tuple(contents), tuple(places[index] for index in at), node.weight)

    def _content(self, node: Node, step: ScheduleStep) -> Content:
        if self.dialect == "compel":
            return compel.content(node)
        if self.dialect == "a1111":
            return phrase(a1111.parts(node, step))
        parts: list[WeightedText | Break] = []
        _collect(node, step, 1.0, parts, absolute=self.dialect == "comfy")
        return phrase(parts)


def parse(text: str, dialect: str = "sfumato", *, negative: bool = False) -> Prompt:
    """`text` as `dialect` reads it; a negative prompt can call no adapters, and in a1111 has no AND.

    Raises `UsageError` for an unknown dialect, for what the dialect does not allow, for more than 100,000
    characters or 100 brackets inside one another, and for half a surrogate pair.
    """
    _check(dialect)
    if len(text) > MAX_CHARACTERS:
        raise UsageError(f"the prompt has {len(text):,} characters; at most {MAX_CHARACTERS:,} are read")
    for position, character in enumerate(text):
        if "\ud800" <= character <= "\udfff":
            raise UsageError(f"the prompt holds half of a surrogate pair ({here(text, position)})")
    adapters: tuple[AdapterWeight, ...] = ()
    if dialect == "a1111":
        root, adapters = a1111.read(text, negative)
    elif dialect in ("sfumato", "compel"):
        root, adapters = (own if dialect == "sfumato" else compel).read(text)
    else:
        root = comfy.read(text) if dialect == "comfy" else one_term((Node("text", text),))
    if len(root.children) > MAX_TERMS:
        raise UsageError(f"AND joins {len(root.children)} parts; at most {MAX_TERMS} are drawn together")
    if negative and adapters:
        raise UsageError(f"the negative prompt calls the adapter {adapters[0].name!r}; call it in the prompt")
    prompt = Prompt(text, dialect, adapters, root)
    prompt.terms(1)  # what cannot be drawn is an error of parsing
    return prompt


def escape(text: str, dialect: str = "sfumato") -> str:
    """A prompt that reads as `text` in `dialect`. Raises `UsageError` if the dialect cannot say it."""
    _check(dialect)
    modules = {"sfumato": own, "a1111": a1111, "compel": compel, "comfy": comfy}
    return modules[dialect].escape(text) if dialect in modules else text


def _check(dialect: str) -> None:
    if dialect not in DIALECTS:
        raise UsageError(f"unknown dialect {dialect!r}; {nearest(dialect, DIALECTS)}")


def _collect(
    node: Node, step: ScheduleStep, weight: float, out: list[WeightedText | Break], *, absolute: bool
) -> None:
    """The pieces of `node` at `step`; weights multiply, or the innermost counts alone if `absolute`."""
    if node.kind == "text":
        out.append(WeightedText(node.text, weight))
    elif node.kind == "break":
        out.append(Break())
    elif node.kind in ("switch", "alternate"):
        _collect(step.chosen(node), step, weight, out, absolute=absolute)
    else:
        if node.kind == "weighted":
            weight = node.weight if absolute else weight * node.weight
        for child in node.children:
            _collect(child, step, weight, out, absolute=absolute)
