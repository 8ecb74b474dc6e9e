"""Mutation testing: how many of a sample of small changes to the code make a test of the same package fail.

    python tests/mutants.py [--count N] [--seed N] [--only PACKAGE]... [--jobs N]

mutmut makes the changes ("mutants") in a copy of the checkout, one at a time, and runs the tests that reach
the changed function. The sample is the same for the same code and seed. A mutant that no test reaches counts
as one that survives. The mutants that survive are printed as diffs.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
NONE = "no mutant has this name"
SPINNER = {*"⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"}


@dataclass(frozen=True)
class Package:
    """What is changed, as patterns of paths below `src/sfumato`, and the tests that are to see it."""

    code: tuple[str, ...]
    tests: tuple[str, ...]
    options: tuple[str, ...] = ()  # of pytest


EDITING = ("editing", "enlarging", "controls", "control_fits", "ready_controls", "layers")
SHAPING = ("shaping", "texturing")
DRAWING = (
    *("advice", "clips", "conditioning", "drawing", "library", "like", "loading", "motions"),
    *("passes", "pia", "resolving", "step"),
)
QUEUE = ("admission", "dispatcher", "jobs", "limits", "order", "workers")
STORE = (
    *("conditions", "content_files", "database", "group_store", "input_files", "input_store"),
    *("picture_files", "picture_store", "quota", "store", "tables", "words"),
)


def modules(folder: str, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{folder}/{name}.py" for name in names)


PACKAGES = {
    "diffusion": Package(("diffusion/*",), ("tests/diffusion", "tests/test_custom_samplers.py")),
    # torch does not compile through mutmut's calls
    "nets": Package(("nets/*",), ("tests/nets",), ("-k", "not compile")),
    "prompt": Package(("prompt/*",), ("tests/prompt",)),
    "adapt": Package(("adapt/*",), ("tests/adapt",), ("-k", "not compiled")),
    # a command in another folder does not find mutmut's settings
    "checkpoint": Package(("checkpoint/*",), ("tests/checkpoint",), ("-k", "not inspect_says_what_a_motion")),
    "edit": Package(("edit/*", "inputs.py", "scene.py", *modules("studio", EDITING)), ("tests/edit",)),
    "series": Package(("series/*",), ("tests/series",)),
    "space": Package(("space/*", *modules("studio", SHAPING)), ("tests/space",)),
    "studio": Package(
        modules("studio", DRAWING),
        (
            *("tests/test_studio.py", "tests/test_library_use.py", "tests/test_drawing_path.py"),
            *("tests/test_clips.py", "tests/test_prompts_drawn.py", "tests/test_prompt_travel.py"),
            *("tests/test_foreign.py", "tests/test_decoders.py", "tests/test_feature_cache.py"),
        ),
        ("-k", "not callers_line"),  # mutmut's own calls stand between
    ),
    "request": Package(
        ("engine.py", "request.py", "metadata.py", "files.py"),
        ("tests/test_engine.py", "tests/test_request.py", "tests/test_metadata.py", "tests/test_files.py"),
    ),
    "video": Package(("animation.py", "video.py"), ("tests/test_video.py",)),
    "server": Package(
        (*modules("server", QUEUE), *modules("server/store", STORE)),
        (
            *("tests/server/test_admission.py", "tests/server/test_queue_order.py"),
            *("tests/server/test_store.py", "tests/server/test_group_store.py"),
            "tests/server/test_workers.py",
        ),
        ("-k", "not postgresql"),
    ),
}
KILLED = ("killed", "timeout", "segfault")


def lines_of(package: Package) -> int:
    """How many lines of code the package has."""
    paths = [ROOT / "src" / "sfumato" / code.removesuffix("/*") for code in package.code]
    files = [each for path in paths for each in ([path] if path.is_file() else path.rglob("*.py"))]
    return sum(len(file.read_text("utf-8").splitlines()) for file in files)


def copied(folder: Path) -> None:
    """Copy the checkout, with what was compiled in it."""
    listed = subprocess.check_output(["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT)
    paths = [ROOT / os.fsdecode(name) for name in listed.split(b"\0") if name]
    for path in (*paths, *ROOT.glob("src/**/*.so")):
        if path.is_file():
            there = folder / path.relative_to(ROOT)
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, there)


def configure(folder: Path, package: Package) -> None:
    """Tell mutmut what to change, and which tests to run."""
    others = [path.name for path in folder.iterdir() if path.name not in ("src", "tests", "mutants")]
    settings = {
        "source_paths": ["src"],
        "only_mutate": [f"src/sfumato/{code}" for code in package.code],
        "also_copy": sorted(others),
        "timeout_multiplier": 3.0,
        "debug": True,  # else it keeps to itself which test failed before anything was changed
        "pytest_add_cli_args": ["-p", "no:cacheprovider", *package.options],
        "pytest_add_cli_args_test_selection": list(package.tests),
    }
    table = "\n".join(f"{key} = {json.dumps(value)}" for key, value in settings.items())
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    (folder / "pyproject.toml").write_text(
        f'{project}\n[tool.mutmut]\nprocess_isolation = "forkserver"\n{table}\n', "utf-8"
    )
    with (folder / "tests" / "conftest.py").open("a", encoding="utf-8") as conftest:
        # mutmut calls every function through two of its own: nested prompts go deeper
        conftest.write("\n__import__('sys').setrecursionlimit(4000)\n")


def mutmut(folder: Path, *words: str) -> str:
    """What a command of mutmut prints."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        # for the processes that tests start
        "PYTHONPATH": str(folder / "mutants" / "src"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "mutmut", *words], cwd=folder, env=environment, capture_output=True, text=True
    )
    if done.returncode and not (NONE in words and "nothing matches" in done.stderr):
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line[:1] not in SPINNER]
        raise SystemExit("\n".join([f"mutmut {words[0]} failed:", *lines[-40:]]))
    return done.stdout


