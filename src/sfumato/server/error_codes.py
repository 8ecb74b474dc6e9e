"""Codes of the errors that people meet often, for programs that say them in words of their own.

An error is one English sentence. It arises in the library, in another process, or in an earlier version that
wrote it into the database, so its code and values are read from the sentence, in this one table.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

_PLACE = r"(?:the \w+(?: prompt)?, )?character (?P<place>\d+)"
"""Where something stands in a prompt; characters are counted from 1."""

SENTENCES: Mapping[str, str] = {
    "bracket_not_closed": rf"'(?P<sign>.)' is never closed; .*\({_PLACE}, ",
    "bracket_closes_nothing": rf"'(?P<sign>.)' closes nothing; .*\({_PLACE}, ",
    "bracket_closes_other": r"'(?P<sign>.)' cannot close '(?P<other>.)' of character (?P<place>\d+); ",
    "brace_not_closed": rf"{_PLACE}: this brace is never closed",
    "brace_closes_nothing": rf"{_PLACE}: \}} closes nothing",
    "weight_out_of_range": r"the weight \"?(?P<weight>[^\" ]+)\"? is outside "
    r"(?P<least>\S+) to (?P<most>[^; ]+)",
    "and_without_part": r"AND joins two parts of a prompt, and one of them is empty",
    "prompt_too_long": r"the prompt has (?P<characters>[\d,]+) characters; at most (?P<most>[\d,]+) are read",
    "unknown_wildcard": r"(?:^|: )there is no wildcard '(?P<name>[^']*)'",
    "unknown_style": r"^unknown style '(?P<name>[^']*)'",
    "unknown_adapter": r"^there is no adapter '(?P<name>[^']*)'",
    "unknown_motion_adapter": r"^there is no motion adapter '(?P<name>[^']*)'",
    "unknown_model": r"^model '(?P<name>[^']*)' is not served",
    "too_many_pictures": r"^the request is for (?P<count>[\d,]+) pictures: at most (?P<most>[\d,]+) at once",
    "too_many_pixels": r"^(?P<width>\d+) × (?P<height>\d+) are too many pixels: at most (?P<most>[\d,]+)",
    "too_many_frames": r"^frames is (?P<count>\d+): at most (?P<most>\d+) here",
    "too_many_steps": r"^steps is (?P<count>\d+): at most (?P<most>\d+) here",
    "adapter_taken": r"^adapter '(?P<name>[^']*)' is there already",
    "too_much_teaching": r"^steps are (?P<count>[\d,]+) in all: at most (?P<most>[\d,]+) here",
    "too_many_teachings": r"^(?P<most>\d+) teachings of this key are not over",
    "nothing_taught": r"^nothing is taught on this server",
    "queue_full": r"^(?P<waiting>\d+) jobs are waiting, of (?P<most>\d+) that may",
    "hourly_limit": r"^(?P<count>\d+) pictures were asked for within an hour, of (?P<most>\d+) that may be",
    "inputs_full": r"^the pictures that jobs begin from would take ",
    "no_worker": r"^(?:too many prompts and models are being read|no process that draws answers yet)",
    "body_too_large": r"^the body is too large",
    "picture_not_read": r"(?:^|: )\w+ is not a (?P<kinds>[^:]+) picture$",
    "picture_too_large": r" has (?P<width>\d+)×(?P<height>\d+) pixels; "
    r"the most that is read is (?P<most>[\d,]+) ",
    "picture_moves": r" is an animation; only single pictures are read",
    "picture_damaged": r"^(?:cannot read \w+: |\w+ is damaged: )",
    "picture_gone": r"^a picture that the request begins from is no longer there",
    "picture_refused": r"^the content gate of this server refused the picture",
    "picture_not_kept": r"^the (?:picture cannot be kept|server cannot keep the picture now): (?P<why>.*)",
    "not_finite": r"^the network's answer is not finite",
    "process_ended": r"^the process that drew it ended",
    "learning_ended": r"^the process that learned it ended",
    "machine_lost": r"^(?:the machine that drew it was lost|its worker was ended before it was done)",
    "file_not_read": r"^cannot read (?P<name>.+\.\w+): ",
    "database_away": r"^the database cannot be used now: ",
    "internal_error": r"^internal error",
}
"""What the sentence of an error with this code has in it; the groups are its values."""
_TABLE = {code: re.compile(sentence) for code, sentence in SENTENCES.items()}


class ErrorCode(NamedTuple):
    """An error for programs: its name, and what its sentence names."""

    code: str
    values: dict[str, str]


def coded(sentence: str) -> ErrorCode | None:
    """The code of an error, where it has one."""
    for code, pattern in _TABLE.items():
        if found := pattern.search(sentence):
            return ErrorCode(code, {name: _plain(value) for name, value in found.groupdict().items()})
    return None


def _plain(value: str) -> str:
    """A number without the commas that part its thousands, as programs read it."""
    return value.replace(",", "") if re.fullmatch(r"[\d,]+", value) else value
