"""`sfumato scene`: a background and elements in front of it, from a TOML file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from sfumato.cli import target
from sfumato.cli.help import OUTPUT
from sfumato.cli.options import Device, Program, argument, option, request_fields
from sfumato.cli.saving import Output, draw_and_save
from sfumato.request import Request
from sfumato.scene import Scene

if TYPE_CHECKING:
    from sfumato.studio import Studio

program = Program()
_OTHERS = (
    "elements",
    "harmonise",
    "regions",
    "extend",
    "image",
    "mask",
    "fill",
    "feather",
    "crop",
    "resample",
)


@program.add(
    examples="""sfumato scene kitchen.toml -o kitchen.png
sfumato scene kitchen.toml -o kitchen.png --layers kitchen/     (again: draws only what has changed)"""
)
def scene(
    fields: Annotated[dict[str, Any], request_fields(but=_OTHERS)],
    device: Device,
    output: Output,
    path: Annotated[Path, argument("SCENE", "A TOML file; see docs/scenes.md.")],
    layers: Annotated[
        Path | None,
        option(
            "--layers FOLDER",
            OUTPUT,
            "Keep the background and each element there, as PNG, and draw only those that have changed. "
            "Default: none are kept.",
        ),
    ] = None,
) -> None:
    """Draw a background, elements in front of it, and all of it once more, lightly."""
    request = Scene.read(path).request.changed(**fields)
    if layers is not None:
        target.make_folder(layers)

    def fitted(studio: "Studio", request: Request) -> Request:
        from sfumato.studio.layers import LayerFolder

        studio.layers = None if layers is None else LayerFolder(layers)
        return request

    draw_and_save([request], device, output, fitted=fitted)
