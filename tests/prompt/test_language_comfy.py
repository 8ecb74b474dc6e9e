"""ComfyUI's dialect against vectors worked out from its documented rules."""

import pytest

from sfumato.errors import UsageError
from sfumato.prompt.language import parse


def pieces(text):
    (term,) = parse(text, "comfy").terms(2)
    assert term.at == (0, 0)
    return [(part.text, part.weight) for part in term.contents[0].parts]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [("", 1)]),
        ("a (cat)", [("a ", 1), ("cat", 1.1)]),
        ("((cat))", [("cat", 1.1 * 1.1)]),
        ("(cat:1.3)", [("cat", 1.3)]),
        ("(cat: 1.3 )", [("cat", 1.3)]),
        ("(cat:-1e-1)", [("cat", -0.1)]),
        ("(a (b:1.3) c:1.2)", [("a ", 1.2), ("b", 1.3), (" c", 1.2)]),
        ("((a:1.2):1.5)", [("a", 1.2)]),
        ("((a):1.5)", [("a", 1.5 * 1.1)]),
        ("(a (b:1.3))", [("a ", 1.1), ("b", 1.3)]),
        ("(a:b:2)", [("a:b", 2)]),
        ("(a:b)", [("a:b", 1.1)]),
        ("(:1.2)", [(":1.2", 1.1)]),
        ("((a):1.2:b)", [("a", 1.1 * 1.1), (":1.2:b", 1.1)]),
        ("()", [("", 1)]),
        (r"\(a\) (b\):1.2)", [("(a) ", 1), ("b)", 1.2)]),
        (r"a\b \\(c)", [("a\\b \\(c)", 1)]),
        ("[a] [b:c:0.5] [d|e]", [("[a] [b:c:0.5] [d|e]", 1)]),
        ("a AND b BREAK <lora:x:1>", [("a AND b BREAK <lora:x:1>", 1)]),
        ("embedding:name, (embedding:other:1.2)", [("embedding:name, ", 1), ("embedding:other", 1.2)]),
        ("a (b", [("a (b", 1)]),
        ("a (b (c)", [("a ", 1), ("b (c", 1.1)]),
        ("a) (b) (c)", [("a) (b) (c)", 1)]),
        ("a) ((b)", [("a) (", 1), ("b", 1.1)]),
        ("a:1.5", [("a:1.5", 1)]),
    ],
)
def test_weights_replace_and_brackets_multiply(text, expected):
    assert pieces(text) == [(words, pytest.approx(weight)) for words, weight in expected]


@pytest.mark.parametrize("weight", ["nan", "inf", "-infinity", "1e999"])
def test_weights_that_are_not_finite_are_refused(weight):
    with pytest.raises(UsageError, match="not finite"):
        parse(f"(a:{weight})", "comfy")
