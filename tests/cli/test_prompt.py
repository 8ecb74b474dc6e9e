"""`sfumato prompt` and `sfumato styles`, as a person reads them and as a program does."""

import json

import torch
from safetensors.torch import save_file


def test_a_prompt_is_told_from_its_parts_to_its_tokens(here):
    status, out, err = here(
        "prompt", "a (red:1.3) apple, [sketch:oil painting:0.4] AND a cat :0.5", "--steps", "10"
    )
    assert (status, err) == (0, "")
    assert out == (
        "prompt\n"
        "  term\n"
        '    text "a "\n'
        "    weighted ×1.3\n"
        '      text "red"\n'
        '    text " apple, "\n'
        "    switch at 0.4 of the steps\n"
        "      group\n"
        '        text "sketch"\n'
        "      group\n"
        '        text "oil painting"\n'
        "  term ×0.5\n"
        '    text "a cat"\n'
        "\n"
        "term 1 of 2, weight 1\n"
        '  steps 1–4: "a red apple, sketch"\n'
        '  steps 5–10: "a red apple, oil painting"\n'
        '  "a red apple, sketch"\n'
        "    7 of 75 tokens\n"
        "      a red×1.3 apple , sk et ch\n"
        '  "a red apple, oil painting"\n'
        "    6 of 75 tokens\n"
        "      a red×1.3 apple , oil painting\n"
        "\n"
        "term 2 of 2, weight 0.5\n"
        '  "a cat"\n'
        "    2 of 75 tokens\n"
        "      a cat\n"
    )


def test_the_json_holds_the_same(here):
    _, out, _ = here("prompt", "a (red)1.3 cat", "--dialect", "compel", "--steps", "4", "--json")
    told = json.loads(out)
    assert told["dialect"] == "compel"
    (term,) = told["terms"]
    assert (term["weight"], term["at"]) == (1.0, [0, 0, 0, 0])
    assert term["contents"] == [[[[["a", 1.0], ["red", 1.3], ["cat", 1.0]]]]]


def test_long_prompts_breaks_blends_and_adapters_are_told(here):
    _, out, _ = here("prompt", "a cat, " * 30 + "BREAK dog <lora:ink:0.8:0.5>")
    assert "chunk 1 of 3, 75 of 75 tokens" in out
    assert "chunk 2 of 3, 15 of 75 tokens" in out
    assert "chunk 3 of 3, 1 of 75 tokens" in out
    assert "adapter ink ×0.8, 0.5 on the text" in out
    _, out, _ = here("prompt", '("a cat", "a dog").blend(0.7, 0.3)', "--dialect", "compel")
    assert out.count("2 of 75 tokens") == 2
    _, out, _ = here("prompt", "cat " * 80, "--dialect", "plain")
    assert "5 tokens more are not read" in out


def test_embeddings_of_the_folder_are_told_by_their_vectors(here, tmp_path, monkeypatch):
    monkeypatch.setenv("SFUMATO_HOME", str(tmp_path))
    (tmp_path / "embeddings").mkdir()
    save_file({"emb_params": torch.zeros(2, 256)}, tmp_path / "embeddings" / "Mine.safetensors")
    save_file({"emb_params": torch.zeros(2, 768)}, tmp_path / "embeddings" / "wide.safetensors")
    status, out, err = here("prompt", "a (mine:1.2) wide car")
    assert status == 0
    assert "a Mine[0]×1.2 Mine[1]×1.2 wide car" in out
    assert err.startswith("warning: 'wide' is read as words")


def test_templates_are_filled_in_first(here):
    _, out, _ = here("prompt", "a {red|red} apple")
    assert out.startswith('filled in with seed 0: "a red apple"\n')


def test_what_cannot_be_read_is_refused_in_one_line(here):
    status, out, err = here("prompt", "a (cat")
    assert (status, out) == (2, "")
    assert err == "error: '(' is never closed; write \\( for the sign itself (character 3, at \"(cat\")\n"
    assert here("prompt", "a", "--steps", "0")[2].startswith("error: steps is 0: must be at least 1")


def test_styles_are_listed_with_what_they_add(here):
    _, out, _ = here("styles")
    assert "for embedded" in out
    assert "emoji-3d" in out
    listed = [json.loads(line) for line in here("styles", "--json")[1].splitlines()]
    assert {one["name"] for one in listed} >= {"emoji-3d", "watercolour"}
    only = here("styles", "--model", "embedded")[1]
    assert "watercolour" not in only
    assert "did you mean 'embedded'" in here("styles", "--model", "embeded")[2]


def test_what_was_left_out_of_a_template_is_one_line_of_warning(here, tmp_path, monkeypatch):
    monkeypatch.setenv("SFUMATO_HOME", str(tmp_path))
    (tmp_path / "wildcards" / "items").mkdir(parents=True)
    (tmp_path / "wildcards" / "items" / "gold.txt").write_text("ring\n")
    (tmp_path / "wildcards" / "items" / "empty.txt").touch()
    status, out, err = here("prompt", "a __items/*__ // gold")
    assert status == 0
    assert out.startswith('filled in with seed 0: "a ring "\n')
    assert err.startswith("warning: the wildcard file ")
    assert err.count("\n") == 1
