"""The layers of the design: imports point downwards, packages form no circle, and the peers stay out."""

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "sfumato"

FLOORS = [
    {
        "errors", "names", "formats", "files", "folders", "validation", "config", "options", "weights",
        "devices", "machine", "pictures", "png_text", "contact_sheet", "viewer", "version", "animation",
    },
    {"diffusion"},
    {"nets"},
    {"prompt", "checkpoint", "adapt"},
    {
        "control", "element", "inputs", "request", "scene", "edit", "expansion", "foreign", "metadata",
        "image", "video", "engine", "few_steps", "decoders", "series", "space", "calls", "studio",
    },
    {"data", "evaluate", "train", "compat", "client"},
    {"cli", "server", "__main__"},
]  # fmt: skip
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}


def files(source=SOURCE):
    return sorted(path for path in source.rglob("*.py") if path != source / "__init__.py")


def package(path, source=SOURCE):
    """The package, or the module at the top, that a file belongs to."""
    return path.relative_to(source).with_suffix("").parts[0]


@cache
def imported(path):
    """Dotted names of every import in a file, those inside functions and type checks too."""
    return list(_imported(path))


def _imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides its floor"
            if node.module == "sfumato":
                yield from (f"sfumato.{alias.name}" for alias in node.names)
            else:
                yield node.module


def graph(source=SOURCE):
    """Every package, and those that it imports from."""
    found = {package(path, source): set() for path in files(source)}
    for path in files(source):
        for name in imported(path):
            first, *rest = name.split(".")
            if first == "sfumato" and rest and rest[0] in found:
                found[package(path, source)].add(rest[0])
    return {name: targets - {name} for name, targets in found.items()}


def reached(start, arrows):
    """What `start` imports, at any distance."""
    seen, waiting = set(), list(arrows[start])
    while waiting:
        if (name := waiting.pop()) not in seen:
            seen.add(name)
            waiting.extend(arrows[name])
    return seen


def circles(arrows):
    """The packages that import themselves through others."""
    return sorted(name for name in arrows if name in reached(name, arrows))


def test_imports_point_down_the_layers():
    for path in files():
        floor = FLOOR[package(path)]
        for name in imported(path):
            first, *rest = name.split(".")
            if first == "sfumato":
                assert rest, f"{path} imports the package itself, which imports everything"
                above = FLOOR.get(rest[0], len(FLOORS))
                assert above <= floor, f"{path} (floor {floor}) imports {name} (floor {above})"


def test_packages_form_no_circle():
    assert circles(graph()) == []


def test_the_peers_are_never_imported_by_the_package():
    for path in files():
        assert not {name.split(".")[0] for name in imported(path)} & {"diffusers", "transformers"}, path


def test_every_package_has_a_floor():
    assert {package(path) for path in files()} <= set(FLOOR)


def test_a_sampler_that_imports_a_network_would_be_caught(tmp_path):
    planted = tmp_path / "planted.py"
    planted.write_text("from sfumato.nets.unet import UNet\n")
    assert [FLOOR[name.split(".")[1]] > FLOOR["diffusion"] for name in imported(planted)] == [True]


def test_a_circle_between_packages_of_one_floor_would_be_caught(tmp_path):
    for name, content in {
        "train/loop.py": "from sfumato.evaluate.run import evaluate\n",
        "evaluate/run.py": "def evaluate():\n    from sfumato.compat import outputs\n",
        "compat/outputs.py": "from sfumato import train\n",
        "data/folder.py": "from sfumato.train.loop import train\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert circles(graph(tmp_path)) == ["compat", "evaluate", "train"]


def test_contributing_has_the_same_table_of_floors():
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d) \| (.*?) \|", text, re.MULTILINE)
    named = [re.findall(r"`(\w+)`", names) for _, names in rows]
    assert [int(floor) for floor, _ in rows] == list(range(len(FLOORS)))
    there = {package(path) for path in files()}
    assert [sorted(names) for names in named] == [sorted(names & there) for names in FLOORS]


def test_a_class_name_means_one_thing_in_the_whole_package():
    homes = {}
    for path in files():
        if path.relative_to(SOURCE).as_posix() in ("compat/models.py", "compat/control_models.py"):
            continue  # diffusers' names, which networks here may have as well
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, []).append(str(path.relative_to(SOURCE)))
    assert {name: files for name, files in homes.items() if len(files) > 1} == {}
