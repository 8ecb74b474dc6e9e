"""`sfumato turntable`: a mesh seen from all around, as an animation."""

from pathlib import Path
from typing import Annotated, Any

from sfumato.cli import console
from sfumato.cli.help import OUTPUT, PICTURE
from sfumato.cli.options import Program, argument, number, option
from sfumato.cli.shape import Output
from sfumato.errors import UsageError
from sfumato.files import replace_atomically
from sfumato.space.formats import check_mesh_suffix

program = Program()


@program.add(
    examples="""sfumato turntable apple.glb -o apple.webp
sfumato turntable apple.glb --frames 24 --size 128 --elevation 30 -o apple.gif --sheet"""
)
def turntable(
    path: Annotated[Path, argument("MESH", "A .glb, .gltf, .obj, .stl, .ply or .npz file.")],
    output: Output,
    frames: Annotated[str, option("--frames N", PICTURE, "How many pictures, 2 to 360. Default: 36.")] = "36",
    size: Annotated[str, option("--size PX", PICTURE, "Width and height, 16 to 2048. Default: 256.")] = "256",
    elevation: Annotated[
        str, option("--elevation N", PICTURE, "Degrees above the horizon, −90 to 90. Default: 15.")
    ] = "15",
    bare: Annotated[
        bool, option("--bare", PICTURE, "Without shading: the colours of the texture. Default: shaded.")
    ] = False,
    fps: Annotated[str, option("--fps N", OUTPUT, "Frames a second, 1 to 50. Default: 12.")] = "12",
) -> None:
    """Draw a mesh from even azimuths and print where the animation is: .webp, .gif, .apng, .mp4 or .webm."""
    from sfumato import animation
    from sfumato.space.shape import Shape, check_frames

    count: Any = number(frames)
    rate: Any = number(fps)
    side, up = number(size), number(elevation)
    check_frames(count)
    animation.check_fps(rate)
    if not isinstance(side, int) or not 16 <= side <= 2048:
        raise UsageError(f"--size is {size!r}: must be 16 to 2048")
    if not isinstance(up, int | float) or not -90 <= up <= 90:
        raise UsageError(f"--elevation is {elevation!r}: must be −90 to 90 degrees")
    check_mesh_suffix(path)
    place = output.place(f"{path.stem}.webp", animation.animation_format)
    kind = animation.animation_format(place)
    animation.check_size((side, side), kind)
    meter = console.Meter(output.quiet)
    with meter.shown("drawing"):
        shape = Shape.open(path)
        look: dict[str, Any] = {"elevation": up, "size": side, "shaded": not bare}
        pictures = []
        for index in range(count):
            pictures.append(shape.render(360 * index / count, **look))
            meter.advance("drawing", count)
        content = animation.encoded(pictures, kind, rate, {})
    with replace_atomically(place) as file:
        file.write(content)
    output.finish(place, shape.sheet(**look) if output.sheet else None, {"frames": count, "fps": rate})
