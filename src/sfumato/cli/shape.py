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
from sfumato.space.formats import MESHES, check_points_suffix, check_written_suffix
from sfumato.space.settings import FACES, METHODS, OBJECTIVES, QUALITIES, check_method

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
"""How often the state of a field is written while it is distilled, and a preview of it."""
PREVIEW_FPS = 6


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
sfumato shape apple.png -o apple.ply --points 20000
sfumato shape apple.glb 'rusty iron, 3d render' -o iron.glb
sfumato shape 'a red apple' --model shap-e/ -o apple.glb
sfumato shape apple.png --model shap-e-img2img/ -o apple.glb"""
)
def shape(
    what: Annotated[
        str,
        argument(
            "PICTURE|PROMPT|MESH",
            "A picture of one object, as apple.png; a prompt, which is drawn first; or a mesh, as apple.glb. "
            "With a --model of shapes (Shap-E), what the shape is drawn from.",
        ),
    ],
    fields: Annotated[dict[str, Any], request_fields(but=LEFT_OUT)],
    device: Device,
    output: Output,
    material: Annotated[
        str, argument("[PROMPT]", "Of a mesh: what it is to look like, as 'rusty iron'. It keeps its form.")
    ] = "",
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
            "--objective NAME",
            PICTURE,
            "Of a field: sds, sjc, vsd, reconstruction. Default: sds.",
            OBJECTIVES,
        ),
    ] = "sds",
    preview: Annotated[
        Path | None,
        option(
            "--preview FILE",
            OUTPUT,
            "Of a field: an animation that shows it from around, written anew every 50 steps; of Shap-E, its "
            "radiance field from around. Default: none.",
        ),
    ] = None,
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
    faces: Annotated[
        str | None,
        option("--faces N", OUTPUT, "About how many triangles. Default: 20000, and those that a mesh has."),
    ] = None,
    points: Annotated[
        str | None,
        option(
            "--points N", OUTPUT, "Write so many points of the surface, as .ply or .npz. Default: a mesh."
        ),
    ] = None,
) -> None:
    """Make a closed, textured mesh and print where it is: .glb, .gltf, .obj, .stl, .ply, .npz or .html.

    The object of a picture is cut out and inflated, and the picture is its front. A field that is
    interrupted goes on when the same command is given again. A mesh is given a texture by a prompt; without
    one it is written in another format, or as points.
    """
    if not what.strip():
        raise UsageError("nothing is to be shaped: give a picture, a mesh, or a prompt in words")
    suffix = Path(what).suffix.lower()
    kind = "mesh" if suffix in MESHES else "prompt"
    if kind != "mesh" and (suffix in READ_FORMATS or Path(what).is_file()):
        kind = "picture"
    from sfumato.space.shape import check_points, check_puffing

    amount: Any = number(thickness)
    triangles: Any = None if faces is None else number(faces)
    check_puffing(amount, back, FACES if triangles is None else triangles)
    check_method(method, quality, objective, amount, back)
    count: Any = None if points is None else number(points)
    if count is not None:
        check_points(count)
    check = check_written_suffix if points is None else check_points_suffix
    of_puff = {"--thickness": amount != 1, "--back": back != "inpaint"}
    shap_e = kind != "mesh" and _is_shape_model(fields, device)
    if shap_e:
        _check_shap_e({"--mask": mask is not None, f"--method {method}": method != "puff", **of_puff})
    drawn = shap_e or kind == "prompt" or (kind == "mesh" and material)
    for name, given, belongs in (
        ("--mask", mask is not None and kind != "picture", "a picture that is there"),
        (f"--method {method}", method != "puff" and kind != "prompt", "a prompt"),
        *((name, given and kind == "mesh", "a picture or a prompt") for name, given in of_puff.items()),
        ("--preview", preview is not None and method != "field" and not shap_e, "the method field"),
        ("a second prompt", material and kind != "mesh", "a mesh"),
        (
            "--faces",
            faces is not None and kind == "mesh" and not material,
            "a prompt, or a mesh with a prompt",
        ),
    ):
        if given:
            raise UsageError(f"{name} is given with a {kind}: it belongs to {belongs}")
    if fields and not drawn:
        raise UsageError(f"{', '.join(sorted(fields))} is given for a {kind} that is there: nothing is drawn")
    from sfumato.request import Request

    if shap_e:
        seen = {"image": what} if kind == "picture" else {}
        request = Request.build(prompt="" if seen else what, **fields, **seen)
    else:
        transparent = kind == "prompt" and method == "puff"
        request = Request.build(prompt=material or what, transparent=transparent, **fields)
    stem = target.slug(what, 40) if kind == "prompt" else Path(what).stem
    if preview is not None:
        from sfumato import animation

        animation.animation_format(preview)
        files.check_file(preview)
    path = output.place(f"{stem}{'.glb' if points is None else '.ply'}", check)
    look: dict[str, Any] = {"thickness": amount, "back": back, "faces": triangles or FACES}
    meter = console.Meter(output.quiet)
    facts: dict[str, Any] = {}
    if shap_e:
        made, facts = _of_shap_e(request, device, triangles or FACES, preview, meter)
    elif kind == "mesh":
        made, facts = _of_mesh(Path(what), request if material else None, device, triangles, meter)
    elif kind == "picture":
        made = _of_picture(what, mask, look, meter)
    elif method == "field":
        made, facts = _of_field(
            request, device, (quality, objective), triangles or FACES, (path, preview), meter
        )
    else:
        made, facts = _of_prompt(request, device, look, meter)
    made.save(path, points=count)
    mesh = made.mesh
    facts = {"faces": len(mesh.faces), "watertight": mesh.is_watertight, **facts}
    output.finish(path, made.sheet() if output.sheet else None, facts)


def _is_shape_model(fields: dict[str, Any], device: DeviceOptions) -> bool:
    """Whether the model that is asked for is one of shapes."""
    if "model" not in fields:
        return False
    from sfumato import devices
    from sfumato.checkpoint.shape_model import is_shape_model
    from sfumato.request import Request

    dtype = devices.pick_dtype(devices.pick_device(device.device), device.dtype)
    return is_shape_model(ModelOptions.of_request(Request.build(prompt="", **fields)), dtype)


def _check_shap_e(given: dict[str, bool]) -> None:
    """Raise `UsageError` for options that Shap-E has no use for."""
    if others := [name for name, there in given.items() if there]:
        raise UsageError(f"{', '.join(others)} is given, and Shap-E does not read it")


def _of_shap_e(
    request: "Request", device: DeviceOptions, faces: int, preview: Path | None, meter: console.Meter
) -> "tuple[Shape, dict[str, Any]]":
    """The shape that Shap-E draws, and how; its radiance field goes into `preview`."""
    from sfumato.space.libraries import library

    library("skimage")
    with meter.shown("loading the model"):
        from sfumato import animation, devices
        from sfumato.studio import ShapeModel

        model = ShapeModel.load(ModelOptions.of_request(request), devices.native(device))
        request = model.resolve(request)
        latent = model.latent(request, told=lambda done, total: meter.update("drawing", done, total))
        if preview is not None:
            meter.begin("looking at it")
            kind = animation.animation_format(preview)
            with files.replace_atomically(preview) as file:
                file.write(animation.encoded(list(model.views(latent)), kind, PREVIEW_FPS, {}))
        meter.begin("meshing")
        made = model.shape_of(latent, faces=faces)
    told = "prompt", "seed", "steps", "guidance", "sampler", "spacing"
    return made, {"model": model.model.name, **request.model_dump(mode="json", include=set(told))}


def _of_mesh(
    path: Path,
    request: "Request | None",
    device: DeviceOptions,
    faces: int | None,
    meter: console.Meter,
) -> "tuple[Shape, dict[str, Any]]":
    """A mesh that is there, of about so many `faces`, with a texture by a request, and how that was made."""
    from sfumato.space.shape import Shape

    shape = Shape.open(path)
    if request is None:
        return shape, {}
    with meter.shown("loading the model"):
        from sfumato import devices
        from sfumato.studio import open_studio
        from sfumato.studio.texturing import TextureDrawing

        studio = open_studio(ModelOptions.of_request(request), devices.native(device))
        meter.begin("unwrapping")
        drawing = TextureDrawing(studio, request, shape, faces)
        for number in drawing.views():
            meter.update("painting", number + 1, drawing.total)
        made = drawing.finished()
    return made, {
        "prompt": request.prompt,
        "seed": drawing.request.seed,
        "unseen": round(drawing.texturing.unseen, 4),
        "seam_difference": round(made.mesh.seam_difference, 2),
    }


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
    places: tuple[Path, Path | None],
    meter: console.Meter,
) -> "tuple[Shape, dict[str, Any]]":
    """The shape of a field distilled in a quality by an objective.

    `places`: the path beside which its state is kept, and where a preview goes if one is asked for.
    """
    path, preview = places
    from sfumato.space.libraries import library

    library("skimage")
    kept = path.with_name(f"{path.stem}.field.safetensors")
    with meter.shown("loading the model"):
        from sfumato import animation, devices
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
                    if preview is not None:
                        pictures = shaping.turning_preview(studio, distillation)
                        kind = animation.animation_format(preview)
                        with files.replace_atomically(preview) as file:
                            file.write(animation.encoded(pictures, kind, PREVIEW_FPS, {}))
        except (console.Interrupted, NumericsError) as stopped:
            if distillation.done:
                distillation.save(kept)
                done = f"{distillation.done} of {total} steps are kept in {kept}"
                stopped.add_note(f"{done}; the same command goes on from there")
            raise
        meter.begin("colouring")
        made = shaping.finished_shape(studio, distillation, request, faces)
    kept.unlink(missing_ok=True)
    settings = distillation.settings
    return made, {
        "prompt": request.prompt,
        "steps": settings.steps,
        "seed": settings.seed,
        "objective": settings.objective,
    }
