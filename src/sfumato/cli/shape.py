"""`sfumato shape`: a mesh or points from a picture, or from a prompt."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from sfumato import files
from sfumato.cli import console, saving, target
from sfumato.cli.help import OUTPUT, PICTURE
from sfumato.cli.options import Device, OptionGroup, Program, Quiet, argument, number, option, request_fields
from sfumato.errors import NumericsError, UsageError
from sfumato.formats import READ_FORMATS
from sfumato.options import DeviceOptions, ModelOptions
from sfumato.space.formats import check_mesh_suffix, check_points_suffix
from sfumato.space.settings import METHODS, OBJECTIVES, QUALITIES, check_method

if TYPE_CHECKING:
    import PIL.Image

    from sfumato.request import Request
    from sfumato.space.shape import Shape

program = Program()
LEFT_OUT = (
    "count", "transparent", "sticker", "image", "strength", "inversion", "source", "image_guidance", "mask",
    "fill", "feather", "crop", "resample", "seamless", "variation_seed", "variation_amount",
)  # fmt: skip
"""Fields of a request that a shape has no use for."""


KEPT_STEPS = 50
"""How often the state of a field is written while it is distilled."""


@dataclass(frozen=True)
class ShapeOutput:
    """Where the file goes, and what is shown of it."""

    output: Annotated[
        str | None,
        option("-o, --output FILE", OUTPUT, "The file; one that is named is replaced. Default: named here."),
    ] = None
    sheet: Annotated[
        bool, option("--sheet", OUTPUT, "Write a contact sheet of eight views beside it too, as a .png.")
    ] = False
    as_json: Annotated[bool, option("--json", OUTPUT, "Print one line of JSON.")] = False
    quiet: Quiet = False

    def place(self, name: str, check: Callable[[Path], object]) -> Path:
        """Where the file goes, called `name` unless it is given, if `check` does not refuse it.

        Raises `OutputError` where it cannot be written; its folder is made last.
        """
        path = Path(name) if self.output is None else Path(self.output).expanduser()
        check(path)
        target.make_folder(path.parent)
        path = target.Target(path.parent, path.name, 1, overwrite=self.output is not None).path(1, "", 0)
        files.check_file(path)
        if self.sheet:
            files.check_file(_sheet_beside(path))
        return path

    def finish(self, path: Path, sheet: "PIL.Image.Image | None", facts: dict[str, Any]) -> None:
        """Write the `sheet` beside the file, and print where both are."""
        if sheet is not None:
            beside = _sheet_beside(path)
            with files.replace_atomically(beside) as file:
                sheet.save(file, "PNG")
            facts = {**facts, "sheet": str(beside)}
            if not self.as_json:
                console.result(str(beside))
        console.result(console.as_json({"path": str(path), **facts}) if self.as_json else str(path))


def _sheet_beside(path: Path) -> Path:
    return path.with_name(f"{path.stem}-sheet.png")


Output = Annotated[ShapeOutput, OptionGroup.of(ShapeOutput)]


@program.add(
    examples="""sfumato shape apple.png -o apple.glb
