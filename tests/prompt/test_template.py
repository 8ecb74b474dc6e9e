"""Templates: what they expand to, at random and one after another, and that nothing breaks or stalls them."""

import random
import re
import warnings
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.errors import SfumatoWarning, UsageError
from sfumato.prompt.meaning import MAX_CHARACTERS
from sfumato.prompt.template import (
    MAX_COMBINATIONS,
    combination,
    combinations,
    expand,
    is_template,
)


def every(*texts, wildcards=None):
    """All combinations, in order: of the one text, or of several."""
    count = combinations(texts, wildcards=wildcards or {})
    each = [combination(texts, index, wildcards=wildcards or {}) for index in range(count)]
    return [one[0] for one in each] if len(texts) == 1 else each


@pytest.fixture
def files(tmp_path):
    """A function that writes wildcard files and gives them by name."""

    def write(**contents):
        paths = {}
        for name, text in contents.items():
            paths[name] = tmp_path / f"{name}.txt"
            paths[name].write_text(text, encoding="utf-8")
        return paths

    return write


# The order and the counts are those of the package dynamicprompts 0.31, whose separator is "," without blank.
VECTORS = [
    ("{red|green|blue}", ["red", "green", "blue"]),
    ("a {red|green} {cat|dog}", ["a red cat", "a red dog", "a green cat", "a green dog"]),
    ("{{a|b} c|d}", ["a c", "b c", "d"]),
    ("{a|}", ["a", ""]),
    ("{}", [""]),
    ("{very |}big", ["very big", "big"]),
    ("{ a | b }", [" a ", " b "]),
    ("{2$$a|b|c}", ["a, b", "a, c", "b, a", "b, c", "c, a", "c, b"]),
    ("{2$$ and $$a|b|c}", ["a and b", "a and c", "b and a", "b and c", "c and a", "c and b"]),
    ("[{2$$|$$a|b}]", ["[a|b]", "[b|a]"]),
    ("{2$$$$a|b}", ["ab", "ba"]),
    ("{1-2$$a|b}", ["a", "b", "a, b", "b, a"]),
    ("{-2$$a|b}", ["a", "b", "a, b", "b, a"]),
    ("{1-$$a|b}", ["a", "b", "a, b", "b, a"]),
    ("{0-1$$a|b}", ["", "a", "b"]),
    ("{4$$a|b}", ["a, b", "b, a"]),
    ("{2$${a|b}|c}", ["a, c", "b, c", "c, a", "c, b"]),
    ("{2$$a|{b|c}}", ["a, b", "a, c", "b, a", "c, a"]),
    ("{3::red|0.5::blue|.5::teal}", ["red", "blue", "teal"]),
    ("{ 3::red|green}", ["red", "green"]),
    ("{0::red|blue}", ["blue"]),
    ("{a::b|c}", ["a::b", "c"]),
    (r"{a\$\$b|c}", ["a$$b", "c"]),
    ("{3 :: red|blue}", [" red", "blue"]),
    ("{2 $$a|b}", ["a, b", "b, a"]),
    ("{1 - 2 $$ or $$a|b}", ["a", "b", "a or b", "b or a"]),
    ("{# seen more often\n3::oak|elm}", ["oak", "elm"]),
    ("{#note\n3::oak|elm}", ["oak", "elm"]),
    ("{oak // tall\n|# | fir\n elm}", ["oak \n", "\n elm"]),
    ("a /* b */{c|d}\n# e\n#f\ng // h", ["a c\ng ", "a d\ng "]),
    ("{#1|#2} C# http://x.y/z and//or", ["#1 C# http://x.y/z and//or", "#2 C# http://x.y/z and//or"]),
    (r"\# a \// {b|c}", ["# a // b", "# a // c"]),
    ("{!a|b}", ["a", "b"]),
    (r"{\@a|b} {c|@d}", ["@a c", "@a @d", "b c", "b @d"]),
    ("%{a ... b$${x|y}}", ["a x b", "a y b"]),
    (
        "%{{dark|light} … night$$a %{very…big$$ }cat}",
        ["dark a very bigcat night", "light a very bigcat night"],
    ),
    ("${c?={red|blue}}${c?=teal}${c}", ["red", "blue"]),
    ("${a-b=x}${a-b}", ["x"]),
    ("${c:{a|b}} c", ["a c", "b c"]),
    ("${c=x}${c:{a|b}}", ["x"]),
    ("${c=red}a ${c} ${ c }", ["a red red"]),
    ("${c={red|blue}}a ${c} cat, ${c}", ["a red cat, red", "a blue cat, blue"]),
    ("${c=!{red|blue}}${c} ${c}", ["red red", "blue blue"]),
    ("${c=a|b}${c}", ["a|b"]),
    ("${a=x}${b=${a}{1|2}}${a}${b}", ["xx1", "xx2"]),
    ("${a=x}${a=${a}${a}}${a}", ["xx"]),
    ("${c:grey} {${c=red}|}${c:grey}", ["grey red", "grey grey"]),
    ("${c:}|", ["|"]),
    (r"\{a\|b\} {a\|b|c} \${c}", [r"{a\|b} a|b $c", r"{a\|b} c $c"]),
    (r"\_\_a\_\_ {x}", ["__a__ x"]),
    (r"\(x\) \\{a}", [r"\(x\) \\a"]),
    (
        "({a|b}:1.2) [x|y] <lora:n:1> a | b",
        ["(a:1.2) [x|y] <lora:n:1> a | b", "(b:1.2) [x|y] <lora:n:1> a | b"],
    ),
]


