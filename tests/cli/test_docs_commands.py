"""The commands and programs that the docs state: each can be given, and each that needs little is run."""

import io
import re
import shlex
import shutil
import sys
import tomllib
from contextlib import closing
from itertools import chain
from pathlib import Path

import pytest
import torch
import typer
from clips_motion import save_motion
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file
from shap_e_models import shap_e

import sfumato
from sfumato import checkpoint, folders, names
from sfumato.adapt import attach_new, save_lora
from sfumato.cli.app import app
from sfumato.diffusion import samplers
from sfumato.request import Request
from sfumato.train import stages

pytestmark = [
    pytest.mark.usefixtures("kept_studios"),
    pytest.mark.filterwarnings("ignore::sfumato.errors.SfumatoWarning"),
]

ROOT = Path(__file__).parents[2]
PAGES = [path for path in ROOT.glob("*.md") if path.name != "CHANGELOG.md"]
PAGES += [*ROOT.glob("docs/*.md"), *ROOT.glob("src/**/*.md")]
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in sorted(PAGES)}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(text, *languages):
    """The code blocks of a page that are in one of the languages."""
    return [body for language, body in FENCE.findall(text) if language in languages]


def given(line):
    """The words of a command line, without its comment and what a shell would do with input and output."""
    words = shlex.split(re.sub(r" {3,}\(.*\)$", "", line), comments=True)
    return words[: min((words.index(mark) for mark in ("<", "|") if mark in words), default=None)]


def lines():
    """(where, command) of every line of the pages' blocks, and of the examples in the command's help."""
    for page, text in TEXTS.items():
        for line in chain.from_iterable(body.splitlines() for body in blocks(text, "sh", "")):
            if line.startswith("sfumato "):
                yield page, line
    for path in ROOT.glob("src/sfumato/cli/*.py"):
        for text in re.findall(r'(?:examples|epilog)="+(.*?)"+[,)]*$', path.read_text("utf-8"), re.S | re.M):
            yield from ((path.name, line) for line in text.splitlines() if line.startswith("sfumato "))


def spans():
    """(where, command) of every command in the running text of the pages, the help and the errors."""
    for path in (*PAGES, *ROOT.glob("src/**/*.py")):
        text = FENCE.sub("", path.read_text("utf-8"))
        for span in re.findall(r"`(sfumato(?: [^`{]*)?)`", text):
            yield path.name, span


LINES = {tuple(given(line)): f"{where}: {line}" for where, line in lines()}
SPANS = {tuple(given(" ".join(span.split()))): f"{where}: {span}" for where, span in spans()}


def parsed(words):
    """The command and the values that a command line is understood as. Raises `typer.TyperException`."""
    command, context, rest = typer.main.get_command(app), None, list(words[1:])
    while True:
        context = command.make_context(command.name, rest, parent=context)
        if not hasattr(command, "resolve_command"):
            return command, context.params
        _, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])


@pytest.mark.parametrize("words", LINES, ids=LINES.get)
def test_every_command_of_a_page_can_be_given(words, folder):
    command, values = parsed(words)
    if command.name == "generate":
        fields = {name: value for name, value in values.items() if name in Request.model_fields and value}
        assert Request.build(prompt="", **{**fields, "adapters": (), "regions": (), "controls": ()})
    for recipe in (word for word in words if re.fullmatch(r"recipes/\S+\.toml", word)):
        assert stages.read(ROOT / recipe).stages


def refused(words):
    """Why a command line is none, or nothing."""
    try:
        parsed(words)
    except typer.TyperException as error:
        return error.format_message()
    except (typer.Exit, IndexError):  # asks for help, or names a group of commands
        return ""
    return ""


@pytest.mark.parametrize("words", SPANS, ids=SPANS.get)
def test_every_command_that_a_text_names_exists_with_its_options(words):
    """A text may leave out what the command is about."""
    assert re.match("$|Missing|Option '.*' requires an argument", refused(words)), refused(words)


