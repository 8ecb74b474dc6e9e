"""Shap-E's folders (Jun & Nichol 2023), as diffusers publishes them: a model of shapes, not of pictures."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sfumato import weights
from sfumato.checkpoint.layout import (
    ENCODER,
    INDEX,
    PICTURES,
    RENDERER,
    makes_shapes,
    read_index,
)
from sfumato.checkpoint.loading import build, model_name
from sfumato.checkpoint.report import Report
from sfumato.checkpoint.scan import scan
from sfumato.checkpoint.shape_info import shape_info
from sfumato.checkpoint.source import locate
from sfumato.config import ScheduleConfig
from sfumato.diffusion.level import VariancePreserving
from sfumato.errors import CheckpointError, UsageError
from sfumato.files import read_json
from sfumato.nets.prior import PriorTransformer
from sfumato.nets.shap_e import ShapERenderer
from sfumato.nets.text import CLIPText
from sfumato.nets.vision import CLIP_PICTURES, CLIPVision
from sfumato.options import ModelOptions
from sfumato.prompt.tokenizer import Tokenizer
from sfumato.validation import shown


@dataclass(frozen=True, eq=False)
class ShapEModel:
    """All that a folder of Shap-E's holds. Networks are in evaluation mode and ask for no gradients.

    `encoder`: of texts, with its `tokenizer`, or of pictures. `scheduler`: the content of its file, and
    `schedule` what that says of the noise. `fingerprint` identifies the files.
    """

    name: str
    prior: PriorTransformer
    renderer: ShapERenderer
    encoder: CLIPText | CLIPVision
    tokenizer: Tokenizer | None
    scheduler: Mapping[str, Any]
    schedule: ScheduleConfig
    path: VariancePreserving
    prediction: str
    report: Report
    fingerprint: str

    def __repr__(self) -> str:
        vectors, width = self.latent_size
        return f"<ShapEModel {self.name!r}: from {self.task}, latents of {vectors} × {width}>"

    @property
    def task(self) -> str:
        """What it draws shapes of: "text" or "image"."""
        return "image" if isinstance(self.encoder, CLIPVision) else "text"

    @property
    def latent_size(self) -> tuple[int, int]:
        """How many vectors a latent has, and how many numbers each."""
        return self.prior.config.num_embeddings, self.prior.config.embedding_dim

    @property
    def networks(self) -> tuple[PriorTransformer, ShapERenderer, CLIPText | CLIPVision]:
        """All of them."""
        return self.prior, self.renderer, self.encoder


def is_shape_model(options: ModelOptions, dtype: torch.dtype | None = None) -> bool:
    """Whether a model is Shap-E's; it is fetched if it is on the hub, as it would be to be loaded in `dtype`.

    Raises `CheckpointError`.
    """
    place = locate(
        options.source,
        variant=options.variant,
        prefer_half=_half(dtype),
        local_files_only=options.local_files_only,
    )
    return (place / INDEX).is_file() and makes_shapes(read_index(place))


def load_shape_model(
    source: str | Path | ModelOptions, *, dtype: torch.dtype | None = None, **others: Any
) -> ShapEModel:
    """Load a folder of Shap-E's, or a hub id, on the CPU, as `checkpoint.load` loads models of pictures.

    Raises `CheckpointError` for anything missing, damaged, unsafe or not supported, and for other models, and
    `UsageError` for an option about a part that it has not.
    """
    options = ModelOptions.of(source, **others)
    for name in ("vae", "tiny", "base"):
        if getattr(options, name) is not None:
            raise UsageError(f"{name} is given, and Shap-E has none")
    found = scan(options, prefer_half=_half(dtype))
    if not found.makes_shapes:
        raise CheckpointError(f"{options.source} is a model of pictures, not Shap-E, a model of shapes")
    if (settings := found.place / PICTURES / "preprocessor_config.json").is_file():
        check_processor(read_json(settings), str(settings))
    path, prediction = shape_info(found.parts, found.whole(), found.report)
    needed = sum(weights.bytes_of(part.tensors.values(), dtype) for part in found.parts.values())
    weights.check_memory(needed, options.source)
    built = {name: build(part, dtype) for name, part in found.parts.items()}
    prior, renderer = built["prior"], built[RENDERER]
    encoder = built.get(ENCODER) or built["text_encoder"]
    assert isinstance(prior, PriorTransformer)
    assert isinstance(renderer, ShapERenderer)
    assert isinstance(encoder, CLIPText | CLIPVision)
    return ShapEModel(
        name=model_name(options.source, found.place),
        prior=prior,
        renderer=renderer,
        encoder=encoder,
        tokenizer=next(iter(found.tokenizers.values()), None),
        scheduler=found.scheduler,
        schedule=found.whole(),
        path=path,
        prediction=prediction,
        report=found.report,
        fingerprint=found.identify(),
    )


def _half(dtype: torch.dtype | None) -> bool:
    return dtype in (torch.float16, torch.bfloat16)


def check_processor(settings: Mapping[str, Any], where: str) -> None:
    """Raise `CheckpointError` where pictures are to be made ready in another way than CLIP's."""
    for name, due in CLIP_PICTURES.items():
        given = settings.get(name, due)
        if given != due:
            raise CheckpointError(f"{where}: {name} is {shown(given)}: not supported, only {due!r}")
