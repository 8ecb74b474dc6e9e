"""The pages: their links lead somewhere, what they name exists, and their figures are those of the code."""

import contextlib
import importlib
import inspect
import re
from dataclasses import fields
from itertools import chain, pairwise
from pathlib import Path

import pytest
import torch
import typer
from safetensors.torch import load_file

from sfumato import checkpoint, folders
from sfumato.checkpoint.families import FAMILIES
from sfumato.cli.app import app
from sfumato.data.sets import SETS
from sfumato.diffusion import distill, samplers
from sfumato.diffusion.samplers.ddim import ddim
from sfumato.diffusion.sampling import Point, SeededNoise, run
from sfumato.diffusion.spacing import spacing_named
from sfumato.evaluate import colours, distances, features
from sfumato.evaluate import run as evaluation
from sfumato.few_steps import MOST_STEPS, STEPS
from sfumato.formats import READABLE
from sfumato.names import SAMPLERS, SPACINGS
from sfumato.prompt import chunks, styles, wildcards
from sfumato.prompt.language import MAX_TERMS, own, parse, tree
from sfumato.prompt.meaning import MAX_CHARACTERS
from sfumato.train import stages
from sfumato.train.objectives import OBJECTIVES, consistency
from sfumato.train.objectives.denoiser import SNR_LIMIT
from sfumato.train.objectives.text import MAX_TEST_TEXTS
from sfumato.train.recipe import LR_SCHEDULES, SECTIONS, AdapterSection, Optimizer, Recipe, Samples
from sfumato.train.recipe_file import RENAMED

ROOT = Path(__file__).parents[1]
SAMPLERS_PAGE = (ROOT / "docs" / "samplers.md").read_text("utf-8")
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("src/**/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_to_a_file(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def linked(path):
    """The files that a page links to or shows."""
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text("utf-8"))
    return {(path.parent / target).resolve() for target in targets if "://" not in target}


def test_every_page_is_reached_from_the_readme_and_every_picture_is_shown():
    reached, ahead = set(), [ROOT / "README.md"]
    while ahead:
        path = ahead.pop()
        if path not in reached and path.suffix == ".md":
            ahead += linked(path)
        reached.add(path)
    assert set(PAGES) <= reached
    assert set(ROOT.glob("docs/pictures/*")) <= reached


@pytest.mark.parametrize("name", [*SAMPLERS, *SPACINGS])
def test_every_sampler_and_spacing_is_explained(name):
    assert f"`{name}`" in SAMPLERS_PAGE


def test_the_table_of_samplers_is_that_of_the_registry():
    rows = re.findall(
        r"^\| (`.*?) \| ([\d, ]+) \| (\d) \| (yes|no) \| (.*?) \|$", SAMPLERS_PAGE, re.MULTILINE
    )
    found = {}
    for names, orders, evaluations, stochastic, source in rows:
        for name, order in zip(re.findall(r"`(.*?)`", names), orders.split(", "), strict=True):
            found[name] = int(order), int(evaluations), stochastic == "yes", source
    assert found.keys() == samplers.SAMPLERS.keys()
    for name, info in samplers.SAMPLERS.items():
        assert found[name][:3] == (info.order, info.evaluations_per_step, info.random), name
        assert info.source in found[name][3], name


def test_the_changes_list_every_renamed_key_of_recipes():
    page = (ROOT / "CHANGELOG.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| `([\w.]+)`.*\|$", page, re.MULTILINE))
    assert rows == {old: new.split()[0] for old, new in RENAMED.items()}


def test_the_readmes_two_commands_are_targets_and_ci_runs_the_second():
    readme, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    commands = re.findall(r"^make (\w+)", readme, re.MULTILINE)
    assert commands == ["picture", "test"]
    assert all(re.search(rf"^{command}:", makefile, re.MULTILINE) for command in commands)
    assert (ROOT / ".ci" / "run").read_text().strip().splitlines()[-1] == "exec make test"


def test_no_page_or_source_names_a_path_of_one_machine():
    for path in [
        *PAGES,
        *ROOT.glob("src/**/*.py"),
        *ROOT.glob("examples/*.py"),
        *ROOT.glob("benchmarks/*.py"),
    ]:
        assert not re.search(r"/(work|root|home)/\w+/", path.read_text()), path


