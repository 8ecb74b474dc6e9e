"""Command lines that cannot be meant are refused in one line, and before anything slow is imported."""

import io
import json
import subprocess
import sys
from importlib import import_module

import pytest
import typer
from commandline import environment
from pydantic import Field

from sfumato import devices
from sfumato.cli import options
from sfumato.cli.app import COMMANDS
from sfumato.diffusion import samplers, spacing
from sfumato.options import DTYPES
from sfumato.request import Request
from sfumato.version import __version__

WRONG = {
    ("generate",): "Missing argument 'PROMPT...': say what to draw, or take it --like PICTURE",
    ("a red apple",): "no command is given; to draw a picture: sfumato generate 'a red apple'",
    ("generat", "x"): "No such command 'generat'. Did you mean 'generate'? (see sfumato --help)",
    (
        "generate",
        "x",
        "--stpes",
        "3",
    ): "no such option: --stpes; did you mean '--steps'? (see sfumato generate --help)",
    ("generate", "x", "--sampler", "eulr"): "unknown sampler 'eulr'; did you mean 'euler'?",
    ("generate", "x", "--spacing", "karas"): "unknown spacing 'karas'; did you mean 'karras'?",
    ("generate", "x", "--dialect", "a111"): "dialect is 'a111': unknown dialect; did you mean 'a1111'?",
    ("generate", "x", "--style", "watercolor"): "unknown style 'watercolor'; did you mean 'watercolour'?",
    ("generate", "{a|b"): "the prompt",
    ("generate", "x", "--templates", "all"): "templates is 'all': must be 'random', 'combinatorial' or 'off'",
    ("generate", "x", "--lora", "a:20"): "adapters.0.weight is 20.0: must be at most 10",
    ("generate", "x", "--region", "0,0,1:y"): "--region '0,0,1:y': it must be L,T,R,B:PROMPT",
    ("generate", "x", "--region", "0,0,2,1:y"): "regions.0.box.2 is '2': must be at most 1",
    ("generate", "x", "--region", "0.5,0,0.5,1:y"): "regions.0 is",
    ("generate", "x", "--prediction", "eps"): "prediction is 'eps': must be 'epsilon', 'v', 'x0' or 'flow'",
    ("generate", "x", "--steps", "x"): "steps is 'x': must be a valid integer (allowed: 1 to 1000)",
    ("generate", "x", "--steps", "0"): "steps is 0: must be at least 1 (allowed: 1 to 1000)",
    ("generate", "x", "--offload", "--compile"): "offload and compiled exclude each other",
    ("generate", "x", "--steps", "2.5"): "steps is 2.5: must be a valid integer",
    ("generate", "x", "-W", "5000"): "width is 5000: must be at most 4096 (allowed: 8 to 4096)",
    ("generate", "x", "-H", "-64"): "height is -64: must be at least 8 (allowed: 8 to 4096)",
    ("generate", "x", "-n", "1001"): "count is 1001: must be at most 1000 (allowed: 1 to 1000)",
    ("generate", "x", "--seed", "-1"): "seed is -1: must be at least 0",
    ("generate", "x", "--guidance", "nan"): "guidance is nan: must be a finite number (allowed: 0 to 100)",
    (
        "generate",
        "x",
        "--guidance-interval",
        "5",
        "1",
    ): "guidance_interval is 5 to 1; it must be 0 ≤ low < high < ∞",
    ("generate", "x", "--guidance-interval", "a", "1"): "guidance_interval.0 is 'a': must be a valid number",
    ("generate", "x", "--guidance-rescale", "2"): "guidance_rescale is 2: must be at most 1",
    ("generate", "x", "--clip-skip", "12"): "clip_skip is 12: must be at most 11",
    ("generate", "x", "--device", "gpu"): "unknown device 'gpu'; known: cpu, cuda, cuda:1 (the",
    ("generate", "x", "--dtype", "fp8"): "unknown dtype 'fp8'; did you mean 'fp32'?",
    ("generate", "x", "--slices", "0"): "slices is 0: must be at least 1",
    ("generate", "x", "--tile", "0"): "tile is 0: must be at least 1",
    ("generate", "x", "-o", "a.gif"): "'a.gif' has unknown suffix '.gif'; a picture is written as .png, .jpg",
    ("generate", "x", "-o", "a"): "'a' has no suffix",
    ("generate", "x", "-o", "{sed}.png"): "unknown placeholder {sed} in '{sed}.png'; did you mean 'seed'?",
    ("generate", "x", "-o", "-", "-n", "2"): "-o - writes one picture to standard output, not 2",
    ("generate", "x", "-o", "-", "--json"): "-o - and --json exclude each other",
    ("generate", "x", "-o", "-", "--sheet"): "-o - and --sheet exclude each other",
    ("generate", "x", "-o", "-", "--open"): "-o - and --open exclude each other",
    (
        "generate",
        "a",
        "red",
        "apple",
    ): "these are 3 prompts; for one picture: sfumato generate 'a red apple'; ",
    ("generate", "a", "red", "apple,", "3d", "render", "-n", "2"): "generate 'a red apple, 3d render'",
    ("generate", "a red apple,", "3d render"): "generate 'a red apple, 3d render'",
    ("generate", "'a", "red", "apple'"): "sfumato generate 'a red apple'",
    ("generate", "cat", "dog"): "without quotes these are 2 prompts",
    ("generate", "a red apple", "3d", "render"): "sfumato generate 'a red apple 3d render'",
    ("prompt", "a", "red", "apple"): "too many arguments: red apple; it takes 1; put quotes around",
    ("replay", "my", "picture.png"): "too many arguments: picture.png; it takes 1; put quotes around",
    ("samplers", "x"): "too many arguments: x; it takes none (see sfumato samplers --help)",
    ("generate", " "): "the prompt is empty",
    ("generate", "-"): "standard input holds no prompt",
    ("generate", "\udcff"): "half of a surrogate pair at character 0",
    ("replay",): "Missing argument 'IMAGE'.",
    ("replay", "none.png"): "there is no picture 'none.png'",
    ("replay", "file.png", "-o", "a.gif"): "'a.gif' has unknown suffix '.gif'",
    ("inspect",): "Missing argument 'MODEL|ADAPTER|IMAGE...'.",
}
UNWRITABLE = {
    ("generate", "x", "-o", "/proc/a.png"): "cannot write in '/proc': it takes no files",
    ("generate", "x", "-o", "/proc/none/a.png"): "cannot write /proc/none: ",
    ("generate", "x", "-o", "file.png/a.png"): "cannot write",
    ("generate", "x", "-o", "a" * 300 + ".png"): "the name is too long",
    ("generate", "x", "--preview", "file.png"): "cannot write in 'file.png': it is not a folder",
    ("replay", "file.png", "-o", "/proc/none/a.png"): "cannot write /proc/none: ",
}


