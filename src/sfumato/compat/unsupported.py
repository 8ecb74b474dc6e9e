"""Why a name of diffusers is not here, and what is instead."""

import re
from collections.abc import Sequence

from sfumato.errors import nearest

_KINDS = (
    (r"ControlNetUnion|ControlNetXS|PAG|BlipDiffusion", "this kind of network is not supported"),
    (
        r"Video|Animate|Motion|Mochi|Wan|LTX|CogVideo",
        "of videos only AnimateDiff's, PIA's, Stable Video Diffusion's and ModelScope's are supported",
    ),
    (
        r"Flux|StableDiffusion3|SD3|Transformer2D|PixArt|Sana|Lumina|HunyuanDiT|AuraFlow|QwenImage|Chroma|ZImage",
        "models with a transformer in the place of the UNet are not supported",
    ),
    (
        r"Cascade|Wuerstchen|Kandinsky|UnCLIP|IFPipeline|DeepFloyd|Amused",
        "this family of models is not supported",
    ),
    (r"Upscale|ImageVariation|Depth2Img|Diffedit|RePaint|unCLIP", "its networks are of another kind"),
    (r"SafetyChecker", "pictures are not checked; leave safety_checker out, or give None"),
    (r"BitsAndBytes|Quant|GGUF|TorchAo", "quantised weights are not supported"),
    (r"Onnx|OpenVINO|Flax", "only torch is supported"),
    (
        r"FlowMatch\w*Scheduler",
        "diffusers' pipelines of Stable Diffusion cannot use it either; "
        "DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type='flow_prediction') samples flows",
    ),
    (r"MultistepInverse", "DDIMInverseScheduler inverts"),
    (r"ConsistencyDecoder|CMStochastic|IPNDM|KarrasVe|ScoreSde", "it is for networks without text"),
    (r"Scheduler", ""),
    (r"Pipeline", ""),
)


def reason(name: str, known: Sequence[str]) -> str:
    """Why `name` is not supported, as the end of an error, or the nearest of the `known` of its kind."""
    for pattern, why in _KINDS:
        if re.search(pattern, name):
            kind = next((each for each in ("Scheduler", "Pipeline") if name.endswith(each)), "")
            alike = [each for each in known if kind and each.endswith(kind)]
            return f": {why}" if why else f"; {nearest(name, alike or known)}"
    return f"; {nearest(name, known)}"
