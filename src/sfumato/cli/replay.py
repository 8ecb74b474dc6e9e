"""`sfumato replay`: draw a picture or a clip again from its file and compare; or as another program did."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from sfumato.cli import console, like, target
from sfumato.cli.help import MODEL, OUTPUT
from sfumato.cli.options import Device, Json, Program, Quiet, argument, option
from sfumato.errors import CheckpointError, UsageError, unreachable, warn
from sfumato.formats import ANIMATIONS, FRAMES_RECORD, LOSSY
from sfumato.machine import cores
from sfumato.options import QUANTIZATIONS, DeviceOptions, ModelOptions

if TYPE_CHECKING:
    from sfumato.image import Image
    from sfumato.metadata import Record
    from sfumato.series.record import SetRecord
    from sfumato.video import Video

program = Program()
COMPARED = {
    "sfumato": "version",
    "fingerprint": "model weights",
    "adapters": "adapters",
    "embeddings": "embeddings",
    "controls": "controls",
    "upscalers": "upscalers",
    "torch": "torch",
    "device": "device",
    "dtype": "dtype",
    "quantization": "quantization",
    "processor": "processor",
    "threads": "threads",
}
OF_THE_CPU = ("processor", "threads")
"""What makes no difference to a picture that a GPU draws."""


@program.add(
    examples="""sfumato replay apple.png
sfumato replay clip.webp -o again.gif
sfumato replay old.png --model ~/models/dreamy -o again.png
sfumato replay from-comfyui.png -o here.png      (takes over what it can, and says what not)"""
)
def replay(
    path: Annotated[Path, argument("IMAGE", "A picture or a clip that Sfumato or another program drew.")],
    device: Device,
    model: Annotated[
        str | None, option("--model MODEL", MODEL, "Where the model is now. Default: as the picture says.")
    ] = None,
    output: Annotated[
        str | None,
        option(
            "-o, --output PATH",
            OUTPUT,
            "Save the new picture, named as for generate. Default: ours are only compared.",
        ),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Redraw the picture at `path`; 0 if identical and 1 if not."""
    if output == "-":
        raise UsageError("replay writes no picture to standard output; give -o a file or a folder/")
    if not path.exists():
        raise UsageError(f"there is no picture {str(path)!r}")
    # what cannot be written is told before anything is read, where the name says that it is no clip
    is_frame = (path.parent / FRAMES_RECORD).is_file()
    place, may_be_clip = None, is_frame or path.is_dir() or path.suffix.lower() in ANIMATIONS
    if output is not None and not may_be_clip:
        place = target.plan(output, 1)
    clip = like.clip(path)
    if clip is not None:
        return _replay_clip(path, clip, device, model, output, as_json, quiet)
    if output is not None and may_be_clip:
        place = target.plan(output, 1)
    from sfumato.image import Image

    several = like.several(path)
    if several is not None:
        if output is not None:
            raise UsageError(f"{path} holds {len(several.records)} pictures, which are compared, not saved")
        return _replay_several(path, several, device, model, as_json, quiet)
    if not like.holds_record(path):
        return _replay_foreign(path, device, model, output, as_json, quiet)
    from sfumato import pictures

    with pictures.opened(path) as picture:
        lossy, drawn = picture.format in LOSSY, Image.decode(picture, path)
    saved = None
    if place is not None:
        place.spare(drawn.request.prompt, drawn.request.seed or 0, [path.read_bytes()])
        saved = place.path(1, drawn.request.prompt, drawn.request.seed or 0)
        drawn.record.check_fits(saved)
    (again,), _ = _redraw([drawn.record], device, model, quiet)
    difference = _difference(drawn, again, lossy)
    causes = _causes(drawn.record, again.record) if difference else []
    if saved is not None:
        again.save(saved)
    if as_json:
        found = {"path": str(path), "identical": not difference, "difference": difference, "causes": causes}
        console.result(console.as_json(found if saved is None else {**found, "output": str(saved)}))
    elif difference:
        console.result("\n".join([f"differs: {path}: {difference}", *(f"  {cause}" for cause in causes)]))
    elif drawn.as_drawn:
        console.result(f"identical: {path}")
    else:
        lost = f"the file itself is compressed: {drawn.differs(again)} lost"
        console.result(f"identical: {path} as it was drawn ({lost})")
    if saved is not None and not as_json:
        console.result(str(saved))
    return 1 if difference else 0


def _replay_foreign(
    path: Path, device: DeviceOptions, model: str | None, output: str | None, as_json: bool, quiet: bool
) -> int:
    """Draw by the settings of another program, which are all there is to go by; 0."""
    place = target.plan(output, 1)
    meter = console.Meter(quiet)
    with meter.shown("loading the model"):
        found = like.record(path, model)
        from sfumato.studio import open_studio

        options = ModelOptions.of_request(found.request, local_files_only=model is None)
        studio = open_studio(options, device)
        found = like.fitted(path, found, found.request, studio)
        image: Image | None = None
        for step in studio.stream(found.request):
            meter.advance("drawing", step.total)
            image = step.image
    assert image is not None
    assert place is not None
    saved = image.save(place.path(1, image.request.prompt, image.request.seed or 0))
    if as_json:
        told = {"path": str(path), "program": found.program, "output": str(saved), "left_out": found.left_out}
        console.result(console.as_json({**told, **image.record.model_dump(mode="json")}))
    else:
        console.result(str(saved))
    return 0


