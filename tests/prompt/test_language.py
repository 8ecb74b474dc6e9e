"""What every dialect promises: errors of one kind, bounded time, and a way to write any text as itself."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sfumato.errors import UsageError
from sfumato.names import DIALECTS
from sfumato.prompt.language import escape, parse
from sfumato.prompt.meaning import MAX_CHARACTERS, Blend, Concatenation, Phrase, WeightedText

SYNTAX = "()[]:|\\<>+-.,\"'#= 0125aé\n_"
WORDS = ["AND", "BREAK", "<lora:x:1>", "(a:1.2)", "[a:b:2]", "[a|b]", ".blend(1)", "withLora(", "1.2.3", ":)"]
soup = st.lists(st.one_of(st.sampled_from([*SYNTAX, *WORDS]), st.text(max_size=3)), max_size=12).map("".join)
dialects = st.sampled_from(list(DIALECTS))


def phrases(content):
    if isinstance(content, Phrase):
        return [content]
    return [phrase for part in content.parts for phrase in phrases(part)]


def read(text, dialect, steps, negative=False):
    try:
        prompt = parse(text, dialect, negative=negative)
        return prompt, prompt.terms(steps)
    except UsageError as error:
        return error, ()


def words(text, dialect, steps=3):
    terms = parse(text, dialect).terms(steps)
    return [
        "".join(part.text for part in phrase.parts if isinstance(part, WeightedText))
        for term in terms
        for content in term.contents
        for phrase in phrases(content)
    ]


@settings(max_examples=400)
@given(soup, dialects, st.booleans())
@example("(" * 200, "a1111", False)
def test_any_text_is_read_or_refused_with_a_usage_error(text, dialect, negative):
    prompt, terms = read(text, dialect, 3, negative=negative)
    if isinstance(prompt, UsageError):
        assert str(prompt).isprintable()
        return
    assert all(line.isprintable() for line in prompt.tree().lines())
    for term in terms:
        assert len(term.at) == 3
        assert list(dict.fromkeys(term.at)) == list(range(len(term.contents)))
        assert len(set(term.contents)) == len(term.contents)
        for content in term.contents:
            assert all(phrase.parts for phrase in phrases(content))


@settings(max_examples=400)
@given(soup, st.sampled_from(["sfumato", "comfy", "plain"]))
def test_an_escaped_text_reads_as_itself(text, dialect):
    (term,) = parse(escape(text, dialect), dialect).terms(2)
    assert term.contents == (Phrase((WeightedText(text),)),)


@settings(max_examples=400)
@given(soup.filter(lambda text: "#" not in text), st.booleans())
@example("a:1.5", False)
@example("a ", False)
@example("\\BREAK<AND:>", False)
def test_an_escaped_text_reads_as_itself_in_a1111_unless_it_has_a_comment_sign(text, negative):
    (term,) = parse(escape(text, "a1111"), "a1111", negative=negative).terms(2)
    assert term.contents == (Phrase((WeightedText(text),)),)


def test_a_comment_sign_cannot_be_escaped_in_a1111():
    with pytest.raises(UsageError, match="cannot say '#'"):
        escape("number #1", "a1111")


@settings(max_examples=300)
@given(soup)
def test_an_escaped_text_reads_as_itself_in_compel_or_is_refused(text):
    try:
        written = escape(text, "compel")
    except UsageError:
        return
    (said,) = words(written, "compel")
    assert said.replace(" ", "") == "".join(text.split())


@pytest.mark.parametrize("text", ['a "cat" (sitting), really', "hard-boiled", "a (b"])
def test_compel_can_say_ordinary_sentences(text):
    assert words(escape(text, "compel"), "compel") == [text]


def test_compel_cannot_say_a_word_that_ends_in_a_plus():
    with pytest.raises(UsageError, match="compel prompts cannot say"):
        escape("c++", "compel")


@settings(max_examples=200)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters='()[]:|\\<#+-"')), dialects)
def test_text_without_signs_is_preserved(text, dialect):
    said = words(text, dialect)
    if dialect == "compel":
        assert ["".join(part.split()) for part in said] == ["".join(text.split())]
    elif dialect == "a1111":
        assert said == [text.rstrip()]
    else:
        assert said == [text]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "text",
    ["кот и собака", "ねこ、いぬ。", "قطة وكلب", "बिल्ली", "🐈‍⬛ 👩🏽‍🚀", "a\0b", "e\u0301 \u202eabc", "𝔘𝔫𝔦"],
)
def test_every_script_is_text(text, dialect):
    assert words(text, dialect) == [text]


HOSTILE = {
    "opening brackets": "(" * 10_000,
    "nested brackets": "(" * 10_000 + ")" * 10_000,
    "nested square brackets": "[" * 10_000 + "a" + "]" * 10_000,
    "interleaved brackets": "([" * 5_000 + "])" * 5_000,
    "pairs": "()" * 10_000,
    "opening brackets with spaces": "( " * 20_000,
    "colons": ": " * 10_000,
    "bars": "|" * 20_000,
    "backslashes": "\\" * 20_001,
    "a long weight": "(a:" + "1" * 90_000 + ")",
    "a long unclosed weight": "(a:" + "1" * 90_000,
    "a long step": "[a:" + "1" * 90_000 + "]",
    "a weight and spaces": "(a:1" + " " * 90_000 + "x)",
    "spaces before a break": " " * 90_000 + "BREAK",
    "adapters never closed": "<lora:" * 15_000,
    "angles": "<a:" * 10_000,
    "many terms": "a AND " * 10_000 + "a",
    "alternation": "[" + "a|" * 10_000 + "b]",
    "many switches": "".join(f"[a:b:{step % 1000}]" for step in range(4_000)),
    "quotes": '"' * 50_000,
    "unclosed quotations": '"a ' * 20_000,
    "signs": "+-" * 10_000,
    "brackets in quotations in brackets": "(" * 90 + '"' + "(" * 90 + "a" + ")" * 90 + '"' + ")" * 90,
    "comments": "\n#" * 10_000,
    "half a surrogate pair": "a\ud800b",
    "a megabyte": "a cat " * 170_000,
}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_text_ends_in_an_answer_or_a_usage_error(text, dialect):
    prompt, terms = read(text, dialect, 50)
    assert all(len(term.at) == 50 for term in terms)
    assert len(str(prompt)) < 400 or not isinstance(prompt, UsageError)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_half_a_surrogate_pair_and_too_long_a_text_are_errors_everywhere(dialect):
    with pytest.raises(UsageError, match=r"half of a surrogate pair \(character 3"):
        parse("ab\udc00", dialect)
    with pytest.raises(UsageError, match=r"100,001 characters; at most 100,000"):
        parse("a" * (MAX_CHARACTERS + 1), dialect)


@pytest.mark.parametrize(
    ("dialect", "text"),
    [
        ("sfumato", "[(" * 51 + "a" + ")]" * 51),
        ("a1111", "[(" * 51 + "a" + ")]" * 51),
        ("comfy", "(" * 101 + "a" + ")" * 101),
        ("compel", "(" * 101 + "a" + ")" * 101),
    ],
)
def test_brackets_may_nest_a_hundred_deep(dialect, text):
    assert parse(text[1:-1] if dialect in ("comfy", "compel") else text[2:-2], dialect).terms(1)
    with pytest.raises(UsageError, match="more than 100 deep"):
        parse(text, dialect)


def test_a_schedule_that_spells_out_too_much_is_refused():
    prompt = parse("[" + "|".join("abcdefghij") + "]" + "x" * 50_000)
    assert len(prompt.terms(10)[0].contents) == 10
    text = "[" + "|".join(str(number) for number in range(100)) + "]" + "x" * 50_000
    with pytest.raises(UsageError, match="take fewer steps"):
        parse(text).terms(100)


def test_unknown_dialects_and_no_steps_are_refused():
    with pytest.raises(UsageError, match="did you mean 'compel'"):
        parse("a", "compell")
    with pytest.raises(UsageError, match="did you mean 'comfy'"):
        escape("a", "comfyui")
    with pytest.raises(UsageError, match="1 step or more, not 0"):
        parse("a").terms(0)


@pytest.mark.parametrize("text", ["", "(a:1.2) [b:c:3] AND <lora:x:1> BREAK \\", "a\ncat"])
def test_plain_is_one_piece_whatever_the_characters(text):
    prompt = parse(text, "plain")
    (term,) = prompt.terms(3)
    assert (term.contents, term.at, prompt.adapters) == ((Phrase((WeightedText(text),)),), (0, 0, 0), ())


@pytest.mark.parametrize(
    ("dialect", "text", "lines"),
    [
        (
            "sfumato",
            "a (cat:1.2) BREAK [dog:fox:0.5] AND [b|c] :0.7",
            [
                'prompt', '  term', '    text "a "', '    weighted ×1.2', '      text "cat"', '    text " "',
                '    break', '    text " "', '    switch at 0.5 of the steps', '      group',
                '        text "dog"', '      group', '        text "fox"', '  term ×0.7', '    alternate',
                '      group', '        text "b"', '      group', '        text "c"',
            ],
        ),
        ("a1111", "(a BREAK", [
            "prompt", "  term", "    weighted ×1.1", '      text "a"', "    weighted ×-1.1",
            '      text "BREAK"',
        ]),
        ("a1111", "(x [a:3])", [
            "prompt", "  term", '    text "(x "', "    switch at step 3", "      group", "      group",
            '        text "a"', '    text ")"',
        ]),
        ("compel", '("a", "b+").blend(1, 2, no_normalize)', [
            "prompt", "  term", "    blend no_normalize", "      group", '        text "a"', "      group ×2",
            "        weighted ×1.1", '          text "b"',
        ]),
    ],
)  # fmt: skip
def test_the_tree_shows_the_parse(dialect, text, lines):
    assert list(parse(text, dialect).tree().lines()) == lines


def test_only_compel_blends_and_joins():
    text = '("a", "b").blend(1, 2)'
    kinds = {dialect: type(parse(text, dialect).terms(1)[0].contents[0]) for dialect in DIALECTS}
    assert kinds.pop("compel") is Blend
    assert set(kinds.values()) == {Phrase}
    assert isinstance(parse('("a", "b").and()', "compel").terms(1)[0].contents[0], Concatenation)


@pytest.mark.parametrize("dialect", ["sfumato", "compel"])
def test_negative_prompts_call_no_adapters(dialect):
    text = {"sfumato": "ugly <lora:bad:1>", "compel": "ugly withLora(bad)"}[dialect]
    assert parse(text, dialect).adapters[0].name == "bad"
    with pytest.raises(UsageError, match="negative prompt calls the adapter 'bad'"):
        parse(text, dialect, negative=True)