CASES = [(line, 2, told) for line, told in WRONG.items()]
CASES += [(line, 1, told) for line, told in UNWRITABLE.items()]


@pytest.mark.parametrize(("arguments", "status", "told"), CASES, ids=range(len(CASES)))
def test_a_wrong_command_line_is_told_in_one_line(arguments, status, told, here, tmp_path, monkeypatch):
    (tmp_path / "file.png").write_bytes(b"")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    found, out, err = here(*arguments)
    assert (found, out) == (status, "")
    assert err.startswith("error: ")
    assert told in err
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file.png"]


USED = [
    ("generate", "x", "--image", "FILE"),
    ("generate", "x", "--control", "edges:FILE"),
    ("generate", "--like", "FILE"),
    ("edit", "FILE", "make it blue"),
    ("vary", "FILE"),
    ("upscale", "FILE"),
    ("extend", "FILE", "right=32"),
    ("inspect", "FILE"),
    ("replay", "FILE"),
]


@pytest.mark.parametrize("line", USED, ids=" ".join)
def test_a_picture_that_cannot_be_used_is_wrong_usage_in_every_command(line, here, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    for file in ("broken.png", "none.png"):
        status, out, err = here(*(each.replace("FILE", file) for each in line))
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert file in err
        assert [path.name for path in tmp_path.iterdir()] == ["broken.png"]


SLOW = ("torch", "numpy", "PIL", "huggingface_hub", "tokenizers", "safetensors", "rich")
WATCH = f"""
import json, sys
from sfumato.cli.outcome import run
for line in json.load(sys.stdin):
    sys.stdin = open("/dev/null")
    status = run(line)
    slow = [name for name in {SLOW} if name in sys.modules]
    print(json.dumps([line, status, slow]), file=sys.stderr)
"""


def test_neither_help_nor_refusals_import_anything_slow(tmp_path):
    lines = [[], ["--version"], ["--help"]]
    lines += [[*name.split(), "--help"] for name in (*COMMANDS, "models list", "data check")]
    lines += [list(line) for line in [*WRONG, *UNWRITABLE]]
    (tmp_path / "file.png").touch()
    done = subprocess.run(
        [sys.executable, "-c", WATCH],
        input=json.dumps(lines),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(),
        check=True,
    )
    seen = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("[")]
    assert len(seen) == len(lines)
    assert [(line, slow) for line, _, slow in seen if slow] == []


