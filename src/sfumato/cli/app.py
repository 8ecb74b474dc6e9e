"""The `sfumato` command: each subcommand is imported from the file of its name when it is called."""

from importlib import import_module
from shlex import quote
from typing import Annotated, Any

import typer

from sfumato.cli.help import HelpfulCommand, HelpfulGroup
from sfumato.errors import UsageError
from sfumato.version import __version__

COMMANDS = {
    "generate": "Draw pictures from prompts.",
    "vary": "Draw variations of a picture.",
    "scene": "Draw a background and elements in front of it, from a TOML file.",
    "extend": "Draw beyond the edges of a picture, whose pixels are kept.",
    "video": "Draw a clip: pictures that move.",
    "interpolate": "Draw pictures from prompt to prompt or seed to seed: an animation or a strip.",
    "grid": "Draw a prompt with every combination of values of some fields, on one labelled page.",
    "upscale": "Make a picture larger, and refine it.",
    "shape": "Make a mesh or points from a picture of an object, or from a prompt.",
    "turntable": "Draw a mesh from all around, as an animation.",
    "edit": "Change a picture as an instruction says.",
    "replay": "Draw a picture again from its file alone: identical (exit status 0), or how it differs (1).",
    "inspect": "Show what a model is and why, or the record of a picture.",
    "samplers": "List samplers and spacings and what each is for.",
    "prompt": "Show how a prompt is read: its parts, tokens, weights and chunks, step by step.",
    "styles": "List the style presets.",
    "convert": "Convert a model's folder into a single file, or back; or a pickle into safetensors.",
    "doctor": "Show what is installed, what is fast here, and what is missing.",
    "train": "Train by a recipe, stage after stage if it lists several; again: resume.",
    "teach": "Teach a model a subject or a style from a few pictures; again: resume.",
    "distill": "Train a student that draws in few steps what its teacher draws in many; again: resume.",
    "evaluate": "Measure how real a model's pictures look, and how well they follow their prompts.",
    "models": "List, download, find and delete models.",
    "adapters": "List, describe, convert, merge, resize, fold and extract LoRAs.",
    "data": "Make and check training data.",
    "serve": "Draw for programs over HTTP: OpenAI's Images API, A1111's, and Sfumato's own.",
}
"""The subcommands and their help in one line."""


class Commands(HelpfulGroup):
    """The subcommands; to list them, nothing of theirs is imported."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = {name: HelpfulCommand(name, help=text) for name, text in COMMANDS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """As the base class, with the subcommand itself in the place of its entry in the list."""
        if " " in args[0]:
            raise UsageError(f"no command is given; to draw a picture: sfumato generate {quote(args[0])}")
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None:
            text, program = command.help, import_module(f"sfumato.cli.{name}").program
            command = typer.main.get_command(program)
            command.help = text
        return name, command, rest


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sfumato {__version__}")
        raise typer.Exit


app = typer.Typer(
    name="sfumato",
    help="Text-to-image diffusion.",
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="sfumato generate 'a red apple, 3d render' -o apple.png",
)


@app.callback()
def _sfumato(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks; may stand anywhere.")] = False,
) -> None:
    """Options of every subcommand; `outcome.run` takes --debug out before this is called."""
