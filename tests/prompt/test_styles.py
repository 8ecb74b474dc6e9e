"""Style presets: the shipped ones are whole, the user's win, and a wrong file says what is wrong in it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato.errors import SfumatoWarning, UsageError
from sfumato.prompt.styles import MODELS, Style, apply, load_styles
from sfumato.prompt.template import is_template

SHIPPED = load_styles([])


@pytest.fixture
def load(tmp_path):
    """A function that reads TOML as a user's file."""

    def read(content, name="own.toml"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return load_styles([path])

    return read


@pytest.mark.parametrize("style", SHIPPED.values(), ids=SHIPPED)
def test_a_shipped_style_says_what_it_is_for_and_keeps_the_prompt(style):
    assert style.description
    assert len(style.models) == 1
    assert style.source == "sfumato"
    assert style.prompt.count("{prompt}") == 1
    assert "{prompt}" not in style.negative
    prompt, negative = apply([style.name], "a red apple", "", SHIPPED)
    assert "a red apple" in prompt
    assert not is_template(prompt)
    assert not is_template(negative)


def test_every_kind_of_model_has_styles():
    for kind, least in {"embedded": 6, "stable-diffusion": 25}.items():
        assert kind in MODELS
        assert sum(kind in style.models for style in SHIPPED.values()) >= least


def test_a_style_for_stable_diffusion_names_what_it_should_not_be():
    for style in SHIPPED.values():
        if "stable-diffusion" in style.models:
            assert style.negative, style.name
            wanted = {word.strip() for word in style.prompt.split(",")}
            assert not wanted & {word.strip() for word in style.negative.split(",")}, style.name


@pytest.mark.parametrize(
    ("words", "text", "result"),
    [
        ("oil painting of {prompt}, warm", "a cat", "oil painting of a cat, warm"),
        ("{prompt} and {prompt}", "a cat", "a cat and a cat"),
        ("oil painting", "a cat", "a cat, oil painting"),
        ("", "a cat", "a cat"),
        ("oil painting", "", "oil painting"),
        ("{prompt}, oil painting", " ", "oil painting"),
        ("by {prompt}", "{prompt}", "by {prompt}"),
        ("{red|blue} {prompt}", "${c=a}__b__", "{red|blue} ${c=a}__b__"),
    ],
)
def test_the_text_takes_its_place_or_goes_before(words, text, result):
    styles = {"one": Style("one", prompt=words, negative=words)}
    assert apply(["one"], text, text, styles) == (result, result)


def test_styles_are_put_around_one_another_in_turn():
    styles = {
        "oil": Style("oil", prompt="oil painting of {prompt}", negative="photograph"),
        "old": Style("old", prompt="an old {prompt}", negative="new, {prompt}"),
    }
    assert apply(["oil", "old"], "cat", "dog", styles) == (
        "an old oil painting of cat",
        "new, dog, photograph",
    )
    assert apply(["old", "oil"], "cat", "dog", styles) == (
        "oil painting of an old cat",
        "new, dog, photograph",
    )
    assert apply([], "cat", "dog", styles) == ("cat", "dog")


def test_an_unknown_style_is_an_error_that_names_the_nearest():
    with pytest.raises(UsageError, match="unknown style 'oil-paint'; did you mean 'oil-painting'"):
        apply(["oil-paint"], "a cat", "", SHIPPED)


def test_styles_that_multiply_the_prompt_are_stopped():
    styles = {"twice": Style("twice", prompt="{prompt} {prompt}")}
    with pytest.raises(UsageError, match="'twice' the prompt is longer than 100,000 characters"):
        apply(["twice"] * 40, "a cat", "", styles)


def test_the_users_styles_are_added_and_win(load):
    styles = load(
        "[mine]\nprompt = 'mine, {prompt}'\n[watercolour]\nnegative = 'oil'\nmodels = ['embedded']\n"
    )
    assert set(styles) == {*SHIPPED, "mine"}
    assert (styles["mine"].prompt, styles["mine"].models) == ("mine, {prompt}", ())
    assert styles["mine"].source.endswith("own.toml")
    assert (styles["watercolour"].prompt, styles["watercolour"].negative) == ("", "oil")
    assert styles["watercolour"].models == ("embedded",)


def test_models_above_the_tables_hold_for_those_that_say_none(load):
    styles = load("models = ['embedded']\n[one]\nprompt = 'a'\n[two]\nprompt = 'b'\nmodels = []\n")
    assert (styles["one"].models, styles["two"].models) == (("embedded",), ())


def test_a_style_may_be_called_models(load):
    assert (
        load("[models]\nprompt = 'scale model of {prompt}'\n")["models"].prompt == "scale model of {prompt}"
    )


def test_the_users_folder_is_read_in_the_order_of_its_files(tmp_path, monkeypatch):
    monkeypatch.setenv("SFUMATO_HOME", str(tmp_path))
    assert load_styles() == SHIPPED
    (tmp_path / "styles").mkdir()
    (tmp_path / "styles" / "b.toml").write_text("[x]\nprompt = 'second'\n")
    (tmp_path / "styles" / "a.toml").write_text("[x]\nprompt = 'first'\n[y]\nprompt = 'first'\n")
    styles = load_styles()
    assert (styles["x"].prompt, styles["y"].prompt) == ("second", "first")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[a]\npromt = 'x'\n", "own.toml: [a]: unknown key 'promt'; did you mean 'prompt'?"),
        ("[a]\nprompt = 3\n", "own.toml: [a]: prompt is 3: must be a valid string"),
        ("[a]\ndescription = 'x'\n", "own.toml: [a] needs words"),
        ("[a]\nprompt = ' '\n", "own.toml: [a] needs words"),
        (
            "[a]\nprompt = 'x'\nmodels = ['embeded']\n",
            "[a]: models.0 is 'embeded': not supported; did you mean 'embedded'?",
        ),
        (
            "[a]\nprompt = 'x'\nmodels = 'embedded'\n",
            "[a]: models is 'embedded': must be a list",
        ),
        ("models = [3]\n", "own.toml: models.0 is 3: must be a valid string"),
        ("a = 'x'\n", "own.toml: a must be a table"),
        ("[a\n", "own.toml is not TOML"),
        ("[a]\nprompt = 'x'\n[a]\n", "own.toml is not TOML"),
        ("a = " + "[" * 5000, "own.toml is not TOML"),
        ("a = " + "9" * 5000, "own.toml is not TOML"),
        (b"[a]\nprompt = '\xff'\n", "own.toml is not UTF-8 at byte 14"),
        ("#" * (4 << 20) + "\n", "own.toml: it is larger than 4,194,304 bytes"),
    ],
)
def test_a_wrong_file_says_what_is_wrong_where(load, content, message):
    with pytest.raises(UsageError) as error:
        load(content)
    assert message in str(error.value)


