"""The layers of the design: imports point downwards only, and the peers stay out of the package."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "sfumato"

FLOORS = [
    {
        "errors",
        "validation",
        "names",
        "formats",
        "files",
        "config",
        "weights",
        "devices",
        "folders",
        "pictures",
        "version",
        "options",
    },
    {"diffusion"},
    {"nets"},
    {"prompt", "checkpoint", "adapt"},
    {"request", "expansion", "metadata", "image", "engine", "few_steps", "decoders", "studio"},
    {"data", "train", "evaluate"},
    {"cli", "compat", "server", "__main__"},
]
ORDER = {name: floor for floor, names in enumerate(FLOORS) for name in names}


def modules():
    return sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")


def room(path):
    return path.relative_to(SOURCE).with_suffix("").parts[0]


def imported(path):
    """Dotted names of every import in a file, those inside functions and type checks too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides its floor"
            if node.module == "sfumato":
                yield from (f"sfumato.{alias.name}" for alias in node.names)
            else:
                yield node.module


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_down_the_layers(path):
    floor = ORDER[room(path)]
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "sfumato" and len(parts) > 1 and not parts[1].startswith("__"):
            target = ORDER.get(parts[1])
            if target is None:
                continue  # a public name of the package itself, such as sfumato.load
            assert target <= floor, f"{path.name} (floor {floor}) imports {name} (floor {target})"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_the_peers_are_never_imported_by_the_package(path):
    assert not {name.split(".")[0] for name in imported(path)} & {"diffusers", "transformers"}


def test_every_room_has_a_floor():
    assert {room(path) for path in modules()} <= set(ORDER)


def test_a_sampler_that_imports_a_network_would_be_caught(tmp_path):
    planted = tmp_path / "planted.py"
    planted.write_text("from sfumato.nets.unet import UNet\n")
    assert [ORDER[name.split(".")[1]] > ORDER["diffusion"] for name in imported(planted)] == [True]