@pytest.mark.parametrize(("template", "results"), VECTORS)
def test_a_template_has_these_combinations_in_this_order(template, results):
    assert every(template) == results


@pytest.mark.parametrize(("template", "results"), VECTORS)
@pytest.mark.filterwarnings("ignore:{!a")
def test_what_is_drawn_at_random_is_one_of_the_combinations_and_all_are_drawn(template, results):
    drawn = {expand([template], seed=seed)[0] for seed in range(80)}
    assert drawn == set(results)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a cat",
        "[a|b] [from:to:0.5] (x:1.2) <lora:n:1> ((y))",
        "a AND b:0.5 BREAK c",
        r"a \(b\) \[c\] \\ d\|e",
        "snake_case, _em_, a__b, __, ____, foo__ and __bar, $5, $$, 100%",
        'a++ ("a", "b").blend(1, 2)',
        "\ud800 \x00 \U0001f9d1‍\U0001f680 𝔘",
        "x" * 1_000_000,
    ],
)
def test_a_text_without_template_syntax_is_no_template_and_stays_as_it_is(text):
    assert not is_template(text)
    assert expand([text], seed=1) == [text]
    assert combinations([text]) == 1
    assert combination([text], 5) == [text]


def test_the_same_seed_draws_the_same_texts_for_ever():
    texts = ["${c={red|green|blue}}{1-3$$a|b|c|d} {5::x|y|0.1::z}", "{no|not} ${c}"]
    assert expand(texts, seed=0) == ["b, a, d x", "not blue"]
    assert expand(texts, seed=1) == ["d, a, b x", "not red"]
    assert expand(texts, seed=2**64 - 1) == ["a, c y", "no red"]


def test_the_prompt_and_the_negative_prompt_share_their_variables():
    assert every("a ${c={red|blue}}cat", "${c} fur, {x|y}") == [
        ["a cat", "red fur, x"],
        ["a cat", "red fur, y"],
        ["a cat", "blue fur, x"],
        ["a cat", "blue fur, y"],
    ]
    for seed in range(20):
        prompt, negative = expand(["${c={red|blue}}${c}", "${c}"], seed=seed)
        assert prompt == negative


def test_an_index_counts_modulo_the_combinations():
    assert combination(["{a|b|c}"], 7) == ["b"]
    assert combination(["{a|b|c}"], -1) == ["c"]


def test_weights_are_relative_frequencies():
    drawn = Counter(expand(["{6::red|3::green|blue}"], seed=seed)[0] for seed in range(4000))
    assert drawn["red"] / 4000 == pytest.approx(0.6, abs=0.03)
    assert drawn["green"] / 4000 == pytest.approx(0.3, abs=0.03)


def test_several_are_picked_by_weight_one_after_another():
    drawn = Counter(expand(["{2$$8::a|b|c}"], seed=seed)[0] for seed in range(4000))
    assert drawn["a, b"] / 4000 == pytest.approx(0.8 * 0.5, abs=0.03)
    assert drawn["b, a"] / 4000 == pytest.approx(0.1 * 8 / 9, abs=0.03)