def test_the_constraints_pin_every_package_to_one_version():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert "torch==2.13.0" in pins
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][A-Za-z0-9.]*", pin) for pin in pins)


def page(name):
    """A page's text, its line breaks as blanks."""
    return " ".join((ROOT / name).read_text("utf-8").split())


CODE = {path.relative_to(ROOT).as_posix(): page(path) for path in PAGES if path.name != "CHANGELOG.md"}


def dotted_names():
    """(page, name) of everything in the package that pages name in full."""
    for where, text in CODE.items():
        for dotted in re.findall(r"`(sfumato(?:\.\w+)+)[`(]", text):
            if dotted.rpartition(".")[2] not in ("json", "model", "safetensors"):
                yield where, dotted


@pytest.mark.parametrize(("where", "dotted"), sorted(set(dotted_names())))
def test_every_name_of_the_package_on_a_page_exists(where, dotted):
    found = importlib.import_module("sfumato")
    for part in dotted.split(".")[1:]:
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(f"{found.__name__}.{part}")
        found = getattr(found, part)


OTHER_OPTIONS = {"--nproc-per-node", "--clock", "--threads", "--write", "--glide", "--frames", "--batch"}
OTHER_OPTIONS |= {"--head", "--address", "--only"}
"""Options of other programs: torchrun, ray, the benchmarks, examples/live.py, tests/mutants.py."""


def test_every_option_on_a_page_is_one_of_the_command():
    group = typer.main.get_command(app)
    ahead, known = (
        [(group, group.make_context("sfumato", ["doctor"]))],
        {"--help", "--version", *OTHER_OPTIONS},
    )
    while ahead:
        command, context = ahead.pop()
        known.update(chain.from_iterable(option.opts for option in command.get_params(context)))
        for name in getattr(command, "commands", {}):
            _, below, _ = command.resolve_command(context, [name])
            ahead.append((below, below.make_context(name, [], parent=context, resilient_parsing=True)))
    for where, text in CODE.items():
        for span in re.findall(r"`([^`]+)`", text):
            for option in re.findall(r"(?:^|\s)(--[a-z][a-z-]+)", span):
                assert option in known, f"{where}: {option} in {span!r}"


EMBEDDED = checkpoint.load("embedded")
PARTS, TEXT = checkpoint.inspect("embedded").components, EMBEDDED.text_encoders[0].config
FAST = load_file(checkpoint.embedded() / "fast.safetensors")
CARD = "src/sfumato/models/icons/README.md"


def times(name, steps):
    """The whole times of a spacing on the embedded model's path."""
    return [round(level.t) for level in spacing_named(name).levels(EMBEDDED.path(), steps)]


