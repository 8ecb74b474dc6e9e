"""Drawing fast as a user meets it: what is refused, what is warned of, what files say of it."""

import json
import shutil
import subprocess
import sys

import pytest
from pictures import drawn

import sfumato
from sfumato import checkpoint
from sfumato.adapt.adapters import Adapters
from sfumato.checkpoint.layout import FAST
from sfumato.cli import console
from sfumato.cli.outcome import run
from sfumato.errors import SfumatoWarning, UsageError
from sfumato.metadata import a1111_line
from sfumato.request import Origin, Request

SMALL = {"steps": 1, "width": 64, "height": 64, "seed": 3}
IDLE = "does nothing"
pytestmark = pytest.mark.filterwarnings("ignore:64×64 is far from")


@pytest.fixture(scope="module")
def studio():
    return sfumato.load(device="cpu", dtype="float32")


def idle(studio, **fields):
    """The notes on what does nothing in a request."""
    (picture,) = studio.prepare(Request.build(**{"prompt": "a red apple", **SMALL, **fields}))
    return [note for note in picture.notes if IDLE in note]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(steps=30), "steps is 30: fast draws in 1 to 8; leave fast out for more"),
        (dict(guidance=7), "guidance is 7: .* leave guidance out, or fast"),
        (dict(sampler="euler"), "sampler is 'euler': fast draws with 'lcm'; leave one of them out"),
        (dict(spacing="karras"), "spacing is 'karras': fast has learned the noise levels of 'lcm'"),
        (dict(sampler="lcm karras"), "spacing is 'karras'"),
    ],
)  # fmt: skip
def test_what_fast_has_not_learned_is_refused(studio, fields, message):
    with pytest.raises(UsageError, match=message):
        studio.resolve(Request.build(**{"prompt": "a red apple", "fast": True, **SMALL, **fields}))


def test_what_fast_would_choose_itself_may_be_said(studio):
    said = Request.build(prompt="a red apple", fast=True, steps=4, guidance=1, sampler="lcm", seed=1)
    assert studio.resolve(said) == studio.resolve(Request.build(prompt="a red apple", fast=True, seed=1))
    assert studio.resolve(studio.resolve(said)) == studio.resolve(said)


@pytest.mark.parametrize(
    ("fields", "notes"),
    [
        (dict(fast=True), []),
        (dict(fast=True, negative="blue"), ["the negative prompt does nothing: fast draws without guidance"]),
        (dict(guidance=1, negative="blue"),
         ["the negative prompt does nothing: guidance 1 is the prompt alone"]),
        (dict(fast=True, guidance_interval=(1, 2), guidance_rescale=0.5),
         ["guidance_interval does nothing: fast draws without guidance",
          "guidance_rescale does nothing: fast draws without guidance"]),
        (dict(guidance=2, negative="blue", guidance_rescale=0.5), []),
        (dict(fast=True, negative="blue", prompt="a cat AND a dog"), []),
        (dict(fast=True, negative="blue", prompt="a cat :0.4 AND a dog :0.6"), [IDLE]),
        (dict(fast=True, negative="a style's", origin=Origin(prompt="a red apple")), []),
        (dict(fast=True, negative="mine, a style's", origin=Origin(prompt="a cat", negative="mine")), [IDLE]),
    ],
)  # fmt: skip
def test_a_user_is_told_what_does_nothing_without_guidance(studio, fields, notes):
    found = idle(studio, **fields)
    assert len(found) == len(notes)
    assert all(expected in note for expected, note in zip(notes, found, strict=True))


def test_what_is_said_to_do_nothing_does_nothing(studio):
    plain = studio.generate("a red apple", fast=True, **SMALL)
    with pytest.warns(SfumatoWarning, match="the negative prompt does nothing"):
        spoken = studio.generate("a red apple", fast=True, negative="blue", **SMALL)
    assert plain.differs(spoken) is None


