"""`sfumato upscale`: pictures made larger."""

from pathlib import Path
from typing import Annotated, Any

from sfumato.cli import like
from sfumato.cli.help import PICTURE
from sfumato.cli.options import Device, Program, argument, number, option, request_fields
from sfumato.cli.saving import Output, draw_and_save
from sfumato.errors import UsageError

program = Program()
LEFT_OUT = (
    "width", "height", "count", "image", "inversion", "source", "image_guidance", "mask", "fill", "feather",
    "crop", "resample", "origin", "upscale", "upscale_strength", "upscale_steps", "variation_seed",
    "variation_amount",
)  # fmt: skip
"""Fields of a request that say what the command says by itself, or what it has no use for."""


@program.add(
    examples="""sfumato upscale apple.png -o big.png
sfumato upscale apple.png --scale 2 --strength 0            (enlarge only)
sfumato upscale photo.png 'a harbour at dusk' --scale 2     (a picture that was not drawn here)"""
)
def upscale(
    path: Annotated[Path, argument("PICTURE", "The picture.")],
    fields: Annotated[dict[str, Any], request_fields(but=LEFT_OUT)],
    device: Device,
    output: Output,
    prompt: Annotated[
        str | None, argument("[PROMPT]", "What it shows. Default: the prompt in its record, if it has one.")
    ] = None,
    scale: Annotated[str, option("--scale N", PICTURE, "How many times larger. Default: 4.")] = "4",
) -> None:
    """Make a picture larger and print where it is.

    It is enlarged by --upscaler, and refined from there with --strength: 0.1 by the embedded model, 0.3 by
    others, unless given. A picture that Sfumato drew is refined by the model that drew it.
    """
    from sfumato.image import Image
    from sfumato.series.upscaling import upscaling

    given: Any = number(scale)
    if not isinstance(given, int | float) or not 1 < given <= 16:
        raise UsageError(f"--scale is {scale!r}: must be more than 1, and at most 16")
    texts: dict[str, Any] = {} if prompt is None else {"prompt": prompt}
    picture = Image.open(path) if like.holds_record(path) else path
    request = upscaling(picture, given, image=path, **texts, **fields)

    draw_and_save([request], device, output, fitted=lambda studio, one: studio.enlargement(one))
