"""`sfumato interpolate`: pictures from prompt to prompt and from seed to seed, as an animation or a strip."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from sfumato.cli import console, saving
from sfumato.cli.help import OUTPUT, PICTURE
from sfumato.cli.options import Device, Program, argument, number, option, request_fields
from sfumato.cli.series import Output, described
from sfumato.cli.target import slug
from sfumato.options import ModelOptions

if TYPE_CHECKING:
    import PIL.Image

    from sfumato.request import Request
    from sfumato.series.record import SetRecord

program = Program()
LEFT_OUT = ("seed", "count", "variation_seed", "variation_amount")
"""Fields of a request that the frames have of their own."""


@program.add(
    examples="""sfumato interpolate 'a red apple, 3d render' 'a lemon, 3d render' --frames 24 -o morph.gif
sfumato interpolate 'a red apple, 3d render' --seed 1 --seed 2 --seed 3 --loop -o walk.webp
sfumato interpolate 'a cat' 'a dog' --frames 8 --keep frames/ -o strip.png"""
)
def interpolate(
    prompts: Annotated[
        list[str], argument("PROMPT...", "What to draw, one after another; one prompt needs several seeds.")
    ],
    fields: Annotated[dict[str, Any], request_fields(but=LEFT_OUT)],
    device: Device,
    output: Output,
    seeds: Annotated[
        list[str] | None,
        option(
            "--seed N",
            PICTURE,
            "Seed of the noise; several are passed one after another. Repeatable. Default: random.",
        ),
    ] = None,
    frames: Annotated[str, option("--frames N", PICTURE, "How many pictures to draw. Default: 24.")] = "24",
    loop: Annotated[bool, option("--loop", PICTURE, "Lead back to the first picture.")] = False,
    equal_weights: Annotated[
        bool,
        option(
            "--equal-weights",
            PICTURE,
            "Space the frames by the weights of the prompts alone. Default: at constant speed, so that from "
            "each to the next the picture changes equally much; that is measured first, in fewer steps.",
        ),
    ] = False,
    fps: Annotated[str, option("--fps N", OUTPUT, "Frames a second, 1 to 50. Default: 12.")] = "12",
) -> None:
    """Draw pictures on the way and write them as .webp, .gif, .apng, .mp4, .webm or as a strip in a .png."""
    from sfumato import animation
    from sfumato.series.interpolation import Interpolation
    from sfumato.series.record import SetRecord

    given: Any = [number(seed) for seed in seeds or ()]
    count: Any = number(frames)
    rate: Any = number(fps)
    way = Interpolation.of(prompts, given, loop=loop, **fields)
    places = way.places(count)
    animation.check_fps(rate)
    name = "-to-".join(slug(prompt, 40) for prompt in (prompts[0], prompts[-1])[: len(prompts)]) + ".gif"
    file_name = Path(output.output or name)
    is_strip = file_name.suffix.lower() == ".png"
    kind = "PNG" if is_strip else animation.animation_format(file_name, besides=(".png",))
    path = output.place(name, way.requests[0])
    meter = console.Meter(output.quiet)
    with meter.shown("loading the model"):
        from sfumato import devices
        from sfumato.studio import open_studio

        studio = open_studio(ModelOptions.of_request(way.requests[0]), devices.native(device))
        studio.prepare([way.at(place) for place in places])

        def draw(requests: "list[Request]") -> "Sequence[PIL.Image.Image]":
            return [image.pil for image, _ in saving.drawn(studio, requests, meter)]

        if not equal_weights:
            meter.begin("measuring the way")
            places = way.even_places(count, draw, studio.decoders.quickest)
            meter.begin("drawing the frames")
        images = []
        for image, _ in saving.drawn(studio, [way.at(place) for place in places], meter):
            images.append(image)
            output.save_kept(image, len(images), count)
    records = [image.record for image in images]
    record = SetRecord.of(records, kind="interpolation", embed=not output.no_embed)
    pictures = [image.pil for image in images]
    if is_strip:
        content = strip(pictures, record)
    else:
        content = animation.encoded(pictures, kind, rate, record.held(kind))
    output.finish(path, content, {"fps": rate, "frames": described(records)})


def strip(pictures: "Sequence[PIL.Image.Image]", record: "SetRecord") -> bytes:
    """A PNG with the `pictures` side by side."""
    from sfumato.contact_sheet import contact_sheet

    buffer = io.BytesIO()
    contact_sheet(pictures, columns=len(pictures)).save(buffer, "PNG", **record.held("PNG"))
    return buffer.getvalue()
