"""Runs programs written for diffusers, with one line changed:

    from sfumato.compat import StableDiffusionPipeline

The same generator gives the same latents as there. What is not supported raises an error that names it.
"""

from typing import Any

from sfumato.compat.animatediff import AnimateDiffPipeline, AnimateDiffSDXLPipeline, PIAPipeline
from sfumato.compat.auto import (
    AutoPipelineForImage2Image,
    AutoPipelineForInpainting,
    AutoPipelineForText2Image,
)
from sfumato.compat.control_models import (
    ControlNetModel,
    MotionAdapter,
    MultiAdapter,
    MultiControlNetModel,
    T2IAdapter,
)
from sfumato.compat.controlnets import (
    StableDiffusionControlNetImg2ImgPipeline,
    StableDiffusionControlNetInpaintPipeline,
    StableDiffusionControlNetPipeline,
    StableDiffusionXLControlNetImg2ImgPipeline,
    StableDiffusionXLControlNetInpaintPipeline,
    StableDiffusionXLControlNetPipeline,
)
from sfumato.compat.image_processor import VaeImageProcessor
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
from sfumato.compat.models import (
    AutoencoderKL,
    AutoencoderKLTemporalDecoder,
    AutoencoderTiny,
    AutoModel,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionModelWithProjection,
    UNet2DConditionModel,
    UNet3DConditionModel,
    UNetSpatioTemporalConditionModel,
)
from sfumato.compat.outputs import StableDiffusionPipelineOutput, StableDiffusionXLPipelineOutput
from sfumato.compat.pipeline import DiffusionPipeline
from sfumato.compat.schedulers import (
    DDIMInverseScheduler,
    DDIMParallelScheduler,
    DDIMScheduler,
    DDPMParallelScheduler,
    DDPMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSDEScheduler,
    DPMSolverSinglestepScheduler,
    EDMDPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    KDPM2AncestralDiscreteScheduler,
    KDPM2DiscreteScheduler,
    LCMScheduler,
    LMSDiscreteScheduler,
    PNDMScheduler,
    SASolverScheduler,
    TCDScheduler,
    UniPCMultistepScheduler,
)
from sfumato.compat.shapes import ShapEImg2ImgPipeline, ShapEPipeline
from sfumato.compat.t2i_adapters import (
    StableDiffusionAdapterPipeline,
    StableDiffusionXLAdapterPipeline,
)
from sfumato.compat.text_to_image import (
    LatentConsistencyModelPipeline,
    LCMStableDiffusionPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from sfumato.compat.tokenizers import CLIPTokenizer
from sfumato.compat.unsupported import reason
from sfumato.compat.videos import StableVideoDiffusionPipeline, TextToVideoSDPipeline

__all__ = [
    "AnimateDiffPipeline",
    "AnimateDiffSDXLPipeline",
    "AutoModel",
    "AutoPipelineForImage2Image",
    "AutoPipelineForInpainting",
    "AutoPipelineForText2Image",
    "AutoencoderKL",
    "AutoencoderKLTemporalDecoder",
    "AutoencoderTiny",
    "CLIPTextModel",
    "CLIPTextModelWithProjection",
    "CLIPTokenizer",
    "CLIPVisionModelWithProjection",
    "ControlNetModel",
    "DDIMInverseScheduler",
    "DDIMParallelScheduler",
    "DDIMScheduler",
    "DDPMParallelScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSDEScheduler",
    "DPMSolverSinglestepScheduler",
    "DiffusionPipeline",
    "EDMDPMSolverMultistepScheduler",
    "EDMEulerScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LCMScheduler",
    "LCMStableDiffusionPipeline",
    "LMSDiscreteScheduler",
    "LatentConsistencyModelImg2ImgPipeline",
    "LatentConsistencyModelPipeline",
    "MotionAdapter",
    "MultiAdapter",
    "MultiControlNetModel",
    "PIAPipeline",
    "PNDMScheduler",
    "SASolverScheduler",
    "ShapEImg2ImgPipeline",
    "ShapEPipeline",
    "StableDiffusionAdapterPipeline",
    "StableDiffusionControlNetImg2ImgPipeline",
    "StableDiffusionControlNetInpaintPipeline",
    "StableDiffusionControlNetPipeline",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionInpaintPipeline",
    "StableDiffusionInstructPix2PixPipeline",
    "StableDiffusionPipeline",
    "StableDiffusionPipelineOutput",
    "StableDiffusionXLAdapterPipeline",
    "StableDiffusionXLControlNetImg2ImgPipeline",
    "StableDiffusionXLControlNetInpaintPipeline",
    "StableDiffusionXLControlNetPipeline",
    "StableDiffusionXLImg2ImgPipeline",
    "StableDiffusionXLInpaintPipeline",
    "StableDiffusionXLInstructPix2PixPipeline",
    "StableDiffusionXLPipeline",
    "StableDiffusionXLPipelineOutput",
    "StableVideoDiffusionPipeline",
    "T2IAdapter",
    "TCDScheduler",
    "TextToVideoSDPipeline",
    "UNet2DConditionModel",
    "UNet3DConditionModel",
    "UNetSpatioTemporalConditionModel",
    "UniPCMultistepScheduler",
    "VaeImageProcessor",
]


def __getattr__(name: str) -> Any:
    if not name[:1].isupper():
        raise AttributeError(f"sfumato.compat has no {name!r}")
    # of an AttributeError, Python would keep the message back from `from sfumato.compat import …`
    raise ImportError(f"{name} is not supported{reason(name, __all__)}")