def _redraw(
    records: "Sequence[Record]", device: DeviceOptions, model: str | None, quiet: bool
) -> "tuple[list[Image], list[Video]]":
    """The records' requests drawn here, on the device and in the dtype that the first has, if possible.

    Pictures come first, in their order, and clips are the second. A picture may come from anywhere, so what
    it names is never downloaded: only `--model` can ask for that.
    """
    record = records[0]
    again: dict[int, Image] = {}
    clips: list[Video] = []
    meter = console.Meter(quiet, [note for each in records for note in each.notes])
    with meter.shown("loading the model"):
        from sfumato import devices
        from sfumato.studio import open_studio

        device = replace(
            device,
            device=device.device or _device_here(record.device),
            dtype=device.dtype or record.dtype,
            quantization=device.quantization or _quantization_here(record.quantization, device.device),
            threads=device.threads or _threads_here(record.threads),
        )
        if _device_here(record.device) is None:
            device = devices.native(device)
        by_model: dict[ModelOptions, list[int]] = {}
        for index, each in enumerate(records):
            source = {"source": model or each.request.model, "local_files_only": model is None}
            by_model.setdefault(ModelOptions.of_request(each.request, **source), []).append(index)
        for options, chosen in by_model.items():
            try:
                studio = open_studio(options, device)
            except CheckpointError as error:
                if model is not None:
                    raise
                wrong = CheckpointError(
                    f"the model {records[chosen[0]].model!r} that drew it cannot be had here ({error}); "
                    "say where it is with --model"
                )
                raise unreachable(wrong) from error
            for step in studio.stream([records[index].request for index in chosen]):
                meter.advance("drawing again", step.total * len(records))
                if step.image is not None:
                    again[chosen[step.image_index]] = step.image
                if step.video is not None:
                    clips.append(step.video)
    return [again[index] for index in sorted(again)], clips


def _replay_several(
    path: Path, found: "SetRecord", device: DeviceOptions, model: str | None, as_json: bool, quiet: bool
) -> int:
    """Redraw the pictures of a grid or an animation; 0 if all are as they were drawn and 1 if not."""
    then = found.records
    now = [image.record for image in _redraw(then, device, model, quiet)[0]]
    differing = [
        index for index, (was, each) in enumerate(zip(then, now, strict=True)) if was.pixels != each.pixels
    ]
    causes = _causes(then[differing[0]], now[differing[0]]) if differing else []
    told = f"{len(differing)} of {len(then)} pictures" if differing else None
    if as_json:
        facts = {"path": str(path), "identical": not told, "difference": told, "causes": causes}
        console.result(console.as_json({**facts, "pictures": [index + 1 for index in differing]}))
    elif told:
        console.result("\n".join([f"differs: {path}: {told}", *(f"  {cause}" for cause in causes)]))
    else:
        console.result(f"identical: {path}, all {len(then)} pictures as they were drawn")
    return 1 if differing else 0


def _replay_clip(
    path: Path,
    then: "Record",
    device: DeviceOptions,
    model: str | None,
    output: str | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Redraw the clip of a record; 0 if its frames are as they were drawn and 1 if not."""
    from sfumato import video

    if output is not None:
        video.check_writable(output)
    _, (again,) = _redraw([then], device, model, quiet)
    count, now = len(then.frame_pixels), again.record
    frames = zip(then.frame_pixels, now.frame_pixels, strict=False)
    differing = [number for number, (was, each) in enumerate(frames, start=1) if was != each]
    told = f"{len(differing)} of {count} frames" if differing else None
    causes = _causes(then, now) if differing else []
    saved = None if output is None else again.save(output)
    if as_json:
        facts = {"path": str(path), "identical": not told, "difference": told, "causes": causes}
        facts["frames"] = differing
        console.result(console.as_json(facts if saved is None else {**facts, "output": str(saved)}))
    elif told:
        console.result("\n".join([f"differs: {path}: {told}", *(f"  {cause}" for cause in causes)]))
    else:
        console.result(f"identical: {path}, all {count} frames as they were drawn")
    if saved is not None and not as_json:
        console.result(str(saved))
    return 1 if told else 0


def _device_here(described: str) -> str | None:
    """The device a record describes, as "cuda:0 NVIDIA H100", if there is such a one here."""
    from sfumato.devices import pick_device

    try:
        return str(pick_device(described.partition(" ")[0]))
    except UsageError:
        return None


def _quantization_here(quantization: str | None, device: str | None) -> str | None:
    """That of a record, if the device can compute with it; else it is warned of."""
    from sfumato.devices import check_int8, pick_device

    if quantization in QUANTIZATIONS:
        try:
            check_int8(pick_device(device))
        except UsageError as error:
            warn(f"it was drawn in {quantization}, and is drawn without: {error}")
        else:
            return quantization
    return None


def _threads_here(threads: int | None) -> int | None:
    """The number of threads that drew it, if there are cores for them."""
    return threads if threads is not None and 1 <= threads <= cores() else None


def _difference(drawn: "Image", again: "Image", lossy: bool) -> str | None:
    """How the picture drawn again differs from the one in the file; `None` if it does not."""
    if again.record.pixels == drawn.record.pixels:
        if drawn.as_drawn or lossy:
            return None
        return f"the file was changed after it was drawn, {drawn.differs(again)}"
    apart = drawn.differs(again) or "in what its record says of its pixels only"
    return f"{apart}, what the file lost to compression included" if lossy else apart


def _causes(then: "Record", now: "Record") -> list[str]:
    """What was different when the picture was drawn, one line each."""
    causes = []
    for name, label in COMPARED.items():
        was, is_now = getattr(then, name), getattr(now, name)
        if was != is_now and not (name in OF_THE_CPU and now.device != "cpu"):
            causes.append(f"{label}: {was or 'not recorded'} then, {is_now} now")
    return causes
