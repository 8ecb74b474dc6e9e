"""`sfumato generate`: prompts in, pictures out. Whatever is wrong is found before torch is imported."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

from sfumato.cli import console, target
from sfumato.cli.help import OUTPUT
from sfumato.cli.options import Device, Program, Quiet, argument, option, request_fields
from sfumato.errors import UsageError
from sfumato.options import ModelOptions
from sfumato.request import Request

if TYPE_CHECKING:
    from sfumato.image import Image
    from sfumato.studio import Studio

program = Program()


@program.add(
    examples="""sfumato generate 'a red apple, 3d render' -o apple.png --seed 7
sfumato generate 'a blue cat' -n 4 -o cat.png        (cat-1.png to cat-4.png)
sfumato generate 'a cat' 'a dog' -o pets/ --steps 12 --sampler dpmpp-2m
sfumato generate - --json < prompts.txt
sfumato generate 'a red apple' -o - | display"""
)
def generate(
    prompts: Annotated[
        list[str], argument("PROMPT...", "What to draw; - reads prompts from stdin, one a line.")
    ],
    fields: Annotated[dict[str, Any], request_fields()],
    device: Device,
    output: Annotated[
        str | None,
        option(
            "-o, --output PATH",
            OUTPUT,
            "A file (.png .jpg .webp), a folder/, a pattern with {n} {seed} {prompt}, or - for stdout. "
            "Default: PROMPT-SEED.png here.",
        ),
    ] = None,
    preview: Annotated[
        Path | None, option("--preview FOLDER", OUTPUT, "Save a preview after every network evaluation.")
    ] = None,
    as_json: Annotated[bool, option("--json", OUTPUT, "Print one line of JSON a picture.")] = False,
    quiet: Quiet = False,
) -> None:
    """Draw every prompt and print where the pictures are."""
    from sfumato import expansion

    requests = [Request.build(prompt=prompt, **fields) for prompt in _prompts(prompts)]
    total = sum(map(expansion.pictures, requests))
    if output == "-" and as_json:
        raise UsageError("-o - and --json both write to standard output; give -o a file")
    place = target.plan(output, total)
    if preview is not None:
        target.make_folder(preview)
    meter = console.Meter(quiet)
    finished = 0
    try:
        with meter.shown("loading the model"):
            from sfumato.studio import open_studio

            studio = open_studio(ModelOptions.of_request(requests[0]), device)
            for image, seconds in _pictures(studio, requests, preview, meter):
                if place is None:
                    console.result_bytes(image.png())
                    continue
                path = place.path(finished + 1, image.request.prompt, image.request.seed or 0)
                image.save(path)
                finished += 1
                meter.result(console.as_json(_described(path, image, seconds)) if as_json else str(path))
    except console.Interrupted as interrupted:
        if finished:
            interrupted.add_note(f"{finished} of {total} pictures are finished")
        raise


def _pictures(
    studio: "Studio", requests: Sequence[Request], preview: Path | None, meter: console.Meter
) -> Iterator[tuple["Image", float]]:
    """Every finished picture and the seconds since the one before it."""
    since = perf_counter()
    for step in studio.stream(requests):
        number, total = step.image_index + 1, step.image_count
        meter.advance(f"picture {number} of {total}" if total > 1 else "drawing", step.total * total)
        if preview is not None:
            name = f"{step.index:0{len(str(step.total))}}.png"
            path = preview / (f"{number:0{len(str(total))}}-{name}" if total > 1 else name)
            (step.image or step.preview()).save(path)
        if step.image is not None:
            now = perf_counter()
            yield step.image, now - since
            since = now


def _described(path: Path, image: "Image", seconds: float) -> dict[str, Any]:
    """What `--json` prints of a picture."""
    found = {"path": str(path), "seed": image.request.seed, "seconds": round(seconds, 3)}
    width, height = image.size
    return {**found, "width": width, "height": height, **image.record.model_dump(mode="json")}


def _prompts(arguments: Sequence[str]) -> list[str]:
    """The prompts given, `-` replaced by the lines of stdin that are not blank."""
    prompts: list[str] = []
    for one in arguments:
        prompts += _stdin_lines() if one == "-" else [one]
    for prompt in prompts:
        if not prompt.strip():
            raise UsageError("the prompt is empty; say what to draw")
    return prompts


def _stdin_lines() -> list[str]:
    try:
        text = sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"standard input is not UTF-8 text: {error.reason} at byte {error.start}") from None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise UsageError("standard input holds no prompt; it is read one prompt a line")
    return lines
