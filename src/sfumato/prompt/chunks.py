"""From a phrase to the chunks of tokens that a text encoder reads, cut as each dialect cuts them."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sfumato.errors import UsageError, nearest
from sfumato.prompt.meaning import Break, Phrase, WeightedText
from sfumato.prompt.tokenizer import Tokenizer

COMMA_REACH = 20
"""A1111: a comma at most so many tokens back is where a full chunk ends."""
WHOLE = 8
"""ComfyUI: a stretch of fewer tokens is not cut in two."""
_NAMED = re.compile(r"embedding:([^\s,()]+)")


@dataclass(frozen=True)
class Slot:
    """One place of a chunk: a token, or one vector of a learned embedding."""

    id: int
    weight: float = 1.0
    piece: int = 0
    """Which part of the phrase it comes from."""
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


@dataclass
class _Filling:
    """Chunks in the making."""

    room: int
    done: list[Chunk] = field(default_factory=list)
    slots: list[Slot] = field(default_factory=list)

    def close(self) -> None:
        self.done.append(Chunk(tuple(self.slots)))
        self.slots = []

    def finish(self) -> list[Chunk]:
        if self.slots or not self.done:
            self.close()
        return self.done


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
        return _by_stretch(groups, room), 0
    return _by_comma(groups, room, tokenizer.vocab.get(",</w>")), 0


def _groups(
    phrase: Phrase, tokenizer: Tokenizer, dialect: str, embeddings: Mapping[str, int]
) -> Iterator[list[Slot] | None]:
    """The slots of each stretch of text and of each embedding; `None` for a break."""
    for number, part in enumerate(phrase.parts):
        if isinstance(part, Break):
            yield None
            continue
        for text, name in _named(part, dialect, embeddings):
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


def _named(
    piece: WeightedText, dialect: str, embeddings: Mapping[str, int]
) -> Iterator[tuple[str, str | None]]:
    """`piece` as stretches of text and names of embeddings: (text, None) and (matched text, name)."""
    if dialect == "comfy":
        pattern: re.Pattern[str] | None = _NAMED
    else:
        pattern = _any_of(embeddings)
    known = {name.lower(): name for name in embeddings}
    end = 0
    for match in pattern.finditer(piece.text) if pattern else ():
        word = match[match.lastindex or 0].lower()
        name = known.get(word) or known.get(word.removesuffix(".safetensors").removesuffix(".pt"))
        if name is None:
            hint = nearest(word, embeddings) if embeddings else "there are none"
            raise UsageError(f"unknown embedding {match[1]!r}; {hint}")
        yield piece.text[end : match.start()], None
        yield match[0], name
        end = match.end()
    yield piece.text[end:], None


def mentioned(text: str, names: Iterable[str]) -> set[str]:
    """Those of `names` that stand in `text` as words of their own, in any case; the longer of two wins."""
    known = {name.lower(): name for name in names}
    pattern = _any_of(known)
    return {known[match[0].lower()] for match in pattern.finditer(text)} if pattern else set()


def _any_of(names: Collection[str]) -> re.Pattern[str] | None:
    """Any of `names` as a word of its own, in any case, the longest first."""
    if not names:
        return None
    each = [
        (r"(?<!\w)" if name[0].isalnum() else "")
        + re.escape(name)
        + (r"(?!\w)" if name[-1].isalnum() else "")
        for name in sorted(names, key=len, reverse=True)
    ]
    return re.compile("|".join(each), re.IGNORECASE)


def _by_comma(groups: Sequence[list[Slot] | None], room: int, comma: int | None) -> list[Chunk]:
    """A1111: a full chunk ends at its last comma, if that is near, and the rest moves to the next one."""
    filling, last = _Filling(room), None

    def move_on() -> None:
        nonlocal last
        at = len(filling.slots) if last is None or len(filling.slots) - last > COMMA_REACH else last + 1
        rest = filling.slots[at:]
        filling.slots = filling.slots[:at]
        filling.close()
        filling.slots, last = rest, None

    for group in groups:
        if group is None:
            filling.close()
            last = None
            continue
        if group[0].vector:
            if len(filling.slots) + len(group) > room:
                filling.close()
                last = None
            filling.slots += group
            continue
        for slot in group:
            if len(filling.slots) == room:
                if slot.id == comma:
                    filling.close()
                    last = None
                else:
                    move_on()
            if slot.id == comma:
                last = len(filling.slots)
            filling.slots.append(slot)
    return filling.finish()


def _by_stretch(groups: Sequence[list[Slot] | None], room: int) -> list[Chunk]:
    """ComfyUI: a short stretch of equal weight that does not fit goes to the next chunk as a whole."""
    filling = _Filling(room)
    for group in groups:
        rest = group or []
        whole = len(rest) < WHOLE
        while rest:
            free = room - len(filling.slots)
            if len(rest) <= free:
                filling.slots += rest
                break
            if not whole:
                filling.slots += rest[:free]
                rest = rest[free:]
            filling.close()
    return filling.finish()


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
