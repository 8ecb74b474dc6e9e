"""A1111's dialect against vectors worked out from its documented rules, quirks included."""

import pytest

from sfumato.errors import UsageError
from sfumato.prompt.language import escape, parse
from sfumato.prompt.meaning import AdapterWeight, Break, WeightedText


def pieces(text, negative=False):
    (term,) = parse(text, "a1111", negative=negative).terms(1)
    return [
        (part.text, part.weight) if isinstance(part, WeightedText) else part
        for part in term.contents[0].parts
    ]


def said(text, steps):
    (term,) = parse(text, "a1111").terms(steps)
    texts = ["".join(part.text for part in content.parts) for content in term.contents]
    return [texts[index] for index in term.at]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [("", 1)]),
        ("plain words", [("plain words", 1)]),
        ("an (old) tree", [("an ", 1), ("old", 1.1), (" tree", 1)]),
        ("[old] tree", [("old", 1 / 1.1), (" tree", 1)]),
        ("((a:1.2):1.5)", [("a", 1.2 * 1.5)]),
        ("(a (b) c:2)", [("a ", 2), ("b", 1.1 * 2), (" c", 2)]),
        ("((sun:1.3)) [on] a", [("sun", 1.3 * 1.1), (" ", 1), ("on", 1 / 1.1), (" a", 1)]),
        ("(((sun:1.3)) [on] a", [("sun", 1.3 * 1.1 * 1.1), (" ", 1.1), ("on", 1.0), (" a", 1.1)]),
        ("(a)(b)", [("ab", 1.1)]),
        ("(a: -0.5 )", [("a", -0.5)]),
        ("(open", [("open", 1.1)]),
        ("(a:1.2 b", [("a:1.2 b", 1.1)]),
        ("[open", [("open", 1 / 1.1)]),
        ("(a [b) c", [("a ", 1.1), ("b", 1.1 * (1 / 1.1)), (" c", 1 / 1.1)]),
        ("stray) and ] here", [("stray) and ] here", 1)]),
        ("a:1.2) b", [("a:1.2) b", 1)]),
        ("()[]", [("", 1)]),
        (r"\(a\) \[b\] \\", [("(a) [b] \\", 1)]),
        (r"a\b \: c\!", [("ab : c!", 1)]),
        (r"(a\):1.2)", [("a)", 1.2)]),
        ("(a:b)", [("a:b", 1.1)]),
        ("(a:b:1.2)", [("a:b", 1.2)]),
        ("a BREAK b", [("a", 1), Break(), ("b", 1)]),
        ("a, BREAK\n b", [("a,", 1), Break(), ("b", 1)]),
        ("(a)BREAK(b)", [("a", 1.1), Break(), ("b", 1.1)]),
        ("BREAKS", [("BREAKS", 1)]),
        (r"BR\EAK", [("BREAK", 1)]),
        ("(a BREAK b:1.5)", [("a", 1.5), ("BREAK", -1.5), ("b", 1.5)]),
        ("(BREAK:1.0)", [Break()]),
        ("a # not this\nb", [("a \nb", 1)]),
        ("# nor this\nb", [("\nb", 1)]),
        ("trailing  ", [("trailing", 1)]),
        ("  leading", [("  leading", 1)]),
    ],
)
def test_attention(text, expected):
    got = pieces(text)
    assert [
        part if isinstance(part, Break) else (part[0], pytest.approx(part[1])) for part in got
    ] == expected


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("a [b:3]", [(3, "a "), (10, "a b")]),
        ("a [b: 3 ]", [(3, "a "), (10, "a b")]),
        ("a [b::3]", [(3, "a b"), (10, "a ")]),
        ("[(a:2) c:3]", [(3, ""), (10, "a c")]),
        ("a [b : c : 1] d", [(1, "a b  d"), (10, "a  c  d")]),
        ("a[b:[c:d:2]:1]e", [(1, "abe"), (2, "ace"), (10, "ade")]),
        ("a [b:.5] c", [(5, "a  c"), (10, "a b c")]),
        ("[a:b:0.25]", [(2, "a"), (10, "b")]),
        ("[a:b:1.0]", [(10, "a")]),
        ("[a:b:0]", [(10, "b")]),
        ("[a:b:-2]", [(10, "b")]),
        ("[a:b:99]", [(10, "a")]),
        ("[a:b:2e0]", [(2, "a"), (10, "b")]),
        ("a [unbalanced", [(10, "a unbalanced")]),
        ("((a][:b:c [d:3]", [(3, "a]:b:c "), (10, "a]:b:c d")]),
        ("[a:[b:c:5]", [(5, "a:b"), (10, "a:c")]),
        ("[a:b]", [(10, "a:b")]),
        ("[a:b:c:5]", [(10, "a:b:c:5")]),
        ("(x:[a:b:4]:1.2)", [(4, "x:a"), (10, "x:b")]),
        ("[a|b] c | d", [(10, "a|b c | d")]),
        ("[a|b:5] [c:d:3]", [(10, "a|b:5 c:d:3")]),
        (r"\[a:b:3\]", [(10, "[a:b:3]")]),
    ],
)
def test_schedules_switch_where_webui_says(text, spelled):
    """WebUI gives texts with the step, from 1, at which each ends; its sampler counts from 0."""
    expected = [next(words for end, words in spelled if step <= end) for step in range(10)]
    assert said(text, 10) == expected


