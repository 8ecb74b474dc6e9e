"""The published families of models: what the models of one have in common, and no configuration says."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from sfumato.config import UNet3DConfig, UNetConfig, UNetSpatioTemporalConfig
from sfumato.prompt.encode import refiner_ids, size_ids


@dataclass(frozen=True)
class Defaults:
    """How to draw where the request does not say: chosen for the family, or stated by the model itself."""

    sampler: str = "dpmpp-2m"
    steps: int = 20
    guidance: float = 7.5
    spacing: str = "trailing"


_PIPELINES = {
    "text": "StableDiffusionPipeline",
    "inpaint": "StableDiffusionInpaintPipeline",
    "instruct": "StableDiffusionInstructPix2PixPipeline",
    "lcm": "LatentConsistencyModelPipeline",
}
_XL_PIPELINES = {
    "text": "StableDiffusionXLPipeline",
    "inpaint": "StableDiffusionXLInpaintPipeline",
    "instruct": "StableDiffusionXLInstructPix2PixPipeline",
}
_DEFAULTS = Defaults(spacing="karras")
_XL_DEFAULTS = Defaults(steps=30, guidance=5.0, spacing="karras")
_DDIM = {"_class_name": "DDIMScheduler", "clip_sample": False, "set_alpha_to_one": False}
_EULER = {"_class_name": "EulerDiscreteScheduler"}
_CONTINUOUS = {
    **_EULER,
    "timestep_type": "continuous",
    "use_karras_sigmas": True,
    "sigma_min": 0.002,
    "sigma_max": 700.0,
}


@dataclass(frozen=True)
class Family:
    """One family.

    `context`: the width of the text states that cross-attention reads, `None` for any other; `text_layers`:
    of the published text encoder; `text_encoders`: their places in a folder, as many as there are.
    `penultimate`: text is read before the encoder's last layer. `zero_negative`: "no negative prompt" means
    text states of zeros, not an encoded empty text. `size_ids(size, negative)`: what the UNet is told about a
    picture of `size` (width, height), `size_numbers` of them. `pipelines`: diffusers' classes by task, "lcm"
    where the UNet is told the guidance scale. `architectures`: modelspec's names by prediction.

    The others are for files without a configuration. `open_clip`: the (first) text encoder is OpenCLIP's.
    `latent_sides`: of latents in training, where noise is predicted, and where v is. `predicts_v`: some do.
    """

    name: str
    title: str
    context: int | None
    text_layers: int = 0
    defaults: Defaults = _DEFAULTS
    text_encoders: tuple[str, ...] = ("text_encoder", "text_encoder_2")
    penultimate: bool = False
    zero_negative: bool = False
    size_numbers: int = 0
    size_ids: Callable[[tuple[int, int], bool], Tensor] | None = None
    pipelines: Mapping[str, str] = field(default_factory=_PIPELINES.copy)
    architectures: Mapping[str, str] = field(default_factory=dict)
    open_clip: bool = False
    latent_sides: tuple[int, int] = (64, 64)
    predicts_v: bool = False
    upcast_attention: bool = False
    scaling_factor: float = 0.18215
    scheduler: Mapping[str, Any] = field(default_factory=_DDIM.copy)
    unet: type[UNetConfig] = UNetConfig
    """What its UNet is described by."""
    published_size: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    """(width, height) in training of published models whose `sample_size` says another."""


FAMILIES = {
    family.name: family
    for family in (
        Family("sd1", "Stable Diffusion 1.x", 768, 12, architectures={"epsilon": "stable-diffusion-v1"}),
        Family(
            "sd2",
            "Stable Diffusion 2.x",
            1024,
            23,
            architectures={"epsilon": "stable-diffusion-v2-512", "v": "stable-diffusion-v2-768-v"},
            open_clip=True,
            latent_sides=(64, 96),
            predicts_v=True,
            upcast_attention=True,
        ),
        Family(
            "sdxl",
            "Stable Diffusion XL",
            2048,
            defaults=_XL_DEFAULTS,
            penultimate=True,
            zero_negative=True,
            size_numbers=6,
            size_ids=lambda size, negative: size_ids(size),
            pipelines=_XL_PIPELINES,
            architectures=dict.fromkeys(("epsilon", "v"), "stable-diffusion-xl-v1-base"),
            latent_sides=(128, 128),
            scaling_factor=0.13025,
            scheduler=_EULER,
        ),
        Family(
            "sdxl-refiner",
            "the Stable Diffusion XL refiner",
            1280,
            defaults=_XL_DEFAULTS,
            text_encoders=("text_encoder_2",),
            penultimate=True,
            size_numbers=5,
            size_ids=lambda size, negative: refiner_ids(size, aesthetic=2.5 if negative else 6.0),
            pipelines=_XL_PIPELINES | {"text": "StableDiffusionXLImg2ImgPipeline"},
            architectures={"epsilon": "stable-diffusion-xl-v1-refiner"},
            latent_sides=(128, 128),
            scaling_factor=0.13025,
            scheduler=_EULER,
        ),
        Family(
            "svd",
            "Stable Video Diffusion",
            1024,
            defaults=Defaults(sampler="euler", steps=25, guidance=3.0, spacing="karras"),
            text_encoders=(),
            pipelines={"animate": "StableVideoDiffusionPipeline"},
            latent_sides=(96, 96),
            published_size={96: (1024, 576)},
            scheduler=_CONTINUOUS,
            unet=UNetSpatioTemporalConfig,
        ),
        Family(
            "modelscope",
            "ModelScope's text to video",
            1024,
            23,
            defaults=Defaults(sampler="ddim", steps=50, guidance=9.0, spacing="leading"),
            text_encoders=("text_encoder",),
            pipelines={"text": "TextToVideoSDPipeline"},
            unet=UNet3DConfig,
        ),
        Family(
            "latent-diffusion",
            "a latent diffusion model of its own kind",
            None,
            defaults=Defaults(guidance=4.0),
        ),
    )
}
"""By name."""
