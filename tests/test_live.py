"""The example that draws while one types, as a user has it: prompts, a keyboard, an interrupt."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sfumato.image import Image

LIVE = Path(__file__).parents[1] / "examples" / "live.py"


@pytest.fixture
def start(tmp_path):
    """Starts the example in a folder of its own; whatever still runs at the end is stopped."""
    running = []

    def starting(*words):
        line = [sys.executable, str(LIVE), "--steps", "1", *map(str, words)]
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        running.append(subprocess.Popen(line, cwd=tmp_path, **pipes, text=True, encoding="utf-8"))
        return running[-1]

    yield starting
    for one in running:
        with one:
            one.kill()


def shown(running, caption):
    """What is on the screen when a picture of that caption has been shown."""
    text = ""
    while not text.endswith(f"\x1b[J{caption}\n"):
        line = running.stdout.readline()
        assert line, running.stderr.read()
        text += line
    return text


def test_the_prompts_given_glide_one_into_the_next_and_a_closed_input_ends_it(start, tmp_path):
    words = ["a red apple", 'a "sour" lemon', "--glide", 3, "--frames", "frames"]
    running = start(*words)
    out, err = running.communicate()
    assert (running.returncode, out) == (0, ""), err
    assert err.startswith("frames: 4, ")
    frames = [Image.open(path) for path in sorted((tmp_path / "frames").iterdir())]
    assert [frame.request.prompt for frame in frames] == [
        '("a red apple").blend(1.0000)',
        '("a \\"sour\\" lemon", "a red apple").blend(0.3333, 0.6667)',
        '("a \\"sour\\" lemon", "a red apple").blend(0.6667, 0.3333)',
        '("a \\"sour\\" lemon").blend(1.0000)',
    ]
    assert {frame.request.seed for frame in frames} == {7}
    assert all(frame.request.fast for frame in frames)
    assert len({frame.pixels.tobytes() for frame in frames}) == 4


def test_what_is_typed_is_drawn_at_once_until_an_interrupt_and_what_cannot_be_drawn_is_told(start):
    running = start("--glide", 5000)

    def type_(line):
        running.stdin.write(f"{line}\n")
        running.stdin.flush()

    type_("a red apple")
    assert "▀" in shown(running, "a red apple")
    type_("\na cat withLora(nothing)")
    assert running.stderr.readline().startswith("a cat withLora(nothing): ")
    for prompt in ("a lemon", "a blue car"):
        type_(prompt)
        shown(running, prompt)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate()
    assert running.returncode == 0
    assert 3 <= int(re.match(r"frames: (\d+), [\d.]+ a second\n", err)[1]) < 5000


def test_more_steps_than_are_fast_end_it_at_once(start):
    running = start("a red apple", "--steps", 9)
    _, err = running.communicate()
    assert (running.returncode, err) == (
        1,
        "error: steps is 9: fast draws in 1 to 8; leave fast out for more\n",
    )


def test_a_folder_that_cannot_be_made_ends_it_with_a_line(start, tmp_path):
    (tmp_path / "frames").write_text("in the way")
    running = start("a red apple", "--frames", "frames")
    _, err = running.communicate()
    assert (running.returncode, err.count("\n")) == (1, 1)
    assert err.startswith("error: ")


def test_what_is_typed_in_no_known_coding_is_drawn_with_signs_for_it(start, tmp_path):
    running = start("--glide", 1, "--frames", "frames")
    running.stdin.buffer.write(b"a caf\xe9\n")
    out, err = running.communicate()
    assert (running.returncode, out) == (0, ""), err
    assert Image.open(tmp_path / "frames" / "0001.png").request.prompt == '("a caf\ufffd").blend(1.0000)'