NOT_RUN = {
    "org/name": "fetches a model from the hub",
    "sfumato train": "trains; tests/train does that with small recipes",
    "sfumato distill": "trains",
    "sfumato teach": "trains; tests/train/test_teach.py does that with a small model",
    "--lora mug": "needs what `sfumato teach` made",
    "sfumato serve": "serves until it is stopped; tests/server start it",
    "sfumato evaluate": "tests/cli/test_evaluate.py runs the evaluation",
    "sfumato data icons": "fetches the icons from npm",
    "sfumato data motion": "fetches 730 MB of animations from npm",
    "adapters extract": "needs two models that differ; tests/cli/test_adapters_command.py extracts",
    "--open": "shows the picture",
    "--method field": "takes minutes; tests/cli/test_shape.py distils a small field",
    "--base": "needs a file that is a UNet of Stable Diffusion alone",
    "--model svd_xt/": "needs Stable Video Diffusion; tests/checkpoint/test_video_drawing.py draws with it",
    "--model shap-e": "needs Shap-E; tests/cli/test_shape.py makes shapes with small ones",
    "--model openai/shap-e": "fetches a model from the hub",
    "--prediction": "needs a file of Stable Diffusion 2",
}
"""Which commands are read, as all are, and not run, and why."""
RUN = {words: line for words, line in LINES.items() if not any(mark in line for mark in NOT_RUN)}
PICTURES = {
    "-n 4": 4,
    "-n 6": 6,
    "prompts.txt": 2,
    "'a cat' 'a dog'": 2,
    '{apple|pear}" --templates combinatorial': 6,
    'car, flat emoji" --templates': 3,
}
"""How many pictures commands draw that say so; the others draw one for each prompt."""


def disc():
    """A picture of one object."""
    picture = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(picture).ellipse((8, 8, 56, 56), "red")
    return picture


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The files that the pages' commands name, made of the embedded model."""
    home = tmp_path_factory.mktemp("home")
    folder, own = home / "folder", home / ".local" / "share" / "sfumato"
    for path in (folder / "photos", home / "models", *(own / kind for kind in folders.KINDS)):
        path.mkdir(parents=True)
    (own / "samplers" / "ralston.py").write_text(blocks(TEXTS["docs/custom-sampler.md"], "python")[0])
    for path in (home / "models" / "dreamy", home / "models" / "stable-diffusion-v1-5"):
        shutil.copytree(checkpoint.embedded(), path)
    shutil.copytree(home / "models" / "stable-diffusion-v1-5", own / "models" / "stable-diffusion-v1-5")
    checkpoint.convert("embedded", folder / "dreamy.safetensors")
    shutil.copy(folder / "dreamy.safetensors", own / "models" / "dreamy.safetensors")
    shutil.copy(
        checkpoint.embedded() / "vae" / "diffusion_pytorch_model.safetensors",
        folder / "sharper-vae.safetensors",
    )
    networks = checkpoint.load("embedded", dtype=torch.float32).networks
    attach_new(networks["unet"], rank=2)
    for path in (
        own / "adapters" / "ink.safetensors",
        own / "adapters" / "detail.safetensors",
        folder / "ink.safetensors",
        folder / "detail.safetensors",
    ):
        save_lora(path, networks)
    for name in ("easynegative", "moodlight"):
        save_file({"emb_params": torch.zeros(1, 256)}, own / "embeddings" / f"{name}.safetensors")
    torch.save({"state_dict": load_file(folder / "sharper-vae.safetensors")}, folder / "old.ckpt")
    for number in range(3):
        Image.new("RGB", (64, 64), (80 * number, 90, 100)).save(folder / "photos" / f"{number}.png")
        (folder / "photos" / f"{number}.txt").write_text(f"square {number}")
    unet = checkpoint.load("embedded").unet.config
    save_motion(own / "motion" / "mm_sd_v15_v2", unet, zero=True)
    save_motion(own / "motion" / "pia", unet, zero=True, conv_in_channels=9)
    module = "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.0"
    width = unet.block_out_channels[0]
    halves = {"down": torch.zeros(2, width), "up": torch.zeros(width, 2)}
    save_file(
        {f"{module}.processor.to_q_lora.{half}.weight": tensor for half, tensor in halves.items()},
        own / "adapters" / "v2_lora_PanLeft.safetensors",
    )
    shap_e().save_pretrained(folder / "shap-e")
    apple = disc()
    apple.save(folder / "apple.png")
    sfumato.Shape.of_picture(apple, faces=200).save(folder / "apple.glb")
    Image.new("RGB", (64, 64), "green").save(folder / "photo.png")
    Image.new("RGB", (64, 64), "grey").save(folder / "cat.png")
    for name in ("eyes", "mask", "drawing"):
        Image.new("L", (64, 64), "white").save(folder / f"{name}.png")
    (folder / "examples").mkdir()
    for path in (folder / "kitchen.toml", folder / "examples" / "kitchen.toml"):
        shutil.copy(ROOT / "examples" / "kitchen.toml", path)
    (folder / "prompts.txt").write_text("a red apple\na blue cat\n")
    return home


