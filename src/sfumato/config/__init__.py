"""What the networks and schedules of a checkpoint are, read strictly from the `config.json` beside it."""

from sfumato.config.autoencoders import TemporalVAEConfig, TinyVAEConfig, VAEConfig
from sfumato.config.base import Config
from sfumato.config.controlnet import ControlNetConfig
from sfumato.config.ip_adapter import IPAdapterConfig
from sfumato.config.motion import MotionAdapterConfig
from sfumato.config.schedule import ScheduleConfig
from sfumato.config.shap_e import PriorConfig, ShapERendererConfig
from sfumato.config.t2i_adapter import T2IAdapterConfig
from sfumato.config.text import TextConfig
from sfumato.config.unet import UNetConfig
from sfumato.config.video_unet import UNet3DConfig, UNetSpatioTemporalConfig
from sfumato.config.vision import VisionConfig

__all__ = [
    "Config",
    "ControlNetConfig",
    "IPAdapterConfig",
    "MotionAdapterConfig",
    "PriorConfig",
    "ScheduleConfig",
    "ShapERendererConfig",
    "T2IAdapterConfig",
    "TemporalVAEConfig",
    "TextConfig",
    "TinyVAEConfig",
    "UNet3DConfig",
    "UNetConfig",
    "UNetSpatioTemporalConfig",
    "VAEConfig",
    "VisionConfig",
]
