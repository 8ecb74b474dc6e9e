"""What in a text is a template at all: the names of wildcards, comments, and signs that mean themselves."""

import re
from collections.abc import Iterator

from sfumato.errors import UsageError

MAX_NAME_TEXT = 300

_SYNTAX = re.compile(r"[{}]|\\[{}_$#/]|_(?=_)")
_ESCAPE = re.compile(r"\\([{}|_$#/@!~%])")
_NO_NAME = frozenset(' \t\n\r_.,;:?)]}|"')
"""What no wildcard's name begins with: two underscores before one of these are text."""
_UPWARD = re.compile(r"\.{1,2}/[^\s_]")
"""What begins no name of a wildcard either, but is surely meant as one."""

# A number sign opens a comment between blanks, and at the beginning of a line or an option of several lines;
# two strokes do unless they stand in a word or an address. What is escaped, and names, may hold either.
_COMMENT = re.compile(
    r"""\\[\\{}|_$#/]
    | __(?=[^\s_.,;:?)\]}|"])(?:(?!__)(?:[^\n{}|]|\{[^\n{}]*\}))+__
    | (?P<comment>
        /\* (?:.*?\*/)?
        | (?:(?<![^\s{|])//|(?<![:/])//(?=\s|\Z)) [^\n]*
        | (?<![^\s{|])\#(?=\s|\Z) [^\n]*
        | \n[ \t]*\# [^\n]*
        | (?P<begin>\A\s*|[{|]\s*) \#
    )
    """,
    re.DOTALL | re.VERBOSE,
)


def is_template(text: str) -> bool:
    """Whether `text` holds anything that is read as a template; if not, it stands for itself."""
    return any(
        mark[0] != "_" or end_of_name(text, mark.start() + 2) for mark in _SYNTAX.finditer(text)
    ) or any(True for _ in _comments(text))


def end_of_name(text: str, at: int) -> int:
    """Where the name of a wildcard that begins at `at` ends; 0 if the underscores before are text."""
    if at >= len(text) or (text[at] in _NO_NAME and not _UPWARD.match(text, at)):
        return 0
    depth, place, last = 0, at, min(at + MAX_NAME_TEXT, len(text) - 1)
    while place < last:
        letter = text[place]
        if letter == "\n" or (not depth and letter in "|}"):
            return 0
        depth += (letter == "{") - (letter == "}")
        if not depth and place > at and text.startswith("__", place):
            return 0 if text[place - 1].isspace() else place
        place += 2 if letter == "\\" else 1
    return 0


def _comments(text: str) -> Iterator[tuple[int, int]]:
    """Where each comment of `text` begins and ends."""
    at, last_line = 0, text.rfind("\n") + 1
    while found := _COMMENT.search(text, at):
        begin, at = found.span()
        if found["begin"] is not None:
            begin = at - 1
            if begin >= last_line and not text[at : at + 1].isspace() and at < len(text):
                continue
            at = text.find("\n", at) if begin < last_line else len(text)
        if found["comment"]:
            yield begin, at


def without_comments(text: str, label: str) -> tuple[str, list[tuple[int, int]]]:
    """`text` without its comments, and for each place that had one how much is missing up to there."""
    kept: list[str] = []
    removed: list[tuple[int, int]] = []
    end = length = missing = 0
    for begin, after in _comments(text):
        if text.startswith("/*", begin) and not text.endswith("*/", begin + 2, after):
            raise UsageError(
                f"{label}, character {begin + 1}: this comment is never closed by */; as text it is \\/*"
            )
        kept.append(text[end:begin])
        length += begin - end
        missing += after - begin
        end = after
        removed.append((length, missing))
    return "".join([*kept, text[end:]]), removed


def plain(text: str) -> str:
    return _ESCAPE.sub(r"\1", text)
