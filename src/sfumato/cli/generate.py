"""`sfumato generate`: prompts in, pictures out. Whatever is wrong is found before torch is imported."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from sfumato.cli import like
from sfumato.cli.help import PROMPT
from sfumato.cli.options import Device, Program, argument, option, request_fields
from sfumato.cli.saving import Output, draw_and_save
from sfumato.errors import UsageError
from sfumato.request import Request

program = Program()


@program.add(
    examples="""sfumato generate 'a red apple, 3d render' -o apple.png --seed 7
sfumato generate 'a blue cat' -n 4 -o cat.png        (cat-1.png to cat-4.png)
sfumato generate 'a cat' 'a dog' -o pets/ --steps 12 --sampler dpmpp-2m
sfumato generate 'a red apple' -n 9 --sheet --open -o apples/
sfumato generate --like old.png --seed 8         (settings, also of other programs' pictures)
sfumato generate - --json < prompts.txt
sfumato generate 'a red apple' -o - | display"""
)
def generate(
    fields: Annotated[dict[str, Any], request_fields()],
    device: Device,
    output: Output,
    prompts: Annotated[
        list[str] | None, argument("PROMPT...", "What to draw; - reads prompts from stdin, one a line.")
    ] = None,
    model_picture: Annotated[
        Path | None,
        option(
            "--like PICTURE",
            PROMPT,
            "Take what is not given from a picture's record, of any program. Default: none.",
        ),
    ] = None,
) -> None:
    """Draw every prompt and print where the pictures are."""
    if model_picture is None:
        if not prompts:
            raise UsageError("Missing argument 'PROMPT...': say what to draw, or take it --like PICTURE")
        requests = [Request.build(prompt=prompt, **fields) for prompt in _prompts(prompts)]
        draw_and_save(requests, device, output)
        return
    found = like.record(model_picture, fields.get("model"))
    texts: list[dict[str, Any]] = [
        {"prompt": prompt, "templates": "random"} for prompt in _prompts(prompts or ())
    ]
    requests = [found.request.changed(**{**text, **fields}) for text in texts or [{}]]
    draw_and_save(
        requests,
        device,
        output,
        fitted=lambda studio, request: like.fitted(model_picture, found, request, studio).request,
    )


def _prompts(arguments: Sequence[str]) -> list[str]:
    """The prompts given, `-` replaced by the lines of stdin that are not blank."""
    prompts: list[str] = []
    _check_quoted(arguments)
    for one in arguments:
        prompts += _stdin_lines() if one == "-" else [one]
    for prompt in prompts:
        if not prompt.strip():
            raise UsageError("the prompt is empty; say what to draw")
    return prompts


def _check_quoted(arguments: Sequence[str]) -> None:
    """Raise `UsageError` where one prompt was probably meant, and the shell made several of its words."""
    words = [one for one in arguments if len(one.split()) == 1]
    if "-" in arguments or (len(words) < 2 and not any(one.endswith(",") for one in arguments[:-1])):
        return
    whole = " ".join(arguments).strip("'")
    quoted = f'"{whole}"' if sys.platform == "win32" else shlex.quote(whole)
    count = len(arguments)
    raise UsageError(
        f"without quotes these are {count} prompts; for one picture: sfumato generate {quoted}; for {count} "
        "pictures write the prompts to a file, one a line: sfumato generate - < FILE"
    )


def _stdin_lines() -> list[str]:
    try:
        text = sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"standard input is not UTF-8 text: {error.reason} at byte {error.start}") from None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise UsageError("standard input holds no prompt; it is read one prompt a line")
    return lines
