"""Choosing a pipeline by the model and by what is to be drawn."""

from pathlib import Path
from typing import Any, ClassVar

from sfumato.compat.controlnets import (
    StableDiffusionControlNetImg2ImgPipeline,
    StableDiffusionControlNetInpaintPipeline,
    StableDiffusionControlNetPipeline,
    StableDiffusionXLControlNetImg2ImgPipeline,
    StableDiffusionXLControlNetInpaintPipeline,
    StableDiffusionXLControlNetPipeline,
)
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
from sfumato.compat.shapes import ShapePipeline
from sfumato.compat.text_to_image import (
    LatentConsistencyModelPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from sfumato.compat.videos import StableVideoDiffusionPipeline, TextToVideoSDPipeline
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
VIDEOS: Kinds = (StableVideoDiffusionPipeline, TextToVideoSDPipeline)
PIPELINES = (*TEXT_TO_IMAGE, *IMAGE_TO_IMAGE, *INPAINTING, *INSTRUCTION, *VIDEOS)
"""All that need nothing besides a model."""
DiffusionPipeline.KINDS = PIPELINES
DiffusionPipeline.SHAPES = ShapePipeline

FAMILIES: tuple[Kinds, ...] = (
    (StableDiffusionXLPipeline, StableDiffusionXLImg2ImgPipeline, StableDiffusionXLInpaintPipeline),
    (StableDiffusionPipeline, StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline),
    (LatentConsistencyModelPipeline, LatentConsistencyModelImg2ImgPipeline),
)
"""The pipelines that become one another by `from_pipe` of an `AutoPipeline…`."""
CONTROLLED: tuple[Kinds, ...] = (
    (
        StableDiffusionXLControlNetPipeline,
        StableDiffusionXLControlNetImg2ImgPipeline,
        StableDiffusionXLControlNetInpaintPipeline,
    ),
    (
        StableDiffusionControlNetPipeline,
        StableDiffusionControlNetImg2ImgPipeline,
        StableDiffusionControlNetInpaintPipeline,
    ),
)
"""Those with a ControlNet, for the first of `FAMILIES`."""


class AutoPipeline:
    """Base class of those that choose the pipeline by the model."""

    TASK: ClassVar[Kinds] = ()
    """The pipelines that it chooses from without a ControlNet."""
    PLACE: ClassVar[int] = 0
    """The place of its task in the families."""

    @classmethod
    def from_pretrained(cls, pretrained_model_or_path: str | Path, **settings: Any) -> DiffusionPipeline:
        """See `DiffusionPipeline.from_pretrained`."""
        _no_pag(settings)
        kinds = (*cls.TASK, *(family[cls.PLACE] for family in CONTROLLED))
        chooser: Any = type(cls.__name__, (DiffusionPipeline,), {"KINDS": kinds})
        made: DiffusionPipeline = chooser.from_pretrained(pretrained_model_or_path, **settings)
        return made

    @classmethod
    def from_pipe(cls, pipeline: Any, **changes: Any) -> DiffusionPipeline:
        """See `DiffusionPipeline.from_pipe`; of a pipeline of diffusers too."""
        _no_pag(changes)
        name, steered = type(pipeline).__name__, changes.get("controlnet")
        known = {each.__name__: family for family in (*FAMILIES, *CONTROLLED) for each in family}
        family = known.get(name, ())
        if "controlnet" in changes:
            pairs = [*zip(FAMILIES, CONTROLLED, strict=False)]
            family = next((pair[steered is not None] for pair in pairs if family in pair), family)
            if steered is None:
                changes.pop("controlnet")
        if len(family) <= cls.PLACE:
            makers = [key for key, each in known.items() if len(each) > cls.PLACE]
            raise UsageError(f"{cls.__name__}: {name} is not supported; {nearest(name, makers)}")
        kind = family[cls.PLACE]
        return kind.from_pipe(pipeline, **changes)


class AutoPipelineForText2Image(AutoPipeline):
    """Chooses the text-to-image pipeline by the model."""

    TASK = TEXT_TO_IMAGE


class AutoPipelineForImage2Image(AutoPipeline):
    """Chooses the image-to-image pipeline by the model."""

    TASK, PLACE = IMAGE_TO_IMAGE, 1


class AutoPipelineForInpainting(AutoPipeline):
    """Chooses the inpainting pipeline by the model."""

    TASK, PLACE = INPAINTING, 2


def _no_pag(settings: dict[str, Any]) -> None:
    if settings.pop("enable_pag", False):
        raise UsageError("enable_pag is not supported: only False")