def test_a_wildcard_is_an_entry_of_its_file(files):
    wildcards = files(colour="\ufeff# warm\nred\r\n\n  3::blue  \n{light|dark} teal\n0::never\na | b\n")
    assert every("a __colour__ cat", wildcards=wildcards) == [
        "a red cat",
        "a blue cat",
        "a light teal cat",
        "a dark teal cat",
        "a a | b cat",
    ]
    drawn = Counter(expand(["__colour__"], seed=seed, wildcards=wildcards)[0] for seed in range(2000))
    assert drawn["blue"] / 2000 == pytest.approx(3 / 6, abs=0.04)


def test_entries_may_hold_wildcards_and_variables(files):
    wildcards = files(pet="__cat__\n${size:small} dog\n", cat="tabby\nmanx\n")
    assert every("${size={big|wee}}__pet__", wildcards=wildcards) == [
        "tabby",
        "manx",
        "big dog",
        "tabby",
        "manx",
        "wee dog",
    ]


@pytest.mark.parametrize("template", ["{2$$__cat__}", "{2$$ __cat__ }"])
def test_several_of_one_wildcard_are_different_entries(files, template):
    wildcards = files(cat="tabby\nmanx\nsphynx\n")
    results = every(template, wildcards=wildcards)
    assert len(results) == 6
    assert all(len(set(one.split(", "))) == 2 for one in results)


def test_stars_stand_for_all_files_that_fit_each_once(files):
    written = files(cat="tabby\n", dog="pug\n", plant="moss\n")
    wildcards = {**written, "pets/cat": written["cat"], "pets/dog": written["dog"]}
    assert every("__pets/*__", wildcards=wildcards) == ["tabby", "pug"]
    assert every("__*__", wildcards=wildcards) == ["tabby", "pug", "moss"]
    assert every("__pets/cat__", wildcards=wildcards) == ["tabby"]


def test_wildcards_are_found_in_the_users_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SFUMATO_HOME", str(tmp_path))
    with pytest.raises(UsageError, match=r"there is no wildcard 'cat'; .*wildcards holds none"):
        expand(["__cat__"], seed=1)
    (tmp_path / "wildcards" / "pets").mkdir(parents=True)
    (tmp_path / "wildcards" / "pets" / "cat.txt").write_text("tabby\n")
    assert expand(["__cat__ __pets/cat__"], seed=1) == ["tabby tabby"]


@pytest.mark.parametrize(
    "name",
    ["gulls,_terns", "r&b", "d'or", "50% off", "cats (old)", "#tags", "über", "a.b", "+mood", "[x]", "a=b"],
)
def test_a_wildcard_may_be_called_by_any_sign_that_a_file_may_have(files, name):
    wildcards = files(**{name: "teal\n"})
    assert every(f"a __{name}__ cat", wildcards=wildcards) == ["a teal cat"]
    assert every(f"{{2$$__{name}__|x}}", wildcards=wildcards) == ["teal, x", "x, teal"]


@pytest.mark.parametrize(("name", "escaped"), [("a|b", r"a\|b"), ("a{b}", r"a\{b\}"), ("a__b", r"a\_\_b")])
def test_what_would_be_syntax_in_a_wildcards_name_is_escaped(files, name, escaped):
    assert every(f"__{escaped}__", wildcards=files(**{name: "teal\n"})) == ["teal"]


YAML = """
clothes:
  hat:
    - cap
    - 3::beret
    - yes
    - {text: bowler, weight: 0.5}
    - colour: lost
    -
  shoe: clog
long:
  - |
    # how to use it
    a {big|small}
    cat
"""
JSON = '{"clothes": {"hat": ["cap", "3::beret", "yes", {"content": "bowler"}, 7, ""]}, "empty": []}'


