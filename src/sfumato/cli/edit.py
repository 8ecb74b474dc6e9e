"""`sfumato edit`: a picture and an instruction in, the picture edited out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from sfumato.cli import console
from sfumato.cli.options import Device, Program, argument, request_fields
from sfumato.cli.saving import Output, draw_and_save
from sfumato.edit.instruction import edit_request
from sfumato.errors import UsageError
from sfumato.options import EDITOR, EMBEDDED
from sfumato.request import Request

if TYPE_CHECKING:
    from sfumato.studio import Studio

program = Program()
NOT_HERE = ("image", "mask", "fill", "feather", "crop", "resample", "fast")
"""Fields of `Request` that are no options of this command."""


@program.add(
    examples="""sfumato edit apple.png "make it blue" -o blue.png
sfumato edit apple.png "put it on a yellow background" -n 4 --sheet -o apples/
sfumato edit apple.png "a blue apple" --source "a red apple" -o blue.png   (by inversion)"""
)
def edit(
    picture: Annotated[Path, argument("PICTURE", "The picture to edit; it is not changed.")],
    instruction: Annotated[
        str,
        argument("INSTRUCTION", 'What to do, as "make it blue"; with --source what the result is to show.'),
    ],
    fields: Annotated[dict[str, Any], request_fields(but=NOT_HERE)],
    device: Device,
    output: Output,
) -> None:
    """Edit a picture as an instruction says and print where the result is.

    With --source, by a text-to-image model: the picture's own noise is drawn again by another prompt.
    """
    if not instruction.strip():
        raise UsageError('the instruction is empty; say what to do, as "make it blue"')
    by_inversion = bool(fields.get("source") or fields.get("inversion"))
    model = fields.get("model", EMBEDDED if by_inversion else EDITOR)
    request = edit_request(instruction, {**fields, "model": model, "image": str(picture)})

    def checked(studio: "Studio", request: Request) -> Request:
        studio.check_edit(request)
        if not output.quiet:
            how = f"by inversion ({request.inversion})" if request.inversion else "by instruction"
            console.complain(f"editing {how} with {studio.name}")
        return request

    draw_and_save([request], device, output, fitted=checked)