FIGURES = {
    "docs/getting-started.md": [
        f"{EMBEDDED.defaults.guidance:g} is this model's default",
        "draws icons and emoji at {}×{}".format(*EMBEDDED.native_size),
    ],
    "docs/prompts.md": [
        f"{MAX_CHARACTERS:,} characters, {tree.MAX_DEPTH} brackets inside one another, {MAX_TERMS} parts",
        f"Weights range from −{own.MAX_WEIGHT:g} to {own.MAX_WEIGHT:g}",
        f"at the last comma of the {chunks.COMMA_REACH} tokens before",
        f"a text of fewer than {chunks.WHOLE} tokens",
    ],
    "docs/templates.md": [f"at most {MAX_CHARACTERS:,} characters"],
    "docs/samplers.md": ["4 steps are {}, {}, {}, {}".format(*times("lcm", 4)[:4])],
    CARD: [
        f"{sum(part.parameters for part in PARTS) / 1e6:.1f} million parameters",
        f"{sum(part.parameters for part in PARTS) * 2 / 1e6:.0f} MB in half precision",
        "two levels ({} and {} channels)".format(*EMBEDDED.unet.config.block_out_channels),
        f"{TEXT.num_hidden_layers} layers, {TEXT.hidden_size} wide, {TEXT.num_attention_heads} heads",
        f"byte-pair encoding with {TEXT.vocab_size:,} pieces",
        f"LoRA of rank 16 on {len(FAST) // 2} layers",
        f"| {sum(map(torch.numel, FAST.values())):,} |",
    ],
    "docs/how-it-works.md": [f"{256 * 256 * 3 / (4 * 32 * 32):g} times fewer numbers"],
    "docs/checkpoints.md": ["a `global_step` of 875,000", "0.13025 for XL, else 0.18215"],
    "docs/few-steps.md": [
        f"LCM-LoRA of {(checkpoint.embedded() / 'fast.safetensors').stat().st_size / 1e6:.1f} MB",
        f"--fast # {STEPS} steps, no guidance",
        f"--fast --steps 2 # 1 to {MOST_STEPS}",
        f"c = {consistency.ConsistencyKeys.huber_c}·√d",
        f"in τ = {distill.LATENT.scaling:g}·t",
        "`initial_discretization_steps` = 10 to `final_discretization_steps` = 1280",
    ],
    "docs/objectives.md": [
        f"the mean cosine over {MAX_TEST_TEXTS:,} texts",
        f"min(SNR, {SNR_LIMIT:g}) / (SNR + 1)",
    ],
    "docs/training.md": [
        f"{len(SETS)} sets under permissive licences",
        f"in {READABLE} files or in tar shards",
        f"in files of at most {stages.SHARD_BYTES / 1e6:g} MB",
    ],
    "docs/evaluation.md": [
        f"`--count` pictures ({evaluation.BenchmarkPlan.count:,}, or as many as are held out)",
        f"a sheet of its first {evaluation.ON_SHEET} pictures",
        f"{features.WIDTH:,} numbers by EfficientNet-Lite0",
        f"{distances.SUBSETS} random subsets of half of the pictures, at most {distances.SUBSET:,}",
        f"`min({evaluation.AMONG}, count)` captions",
        f"for each of {len(colours.NAMES)} colours",
        f"further than {colours.APART:g} from it in CIELAB",
        f"Chance is 1 in {len(colours.TINTS)}.",
        f"Each of the first {evaluation.BenchmarkPlan.varied} prompts is drawn with four seeds",
    ],
}
"""Sentences that the code's own values must make true."""


@pytest.mark.parametrize(
    ("where", "sentence"), [(where, each) for where in FIGURES for each in FIGURES[where]]
)
def test_a_figure_of_a_page_is_that_of_the_code(where, sentence):
    assert sentence in page(where)


def tables(name):
    """Every table of a page, as lists of cells; the head is the first row."""
    for block in re.findall(r"(?:^\|.*\n)+", (ROOT / name).read_text("utf-8"), re.MULTILINE):
        rows = [re.split(r"(?<!\\)\|", line.strip().strip("|")) for line in block.splitlines()]
        yield [[cell.strip() for cell in row] for row in rows if not set("".join(row)) <= set("-: ")]


def table(name, head):
    """The rows below the head that begins with `head`."""
    (found,) = (rows[1:] for rows in tables(name) if rows[0][: len(head)] == head)
    return found


def spelled(defaults):
    return defaults.sampler, defaults.spacing, str(defaults.steps), f"{defaults.guidance:g}"


def test_the_defaults_of_a_family_are_those_that_it_is_drawn_with():
    rows = {
        row[0]: (*(cell.strip("`") for cell in row[1:4]), row[4])
        for row in table("docs/samplers.md", ["model"])
    }
    for name, title in (("sd1", "Stable Diffusion 1.x and 2.x"), ("sdxl", "Stable Diffusion XL")):
        assert rows[title] == spelled(FAMILIES[name].defaults)
    assert rows["the embedded model"] == spelled(EMBEDDED.defaults)


def test_samplers_that_evaluate_twice_a_step_are_named():
    sentence = re.search(
        r"((?:`[\w-]+`(?:, | and )?)+) evaluate the network twice a step", page("docs/samplers.md")
    )
    twice = {name for name, info in samplers.SAMPLERS.items() if info.evaluations_per_step == 2}
    assert set(re.findall(r"`(.*?)`", sentence[1])) == twice


def test_the_most_accurate_sampler_is_so_in_the_table():
    rows = table("docs/accuracy.md", ["schedule", "data", "asked"])
    assert len(rows) == 32
    for schedule, data, asked, theirs, _, _, adams, *_ in rows:
        if int(asked) >= (20 if schedule == "ordinary" else 10):
            assert float(adams) < float(theirs), (schedule, data, asked)


def test_the_folders_are_those_where_files_are_found():
    rows = table("docs/getting-started.md", ["folder", "holds"])
    assert [row[0].strip("`") for row in rows] == list(folders.KINDS)
    suffixes = {row[0].strip("`"): tuple(re.findall(r"`(\.\w+)`", row[1])) for row in rows}
    assert suffixes["wildcards"] == wildcards.SUFFIXES
    assert suffixes["styles"] == styles.SUFFIXES