def test_prompts_of_every_kind_are_drawn_fast(studio):
    for prompt, fields in (
        ("a {red|blue} apple", {"templates": "combinatorial", "style": "emoji-3d"}),
        ("a cat AND a dog", {}),
        ("[a cat:a dog:0.5]", {}),
        ("a cat", {"regions": [{"prompt": "a dog", "box": (0, 0, 0.5, 1)}]}),
        ("a cat", {"decoder": "tiny"}),
    ):
        for image in studio.generate_batch(prompt, fast=True, **{**SMALL, "steps": 2, **fields}):
            assert image.request.fast
            assert image.differs(studio.generate(image.request)) is None


def test_from_frame_to_frame_the_lora_stays_where_it_is_and_texts_are_not_read_anew(studio, monkeypatch):
    studio.generate("a red apple", fast=True, **SMALL)
    monkeypatch.setattr(Adapters, "set_adapters", None)
    monkeypatch.setattr(type(studio.model), "encode", None)
    for seed in (1, 2):
        studio.generate("a red apple", fast=True, **{**SMALL, "seed": seed})


def test_the_first_fast_picture_does_not_wait_for_torchs_compiler_to_be_loaded():
    code = (
        "import sys, sfumato; "
        "sfumato.load().generate('a moon', fast=True, steps=1, width=64, height=64); "
        "print([name for name in ('torch._dynamo', 'sympy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_the_command_says_that_a_negative_prompt_is_idle_and_replays_the_picture(tmp_path, capsys):
    out = tmp_path / "apple.png"
    words = ["a red apple", "--fast", "--negative", "blue", "-o", out, "--seed", 3]
    assert run(["generate", *map(str, words)]) == 0
    assert (
        "warning: the negative prompt does nothing: fast draws without guidance\n" in capsys.readouterr().err
    )
    assert run(["inspect", str(out)]) == 0
    assert "fast               True\n" in capsys.readouterr().out
    assert run(["replay", str(out)]) == 0
    assert capsys.readouterr().out == f"identical: {out}\n"


def test_a_report_says_whether_a_model_draws_fast(tmp_path):
    assert checkpoint.inspect("embedded").value("few steps") == "by a LoRA of its own, --fast"
    plain = tmp_path / "model"
    shutil.copytree(checkpoint.embedded(), plain, ignore=shutil.ignore_patterns(FAST))
    assert checkpoint.inspect(plain).value("few steps") is None


def test_a_fast_picture_calls_its_lora_in_the_line_for_other_programs():
    assert a1111_line(drawn(fast=True).record).startswith("a red apple <lora:fast:1>\n")
    assert "lora" not in a1111_line(drawn().record)


def test_a_copy_of_a_model_draws_fast_and_a_single_file_says_that_it_does_not(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(console, "SILENCE", 600.0)  # a busy machine does not add to what is said
    assert run(["convert", "embedded", str(tmp_path / "copy")]) == 0
    assert capsys.readouterr().err == ""
    assert checkpoint.load(tmp_path / "copy").fast.read_bytes() == (checkpoint.embedded() / FAST).read_bytes()
    file = tmp_path / "model.safetensors"
    assert run(["convert", "embedded", str(file)]) == 0
    lacking = "the tiny decoder (tiny_vae) and the LoRA of --fast (fast.safetensors) and the control edges"
    assert capsys.readouterr().err == f"warning: {file} is without {lacking}: only a folder holds such\n"
    assert checkpoint.load(file).fast is None


@pytest.mark.parametrize("key", ["steps_range", "guidance_range"])
def test_a_model_that_tells_half_of_what_it_has_learned_is_not_taken_for_distilled(tmp_path, key):
    half = tmp_path / "model"
    shutil.copytree(checkpoint.embedded(), half)
    own = json.loads((half / "sfumato.json").read_text())
    (half / "sfumato.json").write_text(json.dumps({**own, key: [1, 8]}))
    assert checkpoint.inspect(half).value("learned") is None
