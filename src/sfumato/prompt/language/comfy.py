"""ComfyUI's dialect: ( ) and (text:weight), where an inner weight replaces the outer one; nothing fails.

Its documented behaviour is a scan that counts brackets, so that is what stands here instead of a grammar:
a stretch that begins with "(" at level nought and ends with the ")" that comes back to it is weighted, and so
is a last one that is never closed but ends with ")"; everything else is text.
"""

import math
import re
from collections.abc import Iterator

from sfumato.errors import UsageError
from sfumato.prompt.language.tree import MAX_DEPTH, Node, joined, one_term, shown, too_deep

_TOKEN = re.compile(r"\\[()]|[()]|[^()\\]+|\\")


def read(text: str) -> Node:
    """The tree of `text`. Raises `UsageError` for a weight that is not finite and for deep nesting."""
    return one_term(_read(_TOKEN.findall(text), 1.0, 1))


def escape(text: str) -> str:
    """`text` with a backslash before every round bracket."""
    return re.sub(r"(?=[()])", r"\\", text)


def _read(tokens: list[str], weight: float, depth: int) -> tuple[Node, ...]:
    """The nodes of a stretch that counts `weight`; theirs are relative to what is around them."""
    if depth > MAX_DEPTH + 1:
        raise too_deep()
    out: list[Node] = []
    for stretch in _stretches(tokens):
        if len(stretch) < 2 or stretch[0] != "(" or stretch[-1] != ")":
            out += [
                Node("text", token[1:] if len(token) == 2 and token[0] == "\\" else token)
                for token in stretch
            ]
            continue
        inner, own = _weighted(stretch[1:-1], weight)
        out.append(Node("weighted", weight=own, children=_read(inner, own, depth + 1)))
    return joined(out)


def _stretches(tokens: list[str]) -> Iterator[list[str]]:
    level, start = 0, 0
    for position, token in enumerate(tokens):
        if token == "(":
            if level == 0 and start < position:
                yield tokens[start:position]
                start = position
            level += 1
        elif token == ")":
            level -= 1
            if level == 0:
                yield tokens[start : position + 1]
                start = position + 1
    if start < len(tokens):
        yield tokens[start:]


def _weighted(tokens: list[str], weight: float) -> tuple[list[str], float]:
    """What stands before the last colon and the number after it, or all of it and 1.1 times `weight`."""
    last = next((i for i in reversed(range(len(tokens))) if ":" in tokens[i]), None)
    if last is not None:
        before, _, after = tokens[last].rpartition(":")
        written = after + "".join(tokens[last + 1 :])
        if last or before:
            try:
                value = float(written)
            except ValueError:
                return tokens, weight * 1.1
            if not math.isfinite(value):
                raise UsageError(f"the weight {shown(written)} is not finite; write a number such as 1.2")
            return [*tokens[:last], *([before] if before else [])], value
    return tokens, weight * 1.1
