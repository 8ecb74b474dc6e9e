"""How the command ends: its exit status, one line about what went wrong, and what a signal does.

Exit status: 0 done; 1 failed (`replay`: the picture differs); 2 what was given is wrong: an option, a name of
nothing, a damaged picture, model, adapter or training data; 130 interrupted (Ctrl-C); 141 nobody reads the
output any more; 143 terminated.
"""

import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import typer

from sfumato.cli.console import Interrupted, Meter, ReaderGoneError, complain
from sfumato.errors import SfumatoError, memory_ran_out

USAGE, INTERRUPTED, READER_GONE = 2, 130, 141

MEMORY_HELP = "a smaller --width and --height, --slices 4, --tile 32 or --offload need less"


def main() -> NoReturn:
    """The entry point: run the command line of this process and exit."""
    status = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit status; what goes wrong is one line on stderr."""
    arguments, debug = _without_debug(arguments)
    received: list[Interrupted] = []
    try:
        with _signals(received), Meter().told_warnings():
            return _carry_out(arguments)
    except BaseException as error:
        if debug:
            traceback.print_exc()
        # a library may have turned the signal into an error of its own
        return _end(received[0] if received else error, debug)


def _carry_out(arguments: Sequence[str]) -> int:
    from sfumato.cli.app import app

    status = app(list(arguments or ["--help"]), prog_name="sfumato", standalone_mode=False)
    if not arguments:
        return USAGE
    return status if isinstance(status, int) else 0


def _end(error: BaseException, debug: bool) -> int:
    """Say what `error` means to the user; the exit status it stands for."""
    text = "; ".join([str(error), *getattr(error, "__notes__", ())])
    if isinstance(error, ReaderGoneError):
        return READER_GONE
    if isinstance(error, Interrupted):
        complain(text)
        return error.status
    if isinstance(error, (KeyboardInterrupt, typer.Abort)):
        complain("interrupted")
        return INTERRUPTED
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, typer.TyperException):
        command = getattr(getattr(error, "ctx", None), "command_path", "sfumato")
        complain(f"error: {error.format_message()} (see {command} --help)")
        return error.exit_code
    if isinstance(error, SfumatoError):
        complain(f"error: {text}")
        return error.exit_status
    if isinstance(error, OSError):
        where = f": {error.filename}" if error.filename else ""
        complain(f"error: {error.strerror or text}{where}")
        return 1
    if memory_ran_out(error):
        complain(f"error: out of memory; {MEMORY_HELP}")
        return 1
    hint = "" if debug else " (run with --debug for the traceback)"
    complain(f"internal error: {type(error).__name__}: {text}{hint}")
    return 1


@contextmanager
def _signals(received: list[Interrupted]) -> Iterator[None]:
    """Turn SIGINT and SIGTERM into `Interrupted`, raised where the program happens to be."""

    def stop(number: int, frame: FrameType | None) -> None:
        received.append(Interrupted(number))
        raise received[-1]

    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, handler in former.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _without_debug(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """The arguments without `--debug`, which may stand anywhere before `--`, and whether it was there."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    kept = [argument for argument in arguments[:end] if argument != "--debug"]
    return [*kept, *arguments[end:]], len(kept) < end