def test_a_switch_after_five_draws_six_steps_as_in_webui_and_five_in_the_default_dialect():
    assert said("[a:b:5]", 10) == list("aaaaaabbbb")
    (term,) = parse("[a:b:5]").terms(10)
    assert term.at == (0,) * 5 + (1,) * 5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[a|b]", "aababa"),
        ("[a|b|c]", "aabcab"),
        ("[fe|]male", ["female", "female", "male", "female", "male", "female"]),
        ("[|a]x", ["x", "x", "ax", "x", "ax", "x"]),
        ("[a|(b:1.1)]", "aababa"),
        ("[[a|b]:c:3]", "aabacc"),
    ],
)
def test_alternation_reads_its_first_text_for_two_steps(text, expected):
    assert said(text, 6) == list(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a AND b", [("a", 1), (" b", 1)]),
        ("a :1.2 AND b:-0.5", [("a", 1.2), (" b", -0.5)]),
        ("a AND b :.5  ", [("a", 1), (" b", 0.5)]),
        ("a:2.", [("a", 2)]),
        ("a 3:2", [("a 3", 2)]),
        ("a\nb :2", [("a\nb", 2)]),
        ("(a:1.5", [("a", 1.5)]),
        ("a:1.2.3", [("a:1.2.3", 1)]),
        ("SAND ANDY", [("SAND ANDY", 1)]),
        ("(a AND b)", [("a", 1), (" b)", 1)]),
        ("AND", [("", 1), ("", 1)]),
    ],
)
def test_and_splits_first_and_takes_trailing_weights(text, expected):
    got = parse(text, "a1111").terms(1)
    assert [(term.contents[0].parts[0].text, term.weight) for term in got] == expected


def test_negative_prompts_have_no_and_no_trailing_weight_and_no_adapters():
    prompt = parse("a AND <lora:x:1> b:1.5 ", "a1111", negative=True)
    (term,) = prompt.terms(1)
    assert (term.contents[0].parts, term.weight) == ((WeightedText("a AND <lora:x:1> b:1.5 "),), 1.0)
    assert prompt.adapters == ()


@pytest.mark.parametrize(
    ("tag", "calls"),
    [
        ("<lora:ink>", (AdapterWeight("ink"),)),
        ("<lora:ink:0.8>", (AdapterWeight("ink", 0.8),)),
        ("<lyco:ink:-2>", (AdapterWeight("ink", -2.0),)),
        ("<lora:ink:0.5:0.8>", (AdapterWeight("ink", 0.8, 0.5),)),
        ("<lora:ink:te=0.5:unet=0.8>", (AdapterWeight("ink", 0.8, 0.5),)),
        ("<lora:ink:te=0.5>", (AdapterWeight("ink", 0.5),)),
        ("<lora:ink:0.5:unet=0.8>", (AdapterWeight("ink", 0.8, 0.5),)),
        ("<unknown:x:1>", ()),
        ("<lora:a:1><lora:b:2>", (AdapterWeight("a"), AdapterWeight("b", 2.0))),
    ],
)
def test_tags_are_taken_out_and_two_numbers_are_text_encoder_then_network(tag, calls):
    prompt = parse(f"a{tag} [b{tag}:c:0.5]", "a1111")
    assert prompt.adapters == calls * 2
    assert prompt.terms(2)[0].contents[0].parts == (WeightedText("a b"),)


@pytest.mark.parametrize("text", ["<lora:", "a < b > c", "<lora>", "<my-style:1>"])
def test_what_only_resembles_a_tag_is_text(text):
    prompt = parse(text, "a1111")
    assert (pieces(text), prompt.adapters) == ([(text, 1.0)], ())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(a:1.2.3) b", r'weight in brackets is "1.2.3"'),
        ("(a:.) b", r'weight in brackets is "."'),
        ("<lora:x:y>", r'the weight in "<lora:x:y>" is "y"'),
        ("<hypernet:x:1>", "hypernetworks are not read"),
        ("(" * 101, "more than 100 deep"),
        ("((a:" + "9" * 200 + "):" + "9" * 200 + ") b", 'product of the weights around "a" is "inf"'),
    ],
)
def test_what_fails_in_webui_is_a_clear_error(text, message):
    with pytest.raises(UsageError, match=message):
        parse(text, "a1111")


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a red apple", "a red apple"),
        ("a (red) apple", r"a \(red\) apple"),
        ("version 2", "version 2\\"),
        ("the end.", "the end.\\"),
        ("a cat ", "a cat \\"),
    ],
)
def test_only_what_would_mean_something_is_escaped(text, written):
    assert escape(text, "a1111") == written
