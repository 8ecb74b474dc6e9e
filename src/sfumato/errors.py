"""The errors a user can meet, each one line that says what was wrong, where, and what would be right."""

import sys
import warnings
from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class SfumatoError(Exception):
    """Anything a user can mend; the command prints its text as one line and exits with `exit_status`."""

    exit_status = 1


class UsageError(SfumatoError):
    """A request that cannot be carried out as written: an unknown name, a value out of range."""

    exit_status = 2


class CheckpointError(SfumatoError):
    """A model file or folder that is missing, damaged, unsafe, or not what it claims to be."""

    exit_status = UsageError.exit_status


class OutputError(SfumatoError):
    """A result that could not be written."""


class PictureError(SfumatoError):
    """A picture file that is missing, damaged, too large, not a picture, or carries no record."""

    exit_status = UsageError.exit_status


class UnsupportedPictureError(PictureError):
    """A picture that may be sound, but is of a kind or a size that is not read."""


class DataError(SfumatoError):
    """Training data that is missing, damaged, or not what it claims to be."""

    exit_status = UsageError.exit_status


def unreachable(error: SfumatoError) -> SfumatoError:
    """`error` as no fault of what the user gave: that cannot be fetched here and now."""
    error.exit_status = SfumatoError.exit_status
    return error


class NumericsError(SfumatoError):
    """A computation that left the finite numbers, named with the step at which it did."""


class SfumatoWarning(UserWarning):
    """Something that was carried out, but probably not as hoped."""


def warn(message: str) -> None:
    """Issue a `SfumatoWarning` that names the line of the first caller outside this package."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).partition(".")[0] == "sfumato":
        frame, level = frame.f_back, level + 1
    warnings.warn(message, SfumatoWarning, stacklevel=level)


def nearest(name: str, known: Iterable[str]) -> str:
    """A closing phrase for an error: the known names that `name` begins or is close to, else at most 40."""
    known = sorted(known)
    longer = sorted((each for each in known if name and each.startswith(name)), key=len)
    close = longer[:3] or get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"did you mean {either(close)}?"
    more = f" and {len(known) - 40} more" if len(known) > 40 else ""
    return f"known: {', '.join(known[:40])}{more}"


def either(names: Sequence[str]) -> str:
    """Names as "'a'", "'a' or 'b'", "'a', 'b' or 'c'"."""
    *others, last = map(repr, names)
    return f"{', '.join(others)} or {last}" if others else last


def memory_ran_out(error: BaseException) -> bool:
    """Whether `error` is one of the ways in which Python and torch say that memory is exhausted."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
