"""Drawing requests and saving what comes: what every command that draws shares, and its options."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

from sfumato import viewer
from sfumato.cli import console, target
from sfumato.cli.help import OUTPUT
from sfumato.cli.options import OptionGroup, Quiet, option
from sfumato.errors import UsageError, warn
from sfumato.files import check_room, read_file, replace_atomically
from sfumato.formats import LOSSY, picture_format
from sfumato.inputs import MAX_BYTES
from sfumato.options import DeviceOptions, ModelOptions
from sfumato.request import Request

if TYPE_CHECKING:
    import PIL.Image

    from sfumato.image import Image
    from sfumato.studio import Studio


@dataclass(frozen=True)
class OutputOptions:
    """Where pictures go, and what is shown and said of them."""

    output: Annotated[
        str | None,
        option(
            "-o, --output PATH",
            OUTPUT,
            "A file (.png .jpg .webp), a folder/, a pattern such as {n:03d}-{seed}-{prompt}.png, or - for "
            "stdout. A missing folder is made; a file that is named is replaced, others never are. "
            "Default: PROMPT-SEED.png here.",
        ),
    ] = None
    no_clobber: Annotated[
        bool, option("--no-clobber", OUTPUT, "Replace no file that is named either: NAME-2.png is beside it.")
    ] = False
    sheet: Annotated[
        bool, option("--sheet", OUTPUT, "Write a contact sheet of all the pictures beside them too.")
    ] = False
    show: Annotated[
        bool,
        option("--open", OUTPUT, "Open the picture (the sheet, or the first of several) when it is done."),
    ] = False
    no_embed: Annotated[
        bool, option("--no-embed", OUTPUT, "Keep the content of the pictures given out of the record.")
    ] = False
    preview: Annotated[
        Path | None,
        option("--preview FOLDER", OUTPUT, "Save a preview after every network evaluation. Default: none."),
    ] = None
    as_json: Annotated[bool, option("--json", OUTPUT, "Print one line of JSON a picture.")] = False
    quiet: Quiet = False


Output = Annotated[OutputOptions, OptionGroup.of(OutputOptions)]


def draw_and_save(
    requests: Sequence[Request],
    device: DeviceOptions,
    output: OutputOptions,
    *,
    fitted: Callable[["Studio", Request], Request] = lambda studio, request: request,
    original: Path | None = None,
) -> None:
    """Draw every picture of `requests`, all of one model, and print where they are.

    `fitted`: what the loaded model makes of a request. `original`: a picture that is not replaced, besides
    those that the requests begin from. Whatever is wrong is raised before torch is imported,
    or else before anything is drawn.
    """
    meter = console.Meter(output.quiet)
    total = _total(requests, meter)
    for name, given in (("--json", output.as_json), ("--sheet", output.sheet), ("--open", output.show)):
        if output.output == "-" and given:
            raise UsageError(f"-o - and {name} exclude each other; give -o a file")
    destination = target.plan(output.output, total, clobber=not output.no_clobber)
    if destination is not None:
        destination.check(request.prompt for request in requests)
        _spare_originals(requests, destination, original)
    if output.preview is not None:
        target.make_folder(output.preview)
    done: list[Path] = []
    cells: list[tuple[PIL.Image.Image, str]] = []
    try:
        with meter.shown("loading the model"):
            if output.show and (why := viewer.why_none()):
                warn(f"the picture is saved, not shown: {why}")
            from sfumato import contact_sheet, devices
            from sfumato.studio import open_studio

            studio = open_studio(ModelOptions.of_request(requests[0]), devices.native(device))
            # once, so that what is checked is what is drawn: templates choose by the seed
            requests = [studio.resolve(fitted(studio, each)) for each in requests]
            if destination is not None:
                _check_saved(studio, requests, destination)
            for image, seconds in drawn(studio, requests, meter, preview=output.preview):
                if destination is None:
                    console.result_bytes(image.png())
                    continue
                path = destination.path(len(done) + 1, image.request.prompt, image.request.seed or 0)
                image.save(path, embed=not output.no_embed)
                done.append(path)
                if output.sheet:
                    several = len(requests) > 1 or image.request.prompt != requests[0].prompt
                    text = contact_sheet.caption(image.request.prompt, image.request.seed, several=several)
                    cells.append((contact_sheet.shrunk(image.pil, total), text))
                described = _described(path, image, seconds) if output.as_json else None
                meter.result(str(path) if described is None else console.as_json(described))
    except console.Interrupted as interrupted:
        if done:
            interrupted.add_note(f"{len(done)} of {total} pictures are finished")
        raise
    if destination is not None and output.sheet:
        done.insert(0, destination.sheet(requests[0].prompt if len(requests) == 1 else ""))
        with replace_atomically(done[0]) as file:
            page = contact_sheet.contact_sheet(*zip(*cells, strict=True))
            page.save(file, picture_format(done[0]), quality=90)
        console.result(console.as_json({"sheet": str(done[0])}) if output.as_json else str(done[0]))
    if output.show and not viewer.why_none():
        viewer.show(done[0])


def drawn(
    studio: "Studio", requests: Sequence[Request], meter: console.Meter, *, preview: Path | None = None
) -> Iterator[tuple["Image", float]]:
    """Every finished picture and the seconds since the one before it; previews go to a folder `preview`."""
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


def _total(requests: Sequence[Request], meter: console.Meter) -> int:
    """How many pictures `requests` ask for. Raises `UsageError` for texts that cannot be read."""
    from sfumato import expansion

    total = 0
    with meter.shown("reading the prompts"):
        for number, each in enumerate(requests, start=1):
            try:
                total += expansion.pictures(each)
            except UsageError as error:
                if len(requests) == 1:
                    raise
                raise UsageError(f"prompt {number} of {len(requests)}: {error}") from None
    return total


def _spare_originals(requests: Sequence[Request], destination: target.Target, original: Path | None) -> None:
    """Raise `UsageError` where a picture would replace one that it is drawn from."""
    contents = {each.data for one in requests for each in one.inputs.values() if each.data is not None}
    if original is not None:
        contents.add(read_file(original, MAX_BYTES))
    if contents:
        destination.spare(requests[0].prompt, requests[0].seed or 0, contents)


def _check_saved(studio: "Studio", requests: Sequence[Request], destination: target.Target) -> None:
    """Raise what saving the pictures of resolved `requests` would, as far as it is known before drawing."""
    from sfumato import expansion

    file_name = Path(destination.name)
    # a picture takes a tenth of a byte a pixel at the least, however it is compressed
    least = sum(math.prod(each.size) * expansion.count(each) for each in requests) // 10
    check_room(destination.folder / file_name, least)
    if picture_format(file_name) in LOSSY:
        for picture in studio.prepare(requests):
            studio.check_fits(picture, file_name)


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