@pytest.mark.parametrize(
    ("suffix", "content", "hats"),
    [
        (".yaml", YAML, ["cap", "beret", "yes", "bowler"]),
        (".json", JSON, ["cap", "beret", "yes", "bowler", "7"]),
    ],
)
@pytest.mark.filterwarnings("ignore:.*needs quotes around it")
def test_wildcards_are_read_from_the_keys_of_yaml_and_json(tmp_path, monkeypatch, suffix, content, hats):
    monkeypatch.setenv("SFUMATO_HOME", str(tmp_path))
    path = tmp_path / "wildcards" / "packs" / f"w{suffix}"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    for name in ("packs/clothes/hat", "clothes/hat", "hat", "*/HAT", "**/hat"):
        found = [combination([f"__{name}__"], i)[0] for i in range(combinations([f"__{name}__"]))]
        assert found == hats, name
    drawn = Counter(expand(["__hat__"], seed=seed)[0] for seed in range(500))
    assert drawn["beret"] > drawn["cap"] > 0


def test_an_entry_of_weight_zero_is_never_drawn(tmp_path):
    path = tmp_path / "w.yaml"
    path.write_text("hat: [cap, {text: beret, weight: 0}, '0::bowler', {text: '2::hood', weight: 0.5}]")
    assert every("__hat__", wildcards={"w": path}) == ["cap", "hood"]
    drawn = Counter(expand(["__hat__"], wildcards={"w": path}, seed=seed)[0] for seed in range(200))
    assert set(drawn) == {"cap", "hood"}
    assert abs(drawn["cap"] - drawn["hood"]) < 50  # 1 and 2 × 0.5 are the same


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_wildcard_files_of_windows_are_read(tmp_path, encoding):
    path = tmp_path / "hat.txt"
    path.write_bytes("béret\r\n# none\r\ncap\r\n".encode(encoding))
    assert every("__hat__", wildcards={"hat": path}) == ["béret", "cap"]


def test_a_yaml_entry_may_be_of_several_lines(tmp_path):
    path = tmp_path / "w.yaml"
    path.write_text(YAML)
    assert every("__long__", wildcards={"w": path}) == ["\na big\ncat", "\na small\ncat"]
    assert every("__shoe__", wildcards={"w": path}) == ["clog"]


def test_a_yaml_file_that_is_one_list_has_the_files_name(tmp_path):
    path = tmp_path / "w.yml"
    path.write_text("[a, b]")
    assert every("__w__", wildcards={"w": path}) == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [b", "is not YAML"),
        ("? [a]\n: b", "is not YAML: a key in line 1 is no text"),
        ("\tx: y", "is not YAML"),
        ("a: " + "[" * 2_000, "is not YAML"),
        ("&x a: &y {b: *y}", None),
        ("".join(f"x{i}: &a{i} {{l: *a{i - 1}, r: *a{i - 1}}}\n" for i in range(1, 40)), None),
    ],
    ids=range(6),
)
def test_a_damaged_or_hostile_yaml_file_is_warned_of_and_left_out(
    files, tmp_path, content, message, monkeypatch
):
    monkeypatch.setattr("sfumato.prompt.wildcards.MAX_ENTRIES", 10_000)
    path = tmp_path / "w.yaml"
    path.write_text(content)
    with warnings.catch_warnings(record=True) as warned:
        wildcards = {**files(it="red\n"), "w": path}
        assert every("__i*__", wildcards=wildcards) == every("__it__", wildcards=wildcards) == ["red"]
    assert message is None or any(message in str(each.message) for each in warned)


def test_a_wildcards_name_may_be_chosen(files):
    written = files(hat="cap\nberet\n", shoe="clog\n")
    wildcards = {"clothes/hat": written["hat"], "clothes/shoe": written["shoe"]}
    assert every("__clothes/{hat|shoe}__", wildcards=wildcards) == ["cap", "beret", "clog"]
    assert every("${k=shoe}__clothes/${k}__", wildcards=wildcards) == ["clog"]
    assert every("{2$$__clothes/${k:hat}__}", wildcards=wildcards) == ["cap, beret", "beret, cap"]
    text = "${k={hat|shoe}}${k} {3$$__clothes/${k}__}"
    drawn = {expand([text], seed=seed, wildcards=wildcards)[0] for seed in range(40)}
    assert drawn == {"shoe clog", "hat cap, beret", "hat beret, cap"}
    with pytest.raises(UsageError, match="cannot be counted where a variable names a wildcard"):
        combinations([text], wildcards=wildcards)


