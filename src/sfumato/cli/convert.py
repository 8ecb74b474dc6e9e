"""`sfumato convert`: a folder into a single file, a file into a folder, a pickle into safetensors."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from sfumato.cli import console
from sfumato.cli.help import OUTPUT
from sfumato.cli.options import Json, Program, argument, option, request_fields
from sfumato.errors import OutputError
from sfumato.options import DeviceOptions, ModelOptions
from sfumato.request import Request

program = Program()


@program.add(
    examples="""sfumato convert ~/models/dreamy dreamy.safetensors --dtype fp16
sfumato convert dreamy.safetensors ~/models/dreamy
sfumato convert --from-pickle old.ckpt old.safetensors"""
)
def convert(
    source: Annotated[str, argument("SOURCE", "A folder or file of a model or motion adapter, or a pickle.")],
    target: Annotated[
        Path,
        argument(
            "TARGET", "A .safetensors file, in Stable Diffusion's original layout, or a diffusers folder."
        ),
    ],
    parts: Annotated[dict[str, Any], request_fields("vae", "base", "prediction", "zero_terminal_snr")],
    dtype: Annotated[
        str | None, option("--dtype NAME", OUTPUT, "fp32, fp16 or bf16. Default: as it is stored.")
    ] = None,
    variant: Annotated[
        str | None, option("--variant NAME", OUTPUT, "Of a folder's file names, as fp16. Default: none.")
    ] = None,
    overwrite: Annotated[bool, option("--overwrite", OUTPUT, "Replace what is there.")] = False,
    from_pickle: Annotated[
        bool,
        option(
            "--from-pickle",
            OUTPUT,
            "SOURCE is a .ckpt, .pt, .bin or .pth: read its tensors, and nothing else, in a process "
            "that can open, send and start nothing.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Convert `source` to `target`, and print what was written, and what was inferred or left out."""
    if from_pickle:
        _pickle(Path(source), target, overwrite, as_json)
        return
    DeviceOptions(dtype=dtype)  # refuses an unknown name, as the next line does, before anything is read
    Request.build(prompt="", **parts)
    if target.exists() and not overwrite and (target.is_file() or any(target.iterdir())):
        raise OutputError(f"will not replace {target}: it is there already (--overwrite replaces it)")
    from sfumato import checkpoint, devices

    with console.Meter().shown("converting"):
        done = checkpoint.convert(
            ModelOptions.of(source, **parts),
            target,
            dtype=None if dtype is None else devices.DTYPES[dtype],
            variant=variant,
            overwrite=overwrite,
        )
    report = done.report
    if as_json:
        written = {"target": str(done.target), "layout": done.layout, "parameters": done.parameters}
        console.result(console.as_json({**written, "bytes": done.bytes, "source": report.to_dict()}))
        return
    size = f"{done.parameters / 1e6:,.1f} M parameters, {done.bytes / 1e6:,.1f} MB"
    console.result(f"{done.target}: {done.layout}, {size}")
    for found in report.inferences:
        console.result(f"{found.what}: {found.value} ({found.reason})")


def _pickle(source: Path, target: Path, overwrite: bool, as_json: bool) -> None:
    """Convert a pickle to safetensors; print what was trusted and what was left out."""
    from sfumato.checkpoint import unpickle

    summary = unpickle.convert(source, target, overwrite=overwrite)
    if as_json:
        console.result(console.as_json({**asdict(summary), "source": str(source), "target": str(target)}))
        return
    console.result("\n".join(summary.lines()))