def test_every_key_of_a_recipe_is_in_its_section():
    rows = {
        row[0].strip("`[]"): set(re.findall(r"`(\w+)`", row[1]))
        for row in table("docs/training.md", ["section"])
    }
    keys = {each.name for each in fields(Recipe)} - {*SECTIONS, "network"}
    assert rows["top"] == keys
    assert rows["optimizer"] == {each.name for each in fields(Optimizer)}
    assert rows["adapter"] == {each.name for each in fields(AdapterSection)}
    assert rows["samples"] == {each.name for each in fields(Samples)}
    data = set().union(*({each.name for each in fields(each.DATA)} for each in OBJECTIVES.values()))
    assert rows["data"] == data


@pytest.mark.parametrize("name", LR_SCHEDULES)
def test_every_schedule_of_the_learning_rate_is_on_both_pages(name):
    assert f"`{name}`" in page("docs/training.md")
    assert f'"{name}"`' in page("docs/objectives.md")


def test_the_losses_are_those_that_the_code_states():
    """Both state the formula that the tests of the objectives compute."""
    for name, objective in OBJECTIVES.items():
        if not objective.FEW_STEPS:
            stated = re.search(r"loss = (.*)", inspect.getdoc(inspect.getmodule(objective)))[1]
            section = (ROOT / "docs/objectives.md").read_text("utf-8").split(f"## `{name}`:")[1]
            spelled = re.search(r"loss = (.*)", section)[1]
            for ours, others in (("a_t·x0 + s_t·eps", "x_t"), (" · ", "·")):
                stated = stated.replace(ours, others)
            assert spelled == stated, name


WEIGHTS = {"emphasis": {1.1}, "de-emphasis": {1 / 1.1, 0.9}, "explicit weight": {1.3}}
EXAMPLES = [
    (row[0], dialect, text.replace("\\|", "|"))
    for row in table("docs/prompts.md", ["", "`sfumato`"])
    for dialect, cell in zip(("sfumato", "a1111", "comfy", "compel"), row[1:], strict=True)
    for text in re.findall(r"`(.*?)`", cell)
]


@pytest.mark.parametrize(("what", "dialect", "text"), EXAMPLES)
def test_an_example_of_syntax_is_read_as_the_overview_says(what, dialect, text):
    if what == "escapes":
        assert "\\" in text
        return
    read = parse(text, dialect)
    (first, *_) = read.terms(20)
    if what in WEIGHTS:
        (part,) = (part for part in first.contents[0].parts if part.text.strip())
        assert any(part.weight == pytest.approx(weight) for weight in WEIGHTS[what])
    elif what == "LoRA":
        assert [(each.name, each.weight) for each in read.adapters] == [("name", 0.8)]
    elif what == "compose predictions":
        assert [term.weight for term in read.terms(20)] == [1, 0.5]
    elif "step" in what or what in ("add later", "remove later", "alternate"):
        assert len(first.contents) == 2
        assert what == "alternate" or first.at.count(0) in (8, 9)


def test_the_sampler_of_how_it_works_is_ddim():
    (program,) = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs/how-it-works.md").read_text("utf-8"), re.DOTALL
    )
    names = {"pairwise": pairwise, "Point": Point}
    exec(compile(program, "how-it-works.md", "exec"), names)
    levels = spacing_named("trailing").levels(EMBEDDED.path(), 5)
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    ends = [
        run(sample(x, levels, SeededNoise([0])), lambda x, level: x.sin()) for sample in (names["ddim"], ddim)
    ]
    torch.testing.assert_close(*ends)


@pytest.mark.parametrize("name", ["docs/performance.md", "docs/few-steps.md"])
def test_a_ratio_of_a_measured_table_is_that_of_its_figures(name):
    checked = 0
    for head, *rows in tables(name):
        if "ratio to its fastest" in head:
            for row in rows:
                if row[2] != "–":
                    fastest = min(map(float, re.findall(r"(\d+\.\d+) \(", row[2])))
                    assert float(row[3].strip("*×")) == pytest.approx(fastest / float(row[1]), abs=0.02), row[
                        0
                    ]
                    checked += 1
        elif head[-1] == "ratio" or "diffusers, MiB" in head:
            for row in rows:
                assert float(row[3]) == pytest.approx(float(row[1]) / float(row[2]), abs=0.01), row[0]
                checked += 1
    assert checked


