"""Which model to load and how to compute with it: two values that every loader shares. No torch here."""

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from sfumato.errors import UsageError, nearest

EMBEDDED = "embedded"
"""The name of the model that the package carries."""
EDITOR = "embedded-instruct"
"""The name of the one that edits pictures by instruction."""
DEVICES = ("cpu", "cuda", "mps")
KNOWN_DEVICES = "known: cpu, cuda, cuda:1 (the second GPU), mps"
DTYPES = {
    "float32": "float32",
    "fp32": "float32",
    "bfloat16": "bfloat16",
    "bf16": "bfloat16",
    "float16": "float16",
    "fp16": "float16",
}
"""Precisions by all their names, each with torch's."""
QUANTIZATIONS = ("int8",)

MAX_THREADS = 1024


@dataclass(frozen=True)
class ModelOptions:
    """Which model: where it is, and what is used in place of parts of it.

    `source`: "embedded", a diffusers folder, a `.safetensors` file, a hub id such as "org/name", or the name
    of a model in the user's folder. `variant`: of the weight files, such as "fp16". `vae`: another
    autoencoder, named as a model is. `tiny`: a tiny one, such as TAESD. `base`: a model that has what a file
    with a UNet alone lacks. `prediction`: what the network predicts, whatever its files say.
    `zero_terminal_snr`: whether its noise levels end in pure noise, whatever its files say.
    `local_files_only`: never ask the hub.
    """

    source: str = EMBEDDED
    variant: str | None = None
    vae: str | None = None
    tiny: str | None = None
    base: str | None = None
    prediction: str | None = None
    zero_terminal_snr: bool | None = None
    local_files_only: bool = False

    def __post_init__(self) -> None:
        for name in ("source", "variant", "vae", "tiny", "base", "prediction"):
            value = getattr(self, name)
            if not (isinstance(value, str) and value) and (value is not None or name == "source"):
                raise UsageError(f"{name} is {value!r}: must be a name or a path")

    @classmethod
    def of(cls, source: "str | Path | ModelOptions", **options: Any) -> Self:
        """`source` itself, or one made of its name and `options`; paths become text.

        Raises `TypeError` for an option that is none of these.
        """
        if isinstance(source, cls):
            return source
        named: dict[str, Any] = {"source": source, **options}
        values: dict[str, Any] = {
            name: str(each) if isinstance(each, Path) else each for name, each in named.items()
        }
        return cls(**values)

    @classmethod
    def of_request(cls, request: Any, **changes: Any) -> Self:
        """The model that a `Request` names, with `changes`."""
        named = {each.name: getattr(request, each.name, None) for each in fields(cls)}
        named = {name: value for name, value in named.items() if value is not None}
        return cls(**{**named, "source": request.model, **changes})


@dataclass(frozen=True)
class DeviceOptions:
    """How to compute: where, in which precision, and what is saved in memory or time.

    `device`: "cpu", "cuda", "cuda:1", "mps"; the fastest one here if `None`. `dtype`: "float32", "bfloat16",
    "float16"; the fastest that is safe on the device if `None`. `slices`: parts into which attention splits
    its queries. `tile`: the side in latent cells of the tiles that large pictures are decoded in. `offload`:
    keep weights in main memory and bring them to the device layer by layer. `compiled`: have torch compile
    the networks for every size that is met. `trainable`: keep the networks differentiable, with plain
    weights. `quantization`: "int8" has a CPU multiply the UNet's weights and activations in int8, which is
    faster and less exact. `threads`: on the CPU, of the whole process; one for each core, or
    `OMP_NUM_THREADS`, if `None`. The last digits of a result depend on it. Raises `UsageError` for a value
    out of range and for two that exclude each other.
    """

    device: str | None = None
    dtype: str | None = None
    slices: int | None = None
    tile: int | None = None
    offload: bool = False
    compiled: bool = False
    trainable: bool = False
    quantization: str | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.device is not None and not re.fullmatch(rf"({'|'.join(DEVICES)})(:\d+)?", self.device):
            raise UsageError(f"unknown device {self.device!r}; {KNOWN_DEVICES}")
        if self.dtype is not None and self.dtype not in DTYPES:
            raise UsageError(f"unknown dtype {self.dtype!r}; {nearest(self.dtype, DTYPES)}")
        if self.quantization is not None and self.quantization not in QUANTIZATIONS:
            hint = nearest(str(self.quantization), QUANTIZATIONS)
            raise UsageError(f"unknown quantization {self.quantization!r}; {hint}")
        for name in ("slices", "tile", "threads"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int) and value >= 1):
                raise UsageError(f"{name} is {value!r}: must be at least 1, a whole number")
        if self.threads is not None and self.threads > MAX_THREADS:
            raise UsageError(f"threads is {self.threads}: must be at most {MAX_THREADS}")
        for one, other, why in (
            ("offload", "compiled", "the weights move while they are used"),
            ("offload", "trainable", "the weights move while they are used"),
            ("compiled", "trainable", "what is compiled is for drawing only"),
            ("quantization", "trainable", "int8 is for drawing only"),
            ("quantization", "compiled", "torch compiles the layers as they are"),
            ("offload", "quantization", "int8 is for a CPU, in whose memory the weights stay anyhow"),
        ):
            if getattr(self, one) and getattr(self, other):
                raise UsageError(f"{one} and {other} exclude each other: {why}")


DEFAULT_MODEL, DEFAULT_DEVICE = ModelOptions(), DeviceOptions()
"""The embedded model, and the fastest device here in its fastest safe precision."""