def test_a_file_that_is_missing_is_an_error(tmp_path):
    with pytest.raises(UsageError, match=r"cannot read the style file .*none\.toml"):
        load_styles([tmp_path / "none.toml"])


@given(st.lists(st.sampled_from(sorted(SHIPPED)), max_size=4), st.text(max_size=40), st.text(max_size=40))
def test_any_prompt_stays_whole_in_any_styles(names, prompt, negative):
    styled = apply(names, prompt, negative, SHIPPED)
    if prompt.strip():
        assert prompt in styled[0]
    if negative.strip():
        assert negative in styled[1]


CSV = (
    "name,prompt,negative_prompt\r\n"
    'Mist,"a misty {prompt}, soft ""light""",harsh\r\n'
    "None,,\r\n"
    "--- weather ---,,\r\n"
    "#off,not this,\r\n"
    "\r\n"
    'Rain, "wet streets,\r\nreflections", "{prompt}, dry"\r\n'
    "Only negative,,blurry\r\n"
    "Short,fog\r\n"
)
WORDS = {
    "Mist": ('a misty {prompt}, soft "light"', "harsh"),
    "Rain": ("wet streets,\r\nreflections", "{prompt}, dry"),
    "Only negative": ("", "blurry"),
    "Short": ("fog", ""),
}


