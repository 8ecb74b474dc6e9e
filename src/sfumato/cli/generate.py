"""`sfumato generate`: prompts in, pictures out. Whatever is wrong is found before torch is imported."""

import math
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

from sfumato import viewer
from sfumato.cli import console, like, target
from sfumato.cli.help import OUTPUT, PROMPT
from sfumato.cli.options import Device, Program, Quiet, argument, option, request_fields
from sfumato.errors import UsageError, warn
from sfumato.files import check_room, replace_atomically
from sfumato.formats import LOSSY, picture_format
from sfumato.options import ModelOptions
from sfumato.request import Request

if TYPE_CHECKING:
    import PIL.Image

    from sfumato.image import Image
    from sfumato.studio import Studio

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
    output: Annotated[
        str | None,
        option(
            "-o, --output PATH",
            OUTPUT,
            "A file (.png .jpg .webp), a folder/, a pattern such as {n:03d}-{seed}-{prompt}.png, or - for "
            "stdout. A missing folder is made; a file that is named is replaced, others never are. "
            "Default: PROMPT-SEED.png here.",
        ),
    ] = None,
    no_clobber: Annotated[
        bool, option("--no-clobber", OUTPUT, "Replace no file that is named either: NAME-2.png is beside it.")
    ] = False,
    sheet: Annotated[
        bool, option("--sheet", OUTPUT, "Write a contact sheet of all the pictures beside them too.")
    ] = False,
    show: Annotated[
        bool,
        option("--open", OUTPUT, "Open the picture (the sheet, or the first of several) when it is done."),
    ] = False,
    no_embed: Annotated[
        bool, option("--no-embed", OUTPUT, "Keep the content of --image and --mask out of the record.")
    ] = False,
    preview: Annotated[
        Path | None,
        option("--preview FOLDER", OUTPUT, "Save a preview after every network evaluation. Default: none."),
    ] = None,
    as_json: Annotated[bool, option("--json", OUTPUT, "Print one line of JSON a picture.")] = False,
    quiet: Quiet = False,
) -> None:
    """Draw every prompt and print where the pictures are."""
    from sfumato import expansion

    if model_picture is None:
        found = None
        if not prompts:
            raise UsageError("Missing argument 'PROMPT...': say what to draw, or take it --like PICTURE")
        requests = [Request.build(prompt=prompt, **fields) for prompt in _prompts(prompts)]
    else:
        found = like.record(model_picture, fields.get("model"))
        texts: list[dict[str, Any]] = [
            {"prompt": prompt, "templates": "random"} for prompt in _prompts(prompts or ())
        ]
        requests = [found.request.changed(**{**text, **fields}) for text in texts or [{}]]
    meter = console.Meter(quiet)
    with meter.shown("reading the prompts"):
        total = 0
        for number, each in enumerate(requests, start=1):
            try:
                total += expansion.pictures(each)
            except UsageError as error:
                if len(requests) == 1:
                    raise
                raise UsageError(f"prompt {number} of {len(requests)}: {error}") from None
    for name, given in (("--json", as_json), ("--sheet", sheet), ("--open", show)):
        if output == "-" and given:
            raise UsageError(f"-o - and {name} exclude each other; give -o a file")
    destination = target.plan(output, total, clobber=not no_clobber)
    if destination is not None:
        destination.check(request.prompt for request in requests)
    if preview is not None:
        target.make_folder(preview)
    done: list[Path] = []
    cells: list[tuple[PIL.Image.Image, str]] = []
    try:
        with meter.shown("loading the model"):
            if show and (why := viewer.why_none()):
                warn(f"the picture is saved, not shown: {why}")
            from sfumato import contact_sheet, devices
            from sfumato.studio import open_studio

            studio = open_studio(ModelOptions.of_request(requests[0]), devices.native(device))
            if found is not None and model_picture is not None:
                requests = [like.fitted(model_picture, found, each, studio).request for each in requests]
            # once, so that what is checked is what is drawn: templates choose by the seed
            requests = [studio.resolve(each) for each in requests]
            if destination is not None:
                asked = [(math.prod(each.size), expansion.count(each)) for each in requests]
                # a picture takes a tenth of a byte a pixel at the least, however it is compressed
                least = sum(pixels * count for pixels, count in asked) // 10
                check_room(destination.folder / destination.name, least)
            if destination is not None and picture_format(file_name := Path(destination.name)) in LOSSY:
                for picture in studio.prepare(requests):
                    studio.check_fits(picture, file_name)
            for image, seconds in _pictures(studio, requests, preview, meter):
                if destination is None:
                    console.result_bytes(image.png())
                    continue
                path = destination.path(len(done) + 1, image.request.prompt, image.request.seed or 0)
                image.save(path, embed=not no_embed)
                done.append(path)
                if sheet:
                    cells.append((contact_sheet.shrunk(image.pil, total), _caption(image, requests)))
                meter.result(console.as_json(_described(path, image, seconds)) if as_json else str(path))
    except console.Interrupted as interrupted:
        if done:
            interrupted.add_note(f"{len(done)} of {total} pictures are finished")
        raise
    if destination is not None and sheet:
        done.insert(0, destination.sheet(requests[0].prompt if len(requests) == 1 else ""))
        with replace_atomically(done[0]) as file:
            page = contact_sheet.contact_sheet(*zip(*cells, strict=True))
            page.save(file, picture_format(done[0]), quality=90)
        console.result(console.as_json({"sheet": str(done[0])}) if as_json else str(done[0]))
    if show and not viewer.why_none():
        viewer.show(done[0])


def _caption(image: "Image", requests: Sequence[Request]) -> str:
    """What tells a picture from the others of its sheet: its seed, its prompt if there are several."""
    seed = f"seed {image.request.seed}"
    several = len(requests) > 1 or image.request.prompt != requests[0].prompt
    return f"{image.request.prompt} ({seed})" if several else seed


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
    return {
        **found,
        "width": width,
        "height": height,
        **image.record.for_file("PNG", embed=False).model_dump(mode="json"),
    }


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
