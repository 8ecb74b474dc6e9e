"""`sfumato video`: a clip from a prompt, or a picture that begins to move."""

from typing import TYPE_CHECKING, Annotated, Any

from sfumato.cli import console
from sfumato.cli.help import OUTPUT
from sfumato.cli.options import Device, Program, argument, option, request_fields
from sfumato.cli.series import Output
from sfumato.cli.target import slug
from sfumato.errors import UsageError
from sfumato.files import check_file, replace_atomically
from sfumato.options import ModelOptions
from sfumato.request import FRAMES_OF_CLIP, Request

if TYPE_CHECKING:
    from sfumato.video import Video

program = Program()
LEFT_OUT = (
    "count", "inversion", "source", "image_guidance", "mask", "fill", "feather", "crop", "resample",
    "transparent", "sticker", "controls", "upscale", "upscaler", "upscale_strength", "upscale_steps",
    "multidiffusion", "overlap",
)  # fmt: skip
"""Fields of a request that clips have not."""


@program.add(
    examples="""sfumato video 'a red apple bouncing, 3d render' -o apple.webp --frames 16 --fps 8 --loop
sfumato video 'a yellow bell swinging, 3d render' --fast -o bell.gif --sheet
sfumato video --travel '0: a green apple' --travel '15: a red apple' -o ripe.webp
sfumato video 'the cat swings' --image cat.png --strength 0.3 -o cat.mp4
sfumato video --image photo.png --model svd_xt/ --motion-amount 127 -o photo.mp4
sfumato video 'a dog' --model dreamy.safetensors --motion mm_sd_v15_v2.safetensors -o frames/"""
)
def video(
    fields: Annotated[dict[str, Any], request_fields(but=LEFT_OUT, clips=True)],
    device: Device,
    output: Output,
    prompt: Annotated[str, argument("[PROMPT]", "What the clip shows, and how it moves.")] = "",
    sheet: Annotated[bool, option("--sheet", OUTPUT, "Write a page of all frames beside it too.")] = False,
) -> None:
    """Draw a clip as .webp, .gif, .apng, .mp4, .webm or a folder/ of frames."""
    if not prompt and not fields.get("image") and not fields.get("travel"):
        raise UsageError("there is nothing to draw: give a prompt, or with --image a picture that moves")
    if output.output == "-":
        raise UsageError("--output is '-': a clip is written as a file or a folder, not as standard output")
    request = Request.build(**{"prompt": prompt, "frames": FRAMES_OF_CLIP, **fields})
    meter = console.Meter(output.quiet)
    with meter.shown("loading the model"):
        from sfumato import devices
        from sfumato import video as clips
        from sfumato.studio import open_studio

        name = output.output or f"{slug(prompt) or 'clip'}.webp"
        path = output.place(name, request, in_folder=clips.is_frames_folder(name))
        clips.check_writable(path)
        page = path.with_name(f"{path.stem}-sheet.png")
        if sheet:
            check_file(page)
        studio = open_studio(ModelOptions.of_request(request), devices.native(device))
        if fields.get("frames") is None:
            request = request.changed(frames=studio.clip_frames())
        drawn: Video | None = None
        for step in studio.stream(request):
            meter.advance("drawing", step.total)
            drawn = step.video or drawn
        assert drawn is not None
        drawn.save(path, embed=not output.no_embed)
    for number, frame in enumerate(drawn.frames, start=1):
        output.save_kept(frame, number, len(drawn))
    facts: dict[str, Any] = {"seed": drawn.request.seed, "frames": len(drawn), "fps": drawn.fps}
    if sheet:
        with replace_atomically(page) as file:
            drawn.sheet().save(file, "PNG")
        facts["sheet"] = str(page)
    record = drawn.record.for_file("PNG", embed=False).model_dump(mode="json")
    output.tell(path, {**facts, "record": record})
