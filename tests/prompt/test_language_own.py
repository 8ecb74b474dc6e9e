"""The default dialect: what it reads, and the errors it gives instead of A1111's quirks."""

import pytest

from sfumato.errors import UsageError
from sfumato.prompt.language import parse
from sfumato.prompt.meaning import AdapterWeight, Break, Phrase, WeightedText


def pieces(text):
    (term,) = parse(text).terms(1)
    (content,) = term.contents
    return [(part.text, part.weight) if isinstance(part, WeightedText) else part for part in content.parts]


def said(text, steps):
    (term,) = parse(text).terms(steps)
    texts = ["".join(part.text for part in content.parts) for content in term.contents]
    return [texts[index] for index in term.at]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [("", 1)]),
        ("a cat", [("a cat", 1)]),
        ("a (cat)", [("a ", 1), ("cat", 1.1)]),
        ("((a))", [("a", 1.21)]),
        ("[a]", [("a", 1 / 1.1)]),
        ("([a]) b", [("a b", 1)]),
        ("(a:1.3)", [("a", 1.3)]),
        ("(a: 1.3 )", [("a", 1.3)]),
        ("(a:+.5)", [("a", 0.5)]),
        ("(a:-1)", [("a", -1)]),
        ("(a:0)b", [("a", 0), ("b", 1)]),
        ("((a:1.2):1.5)", [("a", 1.8)]),
        ("(a (b:0.5) c:2)", [("a ", 2), ("b", 1), (" c", 2)]),
        ("(a)(b)", [("ab", 1.1)]),
        ("()[]", [("", 1)]),
        (r"\(a\) \[b\] \\ \a \:", [(r"(a) [b] \ a :", 1)]),
        (r"(a\:1.2)", [("a:1.2", 1.1)]),
        ("a BREAK b", [("a", 1), Break(), ("b", 1)]),
        ("BREAK", [Break()]),
        ("(a BREAK b:1.2)", [("a", 1.2), Break(), ("b", 1.2)]),
        ("a BREAK BREAK b", [("a", 1), Break(), Break(), ("b", 1)]),
        (r"\BREAK a", [("BREAK a", 1)]),
        ("BREAKING bad", [("BREAKING bad", 1)]),
    ],
)
def test_attention(text, expected):
    got = pieces(text)
    assert [
        part if isinstance(part, Break) else (part[0], pytest.approx(part[1])) for part in got
    ] == expected


@pytest.mark.parametrize(
    "text",
    [
        "a 3:2 picture",
        "rock & roll",
        "AND1 shoes, SAND, and BRANDY",
        "at 12:30, 50% off!",
        "what? no: never; really...",
        "a | b",
        "I <3 it, a < b > c, <my-concept>",
        "aspect ratio 3:2",
        "{curly} ~tilde~ *star* #tag _under_ \"quoted\" 'single'",
    ],
)
def test_ordinary_punctuation_is_text(text):
    assert pieces(text) == [(text, 1.0)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a cat (sitting)", [("a cat ", 1), ("sitting", 1.1)]),
        ("what? [no]", [("what? ", 1), ("no", 1 / 1.1)]),
        ("a (3:2 picture)", [("a ", 1), ("3:2 picture", 1.1)]),
        ("[note: this]", [("note: this", 1 / 1.1)]),
        ("(wait...)", [("wait...", 1.1)]),
        ("(end:...)", [("end:...", 1.1)]),
        ("(a|b)", [("a|b", 1.1)]),
    ],
)
def test_signs_in_brackets_that_mean_nothing_are_text(text, expected):
    assert pieces(text) == [(words, pytest.approx(weight)) for words, weight in expected]


@pytest.mark.parametrize(
    ("text", "steps", "expected"),
    [
        ("[a:b:2]", 4, "aabb"),
        ("[a:b: 2 ]", 4, "aabb"),
        ("[a:b:0]", 3, "bbb"),
        ("[a:b:9]", 3, "aaa"),
        ("[a:b:0.5]", 4, "aabb"),
        ("[a:b:0.5]", 5, "aabbb"),
        ("[a:b:.25]", 4, "abbb"),
        ("[a:b:0.0]", 3, "bbb"),
        ("[a:b:1.0]", 3, "aaa"),
        ("[a:b:0.29]", 100, "a" * 29 + "b" * 71),
        ("[b:2]", 4, ["", "", "b", "b"]),
        ("[a::2]", 4, ["a", "a", "", ""]),
        ("[:b:1]", 2, ["", "b"]),
        ("x[a:[b:c:3]:1]y", 4, ["xay", "xby", "xby", "xcy"]),
        ("[[a:b:1]:c:2]", 3, "abc"),
        ("[a|b]", 5, "ababa"),
        ("[a|b|c]", 4, "abca"),
        ("[a|]x", 3, ["ax", "x", "ax"]),
        ("[|a]", 2, ["", "a"]),
        ("[a|[b|c]]", 4, "acac"),
        ("[[a|b]:c:2]", 4, "abcc"),
        ("[1:2|b]", 2, ["1:2", "b"]),
        ("[a|b][c|d|e]", 6, ["ac", "bd", "ae", "bc", "ad", "be"]),
        ("(x[a:b:1]:1.2)", 2, ["xa", "xb"]),
        (r"[a\|b|c]", 2, ["a|b", "c"]),
    ],
)
def test_schedules(text, steps, expected):
    assert said(text, steps) == list(expected)