def test_a_wildcard_is_given_variables_that_hold_only_within(files):
    wildcards = files(cat="a ${size:small} ${c} cat\n")
    assert every("${c=teal}__cat(c={red|blue}, size=wee)__, ${c}", wildcards=wildcards) == [
        "a wee red cat, teal",
        "a wee blue cat, teal",
    ]
    assert every("{2$$__cat(c=red)__}", wildcards=wildcards) == ["a small red cat"]
    with pytest.raises(UsageError, match=r"\$\{c\} has no value yet"):
        expand(["__cat(c=red)__ ${c}"], seed=1, wildcards=wildcards)


def test_a_number_before_a_wildcard_is_as_many_options(files):
    wildcards = files(tree="fir\noak\n")
    each = ["fir, fir", "fir, oak", "oak, fir", "oak, oak"]
    assert every("{2$$2#__tree__}", wildcards=wildcards) == each * 2
    assert every("{2#__tree__|elm}", wildcards=wildcards) == ["fir", "oak", "fir", "oak", "elm"]


def test_a_cycle_takes_its_options_in_turn():
    def turns(template, count):
        return [expand([template], seed=3, turn=turn)[0] for turn in range(count)]

    assert turns("{@a|b|c}", 5) == ["a", "b", "c", "a", "b"]
    assert turns("{@2$$a|b|c}", 7) == ["a, b", "a, c", "b, a", "b, c", "c, a", "c, b", "a, b"]
    assert turns("{@a|{b|c}}", 4) == turns("{@a|{@b|c}}", 4) == ["a", "b", "a", "c"]
    assert combinations(["{@a|b} {~x|y} {1|2|3}"]) == 3
    each = [combination(["{@a|b} {1|2|3}"], i, turn=i)[0] for i in range(3)]
    assert each == ["a 1", "b 2", "a 3"]
    assert {combination(["{~x|y}"], 0, seed=seed)[0] for seed in range(20)} == {"x", "y"}


def test_every_option_at_once_is_warned_of_where_choices_are_random():
    with pytest.warns(SfumatoWarning, match="takes every option where templates are combinatorial"):
        assert expand(["{!a|b}"], seed=1)[0] in "ab"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("a {b|c", "the prompt, character 3: this brace is never closed"),
        ("{a|{b}", "the prompt, character 1: this brace is never closed"),
        ("${c={a}", "the prompt, character 1: this brace is never closed"),
        ("a } b", "the prompt, character 3: } closes nothing"),
        ("a ${", "the prompt, character 3: after ${ a name"),
        ("${1=b}", "the prompt, character 1: after ${ a name"),
        ("${a:b|c}", "the prompt, character 6: | is between options, and those need braces"),
        ("%{a|b ... $$c}", "the prompt, character 4: | is between options"),
        ("100%{a}", "the prompt, character 4: %{ needs two parts"),
        ("{$$a|b}", "the prompt, character 2: before $$ stands how many options to pick"),
        ("{a$$b|c}", "the prompt, character 3: before $$ stands how many options to pick"),
        ("{2$red|blue}", "how many options to pick has two $ behind it: {2$$a|b}; as text it is"),
        ("{1-2$red|blue}", "has two $ behind it: {1-2$$a|b}"),
        ("a __../cat__", "the prompt, character 3: there is no wildcard '../cat'"),
        ("a __./cat__", "the prompt, character 3: there is no wildcard './cat'"),
        ("{-1::red|blue}", "the prompt, character 2: the weight -1 must be a number such as 0.5"),
        ("{red|50%::blue}", "the prompt, character 6: the weight 50% must be a number such as 0.5"),
        ("{1e3::a|b}", "the weight 1e3 must be"),
        ("{1,5::a|b}", "the weight 1,5 must be"),
        ("{red::3|blue}", "the prompt, character 5: a weight stands before its option: 3::"),
        ("a /* b", r"the prompt, character 3: this comment is never closed by */; as text it is \/*"),
        ("# a\n{", "the prompt, character 5: this brace is never closed"),
        ("{# note}", "the prompt, character 1: this brace is never closed"),
        ("{% if x %}a{% endif %}", "is of Jinja templates, which are not read"),
        ("3#__colour__", "the prompt, character 3: 3# before a wildcard means as many options"),
        ("__colour(c=red, d)__", "the prompt, character 1: 'd' is no name=value"),
        ("__colour(c={a)__", "the prompt, character 12: this brace is never closed"),
        ("x ${colour}", "the prompt, character 3: ${colour} has no value yet; write ${colour=...} before it"),
        ("${colour=a}${color}", "${color} has no value yet; did you mean 'colour'?"),
        ("__colr__", "the prompt, character 1: there is no wildcard 'colr'; did you mean 'colour'?"),
        ("__init__", r"as text it is \_\_init\_\_"),
        ("__x*__", "there is no wildcard 'x*'"),
        ("{0::a|0::b}", "every option has the weight 0"),
        ("{a|9999999::b}", "the prompt, character 4: a weight is at most 1,000,000"),
        ("{" + "9" * 5000 + "::a}", "a weight is at most"),
        ("{3-1$$a|b|c}", "at least 3 and at most 1 cannot both be picked"),
        ("{" + "1" * 5000 + "$$a}", "at most 999,999 options can be picked"),
    ],
)
def test_an_error_says_where_and_what_would_be_right(files, template, message):
    wildcards = files(colour="red\n")
    with pytest.raises(UsageError) as error:
        expand([template], seed=1, wildcards=wildcards)
    assert message in str(error.value)
    with pytest.raises(UsageError):
        combination([template], 0, wildcards=wildcards)


