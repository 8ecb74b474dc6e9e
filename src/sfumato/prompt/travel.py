"""Prompt travel: prompts by the number of the frame from which on they hold, mixed from one to the next.

It is what users of AnimateDiff write: `0: a bud` and `8: an open flower` in lines, or a mapping. What they
have in common stands in the prompt itself, before each of them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sfumato.errors import UsageError
from sfumato.prompt.language import Prompt, parse
from sfumato.prompt.meaning import AdapterWeight, Content, PromptTerm, Travel
from sfumato.validation import shown

_LINE = re.compile(r"\s*(\d{1,9})\s*:(.*)", re.DOTALL)


def read_travel(given: Any) -> Any:
    """{frame: text} of texts with a line "8: an open flower" for each, or of what is one already.

    Raises `ValueError` for a line without a number, and for a frame that is given twice.
    """
    if isinstance(given, Mapping) or not isinstance(given, str | list | tuple):
        return given
    found: dict[int, str] = {}
    texts = given.splitlines() if isinstance(given, str) else given
    for text in texts:
        if isinstance(text, str) and not text.strip():
            continue
        match = _LINE.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise ValueError(f"{shown(text)} must be FRAME: TEXT, as 8: an open flower")
        if int(match[1]) in found:
            raise ValueError(f"frame {match[1]} is given twice")
        found[int(match[1])] = match[2].strip()
    return found


def joined(prompt: str, text: str) -> str:
    """What is read at a frame: the `prompt` that all have in common, and the frame's own `text`."""
    return ", ".join(part for part in (prompt.strip().rstrip(","), text.strip()) if part)


@dataclass(frozen=True)
class PromptTravel:
    """The prompts of a clip that `parse_travel` has read; to a drawing it is one `Prompt`.

    `text` is what they have in common, `parts[i]` all of what holds at frame `keys[i]` of `frames`.
    """

    text: str
    dialect: str
    adapters: tuple[AdapterWeight, ...]
    parts: tuple[Prompt, ...]
    keys: tuple[int, ...]
    frames: int
    loop: bool

    def terms(self, steps: int) -> tuple[PromptTerm, ...]:
        """As `Prompt.terms`: one, whose contents are of all frames."""
        each = [term for part in self.parts for term in part.terms(steps)]
        contents: dict[Content, int] = {}
        at = []
        for step in range(steps):
            parts = tuple(term.contents[term.at[step]] for term in each)
            content = Travel(parts, self.keys, self.frames, self.loop)
            at.append(contents.setdefault(content, len(contents)))
        return (PromptTerm(tuple(contents), tuple(at)),)


def parse_travel(
    prompt: str, travel: Mapping[int, str], frames: int, *, loop: bool = False, dialect: str = "sfumato"
) -> PromptTravel:
    """`prompt` and the texts by frames of `travel`, read as `dialect` does.

    Raises `UsageError` as `parse` does, for AND, and for an adapter that a frame's text calls.
    """
    common = parse(prompt, dialect)
    for frame, text in travel.items():
        if called := parse(text, dialect).adapters:
            raise UsageError(
                f"frame {frame} of travel calls the adapter {called[0].name!r}, which works in all frames: "
                "call it in the prompt"
            )
    keys = tuple(sorted(travel))
    parts = tuple(parse(joined(prompt, travel[key]), dialect) for key in keys)
    if any(len(part.terms(1)) > 1 for part in parts):
        raise UsageError("travel and AND exclude each other: each frame reads one prompt")
    return PromptTravel(prompt, dialect, common.adapters, parts, keys, frames, loop)
