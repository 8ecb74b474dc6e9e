"""Where the tokens of a prompt stand in its text, for those who colour it."""

import re
from collections.abc import Iterator, Sequence

from sfumato.prompt.chunks import Slot
from sfumato.prompt.meaning import Phrase, WeightedText
from sfumato.prompt.tokenizer import Tokenizer

Place = tuple[int, int] | None
"""First character and the one after the last, from 0; `None` where a token was not found."""


class Places:
    """Finds the tokens of phrases in `text`, one after another as they are read.

    A part of a phrase is looked for as a whole, then each word where it stands first. Words that the dialect
    wrote otherwise, as with a backslash inside, are not found.
    """

    def __init__(self, text: str, tokenizer: Tokenizer) -> None:
        self._text, self._tokenizer = _folded(text), tokenizer
        self.at = 0
        """Where the next token is looked for."""

    def of(self, phrase: Phrase, slots: Sequence[Slot]) -> list[Place]:
        """The place of each of `slots`, which are those of all chunks of `phrase`."""
        found: list[Place] = []
        part = -1
        for word in self._words(slots):
            if word[0].part != part:
                part = word[0].part
                self._begin(phrase.parts[part])
            found += self._word(word)
        return found

    def _words(self, slots: Sequence[Slot]) -> Iterator[list[Slot]]:
        """The slots of each word, and of each embedding."""
        word: list[Slot] = []
        for slot in slots:
            if word and (slot.part != word[0].part or _name(slot) != _name(word[0])):
                yield word
                word = []
            word.append(slot)
            if slot.vector is None and self._tokenizer.ends_word(slot.id):
                yield word
                word = []
        if word:
            yield word

    def _begin(self, part: object) -> None:
        if isinstance(part, WeightedText) and (place := self._find(_folded(part.text.strip()))):
            self.at = place[0]

    def _word(self, slots: list[Slot]) -> list[Place]:
        name = _name(slots[0])
        texts = [self._tokenizer.text(slot.id) for slot in slots]
        word = _folded(name) if name else self._tokenizer.decode([slot.id for slot in slots])
        place = self._find(word)
        if place is None:
            return [None] * len(slots)
        self.at = place[1]
        if name or "".join(texts) != word:
            return [place] * len(slots)
        places: list[Place] = []
        start = place[0]
        for text in texts:
            places.append((start, start + len(text)))
            start += len(text)
        return places

    def _find(self, text: str) -> Place:
        """Where `text` stands from here on, its first and last letters those of words."""
        before = r"(?<![^\W\d_])" if text[:1].isalpha() else ""
        after = r"(?![^\W\d_])" if text[-1:].isalpha() else ""
        match = re.compile(before + re.escape(text) + after).search(self._text, self.at) if text else None
        return match.span() if match else None


def _name(slot: Slot) -> str | None:
    return slot.vector[0] if slot.vector else None


def _folded(text: str) -> str:
    """`text` in small letters, each at its place."""
    return "".join(small if len(small := letter.lower()) == 1 else letter for letter in text)
