"""Choosing a pipeline by the model and by what is to be drawn."""

from pathlib import Path
from typing import Any, ClassVar

from sfumato.compat.image_to_image import (
    LatentConsistencyModelImg2ImgPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionXLImg2ImgPipeline,
)
from sfumato.compat.inpainting import StableDiffusionInpaintPipeline, StableDiffusionXLInpaintPipeline
from sfumato.compat.instruction import (
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionXLInstructPix2PixPipeline,
)
from sfumato.compat.pipeline import DiffusionPipeline
from sfumato.compat.text_to_image import (
    LatentConsistencyModelPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from sfumato.errors import UsageError, nearest

Kinds = tuple[type[DiffusionPipeline], ...]

TEXT_TO_IMAGE: Kinds = (StableDiffusionXLPipeline, LatentConsistencyModelPipeline, StableDiffusionPipeline)
"""In the order in which a model is tried: SDXL, one whose network reads the guidance, any other."""
IMAGE_TO_IMAGE: Kinds = (
    StableDiffusionXLImg2ImgPipeline,
    LatentConsistencyModelImg2ImgPipeline,
    StableDiffusionImg2ImgPipeline,
)
INPAINTING: Kinds = (StableDiffusionXLInpaintPipeline, StableDiffusionInpaintPipeline)
INSTRUCTION: Kinds = (StableDiffusionXLInstructPix2PixPipeline, StableDiffusionInstructPix2PixPipeline)
PIPELINES = (*TEXT_TO_IMAGE, *IMAGE_TO_IMAGE, *INPAINTING, *INSTRUCTION)
"""All of them."""
DiffusionPipeline.KINDS = PIPELINES

FAMILIES: tuple[Kinds, ...] = (
    (StableDiffusionXLPipeline, StableDiffusionXLImg2ImgPipeline, StableDiffusionXLInpaintPipeline),
    (StableDiffusionPipeline, StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline),
    (LatentConsistencyModelPipeline, LatentConsistencyModelImg2ImgPipeline),
)
"""The pipelines that become one another by `from_pipe` of an `AutoPipeline…`."""


class AutoPipeline:
    """Base class of those that choose the pipeline by the model."""

    TASK: ClassVar[Kinds] = ()
    """The pipelines that it chooses from."""

    @classmethod
    def from_pretrained(cls, pretrained_model_or_path: str | Path, **settings: Any) -> DiffusionPipeline:
        """See `DiffusionPipeline.from_pretrained`."""
        _no_pag(settings)
        chooser: Any = type(cls.__name__, (DiffusionPipeline,), {"KINDS": cls.TASK})
        made: DiffusionPipeline = chooser.from_pretrained(pretrained_model_or_path, **settings)
        return made

    @classmethod
    def from_pipe(cls, pipeline: Any, **changes: Any) -> DiffusionPipeline:
        """See `DiffusionPipeline.from_pipe`; of a pipeline of diffusers too."""
        _no_pag(changes)
        name = type(pipeline).__name__
        known = {each.__name__: family for family in FAMILIES for each in family}
        kind = next((each for each in known.get(name, ()) if each in cls.TASK), None)
        if kind is None:
            makers = [key for key, family in known.items() if {*family} & {*cls.TASK}]
            raise UsageError(f"{cls.__name__}: {name} is not supported; {nearest(name, makers)}")
        return kind.from_pipe(pipeline, **changes)


class AutoPipelineForText2Image(AutoPipeline):
    """Chooses the text-to-image pipeline by the model."""

    TASK = TEXT_TO_IMAGE


class AutoPipelineForImage2Image(AutoPipeline):
    """Chooses the image-to-image pipeline by the model."""

    TASK = IMAGE_TO_IMAGE


class AutoPipelineForInpainting(AutoPipeline):
    """Chooses the inpainting pipeline by the model."""

    TASK = INPAINTING


def _no_pag(settings: dict[str, Any]) -> None:
    if settings.pop("enable_pag", False):
        raise UsageError("enable_pag is not supported: only False")