sfumato shape photo.png --mask mask.png --thickness 0.5 -o photo.obj
sfumato shape 'a red apple, 3d render' --seed 7 -o apple.glb --sheet
sfumato shape 'a red apple, 3d render' --method field --quality good -o apple.glb
sfumato shape apple.png -o apple.ply --points 20000"""
)
def shape(
    what: Annotated[
        str,
        argument(
            "PICTURE|PROMPT", "A picture of one object, as apple.png; or a prompt, which is drawn first."
        ),
    ],
    fields: Annotated[dict[str, Any], request_fields(but=LEFT_OUT)],
    device: Device,
    output: Output,
    mask: Annotated[
        Path | None,
        option(
            "--mask FILE",
            PICTURE,
            "White where the object is, in a picture of equal size. Default: what is opaque, or stands out "
            "from a plain background.",
        ),
    ] = None,
    method: Annotated[
        str,
        option(
            "--method NAME",
            PICTURE,
            "Of a prompt: puff, one picture inflated, in seconds; field, a field of latents distilled from "
            "all sides, in minutes, whose --steps and --guidance these are then. Default: puff.",
            METHODS,
        ),
    ] = "puff",
    quality: Annotated[
        str, option("--quality NAME", PICTURE, "Of a field: draft or good. Default: draft.", tuple(QUALITIES))
    ] = "draft",
    objective: Annotated[
        str,
        option(
            "--objective NAME", PICTURE, "Of a field: sds, sjc or reconstruction. Default: sds.", OBJECTIVES
        ),
    ] = "sds",
    thickness: Annotated[
        str, option("--thickness N", PICTURE, "0.05 to 2; 1 makes a ball of a disc. Default: 1.")
    ] = "1",
    back: Annotated[
        str,
        option(
            "--back NAME",
            PICTURE,
            "What is seen from behind: inpaint, the colours of the rim continued; or mirror, the front. "
            "Default: inpaint.",
            ("inpaint", "mirror"),
        ),
    ] = "inpaint",
    faces: Annotated[str, option("--faces N", OUTPUT, "About how many triangles. Default: 20000.")] = "20000",
    points: Annotated[
        str | None,
        option(
            "--points N", OUTPUT, "Write so many points of the surface, as .ply or .npz. Default: a mesh."
        ),
    ] = None,
) -> None:
    """Make a closed, textured mesh and print where it is: .glb, .gltf, .obj, .stl, .ply or .npz.

    The object of a picture is cut out and inflated, and the picture is its front. A field that is
    interrupted goes on when the same command is given again.
    """
    if not what.strip():
        raise UsageError("nothing is to be shaped: give a picture, or a prompt in words")
    is_picture = Path(what).suffix.lower() in READ_FORMATS or Path(what).is_file()
    stem = Path(what).stem if is_picture else target.slug(what, 40)
    from sfumato.space.shape import check_points, check_puffing

    amount: Any = number(thickness)
    triangles: Any = number(faces)
    check_puffing(amount, back, triangles)
    check_method(method, quality, objective, amount, back)
    count: Any = None if points is None else number(points)
    if count is not None:
        check_points(count)
    check = check_mesh_suffix if points is None else check_points_suffix
    if is_picture and fields:
        raise UsageError(
            f"{', '.join(sorted(fields))} is given for a picture that is there: nothing is drawn"
        )
    if is_picture and method != "puff":
        raise UsageError(f"--method {method} is given with a picture: it belongs to a prompt")
    if mask is not None and not is_picture:
        raise UsageError("--mask is given with a prompt: it belongs to a picture that is there")
    from sfumato.request import Request

    request = Request.build(prompt=what, transparent=method == "puff", **({} if is_picture else fields))
    path = output.place(f"{stem}{'.glb' if points is None else '.ply'}", check)
    look: dict[str, Any] = {"thickness": amount, "back": back, "faces": triangles}
    meter = console.Meter(output.quiet)
    facts: dict[str, Any] = {}
    if is_picture:
        made = _of_picture(what, mask, look, meter)
    elif method == "field":
        made, facts = _of_field(request, device, (quality, objective), triangles, path, meter)
    else:
        made, facts = _of_prompt(request, device, look, meter)
    made.save(path, points=count)
    mesh = made.mesh
    facts = {"faces": len(mesh.faces), "watertight": mesh.is_watertight, **facts}
    output.finish(path, made.sheet() if output.sheet else None, facts)


def _of_picture(what: str, mask: Path | None, look: dict[str, Any], meter: console.Meter) -> "Shape":
    from sfumato.space.shape import Shape

    with meter.shown("shaping"):
        return Shape.of_picture(what, mask, **look)


def _of_prompt(
    request: "Request", device: DeviceOptions, look: dict[str, Any], meter: console.Meter
) -> "tuple[Shape, dict[str, Any]]":
    """The shape of a drawn picture, and how that was drawn."""
    from sfumato.space.libraries import library
    from sfumato.space.shape import Shape

    library("skimage")
    with meter.shown("loading the model"):
        from sfumato import devices
        from sfumato.studio import open_studio

        studio = open_studio(ModelOptions.of_request(request), devices.native(device))
        ((image, _),) = saving.drawn(studio, [studio.resolve(request)], meter)
        return Shape.of_picture(image, **look), {"request": image.request.model_dump(mode="json")}


def _of_field(
    request: "Request",
    device: DeviceOptions,
    how: tuple[str, str],
    faces: int,
    path: Path,
    meter: console.Meter,
) -> "tuple[Shape, dict[str, Any]]":
    """The shape of a field distilled in a quality by an objective. Its state is kept beside `path`."""
    from sfumato.space.libraries import library

    library("skimage")
    kept = path.with_name(f"{path.stem}.field.safetensors")
    with meter.shown("loading the model"):
        from sfumato import devices
        from sfumato.studio import open_studio, shaping

        studio = open_studio(ModelOptions.of_request(request), devices.native(device))
        distillation = shaping.field_distillation(studio, request, *how)
        if kept.exists():
            distillation.resume(kept)
        total = distillation.settings.steps
        try:
            while distillation.done < total:
                distillation.step()
                meter.update("distilling", distillation.done, total)
                if distillation.done % KEPT_STEPS == 0:
                    distillation.save(kept)
        except (console.Interrupted, NumericsError) as stopped:
            if distillation.done:
                distillation.save(kept)
                done = f"{distillation.done} of {total} steps are kept in {kept}"
                stopped.add_note(f"{done}; the same command goes on from there")
            raise
        meter.begin("colouring")
        made = shaping.finished_shape(studio, distillation, faces)
    kept.unlink(missing_ok=True)
    settings = distillation.settings
    return made, {
        "prompt": request.prompt,
        "steps": settings.steps,
        "seed": settings.seed,
        "objective": settings.objective,
    }