@pytest.fixture
def folder(files, tmp_path, monkeypatch):
    """A working folder with those files, at home in which `~/models` and the user's own files are."""
    home = shutil.copytree(
        files, tmp_path / "home", copy_function=lambda here, there: Path(there).symlink_to(here)
    )
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("SFUMATO_HOME", str(home / ".local" / "share" / "sfumato"))
    monkeypatch.setattr(samplers, "SAMPLERS", dict(samplers.SAMPLERS))
    monkeypatch.setattr(names, "SAMPLERS", dict(names.SAMPLERS))
    monkeypatch.chdir(home / "folder")
    return home / "folder"


def test_every_reason_not_to_run_a_command_is_one_of_today():
    assert [mark for mark in NOT_RUN if not any(mark in line for line in LINES.values())] == []


@pytest.mark.parametrize("words", RUN, ids=RUN.get)
def test_a_command_of_a_page_does_what_it_says(words, here, folder, quick, monkeypatch):
    line = RUN[words]
    for picture in re.findall(r"(?:replay|inspect|--like) ([\w-]+\.png)", line):
        assert here("generate", "a red apple", "-o", picture)[0] == 0
    if "shape apple.png" in line:  # others have drawn over it
        disc().save("apple.png")
    for clip in re.findall(r"(?:replay|inspect) ([\w-]+\.(?:webp|gif))", line):
        assert here("video", "a red apple bouncing", "--frames", "2", "-o", clip)[0] == 0
    if "prompts.txt" in line:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper((folder / "prompts.txt").open("rb")))
    arguments = [word.replace("~/", f"{folder.parent}/").replace("MODEL", "embedded") for word in words[1:]]
    if arguments[0] == "convert":
        target = Path([word for word in arguments if not word.startswith("-")][2])
        shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
    status, out, err = here.raw(*arguments)
    assert status == 0, err.decode()
    if "-o -" in line:
        assert out.startswith(b"\x89PNG")
    elif arguments[0] == "generate":
        assert len(out.splitlines()) == next((many for mark, many in PICTURES.items() if mark in line), 1)


