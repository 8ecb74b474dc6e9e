"""`sfumato adapters`: list and describe LoRAs; convert, merge and resize them; fold and extract them."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from sfumato.cli import console
from sfumato.cli.help import MODEL, OUTPUT
from sfumato.cli.options import Json, Program, adapter, argument, option
from sfumato.errors import OutputError, UsageError, nearest
from sfumato.names import LORA_LAYOUTS, RANK_METHODS
from sfumato.options import DeviceOptions

if TYPE_CHECKING:
    from sfumato.adapt.checkpoints import WrittenModel
    from sfumato.adapt.information import InstalledAdapter
    from sfumato.adapt.transforming import WrittenAdapter
    from sfumato.prompt.meaning import AdapterWeight

program = Program()

Adapter = Annotated[str, argument("ADAPTER", "A LoRA's file or folder, or its name in your folder.")]
Weighted = Annotated[
    list[str],
    argument("ADAPTER[:W[:TW]]...", "Adapters; W: its weight; TW: its weight on the text encoders."),
]
Target = Annotated[Path, argument("TARGET", "Where to write: a .safetensors file.")]
Out = Annotated[Path, option("-o, --output FILE", OUTPUT, "Where to write: a .safetensors file.")]
Layout = Annotated[
    str | None,
    option(
        "--layout NAME",
        OUTPUT,
        "peft (diffusers) or kohya (A1111, ComfyUI). Default: as the first adapter's.",
        known=LORA_LAYOUTS,
    ),
]
Dtype = Annotated[
    str | None,
    option(
        "--dtype NAME",
        OUTPUT,
        "fp32, fp16 or bf16. Default: as it is stored.",
        known=("fp32", "fp16", "bf16"),
    ),
]
Overwrite = Annotated[bool, option("--overwrite", OUTPUT, "Replace what is there.")]
Model = Annotated[
    str | None,
    option(
        "-m, --model MODEL",
        MODEL,
        "The model that they were made for. Default: the published one of their family.",
    ),
]
Rank = Annotated[int | None, option("--rank N", OUTPUT, "The most that a layer may have. Default: no limit.")]
ConvRank = Annotated[
    int | None, option("--conv-rank N", OUTPUT, "The same of 3 × 3 convolutions. Default: as --rank.")
]

Dynamic = Annotated[
    str | None,
    option(
        "--dynamic METHOD:V",
        OUTPUT,
        "Choose each layer's rank: sv_ratio:V keeps singular values above the largest / V; sv_fro:V "
        "and sv_cumulative:V keep the share V of the norm, or of their sum. Default: --rank alone.",
    ),
]


@program.add("list")
def list_adapters(as_json: Json = False) -> None:
    """List the LoRAs and embeddings in your folders."""
    from sfumato import adapt
    from sfumato.folders import folder

    found = adapt.installed()
    if as_json:
        for each in found:
            console.result(_json(each))
        return
    if not found:
        console.result(f"no adapters yet: put LoRAs into {folder('adapters')}")
        return
    rows = [("adapter", "kind", "base", "rank", "MB")]
    for each in found:
        size = f"{each.bytes / 1e6:,.1f}"
        rows.append((each.name, each.kind, each.base or "not told", str(each.rank or ""), size))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        left = [f"{text:{width}}" for text, width in zip(row[:3], widths, strict=False)]
        right = [f"{text:>{width}}" for text, width in zip(row[3:], widths[3:], strict=True)]
        console.result("  ".join([*left, *right]))


@program.add(examples="sfumato adapters info detail")
def info(
    adapter: Annotated[str, argument("ADAPTER", "A LoRA's or an embedding's file, folder or name.")],
    model: Model = None,
    as_json: Json = False,
) -> None:
    """Show what an adapter is for, its trigger words, ranks, and how much it changes each block."""
    from sfumato import adapt

    with _reading("reading"):
        told = adapt.info(adapter, model=model)
    console.result(console.as_json(told.to_dict()) if as_json else "\n".join(told.lines()))


@program.add(
    examples="""sfumato adapters merge ink:0.8 detail:0.5 -o both.safetensors
sfumato adapters merge ink detail -o small-both.safetensors --rank 4 --layout kohya"""
)
def merge(
    adapters: Weighted,
    output: Out,
    rank: Rank = None,
    conv_rank: ConvRank = None,
    layout: Layout = None,
    dtype: Dtype = None,
    model: Model = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write the weighted sum of several adapters as one: exactly, or the nearest of a rank."""
    others = _checked(layout, dtype, model, overwrite)
    wanted = _weighted(adapters)
    from sfumato import adapt

    with _reading("merging") as progress:
        done = adapt.merge(wanted, output, rank=rank, conv_rank=conv_rank, progress=progress, **others)
    _tell(done, as_json)


