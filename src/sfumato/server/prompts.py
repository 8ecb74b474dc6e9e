"""How a prompt is read, for clients that show it: what it expands to, and every token with its weight."""

from itertools import islice
from typing import TYPE_CHECKING, Any

from pydantic import Field

from sfumato import expansion, folders
from sfumato.prompt.meaning import Content
from sfumato.request import Request
from sfumato.server.jobs import View
from sfumato.server.model_facts import model_facts

if TYPE_CHECKING:
    from sfumato.prompt.explain import Explanation

MOST_EXPANSIONS = 20
"""Fillings of a template that are told."""


class TokenView(View):
    """A token. `start` and `end` count the characters of the text from 0, where the token was found there."""

    text: str
    weight: float
    start: int | None
    end: int | None
    embedding: str | None = Field(description="The learned embedding that it is a vector of.")


class ChunkView(View):
    """What a text encoder reads at once: at most `room` tokens."""

    tokens: tuple[TokenView, ...]
    room: int


class PhraseView(View):
    """One text for the text encoder; `left_out` tokens of it are not read."""

    chunks: tuple[ChunkView, ...]
    left_out: int


class ContentView(View):
    """What a step of the drawing reads; a blend or a chain has several phrases."""

    phrases: tuple[PhraseView, ...]


class TermView(View):
    """One part of an `AND`: step i reads `contents[at[i]]`."""

    weight: float
    at: tuple[int, ...]
    contents: tuple[ContentView, ...]


class CalledAdapter(View):
    """An adapter that the prompt calls; `available`: whether it is in the server's folder."""

    name: str
    weight: float
    text_weight: float | None
    available: bool


class PromptView(View):
    """How a prompt is read.

    `text`: filled in, as the first picture has it. `expansions`: the texts of the first pictures, where
    templates or styles make something else of what was given.
    """

    text: str
    dialect: str
    pictures: int = Field(description="How many pictures it asks for.")
    expansions: tuple[str, ...]
    adapters: tuple[CalledAdapter, ...]
    terms: tuple[TermView, ...]
    tree: tuple[str, ...] = Field(description="The parse, a line for each node.")


def read_prompt(text: str, model: str, *, negative: bool, **fields: Any) -> PromptView:
    """How `model` reads a prompt, with these `fields` of a request. Raises `SfumatoError`."""
    from sfumato.prompt.explain import explain

    facts = model_facts(model)
    given = {"prompt": "", "negative": text} if negative else {"prompt": text}
    request = Request.build(**{**given, "model": model, **fields})
    count = expansion.count(request)
    singles = [each.request for each in islice(expansion.expand(request), min(count, MOST_EXPANSIONS))]
    texts = [single.negative if negative else single.prompt for single in singles]
    steps = request.steps or facts.info.defaults.steps
    counts = facts.embedding_counts(texts[0])
    read = explain(texts[0], facts.tokenizer, request.dialect, steps, counts, negative=negative)
    known = folders.found("adapters")
    return PromptView(
        text=texts[0],
        dialect=request.dialect,
        pictures=count,
        expansions=tuple(texts) if texts != [text] * len(texts) else (),
        adapters=tuple(
            CalledAdapter(
                name=each.name,
                weight=each.weight,
                text_weight=each.text_weight,
                available=each.name in known,
            )
            for each in read.prompt.adapters
        ),
        terms=_terms(read),
        tree=tuple(read.prompt.tree().lines()),
    )


def _terms(read: "Explanation") -> tuple[TermView, ...]:
    terms = []
    begin = 0
    for term in read.terms:
        found = [_content(read, content, begin) for content in term.contents]
        contents = tuple(view for view, _ in found)
        terms.append(TermView(weight=term.weight, at=term.at, contents=contents))
        begin = max(end for _, end in found)
    return tuple(terms)


def _content(read: "Explanation", content: Content, begin: int) -> tuple[ContentView, int]:
    """A content whose text is looked for from the character `begin` on, and where it ends."""
    from sfumato.prompt.explain import phrases_of
    from sfumato.prompt.places import Places

    places = Places(read.prompt.text, read.tokenizer)
    places.at = begin
    phrases = []
    for phrase in phrases_of(content):
        chunks, left_out = read.chunks(phrase)
        found = iter(places.of(phrase, [slot for chunk in chunks for slot in chunk.slots]))
        views = []
        for chunk in chunks:
            tokens = []
            for slot, (text, weight) in zip(chunk.slots, read.tokens(chunk), strict=True):
                start, end = next(found) or (None, None)
                name = slot.vector[0] if slot.vector else None
                tokens.append(TokenView(text=text, weight=weight, start=start, end=end, embedding=name))
            views.append(ChunkView(tokens=tuple(tokens), room=read.tokenizer.limit - 2))
        phrases.append(PhraseView(chunks=tuple(views), left_out=left_out))
    return ContentView(phrases=tuple(phrases)), places.at
