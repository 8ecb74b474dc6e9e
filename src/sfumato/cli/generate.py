"""`sfumato generate`: prompts in, pictures out. All that can be wrong is found before torch is imported."""

import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from sfumato import expansion
from sfumato.cli import console, target
from sfumato.cli.outcome import Interrupted
from sfumato.errors import UsageError, nearest
from sfumato.request import Request

if TYPE_CHECKING:
    from sfumato.image import Image
    from sfumato.studio import Studio

DTYPES = ("float32", "fp32", "bfloat16", "bf16", "float16", "fp16")
DEVICES = ("cpu", "cuda", "mps")


@dataclass(frozen=True)
class Loading:
    """How a model is loaded: the options that `generate` and `replay` share, as they were typed."""

    device: str | None = None
    dtype: str | None = None
    slices: int | None = None
    tile: int | None = None
    offload: bool = False
    compiled: bool = False

    def check(self) -> None:
        """Raise `UsageError` for what can be told to be wrong without torch."""
        if self.device is not None and not re.fullmatch(rf"({'|'.join(DEVICES)})(:\d+)?", self.device):
            raise UsageError(f"unknown device {self.device!r}; {nearest(self.device, DEVICES)}")
        if self.dtype is not None and self.dtype not in DTYPES:
            raise UsageError(f"unknown dtype {self.dtype!r}; {nearest(self.dtype, DTYPES)}")
        if self.offload and self.compiled:
            raise UsageError(
                "--offload and --compile exclude each other: weights that move cannot be compiled"
            )
        for name, value in (("slices", self.slices), ("tile", self.tile)):
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}: must be at least 1")

    def load(self, model: str, **others: Any) -> "Studio":
        """The studio of `model`; this is where torch is imported."""
        from sfumato.studio import load

        return load(
            model,
            device=self.device,
            dtype=self.dtype,
            slices=self.slices,
            tile=self.tile,
            offload=self.offload,
            compiled=self.compiled,
            **others,
        )


@dataclass(frozen=True)
class Options:
    """What `sfumato generate` was asked; `fields` are those of `Request`, the values still text."""

    prompts: Sequence[str]
    fields: dict[str, Any] = field(default_factory=dict)
    loading: Loading = Loading()
    output: str | None = None
    preview: Path | None = None
    as_json: bool = False
    quiet: bool = False


def draw(options: Options) -> None:
    """Draw every prompt and say where the pictures are."""
    requests = [Request.build(prompt=prompt, **options.fields) for prompt in _prompts(options.prompts)]
    options.loading.check()
    total = sum(map(expansion.pictures, requests))
    if options.output == "-" and options.as_json:
        raise UsageError("-o - and --json both write to standard output; give -o a file")
    place = target.plan(options.output, total)
    if options.preview is not None:
        target.make_folder(options.preview)
    meter = console.Meter(options.quiet)
    finished = 0
    try:
        with meter.shown("loading the model"):
            first = requests[0]
            studio = options.loading.load(
                first.model, vae=first.vae, tiny=first.tiny, base=first.base, prediction=first.prediction
            )
            for image, seconds in _pictures(studio, requests, options.preview, meter):
                if place is None:
                    console.result_bytes(image.png())
                else:
                    request = image.request
                    path = place.path(finished + 1, request.prompt, request.seed or 0)
                    image.save(path)
                    finished += 1
                    meter.result(_line(path, image, seconds) if options.as_json else str(path))
    except Interrupted as interrupted:
        if finished:
            interrupted.add_note(f"{finished} of {total} pictures are finished")
        raise


def _pictures(
    studio: "Studio", requests: Sequence[Request], preview: Path | None, meter: console.Meter
) -> Iterator[tuple["Image", float]]:
    """Every finished picture and the seconds since the one before it."""
    total = sum(map(expansion.pictures, requests))
    width, before, since = len(str(total)), 0, perf_counter()
    for request in requests:
        for step in studio.stream(request):
            number = before + step.image_index + 1
            meter.advance(f"picture {number} of {total}" if total > 1 else "drawing", step.total * total)
            if preview is not None:
                name = f"{step.index:0{len(str(step.total))}}.png"
                (step.image or step.preview()).save(
                    preview / (f"{number:0{width}}-{name}" if total > 1 else name)
                )
            if step.image is not None:
                now = perf_counter()
                yield step.image, now - since
                since = now
        before += expansion.pictures(request)


def adapter(text: str) -> dict[str, Any]:
    """`--lora NAME[:WEIGHT[:TEXT_WEIGHT]]` as a field of `Request.adapters`."""
    name = text
    weights: list[float] = []
    while len(weights) < 2 and (match := re.fullmatch(r"(.+):([^:/\\]*)", name)):
        try:
            weights.insert(0, float(match[2]))
        except ValueError:
            break
        name = match[1]
    return {"name": name, **dict(zip(("weight", "text_weight"), weights, strict=False))}


def region(text: str) -> dict[str, Any]:
    """`--region L,T,R,B:PROMPT` as a field of `Request.regions`."""
    box, colon, prompt = text.partition(":")
    edges = box.split(",")
    if not colon or len(edges) != 4 or not prompt.strip():
        raise UsageError(f"--region {text!r}: it must be L,T,R,B:PROMPT, as 0,0,0.5,1:a red apple")
    return {"prompt": prompt.strip(), "box": [edge.strip() for edge in edges]}


def _line(path: Path, image: "Image", seconds: float) -> str:
    """What `--json` says of a picture."""
    record = image.record.model_dump(mode="json")
    told = {"path": str(path), "seed": image.request.seed, "seconds": round(seconds, 3)}
    return json.dumps({**told, "width": image.size[0], "height": image.size[1], **record}, ensure_ascii=False)


def _prompts(arguments: Sequence[str]) -> list[str]:
    """The prompts given, `-` replaced by the lines of stdin that are not blank."""
    prompts: list[str] = []
    for argument in arguments:
        prompts += _stdin_lines() if argument == "-" else [argument]
    for prompt in prompts:
        if not prompt.strip():
            raise UsageError("the prompt is empty; say what to draw")
    return prompts


def _stdin_lines() -> list[str]:
    try:
        text = sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"standard input is not UTF-8 text: {error.reason} at byte {error.start}") from None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise UsageError("standard input holds no prompt; it is read one prompt a line")
    return lines
