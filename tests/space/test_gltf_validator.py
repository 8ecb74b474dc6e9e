"""What is written as glTF passes Khronos' validator, which `npm ci` brings."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from sfumato.space.mesh import Mesh, surface
from sfumato.space.shape import Shape

WEB = Path(__file__).parents[2] / "web"
SCRIPT = """
import validator from 'gltf-validator'
import { readFileSync } from 'node:fs'
const report = await validator.validateBytes(new Uint8Array(readFileSync(process.argv[1])))
console.log(JSON.stringify(report))
"""
pytestmark = pytest.mark.skipif(
    not shutil.which("node") or not (WEB / "node_modules" / "gltf-validator").is_dir(),
    reason="there is no gltf-validator: npm ci in web/",
)


def issues(path):
    """What the validator says of a file."""
    line = ["node", "--input-type=module", "-e", SCRIPT, str(path)]
    done = subprocess.run(line, cwd=WEB, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["issues"]


@pytest.fixture(scope="module")
def ball():
    z, y, x = (np.mgrid[:16, :16, :16] + 0.5) / 8 - 1
    return surface(0.7 - np.sqrt(x * x + y * y + z * z), 0.0)


@pytest.mark.parametrize("suffix", [".glb", ".gltf"])
@pytest.mark.parametrize("kind", ["texture", "colours", "neither"])
def test_a_written_mesh_has_no_errors_and_no_warnings(ball, kind, suffix, tmp_path):
    made = {
        "texture": lambda: ball.unwrapped().baked(lambda points, normals: points / 2 + 0.5, 64),
        "colours": lambda: Mesh(
            ball.vertices, ball.faces, colours=np.full(ball.vertices.shape, 99, np.uint8)
        ),
        "neither": lambda: ball,
    }[kind]()
    found = issues(Shape(made).save(tmp_path / f"ball{suffix}"))
    assert (found["numErrors"], found["numWarnings"]) == (0, 0), found["messages"]


def test_a_damaged_file_would_be_told(ball, tmp_path):
    path = Shape(ball).save(tmp_path / "ball.gltf")
    path.write_text(path.read_text().replace('"componentType":5126', '"componentType":5125', 1))
    assert issues(path)["numErrors"] > 0