def test_an_error_names_the_text_or_the_files_line_it_is_in(files):
    with pytest.raises(UsageError, match=r"^the negative prompt, character 1"):
        expand(["{a}", "{"], seed=1)
    wildcards = files(colour="{blue\n")
    with pytest.raises(UsageError, match=r"colour\.txt, line 1, character 1: this brace is never closed"):
        expand(["__colour__"], seed=1, wildcards=wildcards)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({"it": "red\n{blue\n"}, r"it\.txt, line 2, character 1: this brace .*; the entry is left out"),
        ({"it": "red\n__none__\n"}, r"it\.txt, line 2 is left out: there is no wildcard 'none'"),
        ({"it": "red\n{x|__a__}\n", "a": "#\n"}, r"it\.txt, line 2 is left out: .*a\.txt has no entry"),
        ({"it": "red\n__a__\n", "a": "__b__\n"}, r"line 2 is left out: the wildcard 'a' has no entry"),
        ({"it": "red\n-1::blue\n"}, r"it\.txt, line 2, character 1: the weight -1"),
    ],
)
def test_an_entry_that_is_wrong_spoils_its_own_line_and_is_warned_of(files, contents, message):
    with pytest.warns(SfumatoWarning, match=message):
        assert every("__it__", wildcards=files(**contents)) == ["red"]


def test_a_file_without_an_entry_is_left_out_of_several(files, tmp_path):
    wildcards = files(gold="ring\n", empty="", bad="x\n")
    wildcards["bad"].write_bytes(b"\xff")
    with pytest.warns(SfumatoWarning) as warned:
        assert every("__*__", wildcards=wildcards) == ["ring"]
    assert {str(each.message).partition(":")[0].partition("wildcards ")[0] for each in warned} == {
        f"the wildcard file {tmp_path / 'bad.txt'} is not UTF-8 at byte 0; __*__ goes without it",
        f"the wildcard file {tmp_path / 'empty.txt'} has no entry",
    }


@pytest.mark.parametrize(
    ("contents", "circle"),
    [
        ({"a": "x\n__a__\n"}, "__a__ in __a__"),
        ({"a": "__b__", "b": "{x|__c__}", "c": "__a__"}, "__a__ in __c__ in __b__ in __a__"),
        ({"a": "__*__"}, "__*__ in __*__"),
    ],
)
def test_wildcards_in_a_circle_are_an_error_that_names_the_circle(files, contents, circle):
    with pytest.raises(UsageError, match="wildcards go in a circle") as error:
        expand(["__a__"], seed=1, wildcards=files(**contents))
    assert circle in str(error.value)


def test_damaged_wildcard_files_are_errors(files, tmp_path):
    broken = tmp_path / "broken.txt"
    broken.write_bytes(b"red\n\xff\n")
    cases = {
        "is not UTF-8 at byte 4": broken,
        "has no entry": files(empty="# nothing\n0::x\n")["empty"],
        "cannot read": tmp_path / "missing.txt",
    }
    for message, path in cases.items():
        with pytest.raises(UsageError, match=message):
            expand(["__it__"], seed=1, wildcards={"it": path})


