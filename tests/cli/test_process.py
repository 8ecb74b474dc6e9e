"""The real command in a process of its own, as a user meets it: pipes, signals, a terminal."""

import json
import os
import pty
import re
import signal
import subprocess
import sys

import pytest
from commandline import SMALL, environment, process, start, timeless

from sfumato.image import Image


@pytest.mark.parametrize("threads", ["1", "2"])
def test_a_picture_is_drawn_and_replays_as_identical_in_another_process(threads, tmp_path):
    env = environment(OMP_NUM_THREADS=threads)
    status, out, err = process("generate", "a red apple", "-o", "apple.png", *SMALL, cwd=tmp_path, env=env)
    assert (status, out) == (0, "apple.png\n")
    assert "warning: 64×64 is far from" in err
    assert process("replay", "apple.png", "-q", cwd=tmp_path, env=env) == (0, "identical: apple.png\n", "")


def test_the_embedded_model_is_drawn_with_and_no_hub_library_is_imported(tmp_path):
    code = (
        "import sys; from sfumato.cli.outcome import run; "
        f"status = run(['generate', 'a cat', '-q', '-o', 'a.png', *{SMALL!r}]); "
        "print(status, [name for name in ('huggingface_hub', 'rich', 'diffusers', 'transformers') "
        "if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "a.png\n0 []\n"


@pytest.mark.parametrize(("number", "word"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
def test_a_signal_in_mid_step_keeps_what_is_finished_and_leaves_no_half_file(number, word, tmp_path):
    line = ("generate", "a red apple", "-n", "900", "-o", "a.png", "-q", *SMALL)
    running = start(*line, cwd=tmp_path)
    first = running.stdout.readline()
    running.send_signal(number)
    out, err = running.communicate(timeout=60)
    told = [first.strip(), *out.split()]
    assert running.returncode == 128 + number
    finished = int(re.fullmatch(rf"{word}; (\d+) of 900 pictures are finished\n", err)[1])
    names = sorted(os.listdir(tmp_path))
    assert names[: len(told)] == told
    assert finished <= len(names) <= finished + 1
    for name in names:
        assert Image.open(tmp_path / name).as_drawn


def test_an_interrupt_while_everything_is_still_loading_is_one_line(tmp_path):
    running = start("generate", "-", "-o", "a.png", *SMALL, cwd=tmp_path, stdin=subprocess.PIPE)
    running.stdin.write("a red apple\n")
    running.stdin.close()
    while not _mapped(running.pid, "libtorch_cpu"):
        assert running.poll() is None
    running.send_signal(signal.SIGINT)
    running.stdin = None
    out, err = running.communicate(timeout=60)
    assert (running.returncode, out, timeless(err)) == (130, "", "interrupted\n")
    assert os.listdir(tmp_path) == []


def test_a_reader_that_goes_away_ends_the_command_without_a_word(tmp_path):
    running = start("generate", "a cat", "-n", "900", "-o", "a.png", "-q", "--json", *SMALL, cwd=tmp_path)
    assert json.loads(running.stdout.readline())["path"] == "a-001.png"
    running.stdout.close()
    assert running.stderr.read() == ""
    assert running.wait(timeout=60) == 141
    assert all(Image.open(path).as_drawn for path in tmp_path.iterdir())


@pytest.mark.parametrize("command", ["--version", "samplers"])
def test_a_full_disk_behind_stdout_is_one_line(command, tmp_path):
    with open("/dev/full", "w") as full:
        running = start(command, cwd=tmp_path, stdout=full)
        _, err = running.communicate(timeout=60)
    assert err in {
        "error: No space left on device\n",
        "error: cannot write to standard output: No space left on device\n",
    }
    assert running.returncode == 1


@pytest.mark.parametrize(("settings", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_a_terminal_sees_a_bar_with_the_time_left(settings, coloured, tmp_path):
    seen, status = _on_a_terminal("generate", "a cat", "-o", "a.png", *SMALL, cwd=tmp_path, **settings)
    assert status == 0
    assert "loading the model" in seen
    assert re.search(r"drawing .*[012]/2.*left", seen)
    assert "a.png" in seen
    assert bool(re.search(r"\x1b\[(\d+;)*3\dm|\x1b\[38;", seen)) == coloured


def _mapped(pid, library):
    with open(f"/proc/{pid}/maps") as maps:
        return library in maps.read()


def _on_a_terminal(*arguments, cwd, **settings):
    """What the command writes to a terminal of 100 columns, and its exit status."""
    ours, theirs = pty.openpty()
    settings = {"COLUMNS": "100", "TERM": "xterm-256color", **settings}
    running = start(
        *arguments, cwd=cwd, stdin=theirs, stdout=theirs, stderr=theirs, env=environment(**settings)
    )
    os.close(theirs)
    seen = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:
            break
        if not part:
            break
        seen += part
    os.close(ours)
    return seen.decode(), running.wait(timeout=60)