def test_a_schedule_holds_weights_and_breaks():
    (term,) = parse("a [(b:1.5):c BREAK d:1]").terms(2)
    assert term.contents == (
        Phrase((WeightedText("a "), WeightedText("b", 1.5))),
        Phrase((WeightedText("a c"), Break(), WeightedText("d"))),
    )


def test_alternatives_that_say_the_same_are_one_content():
    (term,) = parse("[a|b|a]").terms(6)
    assert (len(term.contents), term.at) == (2, (0, 1, 0, 0, 1, 0))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a AND b", [("a", 1), ("b", 1)]),
        ("a :1.2 AND b:-0.5", [("a", 1.2), ("b", -0.5)]),
        ("a:2 AND b AND c: .5 ", [("a", 2), ("b", 1), ("c", 0.5)]),
        (r"a\:2 AND b", [("a:2", 1), ("b", 1)]),
        ("a:2", [("a:2", 1)]),
        (r"a \AND b", [("a AND b", 1)]),
        ("a:2 b AND c", [("a:2 b", 1), ("c", 1)]),
    ],
)
def test_and_joins_terms_with_weights(text, expected):
    got = parse(text, negative=True).terms(1)
    assert [(term.contents[0].parts[0].text, term.weight) for term in got] == expected


def test_each_term_has_its_own_schedule():
    first, second = parse("[a:b:1] AND c").terms(3)
    assert (first.at, second.at) == ((0, 1, 1), (0, 0, 0))


@pytest.mark.parametrize(
    ("tag", "call"),
    [
        ("<lora:ink>", AdapterWeight("ink")),
        ("<lora:ink:0.8>", AdapterWeight("ink", 0.8)),
        ("<lyco:ink:-1>", AdapterWeight("ink", -1.0)),
        ("<lora:ink:0.8:0.5>", AdapterWeight("ink", 0.8, 0.5)),
        ("<lora:my ink v1.2:1>", AdapterWeight("my ink v1.2")),
        ("<lora:ink:te=0.5:unet=0.8>", AdapterWeight("ink", 0.8, 0.5)),
        ("<lora:ink:0.8:te=0>", AdapterWeight("ink", 0.8, 0.0)),
    ],
)
def test_adapters_are_taken_out_of_the_text(tag, call):
    prompt = parse(f"a{tag} cat (b{tag}:1.2)")
    assert prompt.adapters == (call, call)
    assert pieces(f"a{tag} cat") == [("a cat", 1.0)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (":)", r"'\)' closes nothing; write \\\) .*character 2, at .\)"),
        (":(", r"'\(' is never closed; write \\\( .*character 2"),
        ("a (b", r"'\(' is never closed.*character 3, at .\(b"),
        ("a (b (c)", r"never closed.*character 3"),
        ("(a:1.2", r"'\(' is never closed.*character 1"),
        ("a]", r"'\]' closes nothing; write \\\]"),
        ("a:1.2)", r"'\)' closes nothing.*character 6"),
        ("(a]", r"'\]' cannot close '\(' of character 1"),
        ("[a:1.2)", r"'\)' cannot close '\[' of character 1.*character 7"),
        ("(a:1.2.3)", r'the weight is "1.2.3".*finite number such as 1.2 .character 3, at .:1.2.3'),
        ("(a:10.1)", r"outside -10 to 10; write \\:"),
        ("(made in:1999)", r"outside -10 to 10; write \\:"),
        ("((a:5):5)", r'weights around "a" multiply to 25'),
        ("a:11 AND b", "outside -10 to 10"),
        ("[a:b:1.5]", r"neither a step from 0 nor a fraction from 0.0 to 1.0"),
        ("[a:b:-1]", "neither a step"),
        ("[a:b:0.5.5]", r'when to switch is "0.5.5"'),
        ("[a:b:c]", r"needs a step or a fraction.*\[cat:dog:0.5\]"),
        ("[a:b:c:5]", "two texts at most"),
        ("[a|b:0.5]", r"\[\[a\|b\]:c:0.5\]"),
        ("a AND", "one of them is empty"),
        ("AND", r"write \\AND"),
        ("a :1.2 AND :2", "one of them is empty"),
        ("(a AND b)", r"cannot stand in brackets; write \\AND .*character 4"),
        ("[a|b AND c]", "cannot stand in brackets"),
        ("(a:1.2 AND b)", "cannot stand in brackets"),
        ("a\\", r"ends with a backslash.*write \\\\"),
        ("<lora:ink", r"lacks its >; write \\<"),
        ("<lora:>", "names no adapter"),
        ("<lora:ink:x>", r'the weight in "<lora:ink:x>" is "x"'),
        ("<lora:ink:inf>", "finite"),
        ("<lora:ink:99>", "outside -10 to 10"),
        ("<lora:ink:1:1:1>", "3 weights; at most two"),
        ("<lora:ink:dyn=4>", "only te= and unet="),
        ("<hypernet:x:1>", "hypernetworks are not read"),
        ("[a<lora:ink:1>:3]", r"works at every step; call it outside \[ \]"),
        ("[(a<lora:ink:1>)|b]", "works at every step"),
        (" AND ".join("a" * 101), "AND joins 101 parts; at most 100"),
    ],
)
def test_errors_say_what_and_where_and_what_would_be_right(text, message):
    with pytest.raises(UsageError, match=message):
        parse(text)
