"""`sfumato grid`: one request with every combination of values of its fields, on one page with labels."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from sfumato.cli import console, saving
from sfumato.cli.help import PICTURE
from sfumato.cli.options import Device, Program, argument, field_value, option, request_fields
from sfumato.cli.series import Output, described
from sfumato.cli.target import slug
from sfumato.formats import picture_format
from sfumato.options import ModelOptions
from sfumato.request import Request

if TYPE_CHECKING:
    import PIL.Image

    from sfumato.metadata import Record

program = Program()


@program.add(
    examples="""sfumato grid 'a {red|blue} apple' --x steps=4,8,20 --y guidance=1,4,7 -o grid.png
sfumato grid 'a red apple' --x prompt~apple=apple,pear,plum --y seed=1-4 --keep cells/
sfumato grid 'a red apple' --x sampler=ddim,dpmpp-2m,euler-a --y steps=4-12:4 --z guidance=1,4"""
)
def grid(
    prompt: Annotated[str, argument("PROMPT", "What to draw.")],
    fields: Annotated[dict[str, Any], request_fields(but=("count",))],
    device: Device,
    output: Output,
    x: Annotated[
        str | None,
        option(
            "--x FIELD=V,V,...",
            PICTURE,
            "The columns: any field of a request and its values, with ranges as 1-4 or 0-1:0.25; or words "
            "in place of one, prompt~apple=pear,plum; or weights of an adapter, lora~ink=0.4,0.8. "
            "Default: one.",
        ),
    ] = None,
    y: Annotated[str | None, option("--y FIELD=V,V,...", PICTURE, "The rows. Default: one.")] = None,
    z: Annotated[
        str | None, option("--z FIELD=V,V,...", PICTURE, "Grids under one another. Default: one.")
    ] = None,
) -> None:
    """Draw a picture for every combination and print where the page is."""
    from sfumato.series.grid import Axis, Grid

    axes = [Axis.parse(text, field_value) for text in (x, y, z) if text is not None]
    plan = Grid.of(Request.build(prompt=prompt, **fields), *axes)
    requests, name = plan.requests, f"{slug(prompt)}-grid.png"
    kind = picture_format(Path(output.output or name))
    path = output.place(name, plan.requests[0])
    meter = console.Meter(output.quiet)
    records: dict[int, Record] = {}
    cells: dict[int, PIL.Image.Image] = {}
    with meter.shown("loading the model"):
        from sfumato import devices
        from sfumato.studio import open_studio

        models: dict[ModelOptions, list[int]] = {}
        for index, request in enumerate(requests):
            models.setdefault(ModelOptions.of_request(request), []).append(index)
        for options, chosen in models.items():
            studio = open_studio(options, devices.native(device))
            for index in chosen:
                with plan.told(index):
                    studio.prepare(requests[index])
            drawn = saving.drawn(studio, [requests[index] for index in chosen], meter)
            for index, (image, _) in zip(chosen, drawn, strict=True):
                cells[index], records[index] = plan.cell(image.pil), image.record
                output.save_kept(image, index + 1, len(requests))
    every = [records[index] for index in range(len(requests))]
    pictures = [cells[index] for index in range(len(requests))]
    content = plan.encoded(pictures, every, kind, embed=not output.no_embed)
    output.finish(path, content, {"axes": plan.labels, "cells": described(every)})