def nested(depth):
    return "{" * depth + "x" + "}" * depth


@pytest.mark.parametrize(
    ("template", "result"),
    [
        (nested(10_000), "x"),
        ("${a=" * 10_000 + "x" + "}" * 10_000, ""),
        ("{1$$ " * 10_000 + "}" * 10_000, " " * 10_000),
        ("{a}" * 30_000, "a" * 30_000),
        ("_" * 90_000 + "{x}", "_" * 90_000 + "x"),
        ("__a" * 3_000 + r"\__ {x}", None),
        ("{" + "|" * 90_000 + "}", ""),
        ("{2$$" + "a " * 40_000 + "}", "a " * 40_000),
        ("{" + " " * 90_000 + "}", " " * 90_000),
        ("{" + "1" * 90_000 + "}", "1" * 90_000),
        ("{" * 10_000, None),
        ("}" * 10_000, None),
        ("${" * 10_000, None),
        ("{x}" + "y" * MAX_CHARACTERS, None),
        ("{a|b}" * 350_000, None),
        ("${a=xxxxxxxxxx}" + "${a=${a}${a}}" * 40 + "${a}", None),
    ],
    ids=range(16),
)
def test_hostile_templates_are_right_or_errors(template, result):
    if result is None:
        with pytest.raises(UsageError):
            expand([template], seed=1, wildcards={})
    else:
        assert expand([template], seed=1, wildcards={}) == [result]
        assert combination([template], 0, wildcards={}) == [result]


@pytest.mark.parametrize("entry", ["{next} {next}", "${{a={next}{next}}}{next}{next}"])
def test_wildcards_that_multiply_each_other_are_stopped(files, entry, monkeypatch):
    monkeypatch.setattr("sfumato.prompt.template.MAX_STEPS", 50_000)
    contents = {f"w{n}": entry.format(next=f"__w{n + 1}__") for n in range(60)}
    wildcards = files(**contents, w60="{}")
    with pytest.raises(UsageError, match="more than"):
        expand(["__w0__"], seed=1, wildcards=wildcards)


def test_a_large_wildcard_named_very_often_is_stopped(files, monkeypatch):
    monkeypatch.setattr("sfumato.prompt.template.MAX_STEPS", 50_000)
    wildcards = files(word="\n".join(map(str, range(2_000))))
    text = "{2$$__word__}" * 1_000
    for choose in (
        lambda: expand([text], seed=1, wildcards=wildcards),
        lambda: every(text, wildcards=wildcards),
    ):
        with pytest.raises(UsageError, match="steps to"):
            choose()


def test_a_chain_of_wildcards_does_not_recurse(files):
    contents = {f"w{n}": f"__w{n + 1}__" for n in range(900)}
    assert every("__w0__", wildcards=files(**contents, w900="x\ny\n")) == ["x", "y"]


def test_too_many_combinations_are_an_error_to_count_but_not_to_draw():
    many = "{a|b}" * 60
    assert MAX_COMBINATIONS < 2**60
    for template in (many, "{30$$" + "a|" * 40 + "}", "{2$$" + many + "|" + many + "}"):
        with pytest.raises(UsageError, match="combinations; choose at random"):
            combinations([template])
        expand([template], seed=1)


def test_the_last_of_very_many_combinations_is_found():
    template = "{a|b}" * 59
    assert combinations([template]) == 2**59
    assert combination([template], 2**59 - 1) == ["b" * 59]
    assert combination([template], 2) == ["a" * 57 + "ba"]


def count_and_list(node):
    """What a small tree of `templates` expands to, by the definition: every way, in order."""
    kind, *rest = node
    if kind == "text":
        return [rest[0]]
    if kind == "run":
        results = [""]
        for part in rest[0]:
            results = [done + more for done in results for more in count_and_list(part)]
        return results
    least, most, options = rest
    results = []
    for size in range(min(least, len(options)), min(most, len(options)) + 1):
        results += picks(size, options)
    return results