def test_a_speed_that_a_row_names_is_that_of_its_seconds():
    rows = {
        row[0]: float(row[1])
        for head, *rows in tables("docs/few-steps.md")
        if "difference" in head
        for row in rows
    }
    for what, seconds in rows.items():
        if frames := re.search(r"\(([\d.]+) a second\)", what):
            assert float(frames[1]) == pytest.approx(1 / seconds, rel=0.02), what
        if faster := re.search(r"\(([\d.]+) times as fast\)", what):
            (teacher,) = (
                value for name, value in rows.items() if "teacher" in name and name.split()[-1] in what
            )
            assert float(faster[1]) == pytest.approx(teacher / seconds, rel=0.02), what


def test_what_was_seen_in_training_is_the_steps_times_the_batch():
    pattern = r"([\d,.]+)( million)? (?:pictures|texts), ([\d,]+) steps of (\d+)"
    found = re.findall(pattern, page("docs/training.md"))
    assert len(found) >= 6
    for seen, million, steps, batch in found:
        total = float(seen.replace(",", "")) * (10**6 if million else 1)
        assert total == pytest.approx(int(steps.replace(",", "")) * int(batch), rel=2e-3), (seen, steps)


def test_the_embedded_models_card_has_the_figures_of_the_evaluation():
    card = table(CARD, ["steps", "guidance"])
    rows = {
        (row[2], row[3]): row for row in table("docs/evaluation.md", ["pictures of"]) if row[0] == "embedded"
    }
    for steps, guidance, *figures in card:
        row = rows[steps, guidance]
        measured = [row[4], *row[5].split(" ± "), row[6], row[9]]
        stated = [figures[0], *figures[1].split(" ± "), figures[2], figures[3]]
        for here, there in zip(stated, measured, strict=True):
            assert float(here.strip(" %")) == pytest.approx(float(there.strip("%")), abs=0.051), (
                steps,
                guidance,
            )
    few = {row[0]: row[1:] for row in table("docs/few-steps.md", ["", "1 step"])}["`--fast`"]
    distances = [f"{float(cell.split(', ')[0]):.0f}" for cell in few if cell]
    assert "Fréchet distance {}, {}, {} and {} in 1, 2, 4 and 8 steps".format(*distances) in page(
        "src/sfumato/models/icons/README.md"
    )


def test_the_pages_name_the_version_of_diffusers_that_the_tests_compare_with():
    (pin,) = re.findall(r"^diffusers==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert set(re.findall(r"diffusers (\d+\.\d+\.\d+)", page("docs/compat.md"))) == {pin}


USES = {
    r"^\s*(?:import|from) (?:pickle|dill|joblib)\b|torch\.load\((?!weights_only)": {
        "checkpoint/unpickle.py",
        "evaluate/features.py",
    },
    r"^\s*(?:import|from) (?:socket|urllib\.request|http|requests|httpx2?)\b|_download\(|HfApi": {
        "checkpoint/source.py",
        "client.py",
        "server/cluster/ray_workers.py",
        "server/serving.py",
    },
    r"^\s*(?:import|from) subprocess\b": {"checkpoint/unpickle.py", "data/npm.py", "viewer.py"},
    r"trust_remote_code": {"compat/sources.py"},  # among what is accepted and changes nothing
}
"""What `SECURITY.md` says is done in few places: unpickling, the network, other programs, code of models."""


@pytest.mark.parametrize("pattern", USES)
def test_only_what_the_page_on_security_names_unpickles_connects_or_starts_programs(pattern):
    found = {
        path.relative_to(ROOT / "src" / "sfumato").as_posix()
        for path in ROOT.glob("src/**/*.py")
        if re.search(pattern, path.read_text("utf-8"), re.MULTILINE)
    }
    assert found == USES[pattern]


def test_the_hooks_of_a_commit_are_what_ci_checks():
    makefile, hooks = ((ROOT / name).read_text() for name in ("Makefile", ".pre-commit-config.yaml"))
    for check in re.findall(r"^\t\$\(BIN\)/((?:ruff|mypy)(?: \w+)?)", makefile, re.MULTILINE):
        assert f"entry: .venv/bin/{check}" in hooks
