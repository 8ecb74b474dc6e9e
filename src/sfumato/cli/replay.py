"""`sfumato replay`: draw a picture again from what its file says, and tell whether it came out the same."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from sfumato.cli import console, target
from sfumato.cli.generate import Loading
from sfumato.errors import CheckpointError, UsageError
from sfumato.formats import LOSSY, picture_format

if TYPE_CHECKING:
    from sfumato.image import Image
    from sfumato.metadata import Record

COMPARED = {
    "sfumato": "version",
    "fingerprint": "model weights",
    "adapters": "adapters",
    "embeddings": "embeddings",
    "torch": "torch",
    "device": "device",
    "dtype": "dtype",
}


def replay(
    path: Path, loading: Loading, model: str | None, output: Path | None, as_json: bool, quiet: bool
) -> int:
    """Redraw the picture at `path`; the exit status, 0 if identical and 1 if not."""
    loading.check()
    if output is not None:
        picture_format(output)
        target.check_writable(output.parent)
    if not path.is_file():
        raise UsageError(f"there is no picture {str(path)!r}")
    from sfumato import pictures
    from sfumato.image import Image

    with pictures.opened(path) as picture:
        lossy = picture.format in LOSSY
    drawn = Image.open(path)
    again = _redraw(drawn.record, loading, model, quiet)
    difference = _difference(drawn, again, lossy)
    causes = _causes(drawn.record, again.record) if difference else []
    if output is not None:
        again.save(output)
    if as_json:
        told = {"path": str(path), "identical": not difference, "difference": difference, "causes": causes}
        console.result(json.dumps(told, ensure_ascii=False))
    elif difference:
        console.result("\n".join([f"differs: {path}: {difference}", *(f"  {cause}" for cause in causes)]))
    else:
        console.result(f"identical: {path}{'' if drawn.as_drawn else _loss(drawn, again)}")
    return 1 if difference else 0


def _redraw(record: "Record", loading: Loading, model: str | None, quiet: bool) -> "Image":
    """The record's request drawn here, on the device and in the precision it was drawn with if possible.

    A picture may come from anywhere, so what it names is never downloaded: only `--model` can ask for that.
    """
    meter = console.Meter(quiet, record.notes)
    with meter.shown("loading the model"):
        wanted = Loading(
            device=loading.device or _device_here(record.device),
            dtype=loading.dtype or record.dtype,
            slices=loading.slices,
            tile=loading.tile,
            offload=loading.offload,
            compiled=loading.compiled,
        )
        wanted.check()
        try:
            request = record.request
            studio = wanted.load(
                model or request.model,
                vae=request.vae,
                tiny=request.tiny,
                base=request.base,
                prediction=request.prediction,
                local_files_only=model is None,
            )
        except CheckpointError as error:
            if model is not None:
                raise
            raise CheckpointError(
                f"the model {record.model!r} that drew it cannot be had here ({error}); "
                "say where it is with --model"
            ) from error
        image: Image | None = None
        for step in studio.stream(record.request):
            meter.advance("drawing again", step.total)
            image = step.image
    assert image is not None
    return image


def _device_here(described: str) -> str | None:
    """The device a record describes, as "cuda:0 NVIDIA H100", if there is such a one here."""
    from sfumato.devices import pick_device

    try:
        return str(pick_device(described.partition(" ")[0]))
    except UsageError:
        return None


def _difference(drawn: "Image", again: "Image", lossy: bool) -> str | None:
    """How the picture drawn again differs from the one in the file; `None` if it does not."""
    if again.record.pixels == drawn.record.pixels:
        if drawn.as_drawn or lossy:
            return None
        return f"the file was changed after it was drawn, {drawn.differs(again)}"
    apart = drawn.differs(again) or "in what its record says of its pixels only"
    return f"{apart}, what the file lost to compression included" if lossy else apart


def _loss(drawn: "Image", again: "Image") -> str:
    return f" as it was drawn (the file itself is compressed: {drawn.differs(again)} lost)"


def _causes(then: "Record", now: "Record") -> list[str]:
    """What was different when the picture was drawn, one line each."""
    return [
        f"{label}: {getattr(then, name)} then, {getattr(now, name)} now"
        for name, label in COMPARED.items()
        if getattr(then, name) != getattr(now, name)
    ]