def picks(size, options, before=()):
    if size == 0:
        return [""] if not before else joined(before)
    return [
        one
        for option in options
        if option not in before
        for one in picks(size - 1, options, (*before, option))
    ]


def joined(options):
    results = count_and_list(options[0])
    for option in options[1:]:
        results = [f"{done}, {more}" for done in results for more in count_and_list(option)]
    return results


def written(node):
    kind, *rest = node
    if kind == "text":
        return rest[0]
    if kind == "run":
        return "".join(map(written, rest[0]))
    least, most, options = rest
    return f"{{{least}-{most}$${'|'.join(map(written, options))}}}"


@st.composite
def trees(draw, depth=2):
    """Small templates as trees; every text is a letter of its own, so that all results differ."""
    letters = iter(range(0x4E00, 0x9000))

    def node(depth):
        kind = draw(st.sampled_from(["text", "run", "choice"] if depth else ["text"]))
        if kind == "text":
            return ("text", chr(next(letters)))
        parts = [node(depth - 1) for _ in range(draw(st.integers(1, 3)))]
        if kind == "run":
            return ("run", parts)
        least = draw(st.integers(0, 2))
        return ("choice", least, draw(st.integers(least, 3)), parts)

    return node(depth)


@settings(max_examples=150)
@given(trees(), st.integers(0, 2**63))
def test_the_combinations_are_all_that_the_definition_lists_and_expand_draws_one(tree, seed):
    template, listed = written(tree), count_and_list(tree)
    assert combinations([template]) == len(listed)
    places = range(len(listed)) if len(listed) <= 60 else random.Random(seed).sample(range(len(listed)), 60)
    for place in places:
        assert combination([template], place) == [listed[place]]
    assert expand([template], seed=seed)[0] in listed
    assert expand([template], seed=seed) == expand([template], seed=seed)


@settings(max_examples=300)
@given(st.text(alphabet=st.sampled_from("{}|$_\\:=-!*/ .12ab[]\ud800é"), max_size=40), st.integers(0, 2**64))
def test_any_text_is_expanded_or_refused_and_without_syntax_it_stays(text, seed):
    try:
        result = expand([text], seed=seed, wildcards={})[0]
    except UsageError:
        assert is_template(text)
        return
    if not is_template(text):
        assert result == text
    count = combinations([text], wildcards={})
    if count <= 200:
        assert result in [combination([text], index, wildcards={})[0] for index in range(count)]


@settings(max_examples=200)
@given(st.text(max_size=60))
def test_a_text_with_every_mark_escaped_comes_out_as_it_was(text):
    plain = text.replace("\\", "")
    escaped = "".join(f"\\{mark}" if mark in "{}_$#/" else mark for mark in plain)
    assert expand([escaped], seed=1, wildcards={}) == [plain]


def test_a_variable_without_value_is_only_missed_where_it_is_chosen():
    assert expand(["{a|0::${b}}"], seed=1) == ["a"]
    assert combination(["{a|${b}}"], 0) == ["a"]
    with pytest.raises(UsageError, match="has no value yet"):
        combination(["{a|${b}}"], 1)


PAGE = (Path(__file__).parents[2] / "docs" / "templates.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^(\S.*?) +→ (.*)$", PAGE, re.MULTILINE)


@pytest.mark.parametrize(("template", "results"), EXAMPLES, ids=[template for template, _ in EXAMPLES])
def test_the_guides_examples_come_out_as_it_says(files, template, results):
    wildcards = files(
        tree="# x\n3::fir\n{old|young} oak\n",
        cat="tabby\n",
        dog="pug\n",
        toy="a ${colour:grey} toy ${animal}\n",
    )
    wildcards |= {"pets/cat": wildcards["cat"], "pets/dog": wildcards["dog"]}
    assert every(template, wildcards=wildcards) == results.split(" · ")


def test_a_file_of_another_kind_is_named_where_its_name_is_called(tmp_path, monkeypatch):
    monkeypatch.setenv("SFUMATO_HOME", str(tmp_path))
    (tmp_path / "wildcards").mkdir()
    (tmp_path / "wildcards" / "moss.docx").touch()
    with pytest.raises(
        UsageError, match=r"no wildcard 'moss': .*moss\.docx is no .txt, .yaml, .yml or .json file"
    ):
        expand(["__moss__"], seed=1)
