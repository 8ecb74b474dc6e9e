"""The help pages: grouped and plain. Drawing boxes with rich would take longer than an answer may."""

import os
import shutil
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from sfumato.errors import UsageError, nearest
from sfumato.names import ELSEWHERE

PICTURE, CLIP, PROMPT, GUIDANCE, RUN, OUTPUT, MODEL, OTHER = PANELS = (
    "Picture",
    "Clip",
    "Prompt",
    "Guidance",
    "Run",
    "Output",
    "Model and device",
    "Other options",
)
"""The headings that options stand below, in their order."""
COLUMN = 28
WIDEST = 100


class HelpfulCommand(TyperCommand):
    """A command whose help page is ours; its epilog is shown line by line, as it is written."""

    def get_help(self, ctx: Any) -> str:
        return page(self, ctx)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As the base class; errors name the command, the value and what would be right."""
        self._check_spelled_once(args)
        try:
            return super().parse_args(ctx, args)
        except typer.TyperException as error:
            if getattr(error, "ctx", True) is None:
                error.ctx = ctx  # type: ignore[attr-defined]
            if wrong := getattr(error, "option_name", None) if hasattr(error, "possibilities") else None:
                raise UsageError(f"no such option: {wrong}; {self._right(wrong)} {see(ctx)}") from None
            if type(error.__cause__).__name__ == "ValidationError":  # pydantic is slow to import
                from sfumato.validation import reworded

                name = max(error.param.opts, key=len)  # type: ignore[attr-defined]
                (fault, *_) = error.__cause__.errors()  # type: ignore[union-attr]
                raise UsageError(
                    f"{name} is {fault['input']!r}: {reworded(fault['msg'])} {see(ctx)}"
                ) from None
            if (message := error.format_message()).startswith("Got unexpected extra argument"):
                extra = message.partition("(s) (")[2].removesuffix(")")
                takes = sum(param.param_type_name == "argument" for param in self.params)
                right = f"it takes {takes or 'none'}{'; put quotes around what has spaces' if takes else ''}"
                raise UsageError(f"too many arguments: {extra}; {right} {see(ctx)}") from None
            raise

    def _right(self, wrong: str) -> str:
        """What to type instead of the option `wrong`."""
        known = [name for param in self.params for name in param.opts if name.startswith("--")]
        here = [f"--{name}" for name in ELSEWHERE.get(wrong.lstrip("-").replace("-", "_"), ())]
        if here and {*here} <= {*known}:
            return f"here it is {' and '.join(here)}"
        if wrong in ("-p", "--prompt") and any(param.param_type_name == "argument" for param in self.params):
            return "the prompt is given without an option, in quotes"
        return nearest(wrong, known)

    def _check_spelled_once(self, args: list[str]) -> None:
        """Raise `UsageError` for an option that is given under two of its names."""
        given = args[: args.index("--")] if "--" in args else args
        for param in self.params:
            used = [name for name in param.opts if any(arg.partition("=")[0] == name for arg in given)]
            if len(used) > 1 and param.param_type_name == "option":
                raise UsageError(f"{' and '.join(used)} are one option; give one of the two")


def see(ctx: Any) -> str:
    """Where to read on."""
    return f"(see {ctx.command_path} --help)"


class HelpfulGroup(TyperGroup):
    """A group of commands whose help page is ours."""

    def get_help(self, ctx: Any) -> str:
        return page(self, ctx)


def page(command: HelpfulCommand | HelpfulGroup, ctx: typer.Context) -> str:
    """The help page of `command` as text, with bold headings for a terminal."""
    params = command.get_params(ctx)
    arguments = [param for param in params if param.param_type_name == "argument"]
    names = [str(param.metavar) for param in arguments] or (["COMMAND"] if _commands(command) else [])
    parts = [f"Usage: {ctx.command_path} {' '.join(['[OPTIONS]', *names])}", _filled(command.help or "", "")]
    if arguments:
        parts.append(_table((str(param.metavar), getattr(param, "help", "")) for param in arguments))
    if commands := _commands(command):
        parts.append(_heading("Commands") + _table(commands))
    groups: dict[str, list[tuple[str, str]]] = {}
    for param in params:
        if param.param_type_name == "option":
            group = getattr(param, "rich_help_panel", None) or OTHER
            groups.setdefault(group, []).append((_spelled(param), getattr(param, "help", "")))
    parts += [_heading(name) + _table(groups[name]) for name in PANELS if name in groups]
    if command.epilog:
        parts.append(_heading("Examples") + textwrap.indent(command.epilog, "  "))
    return "\n\n".join(parts) + "\n"


def _commands(command: HelpfulCommand | HelpfulGroup) -> list[tuple[str, str]]:
    if not isinstance(command, HelpfulGroup):
        return []
    return [(name, (one.help or "").partition("\n")[0]) for name, one in command.commands.items()]


def _spelled(option: Any) -> str:
    """An option as it is typed: "-n, --count N"."""
    value = f" {option.metavar}" if option.metavar else ""
    names = sorted([*option.opts, *option.secondary_opts], key=len)
    return f"{'' if len(names[0]) == 2 else '    '}{', '.join(names)}{value}"


def _table(rows: Iterable[tuple[str, str]]) -> str:
    return "\n".join(line for name, text in rows for line in _row(name, text))


def _row(name: str, text: str) -> Iterator[str]:
    lead = f"  {name}"
    if len(lead) > COLUMN - 2:
        yield lead
        lead = ""
    yield _filled(text, " " * COLUMN, f"{lead:{COLUMN}}")


def _filled(text: str, indent: str, first: str = "") -> str:
    width = min(shutil.get_terminal_size().columns, WIDEST)
    return textwrap.fill(
        text, max(width, 50), initial_indent=first, subsequent_indent=indent, break_on_hyphens=False
    )


def _heading(text: str) -> str:
    return f"{text if os.environ.get('NO_COLOR') else typer.style(text, bold=True)}\n"
