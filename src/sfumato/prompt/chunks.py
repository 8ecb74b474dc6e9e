"""Chunks: the tokens of a text, cut to the windows of a text encoder as each dialect cuts them."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from sfumato.errors import UsageError, nearest
from sfumato.prompt.meaning import Break, Phrase, WeightedText
from sfumato.prompt.tokenizer import Tokenizer

COMMA_REACH = 20
"""A1111: a full chunk ends at a comma that is at most so many tokens back."""
WHOLE = 8
"""ComfyUI: a run of fewer tokens is not cut in two."""
_NAMED = re.compile(r"embedding:([^\s,()]+)")


@dataclass(frozen=True)
class Slot:
    """One place of a chunk: a token, or one vector of a learned embedding."""

    id: int
    weight: float = 1.0
    part: int = 0
    """The number of the phrase's part that it comes from."""
    vector: tuple[str, int] | None = None
    """The embedding's name, and which of its vectors."""


@dataclass(frozen=True)
class Chunk:
    """What stands between one begin mark and one end mark: at most `limit − 2` slots."""

    slots: tuple[Slot, ...]

    def ids(self, tokenizer: Tokenizer) -> list[int]:
        """All `limit` ids: begin mark, text, end mark, padding."""
        row = [tokenizer.bos, *(slot.id for slot in self.slots), tokenizer.eos]
        return row + [tokenizer.pad] * (tokenizer.limit - len(row))

    def weights(self, tokenizer: Tokenizer) -> list[float]:
        """A weight for each of the `limit` places; marks and padding have 1."""
        row = [1.0, *(slot.weight for slot in self.slots)]
        return row + [1.0] * (tokenizer.limit - len(row))


def chunks(
    phrase: Phrase, tokenizer: Tokenizer, dialect: str, embeddings: Mapping[str, int] | None = None
) -> tuple[list[Chunk], int]:
    """The chunks of `phrase`, at least one, and how many tokens were left out (only `plain` leaves any).

    `embeddings`: the number of vectors of every embedding that can be named. Raises `UsageError`.
    """
    room = tokenizer.limit - 2
    groups = list(_groups(phrase, tokenizer, dialect, embeddings or {}))
    if dialect == "plain":
        slots = [slot for group in groups for slot in group or ()]
        return [Chunk(tuple(slots[:room]))], max(len(slots) - room, 0)
    if dialect == "compel":
        return _by_sentence([slot for group in groups for slot in group or ()], room, tokenizer), 0
    if dialect == "comfy":
        return _by_word(groups, room), 0
    return _by_comma(groups, room, tokenizer.vocab.get(",</w>")), 0


def _groups(
    phrase: Phrase, tokenizer: Tokenizer, dialect: str, embeddings: Mapping[str, int]
) -> Iterator[list[Slot] | None]:
    """The slots of each run of text and of each embedding; `None` for a break."""
    for number, part in enumerate(phrase.parts):
        if isinstance(part, Break):
            yield None
            continue
        for text, name in _split_at_names(part, dialect, embeddings):
            if name is None:
                group = [Slot(token, part.weight, number) for token in tokenizer.encode(text)]
            else:
                room = tokenizer.limit - 2
                if embeddings[name] > room:
                    raise UsageError(
                        f"the embedding {name!r} has {embeddings[name]} vectors; a chunk has room for {room}"
                    )
                group = [Slot(0, part.weight, number, (name, index)) for index in range(embeddings[name])]
            if group:
                yield group


def _split_at_names(
    part: WeightedText, dialect: str, embeddings: Mapping[str, int]
) -> Iterator[tuple[str, str | None]]:
    """`part` as runs of text and names of embeddings: (text, None) and (matched text, name)."""
    known = {name.lower(): name for name in embeddings}
    end = 0
    for match in (_NAMED if dialect == "comfy" else _any_of(embeddings)).finditer(part.text):
        word = match[match.lastindex or 0].lower()
        name = known.get(word) or known.get(word.removesuffix(".safetensors").removesuffix(".pt"))
        if name is None:
            hint = nearest(word, embeddings) if embeddings else "there are none"
            raise UsageError(f"unknown embedding {match[1]!r}; {hint}")
        yield part.text[end : match.start()], None
        yield match[0], name
        end = match.end()
    yield part.text[end:], None


def mentioned(text: str, names: Iterable[str]) -> set[str]:
    """Those of `names` that stand in `text` as words of their own, in any case; the longer of two wins."""
    known = {name.lower(): name for name in names}
    return {known[match[0].lower()] for match in _any_of(known).finditer(text)}


def _any_of(names: Collection[str]) -> re.Pattern[str]:
    """Any of `names` as a word of its own, in any case, the longest first; of no names, nothing."""
    each = [
        (r"(?<!\w)" if name[0].isalnum() else "")
        + re.escape(name)
        + (r"(?!\w)" if name[-1].isalnum() else "")
        for name in sorted(names, key=len, reverse=True)
    ]
    return re.compile("|".join(each) or r"(?!)", re.IGNORECASE)


def _by_comma(groups: Iterable[list[Slot] | None], room: int, comma: int | None) -> list[Chunk]:
    """A1111: a full chunk ends after its last comma, if that is near, and the rest moves to the next one."""
    done: list[Chunk] = []
    slots: list[Slot] = []
    last = -COMMA_REACH  # where the newest comma of this chunk is; at first out of reach

    def end_chunk(at: int) -> None:
        nonlocal slots, last
        done.append(Chunk(tuple(slots[:at])))
        slots, last = slots[at:], -COMMA_REACH

    for group in groups:
        if group is None:
            end_chunk(len(slots))
        elif group[0].vector:
            if len(slots) + len(group) > room:
                end_chunk(len(slots))
            slots += group
        else:
            for slot in group:
                if len(slots) == room:
                    near = slot.id != comma and room - last <= COMMA_REACH
                    end_chunk(last + 1 if near else room)
                if slot.id == comma:
                    last = len(slots)
                slots.append(slot)
    return [*done, Chunk(tuple(slots))] if slots or not done else done


def _by_word(groups: Iterable[list[Slot] | None], room: int) -> list[Chunk]:
    """ComfyUI: a short run of text that does not fit goes to the next chunk as a whole."""
    done: list[Chunk] = []
    slots: list[Slot] = []
    for group in groups:
        rest = group or []
        splits = len(rest) >= WHOLE or len(rest) > room
        while len(slots) + len(rest) > room:
            if splits:
                free = room - len(slots)
                slots, rest = slots + rest[:free], rest[free:]
            done.append(Chunk(tuple(slots)))
            slots = []
        slots += rest
    return [*done, Chunk(tuple(slots))] if slots or not done else done


def _by_sentence(slots: list[Slot], room: int, tokenizer: Tokenizer) -> list[Chunk]:
    """compel: a chunk ends after its last sentence, else phrase, else word."""
    pieces = {number: piece for piece, number in tokenizer.vocab.items()} if len(slots) > room else {}
    ends = (lambda p: p == ".</w>", lambda p: p in _PHRASE_ENDS, lambda p: p.endswith("</w>"))
    found = []
    while len(slots) > room:
        texts = [pieces.get(slot.id, "") for slot in slots[:room]]
        places = (max((i + 1 for i, text in enumerate(texts) if ended(text)), default=0) for ended in ends)
        at = next((place for place in places if place), room)
        found.append(Chunk(tuple(slots[:at])))
        slots = slots[at:]
    return [*found, Chunk(tuple(slots))] if slots or not found else found


_PHRASE_ENDS = {".</w>", ",</w>", ";</w>", ":</w>"}
