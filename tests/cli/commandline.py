"""The command as tests run it: in a process of its own, as users do, or in this one, which is quicker."""

import os
import re
import subprocess
import sys

from sfumato.cli import outcome

SMALL = ("-W", "64", "-H", "64", "--steps", "2", "--seed", "7")


def environment(**changed):
    kept = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "FORCE_COLOR"}}
    return {**kept, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "80", **changed}


def start(*arguments, cwd, **options):
    """The running command; its output comes through pipes unless `options` say otherwise."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    options = {**pipes, "env": environment(), "text": True, **options}
    return subprocess.Popen([sys.executable, "-m", "sfumato", *map(str, arguments)], cwd=cwd, **options)


def process(*arguments, cwd, stdin=None, **options):
    """The command run to its end: exit status, stdout, and stderr as it is where no time passes."""
    running = start(*arguments, cwd=cwd, **options, stdin=subprocess.PIPE)
    out, err = running.communicate(stdin, timeout=120)
    return running.returncode, out, timeless(err)


def timeless(err):
    """stderr without the lines that say what is being done for how long: a busy machine adds to them."""
    return re.sub(r"(?m)^.* \(\d+ s\)\n", "", err)


class Here:
    """The command run in this process, in the folder that pytest made."""

    def __init__(self, capfdbinary):
        self._captured = capfdbinary

    def __call__(self, *arguments):
        status = outcome.run([str(argument) for argument in arguments])
        out, err = self._captured.readouterr()
        return status, out.decode(), err.decode()

    def raw(self, *arguments):
        status = outcome.run([str(argument) for argument in arguments])
        return status, *self._captured.readouterr()