@program.add(examples="sfumato adapters convert ink.safetensors ink-kohya.safetensors --layout kohya")
def convert(
    adapter: Adapter,
    target: Target,
    layout: Annotated[
        str,
        option("--layout NAME", OUTPUT, "peft (diffusers) or kohya (A1111, ComfyUI).", known=LORA_LAYOUTS),
    ],
    dtype: Dtype = None,
    model: Model = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write an adapter in the layout of other programs."""
    others = _checked(layout, dtype, model, overwrite)
    from sfumato import adapt

    with _reading("converting"):
        done = adapt.convert(adapter, target, **others)
    _tell(done, as_json)


@program.add(
    examples="""sfumato adapters resize detail.safetensors small.safetensors --rank 1
sfumato adapters resize detail.safetensors smaller.safetensors --dynamic sv_fro:0.95"""
)
def resize(
    adapter: Adapter,
    target: Target,
    rank: Rank = None,
    conv_rank: ConvRank = None,
    dynamic: Dynamic = None,
    layout: Layout = None,
    dtype: Dtype = None,
    model: Model = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write the nearest LoRA of a smaller rank."""
    method, value = _dynamic(dynamic)
    others = _checked(layout, dtype, model, overwrite)
    from sfumato import adapt

    with _reading("resizing") as progress:
        done = adapt.resize(
            adapter,
            target,
            rank=rank,
            conv_rank=conv_rank,
            dynamic=method,
            value=value,
            progress=progress,
            **others,
        )
    _tell(done, as_json)


@program.add(
    examples="""sfumato adapters fold ink:0.8 --model dreamy.safetensors -o dreamy-ink.safetensors
sfumato adapters fold ink detail:0.5 --model embedded -o ~/models/embedded-ink"""
)
def fold(
    adapters: Weighted,
    model: Annotated[str, option("-m, --model MODEL", MODEL, "The model to fold them into.")],
    output: Annotated[
        Path, option("-o, --output PATH", OUTPUT, "Where to write: a file or a folder, as the model is.")
    ],
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write a model with adapters in its weights."""
    wanted = _weighted(adapters)
    from sfumato import adapt

    with _reading("folding") as progress:
        done = adapt.fold(model, wanted, output, overwrite=overwrite, progress=progress)
    if as_json:
        console.result(_json(done))
        return
    layers = _layers(done.layers) or "no layer"
    console.result(f"{done.path}: {done.layout}, {layers} changed, {done.bytes / 1e6:,.1f} MB")


@program.add(
    examples="""sfumato adapters extract ~/models/dreamy dreamy-ink.safetensors found.safetensors --rank 8
sfumato adapters extract ~/models/dreamy dreamy-ink.safetensors most.safetensors --dynamic sv_fro:0.9"""
)
def extract(
    base: Annotated[str, argument("BASE", "The model that the other was made from.")],
    tuned: Annotated[str, argument("TUNED", "The model whose difference becomes a LoRA.")],
    target: Target,
    rank: Rank = None,
    conv_rank: ConvRank = None,
    dynamic: Dynamic = None,
    layout: Annotated[
        str,
        option(
            "--layout NAME",
            OUTPUT,
            "peft (diffusers) or kohya (A1111, ComfyUI). Default: kohya.",
            known=LORA_LAYOUTS,
        ),
    ] = "kohya",
    dtype: Annotated[
        str | None, option("--dtype NAME", OUTPUT, "fp32, fp16 or bf16. Default: fp16 if both models are.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write the LoRA nearest to the difference of two models."""
    method, value = _dynamic(dynamic)
    others = _checked(layout, dtype, None, overwrite)
    del others["model"]
    from sfumato import adapt

    with _reading("extracting") as progress:
        done = adapt.extract(
            base,
            tuned,
            target,
            rank=rank,
            conv_rank=conv_rank,
            dynamic=method,
            value=value,
            progress=progress,
            **others,
        )
    _tell(done, as_json)


def _checked(layout: str | None, dtype: str | None, model: str | None, overwrite: bool) -> dict[str, Any]:
    """The options that all share, known to be right before torch is imported."""
    if layout is not None and layout not in LORA_LAYOUTS:
        raise UsageError(f"unknown layout {layout!r}; {nearest(layout, LORA_LAYOUTS)}")
    DeviceOptions(dtype=dtype)
    from sfumato import devices

    rounded = None if dtype is None else devices.DTYPES[dtype]
    return {"layout": layout, "dtype": rounded, "model": model, "overwrite": overwrite}


def _weighted(texts: list[str]) -> "list[AdapterWeight]":
    from pydantic import TypeAdapter, ValidationError

    from sfumato.prompt.meaning import AdapterWeight
    from sfumato.validation import reworded

    found = []
    for text in texts:
        try:
            found.append(TypeAdapter(AdapterWeight).validate_python(adapter(text)))
        except ValidationError as error:
            raise UsageError(f"{text or repr(text)}: {reworded(error.errors()[0]['msg'])}") from None
    return found


def _dynamic(text: str | None) -> tuple[str | None, float]:
    if text is None:
        return None, 1.0
    method, _, value = text.partition(":")
    if method not in RANK_METHODS:
        raise UsageError(f"--dynamic {text}: unknown method {method!r}; {nearest(method, RANK_METHODS)}")
    try:
        return method, float(value)
    except ValueError:
        raise UsageError(f"--dynamic {text}: it must be METHOD:V, as sv_fro:0.95") from None


@contextmanager
def _reading(doing: str) -> Iterator[Callable[[int, int], None]]:
    """Show progress; what stands in the way of writing names the option that helps."""
    meter = console.Meter()
    with meter.shown(doing):
        try:
            yield lambda done, total: meter.update(doing, done, total)
        except OutputError as error:
            raise OutputError(str(error).replace("overwrite=True", "--overwrite")) from None


def _tell(done: "WrittenAdapter", as_json: bool) -> None:
    if as_json:
        console.result(_json(done))
        return
    ranks = sorted(done.ranks)
    shown = (
        f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {ranks[0]} to {ranks[-1]}" if ranks else "no rank"
    )
    size = f"{done.bytes / 1e6:,.1f} MB"
    console.result(f"{done.path}: {done.layout}, {shown}, {_layers(done.layers)}, {size}")
    if done.kept < 1:
        console.result(f"kept {100 * done.kept:.2f} % of the norm")


def _json(told: "InstalledAdapter | WrittenAdapter | WrittenModel") -> str:
    return console.as_json({**asdict(told), "path": str(told.path)})


def _layers(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{console.counted(count, 'layer')} of the {part}" for part, count in counts.items())