def results(folder: Path) -> dict[str, str]:
    """The name of every mutant, and what became of it."""
    told = mutmut(folder, "results", "--all", "true")
    return dict(line.strip().rsplit(": ", 1) for line in told.splitlines() if "__mutmut_" in line)


def tried(
    package: Package, count: int, seed: int, jobs: int, folder: Path
) -> tuple[dict[str, str], list[str]]:
    """What became of each mutant of the sample, and the diffs of those that survived."""
    copied(folder)
    configure(folder, package)
    (folder / "mutants" / "src").mkdir(parents=True)  # else Python notes at its start that there is none
    mutmut(folder, "run", "--max-children", str(jobs), NONE)  # makes the mutants and times the tests
    names = sorted(results(folder))
    sample = random.Random(seed).sample(names, min(count, len(names)))
    mutmut(folder, "run", "--max-children", str(jobs), *sample)
    found = results(folder)
    outcomes = {name: found[name] for name in sample}
    return outcomes, [mutmut(folder, "show", name) for name in sample if outcomes[name] not in KILLED]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200, help="mutants of all packages together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", action="append", choices=PACKAGES, help="one package; may be repeated")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    chosen = parser.parse_args()
    packages = {name: PACKAGES[name] for name in chosen.only or PACKAGES}
    lines = {name: lines_of(package) for name, package in packages.items()}
    killed = total = 0
    for name, package in packages.items():
        share = max(1, round(chosen.count * lines[name] / sum(lines.values())))
        with tempfile.TemporaryDirectory() as folder:
            outcomes, survivors = tried(package, share, chosen.seed, chosen.jobs, Path(folder))
        died = sum(outcome in KILLED for outcome in outcomes.values())
        print(*survivors, f"{name}: {died} of {len(outcomes)} killed", sep="\n", flush=True)
        killed, total = killed + died, total + len(outcomes)
    print(f"all: {killed} of {total} killed, {killed / total:.0%} (seed {chosen.seed})")


if __name__ == "__main__":
    main()
