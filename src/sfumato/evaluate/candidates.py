"""What is evaluated: a model, how it samples, and how a `Studio` is one."""

import hashlib
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sfumato.adapt.description import describe
from sfumato.evaluate.cache import Sample
from sfumato.files import open_file
from sfumato.request import Request
from sfumato.studio import Studio
from sfumato.version import __version__

Drawing = Generator[tuple[Sample, NDArray[np.uint8]], None, None]
"""Pictures (S, S, 3) as they are done, each with its sample, in any order."""


@dataclass(frozen=True)
class SamplingSettings:
    """How pictures are sampled, every choice made."""

    steps: int
    guidance: float
    size: int
    """Width and height in pixels."""
    sampler: str
    spacing: str
    decoder: str = "full"
    fast: str | None = None
    """The SHA-256 of the model's own LoRA for few steps, where it draws with that."""

    @property
    def label(self) -> str:
        """The sampler, and whether it draws with the LoRA for few steps."""
        return f"{self.sampler}, fast" if self.fast else self.sampler

    @classmethod
    def of(cls, studio: Studio, request: Request) -> "SamplingSettings":
        """How `studio` draws a square `request`. Raises `UsageError` for what it cannot draw."""
        full = studio.resolve(request)
        file = studio.model.fast if full.fast else None
        fast = None
        if file is not None:
            with open_file(file) as opened:
                fast = hashlib.file_digest(opened, "sha256").hexdigest()
        own: dict[str, Any] = {each.name: getattr(full, each.name, None) for each in fields(cls)}
        return cls(**{**own, "size": full.width, "fast": fast})

    def request(self, sample: Sample) -> Request:
        """What `sfumato generate --dialect plain --templates off` would make of a sample."""
        own = {**asdict(self), **asdict(sample), "fast": self.fast is not None}
        side = own.pop("size")
        return Request.build(**own, width=side, height=side, dialect="plain", templates="off")


@dataclass(frozen=True, eq=False)
class Candidate:
    """A model to evaluate."""

    name: str
    identity: Mapping[str, str]
    """All that its pictures depend on besides sample and settings: the weights, versions, precision."""
    draw: Callable[[Sequence[Sample], SamplingSettings], Drawing]
    """Draws every sample once."""
    roundtrips: Mapping[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)
    """By the name of the decoder: pictures (B, 3, S, S) in [−1, 1], encoded and decoded."""

    @classmethod
    def of(cls, studio: Studio) -> "Candidate":
        """`studio`, which draws what `sfumato generate` draws."""
        quantization = studio.device_options.quantization
        identity = {
            "fingerprint": studio.fingerprint,
            "sfumato": __version__,
            "torch": torch.__version__,
            "device": studio.device.type,
            "dtype": str(studio.dtype).removeprefix("torch."),
            **({"quantization": quantization} if quantization else {}),
        }
        roundtrips = {name: partial(_roundtrip, studio, name) for name in studio.decoders.names}
        return cls(studio.source, identity, partial(_draw, studio), roundtrips)

    @classmethod
    def adapted(cls, studio: Studio, path: Path) -> "Candidate":
        """`studio` with the adapter in a file at weight 1, or with a learned embedding, which prompts name.

        Raises `CheckpointError` where it does not fit the model.
        """
        found = describe(path)
        own = cls.of(studio)
        if found is not None and found.kinds:
            name = studio.load_adapter(path)
            fingerprint, adapter = studio.adapters[name].fingerprint, name
        else:
            name, adapter = studio.load_embedding(path), None
            fingerprint = studio.embeddings[name].fingerprint
        identity = {**own.identity, "adapter": fingerprint}
        return cls(f"{studio.source} with {name}", identity, partial(_draw, studio, adapter=adapter))


def _draw(
    studio: Studio, samples: Sequence[Sample], settings: SamplingSettings, adapter: str | None = None
) -> Drawing:
    requests = [settings.request(sample) for sample in samples]
    if adapter is not None:
        requests = [request.changed(adapters=(adapter,)) for request in requests]
    for step in studio.stream(requests):
        if step.image is not None:
            yield samples[step.image_index], step.image.pixels


@torch.inference_mode()
def _roundtrip(studio: Studio, decoder: str, pictures: Tensor) -> Tensor:
    vae = studio.model.vae
    weight = next(vae.parameters())
    latent = vae.scale(vae.encode(pictures.to(weight.device, weight.dtype)).mean)
    return studio.decoders.decode(latent, decoder)
