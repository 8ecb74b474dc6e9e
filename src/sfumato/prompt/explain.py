"""How a prompt is read, for a person: its parts, what each step draws, and every token with its weight."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from textwrap import wrap
from typing import Any

from sfumato.prompt.chunks import Chunk, chunks
from sfumato.prompt.language import Prompt, parse
from sfumato.prompt.meaning import Content, Phrase, PromptTerm, WeightedText
from sfumato.prompt.tokenizer import Tokenizer

_WIDTH = 100


@dataclass(frozen=True)
class Explanation:
    """A prompt's parse and, for one tokenizer and number of steps, what it comes to."""

    prompt: Prompt
    terms: tuple[PromptTerm, ...]
    tokenizer: Tokenizer
    embeddings: Mapping[str, int]

    def lines(self) -> Iterator[str]:
        """The whole as text."""
        yield from self.prompt.tree().lines()
        for adapter in self.prompt.adapters:
            own = "" if adapter.text_weight is None else f", {adapter.text_weight:g} on the text"
            yield f"adapter {adapter.name} ×{adapter.weight:g}{own}"
        for number, term in enumerate(self.terms, start=1):
            yield ""
            yield f"term {number}" + (
                f" of {len(self.terms)}, weight {term.weight:g}" if self.terms[1:] else ""
            )
            for steps, index in _spans(term):
                if len(term.contents) > 1:
                    yield f"  {steps}: {_text(term.contents[index])}"
            for content in term.contents:
                for phrase in phrases_of(content):
                    yield from self._phrase(phrase)

    def _phrase(self, phrase: Phrase) -> Iterator[str]:
        cut, dropped = self.chunks(phrase)
        yield f"  {_text(phrase)}"
        for number, chunk in enumerate(cut, start=1):
            where = f"chunk {number} of {len(cut)}, " if len(cut) > 1 else ""
            yield f"    {where}{len(chunk.slots)} of {self.tokenizer.limit - 2} tokens"
            words = [token + (f"×{weight:g}" if weight != 1 else "") for token, weight in self.tokens(chunk)]
            yield from wrap(
                " ".join(words), _WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6,
                break_long_words=False, break_on_hyphens=False,
            )  # fmt: skip
        if dropped:
            yield f"    {dropped} tokens more are not read"

    def chunks(self, phrase: Phrase) -> tuple[list[Chunk], int]:
        """The chunks of one phrase, and how many tokens are left out."""
        return chunks(phrase, self.tokenizer, self.prompt.dialect, self.embeddings)

    def tokens(self, chunk: Chunk) -> Iterator[tuple[str, float]]:
        """Every token of a chunk as text, with its weight; a learned embedding's as `name[index]`."""
        for slot in chunk.slots:
            vector = f"{slot.vector[0]}[{slot.vector[1]}]" if slot.vector else ""
            yield vector or self.tokenizer.text(slot.id), slot.weight

    def to_dict(self) -> dict[str, Any]:
        """The whole as JSON would hold it."""

        def tokens(content: Content) -> list[list[list[tuple[str, float]]]]:
            cuts = (self.chunks(phrase)[0] for phrase in phrases_of(content))
            return [[list(self.tokens(chunk)) for chunk in cut] for cut in cuts]

        return {
            "dialect": self.prompt.dialect,
            "tree": list(self.prompt.tree().lines()),
            "adapters": [vars(adapter) for adapter in self.prompt.adapters],
            "terms": [
                {"weight": term.weight, "at": term.at, "contents": [tokens(each) for each in term.contents]}
                for term in self.terms
            ],
        }


def explain(
    text: str,
    tokenizer: Tokenizer,
    dialect: str = "sfumato",
    steps: int = 20,
    embeddings: Mapping[str, int] | None = None,
    *,
    negative: bool = False,
) -> Explanation:
    """What `text`, or a `negative` one, comes to in a drawing of `steps` steps, for one text encoder's
    `tokenizer`.

    `embeddings`: the number of vectors of each that may be named. Raises `UsageError` as `parse` does.
    """
    prompt = parse(text, dialect, negative=negative)
    return Explanation(prompt, prompt.terms(steps), tokenizer, embeddings or {})


def _spans(term: PromptTerm) -> Iterator[tuple[str, int]]:
    """Stretches of steps, counted from 1 as people do, and the content that they read."""
    for index, steps in groupby(range(len(term.at)), lambda step: term.at[step]):
        first, *rest = steps
        yield (f"steps {first + 1}–{rest[-1] + 1}" if rest else f"step {first + 1}"), index


def phrases_of(content: Content) -> Sequence[Phrase]:
    """The phrases that a blend or a chain is made of, in order."""
    if isinstance(content, Phrase):
        return [content]
    return [phrase for part in content.parts for phrase in phrases_of(part)]


def _text(content: Content) -> str:
    return ", ".join(f'"{_words(phrase)}"' for phrase in phrases_of(content))


def _words(phrase: Phrase) -> str:
    """The text of a phrase. Each part is cut into tokens by itself: none joins the next."""
    words = ""
    for part in phrase.parts:
        text = part.text if isinstance(part, WeightedText) else " BREAK "
        ends, begins = words[-1:], text[:1]
        apart = not ends or ends.isspace() or begins.isspace() or ends.isalnum() != begins.isalnum()
        words += text if apart else f" {text}"
    return words.strip()
