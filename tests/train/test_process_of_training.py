"""The real `sfumato train` in a process of its own: signals, and what is seen on a terminal."""

import json
import os
import pty
import re
import signal
import subprocess
import sys

import pytest

from sfumato import weights
from sfumato.train.state import FILE

RECIPE = """
base = "{base}"
run = "{run}"
steps = {steps}
batch_size = 2
precision = "float32"
log_every = 1
[objective]
name = "autoencoder"
[data]
folder = "{data}"
"""


@pytest.fixture
def recipe(tiny_base, own_pictures, tmp_path):
    """Writes a recipe of so many steps."""

    def write(steps):
        path = tmp_path / "recipe.toml"
        path.write_text(RECIPE.format(data=own_pictures, base=tiny_base, run=tmp_path / "run", steps=steps))
        return path

    return write


def start(recipe, *options, **streams):
    # a shell that runs the tests in its background has what they start ignore SIGINT
    default = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code = default + "from sfumato.cli import main; sys.argv[0] = 'sfumato'; main()"
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **streams}
    return subprocess.Popen(
        [sys.executable, "-c", code, "train", str(recipe), "--device", "cpu", *options],
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"},
        **streams,
    )


def kept(run):
    return json.loads(weights.metadata(run / FILE)["progress"])["step"]


@pytest.mark.parametrize(("number", "word"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
def test_a_signal_ends_the_run_after_its_step_and_says_how_to_go_on(recipe, tmp_path, number, word):
    running = start(recipe(10**6))
    assert any(line.startswith("step 2/") for line in running.stderr)
    running.send_signal(number)
    *_, last = running.stderr.read().splitlines()
    out, _ = running.communicate(timeout=60)
    assert (running.returncode, out) == (128 + number, "")
    run = tmp_path / "run"
    step = kept(run)
    assert last == f"{word}; step {step:,} of 1,000,000 is kept in {run}, run again to go on"
    assert not (run / "model").exists(), "what is stopped is not finished"
    lines = [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()]
    assert lines == list(range(1, step + 1))


def test_on_a_terminal_one_line_lives_and_a_pipe_gets_the_result(recipe, tmp_path):
    ours, theirs = pty.openpty()
    running = start(recipe(3), "--json", stderr=theirs)
    os.close(theirs)
    seen = b""
    try:
        while part := os.read(ours, 65536):
            seen += part
    except OSError:  # how a terminal ends
        pass
    out, _ = running.communicate(timeout=60)
    os.close(ours)
    assert running.returncode == 0
    assert json.loads(out)["step"] == 3
    text = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", seen.decode())
    assert "recipe.toml: reading the data; training on cpu" in text
    assert re.search(r"loss \d\.\d{4}  [\d.]+ examples/s\s+\S+ 3/3 0:00 left", text)
    assert "\nstep " not in text