def test_the_commands_are_listed_without_importing_any(tmp_path):
    code = (
        "import sys; from sfumato.cli.outcome import run; run(['--help']); "
        "print(*(name for name in sys.modules if name.startswith('sfumato.cli.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    listed, imported = done.stdout.rsplit("\n", 2)[:2]
    assert all(f"\n  {name} " in listed for name in COMMANDS)
    assert {name.rpartition(".")[2] for name in imported.split()} == {"app", "console", "help", "outcome"}


def test_the_version_is_printed(here):
    assert here("--version") == (0, f"sfumato {__version__}\n", "")


def test_help_is_shown_where_no_command_is_named_and_the_status_says_so(here):
    status, out, _ = here()
    assert status == 2
    assert out == here("--help")[1]


def test_every_option_of_generate_is_explained_within_the_width_of_the_terminal(here, monkeypatch):
    monkeypatch.setenv("COLUMNS", "72")
    status, out, _ = here("generate", "--help")
    assert status == 0
    assert max(map(len, out.splitlines()[:-8])) <= 72
    for option in (
        "-o, --output PATH",
        "-n, --count N",
        "--guidance-interval LOW HIGH",
        "--tile CELLS",
        "-q, --quiet",
    ):
        assert option in out
    assert [line for line in out.splitlines() if line and not line.startswith(" ")][2:] == [
        "Picture",
        "Prompt",
        "Guidance",
        "Output",
        "Model and device",
        "Other options",
        "Examples",
    ]


def commands(name, command):
    """Every command below `command`, by what is typed for it."""
    if not hasattr(command, "commands"):
        yield name, command
        return
    for sub, inner in command.commands.items():
        yield from commands(f"{name} {sub}", inner)


def test_every_option_that_takes_a_value_states_its_default():
    for name in COMMANDS:
        program = typer.main.get_command(import_module(f"sfumato.cli.{name}").program)
        for typed, command in commands(name, program):
            for param in command.params:
                if param.param_type_name == "option" and param.metavar and not param.required:
                    assert "Default: " in param.help, f"{typed} {param.opts}"


def test_the_help_names_the_embedded_models_defaults(here):
    _, out, _ = here("generate", "--help")
    flat = " ".join(out.split())
    assert "Sampling steps: more are slower and finer. Default: the model's (embedded: 20)." in flat
    assert "Default: the model's (embedded: dpmpp-2m)." in flat


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["--negative", "a", "--negative-prompt=b"], "--negative and --negative-prompt are one option"),
        (["--guidance", "3", "--guidance-scale", "4"], "--guidance and --guidance-scale are one option"),
        (["-n", "3", "--count", "4"], "-n and --count are one option; give one of the two"),
        (["-o", "a.png", "--output", "b.png"], "-o and --output are one option; give one of the two"),
        (
            ["--cfg-scale", "7"],
            "no such option: --cfg-scale; here it is --guidance (see sfumato generate --help)",
        ),
        (["--num-inference-steps", "7"], "here it is --steps"),
        (["--size", "512"], "here it is --width and --height"),
        (["--out", "a.png"], "did you mean '--output'?"),
        (["-p", "a cat"], "the prompt is given without an option, in quotes"),
        (["--uncond-prompt", "a cat"], "here it is --negative"),
        (["--prompt", "a cat"], "the prompt is given without an option, in quotes"),
        (["--guidance-interval", "3"], "requires 2 arguments. (see sfumato generate --help)"),
        (["--seed"], "requires an argument. (see sfumato generate --help)"),
        (["--tile", "x"], "--tile is 'x': must be a valid integer (see sfumato generate --help)"),
        (["--seed", "random"], "for a random seed leave it out"),
    ],
)
def test_a_wrong_option_is_told_with_what_would_be_right(here, line, said):
    status, out, err = here("generate", "x", *line)
    assert (status, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


def test_a_value_that_looks_like_an_option_is_the_values_own(here):
    assert here("generate", "x", "--negative", "a", "--", "--negative-prompt")[2].startswith("error: without")


@pytest.mark.parametrize(
    "line",
    [
        ("inspect", "none"),
        ("convert", "none", "out"),
        ("replay", "none.png"),
        ("generate", "x", "--model", "none", "-o", "a.png"),
        ("generate", "x", "--lora", "none", "-o", "a.png"),
        ("generate", "x", "--vae", "none", "-o", "a.png"),
        ("evaluate", "--data", "none"),
        ("evaluate", "--scorer", "none.safetensors", "--small"),
        ("data", "check", "none"),
        ("data", "icons", "none", "--offline"),
        ("train", "none.toml"),
        ("models", "path", "none"),
        ("models", "pull", "a/b/c"),
    ],
    ids=" ".join,
)
def test_what_is_named_and_not_there_is_wrong_usage(here, line):
    status, out, err = here(*line)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_a_new_field_of_the_request_is_an_option_by_itself(monkeypatch):
    class Wider(Request):
        glow: float = Field(0.5, ge=0, le=2, description="How much it glows.")

    monkeypatch.setattr("sfumato.request.Request", Wider)
    monkeypatch.setattr(options, "_schemas", options._schemas.__wrapped__)
    group = options.request_fields()
    found = {one.name: one.annotation.__metadata__[0] for one in group.options()}
    assert found.keys() == Wider.model_fields.keys() - {*options.NO_OPTIONS, *options.CLIP_FIELDS}
    assert found["glow"].help == "How much it glows. Default: 0.5. From 0 to 2."
    assert group.make({"glow": "1.5", "negative": None, "fast": False}) == {"glow": 1.5}


def test_the_long_names_of_diffusers_are_accepted_too(here):
    status, _, err = here("generate", "x", "--negative-prompt", "y", "--guidance-scale", "101")
    assert (status, err) == (2, "error: guidance is 101: must be at most 100 (allowed: 0 to 100)\n")


def test_every_sampler_and_spacing_is_listed_with_what_it_is_good_for(here):
    _, out, _ = here("samplers")
    listed = json.loads(here("samplers", "--json")[1])
    assert [one["name"] for one in listed["samplers"]] == list(samplers.SAMPLERS)
    assert [one["name"] for one in listed["spacings"]] == list(spacing.SPACINGS)
    for one in listed["samplers"] + listed["spacings"]:
        assert one["summary"]
        rows = [line for line in out.splitlines() if line.startswith(f"{one['name']} ")]
        assert any(one["summary"] in row for row in rows)


def test_the_command_knows_the_dtypes_that_torch_will_be_asked_for():
    assert set(DTYPES) == set(devices.DTYPES)
