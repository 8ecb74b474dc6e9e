"""Runs programs written for diffusers, with one line changed:

    from sfumato.compat import StableDiffusionPipeline

The same generator gives the same latents as there. What is not supported raises an error that names it.
"""

from typing import Any

from sfumato.compat.outputs import StableDiffusionPipelineOutput, StableDiffusionXLPipelineOutput
from sfumato.compat.pipeline import DiffusionPipeline
from sfumato.compat.schedulers import (
    DDIMScheduler,
    DDPMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSDEScheduler,
    DPMSolverSinglestepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    KDPM2AncestralDiscreteScheduler,
    KDPM2DiscreteScheduler,
    LCMScheduler,
    LMSDiscreteScheduler,
    PNDMScheduler,
    TCDScheduler,
    UniPCMultistepScheduler,
)
from sfumato.compat.text_to_image import (
    AutoPipelineForText2Image,
    LatentConsistencyModelPipeline,
    LCMStableDiffusionPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)

__all__ = [
    "AutoPipelineForText2Image",
    "DDIMScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSDEScheduler",
    "DPMSolverSinglestepScheduler",
    "DiffusionPipeline",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LCMScheduler",
    "LCMStableDiffusionPipeline",
    "LMSDiscreteScheduler",
    "LatentConsistencyModelPipeline",
    "PNDMScheduler",
    "StableDiffusionPipeline",
    "StableDiffusionPipelineOutput",
    "StableDiffusionXLPipeline",
    "StableDiffusionXLPipelineOutput",
    "TCDScheduler",
    "UniPCMultistepScheduler",
]

_EDITING = ("StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline")


def __getattr__(name: str) -> Any:
    if name in _EDITING:
        raise ImportError(f"{name} is not supported: sfumato does not edit pictures yet")
    raise AttributeError(f"sfumato.compat has no {name!r}: it is not supported")
