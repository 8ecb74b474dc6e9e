"""How the command ends."""

import signal
import time
import warnings

import pytest
import torch

from sfumato import errors
from sfumato.cli import console, options, outcome
from sfumato.errors import CheckpointError, NumericsError, OutputError, SfumatoWarning, UsageError

CPU_ALLOCATOR = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
    "allocate 4398046511104 bytes. Error code 12 (Cannot allocate memory)"
)


def ending(error, monkeypatch, capsys, *arguments):
    def fail(_arguments):
        raise error

    monkeypatch.setattr(outcome, "_carry_out", fail)
    status = outcome.run(arguments)
    return status, capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (UsageError("no"), 2, "error: no\n"),
        (OutputError("two\nlines"), 1, "error: two lines\n"),
        (NumericsError("NaN at step 3"), 1, "error: NaN at step 3\n"),
        (CheckpointError("damaged"), 2, "error: damaged\n"),
        (MemoryError(), 1, f"error: out of memory; {outcome.MEMORY_HELP}\n"),
        (torch.OutOfMemoryError("CUDA out of memory"), 1, f"error: out of memory; {outcome.MEMORY_HELP}\n"),
        (RuntimeError(CPU_ALLOCATOR), 1, f"error: out of memory; {outcome.MEMORY_HELP}\n"),
        (OSError(28, "No space left on device", "a.png"), 1, "error: No space left on device: a.png\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (console.Interrupted(signal.SIGINT), 130, "interrupted\n"),
        (console.Interrupted(signal.SIGTERM), 143, "terminated\n"),
        (console.ReaderGoneError("closed"), 141, ""),
        (
            KeyError("lost"),
            1,
            "internal error: KeyError: 'lost' (run with --debug for the traceback)\n",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_every_error_has_its_status_and_at_most_one_line(error, status, told, monkeypatch, capsys):
    assert ending(error, monkeypatch, capsys) == (status, told)


def test_debug_shows_the_traceback_wherever_it_stands(monkeypatch, capsys):
    for line in (("--debug", "generate"), ("generate", "x", "--debug")):
        status, err = ending(UsageError("no"), monkeypatch, capsys, *line)
        assert status == 2
        assert err.startswith("Traceback (most recent call last)")
        assert err.endswith("error: no\n")


def test_debug_after_two_dashes_is_a_prompt():
    assert outcome._without_debug(["generate", "--", "--debug"]) == (["generate", "--", "--debug"], False)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_a_library_makes_an_error_of_still_ends_as_a_signal(number, monkeypatch, capsys):
    def swallow(_arguments):
        try:
            signal.raise_signal(number)
        except BaseException:
            raise ImportError("half imported") from None

    monkeypatch.setattr(outcome, "_carry_out", swallow)
    assert outcome.run([]) == 128 + number
    assert capsys.readouterr().err in {"interrupted\n", "terminated\n"}


def test_signals_are_handled_as_before_when_the_command_is_done():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert outcome.run(["--version"]) == 0
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_each_warning_is_told_once_and_those_of_others_not_at_all(capsys):
    meter = console.Meter(quiet=False, known=["known"])
    with meter.shown("working"):
        for text in ("new", "new", "known", "other"):
            warnings.warn(text, SfumatoWarning, stacklevel=1)
        warnings.warn("not ours", UserWarning, stacklevel=1)
    assert capsys.readouterr().err == "warning: new\nwarning: other\n"


def test_a_warning_outside_of_a_bar_is_a_line_like_the_others(capsys, monkeypatch):
    def work(_arguments):
        for text in ("new", "new"):
            errors.warn(text)
        warnings.warn("not ours", UserWarning, stacklevel=1)
        return 0

    monkeypatch.setattr(outcome, "_carry_out", work)
    assert outcome.run([]) == 0
    assert capsys.readouterr().err == "warning: new\n"


def test_where_no_bar_shows_it_a_long_silence_is_broken_by_what_is_being_done(capsys, monkeypatch):
    monkeypatch.setattr(console, "SILENCE", 0.01)
    meter, heard = console.Meter(), ""
    with meter.shown("loading"):
        for doing in ("loading", "packing, 3/1,000", "drawing, 1/20", "reading"):
            while f"{doing} (" not in heard:
                heard += capsys.readouterr().err
            if doing == "loading":
                meter.update("packing", 3, 1000)
            elif doing.startswith("packing"):
                meter.advance("drawing", 20)
            else:
                meter.begin("reading")
    with console.Meter(quiet=True).shown("loading"):
        time.sleep(0.05)
    assert capsys.readouterr().err.count("loading") == 0


def test_a_number_is_read_as_it_is_meant_and_anything_else_is_left_to_the_request():
    assert [options.number(text) for text in ("7", "7.5", "1e2", "x")] == [7, 7.5, 100.0, "x"]
