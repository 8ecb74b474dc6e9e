"""`sfumato convert`: a folder into a single file, a single file into a folder, either in another dtype."""

import json
from dataclasses import dataclass
from pathlib import Path

from sfumato.cli import console
from sfumato.cli.generate import DTYPES
from sfumato.errors import OutputError, UsageError, nearest

PREDICTIONS = ("epsilon", "v", "x0", "flow")


@dataclass(frozen=True)
class Conversion:
    """The command's options; `dtype` by its name."""

    dtype: str | None = None
    variant: str | None = None
    prediction: str | None = None
    vae: str | None = None
    base: str | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        for what, value, known in (
            ("dtype", self.dtype, DTYPES),
            ("prediction", self.prediction, PREDICTIONS),
        ):
            if value is not None and value not in known:
                raise UsageError(f"unknown {what} {value!r}; {nearest(value, known)}")


def convert(source: str, target: Path, options: Conversion, as_json: bool) -> None:
    """Convert the model `source` to `target`, and say what was written and what was concluded."""
    if target.exists() and not options.overwrite and (target.is_file() or any(target.iterdir())):
        raise OutputError(f"will not replace {target}: it is there already (--overwrite replaces it)")
    from sfumato import checkpoint, devices

    with console.Meter(quiet=False).shown("converting"):
        done = checkpoint.convert(
            source,
            target,
            dtype=None if options.dtype is None else devices.DTYPES[options.dtype],
            variant=options.variant,
            overwrite=options.overwrite,
            prediction=options.prediction,
            vae=options.vae,
            base=options.base,
        )
    report = done.model.report
    if as_json:
        told = {"target": str(done.target), "layout": done.layout, "parameters": done.parameters}
        told |= {"bytes": done.bytes, "source": report.to_dict()}
        console.result(json.dumps(told, ensure_ascii=False))
        return
    size = f"{done.parameters / 1e6:,.1f} M parameters, {done.bytes / 1e6:,.1f} MB"
    console.result(f"{done.target}: {done.layout}, {size}")
    for found in report.inferences:
        console.result(f"{found.what}: {found.value} ({found.reason})")