FAST = "sfumato.checkpoint.embedded() / 'fast.safetensors'"
CHANGES = {
    "docs/teaching.md": {
        'sfumato.teach("mug", "sks mug", of_class="mug")': FAST,
    },
    "docs/compat.md": {
        '"madebyollin/sdxl-vae-fp16-fix"': '"../models/dreamy", subfolder="vae"',
        "StableDiffusionXLPipeline.": "StableDiffusionPipeline.",
        "path/to/model": "../models/dreamy",
        '"cuda"': '"cpu"',
        "float16": "float32",
        "steps=20": "steps=2",
        "strength=0.6": "strength=0.6, num_inference_steps=4",
        'load_image("mask.png")': 'load_image("mask.png"), num_inference_steps=4',
    },
    "docs/editing.md": {"frames=24": "frames=3"},
    "docs/shapes.md": {  # what is drawn small in two steps has no plain background
        'studio.shape("a red apple, 3d render", seed=7)': "sfumato.Shape.of_picture(disc)",
        'of_picture("apple.png", ': "of_picture(disc, ",
        # at random they have no surface that is worth a name
        "model.shape_of(latent)": "sfumato.Shape.of_picture(disc)",
        "frames=12, size=64": "frames=2, size=8",
    },
    "docs/adapters.md": {"## In programs of your own": "```text"},  # tests/adapt/test_adapters_page.py
}
"""What is changed in a page's programs, so that they run quickly and anywhere."""
DISC = Image.new("RGB", (64, 64), "white")
ImageDraw.Draw(DISC).ellipse((8, 8, 56, 56), "red")
GIVEN = {
    "docs/few-steps.md": {"closing": closing, "prompt": "a red apple", "changed": lambda: True},
    "docs/shapes.md": {"disc": DISC},
}
"""What a page's programs take as given, besides `studio`."""
PRINTED = {"docs/prompts.md": ["(0, 0, 1, 1)", "a cat \\(sitting\\)"]}
"""What a page says that its programs print."""
ELSEWHERE = {
    "docs/custom-sampler.md": "tests/test_custom_samplers.py",
    "docs/library.md": "tests/test_library_page.py",
    "docs/evaluation.md": "tests/cli/test_evaluate.py",
    "docs/how-it-works.md": "tests/test_docs.py",
    "docs/serving.md": "tests/server/test_page.py",
}
"""Pages whose programs are run by other tests."""
PROGRAMS = [page for page, text in TEXTS.items() if blocks(text, "python") and page not in ELSEWHERE]


@pytest.mark.parametrize("page", PROGRAMS)
def test_the_programs_of_a_page_run_one_after_another(page, folder, quick, capsys):
    text = TEXTS[page]
    for there, instead in CHANGES.get(page, {}).items():
        assert there in text
        text = text.replace(there, instead)
    namespace = {"studio": sfumato.load(), **GIVEN.get(page, {})}
    for program in blocks(text, "python"):
        exec(compile(program, page, "exec"), namespace)
    printed = capsys.readouterr().out.splitlines()
    for value in PRINTED.get(page, []):
        assert f"  # {value}" in text
        assert value in printed


def scripts():
    """(page, words) of every command that runs a script of the repository."""
    for page, text in TEXTS.items():
        for line in (*re.findall(r"`(python [^`]+)`", text), *re.findall(r"^python .*$", text, re.MULTILINE)):
            yield page, tuple(given(" ".join(line.split())))


@pytest.mark.parametrize(("page", "words"), sorted(set(scripts())))
def test_every_script_that_a_page_names_exists_with_its_options_and_modes(page, words):
    script = ROOT / words[1]
    source = script.read_text("utf-8")
    assert all(f'"{word}"' in source for word in words[2:] if word.startswith("--")), words
    if script.parent.name == "benchmarks":
        modes = [word for word in words[2:] if re.fullmatch(r"[a-z][a-z0-9-]+", word) and word != "cpu"]
        assert all(f'"{mode}"' in source for mode in modes), modes


def test_every_extra_that_is_named_is_one_of_the_packages():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for path in (*PAGES, *ROOT.glob("src/**/*.py")):
        for extras in re.findall(r"(?:sfumato|'\.)\[([a-z,]+)\]", path.read_text("utf-8")):
            assert set(extras.split(",")) <= project["optional-dependencies"].keys(), f"{path}: {extras}"


def test_every_target_of_make_that_is_named_is_one():
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    for page, text in TEXTS.items():
        for target in re.findall(r"(?:^|`)make ([a-z]+)", text, re.MULTILINE):
            assert target in targets, f"{page}: make {target}"