def words(styles):
    return {
        name: (style.prompt, style.negative) for name, style in styles.items() if style.source != "sfumato"
    }


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_the_styles_of_a1111_are_read(load, encoding):
    styles = load(CSV.encode(encoding), "styles.csv")
    assert words(styles) == WORDS
    assert apply(["Mist", "Rain"], "a cat", "dog", styles) == (
        'a misty a cat, soft "light", wet streets,\r\nreflections',
        "dog, harsh, dry",
    )


def test_the_styles_of_a1111_as_they_once_were_and_as_spreadsheets_save_them_are_read(load):
    assert words(load("name,text\nMist,a misty {prompt}\n", "styles.csv")) == {
        "Mist": ("a misty {prompt}", "")
    }
    content = "Name;Prompt;Negative_prompt\nMist;a, b;c\n"
    assert words(load(content, "styles.csv")) == {"Mist": ("a, b", "c")}
    assert words(load(content.replace(";", "\t"), "styles.csv")) == {"Mist": ("a, b", "c")}


@pytest.mark.parametrize(
    "content",
    [
        [{"name": "sai-3d model", "prompt": "3d {prompt}", "negative_prompt": "flat"}],
        {"sai-3d model": {"prompt": "3d {prompt}", "negative_prompt": "flat"}},
        [{"name": "sai-3d model", "positive_prompt": "3d {prompt}", "negative": "flat", "extra": 3}],
    ],
)
def test_the_styles_of_fooocus_and_its_kin_are_read_and_found_as_they_show_them(load, content):
    styles = load(json.dumps(content), "sdxl_styles.json")
    assert words(styles) == {"sai-3d model": ("3d {prompt}", "flat")}
    for name in ("sai-3d model", "SAI 3D Model", "sai 3d-model"):
        assert apply([name], "cat", "", styles) == ("3d cat", "flat")


def test_a_json_file_that_is_one_style_is_called_as_the_file_is(load):
    assert words(load('{"prompt": "fog"}', "grey.json")) == {"grey": ("fog", "")}


def test_an_entry_that_is_no_style_is_warned_of_and_left_out(load):
    content = [{"prompt": "x"}, {"name": "a", "prompt": 3}, "b", {"name": "Mist", "prompt": "fog"}]
    with pytest.warns(SfumatoWarning, match=r"own\.json, style [123] is left out") as warned:
        assert words(load(json.dumps(content), "own.json")) == {"Mist": ("fog", "")}
    assert len(warned) == 3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("own.csv", "", "has no columns name, prompt and negative_prompt in its first line, but nothing"),
        ("own.csv", "a,b\n1,2\n", "in its first line, but a, b"),
        ("own.csv", "name,prompt\na," + "x" * 200_000, "own.csv is not CSV: field larger"),
        ("own.json", "[", "own.json is not valid JSON"),
        ("own.json", '{"a": 3}', "own.json must hold a list of styles"),
        ("own.json", "3", "own.json must hold a list of styles"),
    ],
)
def test_a_file_of_another_program_that_is_wrong_says_what_is_wrong(load, name, content, message):
    with pytest.raises(UsageError) as error:
        load(content, name)
    assert message in str(error.value)


def test_every_kind_of_file_is_read_where_it_lies_and_others_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("SFUMATO_HOME", str(tmp_path))
    folder = tmp_path / "styles"
    (folder / "fooocus" / "samples").mkdir(parents=True)
    (folder / "styles.csv").write_text(CSV)
    (folder / "fooocus" / "a.json").write_text('[{"name": "Grey", "prompt": "grey"}]')
    (folder / "fooocus" / "samples" / "grey.jpg").touch()
    (folder / "own.toml").write_text("[Mist]\nprompt = 'mine'\n")
    assert words(load_styles()) == {**WORDS, "Grey": ("grey", ""), "Mist": ("mine", "")}
    (folder / "notes.docx").touch()
    (folder / "broken.json").write_text("[")
    (folder / "graph.json").write_text('{"3": {"class_type": "KSampler", "inputs": {}}}')
    with pytest.warns(SfumatoWarning) as warned:
        assert "Grey" in load_styles()
    messages = " ".join(str(each.message) for each in warned)
    assert f"not read in {folder}: notes.docx; styles are .toml, .csv, .json files" in messages
    assert "broken.json is not valid JSON" in messages
    assert "graph.json must hold a list of styles with name and prompt" in messages
