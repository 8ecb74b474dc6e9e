"""Programs written for diffusers: change the line that imports from it, and they draw here.

    from sfumato.compat import StableDiffusionPipeline

What is supported does what it does there, with the same latents for the same generator; what is not raises an
error that names it.
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
