"""What `sfumato prompt` shows is what the text encoder reads, in every dialect and with either vocabulary."""

import re

import pytest

from sfumato import checkpoint
from sfumato.checkpoint.vocabulary import clip_tokenizer
from sfumato.names import DIALECTS
from sfumato.prompt.explain import explain
from sfumato.prompt.tokenizer import Tokenizer

TOKENIZERS = {
    "embedded": lambda: Tokenizer.load(checkpoint.embedded() / "tokenizer"),
    "clip": clip_tokenizer,
    "clip padded with !": lambda: clip_tokenizer(pad="!"),
}
PROMPTS = {
    "compel": ["(tall)1.3 oak", "tall++ oak-- tree", "(a tall)1.2 (oak)0.8, sunny", "a (b(c)1.2 d)1.3!"],
    "sfumato": ["a (red:1.3) apple, (soft)er", "a(b:1.2)c", "(wow!:1.2)(!:1.3) 1(2:1.1)3"],
    "a1111": ["a (red:1.3) apple", "(a)[b]c, ((d))", "(wow!:1.2)(!:1.3)"],
    "comfy": ["a (red:1.3) apple", "(a:1.2)b", r"\(a\)(b)"],
    "plain": ["a (red:1.3) apple", "a   b,c  "],
}


def test_every_dialect_is_tried():
    assert set(PROMPTS) == set(DIALECTS)


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize(("dialect", "text"), [(name, text) for name in PROMPTS for text in PROMPTS[name]])
def test_the_words_shown_are_those_whose_tokens_are_read(tokenizer, dialect, text):
    tokenizer = TOKENIZERS[tokenizer]()
    read = explain(text, tokenizer, dialect, steps=1)
    ((chunk,), dropped) = read.chunks(read.terms[0].contents[0])
    (shown,) = re.findall(r'^  "(.*)"$', "\n".join(read.lines()), re.MULTILINE)
    assert dropped == 0
    assert tokenizer.encode(shown) == [slot.id for slot in chunk.slots]


def test_words_of_different_weights_stand_apart():
    lines = list(explain("(tall)1.3 oak", TOKENIZERS["clip"](), "compel").lines())
    assert lines[-3:] == ['  "tall oak"', "    2 of 75 tokens", "      tall×1.3 oak"]


def test_what_each_step_reads_is_said_where_it_changes():
    lines = [*explain("a [red:blue:0.5] apple", TOKENIZERS["clip"](), steps=4).lines()]
    assert [line for line in lines if line.startswith("  step")] == [
        '  steps 1–2: "a red apple"',
        '  steps 3–4: "a blue apple"',
    ]


def test_it_is_told_in_json_as_well():
    read = explain("a (red:1.5) cat <lora:old:0.5> AND [sky:sea:0.5]:0.4", TOKENIZERS["clip"](), steps=2)
    told = read.to_dict()
    assert told["dialect"] == "sfumato"
    assert [each["name"] for each in told["adapters"]] == ["old"]
    first, second = told["terms"]
    assert (first["weight"], second["weight"]) == (1.0, 0.4)
    assert (first["at"], second["at"]) == ((0, 0), (0, 1))
    assert first["contents"] == [[[[("a", 1.0), ("red", 1.5), ("cat", 1.0)]]]]
    assert second["contents"] == [[[[(word, 1.0)]]] for word in ("sky", "sea")]
    assert told["tree"] == list(read.prompt.tree().lines())
