"""`sfumato vary`: pictures like a picture."""

from pathlib import Path
from typing import Annotated, Any

from sfumato.cli import like
from sfumato.cli.help import PICTURE
from sfumato.cli.options import Device, Program, argument, number, option, request_fields
from sfumato.cli.saving import Output, draw_and_save
from sfumato.errors import PictureError, warn

program = Program()
LEFT_OUT = (
    "count", "variation_amount", "image", "strength", "inversion", "source", "image_guidance", "mask", "fill",
    "feather", "crop", "resample", "origin",
)  # fmt: skip
"""Fields of a request that say what the command says by itself."""


@program.add(
    examples="""sfumato vary apple.png
sfumato vary apple.png -n 9 --amount 0.1 --sheet -o apples/
sfumato vary photo.png 'a red apple, 3d render' --amount 0.4     (a picture that was not drawn here)"""
)
def vary(
    path: Annotated[Path, argument("PICTURE", "The picture.")],
    fields: Annotated[dict[str, Any], request_fields(but=LEFT_OUT)],
    device: Device,
    output: Output,
    prompt: Annotated[
        str | None, argument("[PROMPT]", "What it shows. Default: the prompt in its record, if it has one.")
    ] = None,
    amount: Annotated[
        str, option("--amount X", PICTURE, "How much changes, from 0 to 1: nothing or all. Default: 0.2.")
    ] = "0.2",
    count: Annotated[str, option("-n, --count N", PICTURE, "How many to draw. Default: 4.")] = "4",
) -> None:
    """Draw variations of a picture and print where they are.

    A picture that Sfumato drew is drawn again with a little of another noise in its own. Any other picture is
    where drawing begins, as by generate --image, with a strength of the amount.
    """
    from sfumato.image import Image
    from sfumato.series.variation import variation

    fields |= {"count": number(count)} | ({} if prompt is None else {"prompt": prompt})
    own = like.holds_record(path)
    if not own:
        fields = {**_said(path), **fields}
        warn(
            f"{path.name} has no record of Sfumato's: its variations begin with the picture itself (img2img)"
        )
    given: Any = number(amount)
    request = variation(Image.open(path) if own else path, given, **fields)
    draw_and_save([request], device, output, original=path)


def _said(path: Path) -> dict[str, Any]:
    """The texts with which another program drew the picture, if it says."""
    from sfumato import foreign

    try:
        request = foreign.read(path).request
    except PictureError:
        return {}
    return request.model_dump(include={"prompt", "negative", "dialect", "templates"})
