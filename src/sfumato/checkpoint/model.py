"""A loaded checkpoint: networks, tokenizers, and what was worked out about them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

import torch
from torch import Tensor

from sfumato.checkpoint.families import Defaults
from sfumato.checkpoint.infer import ModelInfo
from sfumato.checkpoint.layout import ENCODER
from sfumato.checkpoint.report import Report
from sfumato.config import ScheduleConfig
from sfumato.diffusion.latent import LatentSpec
from sfumato.diffusion.level import DynamicFlow, Level, Path
from sfumato.diffusion.spacing import spacing_named
from sfumato.errors import UsageError
from sfumato.nets.controlnet import ControlNet
from sfumato.nets.ip_adapter import IPAdapter
from sfumato.nets.motion import MotionAdapter
from sfumato.nets.prior import PriorTransformer
from sfumato.nets.shap_e import ShapERenderer
from sfumato.nets.t2i_adapter import T2IAdapter
from sfumato.nets.text import CLIPText
from sfumato.nets.tiny_vae import AutoencoderTiny
from sfumato.nets.unet import UNet
from sfumato.nets.vae import AutoencoderKL
from sfumato.nets.vision import CLIPVision
from sfumato.prompt.encode import TextEmbedding, Vectors, encode, places, text_encoders
from sfumato.prompt.meaning import Content
from sfumato.prompt.tokenizer import Tokenizer

ModelNetwork = (
    UNet
    | AutoencoderKL
    | AutoencoderTiny
    | CLIPText
    | ControlNet
    | T2IAdapter
    | IPAdapter
    | CLIPVision
    | MotionAdapter
    | PriorTransformer
    | ShapERenderer
)
"""A network of a model's, or one that is used beside it."""


@dataclass(eq=False)
class Model:
    """Everything that a folder held. Networks are in evaluation mode and ask for no gradients.

    `index`, `scheduler` and `own` are the contents of `model_index.json`, `scheduler_config.json` and
    `sfumato.json` (empty where there is none); `fingerprint` identifies the files (`layout.fingerprint`).
    """

    name: str
    unet: UNet
    vae: AutoencoderKL | AutoencoderTiny
    text_encoders: list[CLIPText]
    tokenizers: list[Tokenizer]
    schedule: ScheduleConfig
    info: ModelInfo
    report: Report
    fingerprint: str
    index: dict[str, Any]
    scheduler: dict[str, Any]
    own: dict[str, Any]
    tiny: AutoencoderTiny | None = None
    """A smaller decoder of the same latents, for previews and for haste."""
    fast: FilePath | None = None
    """The file of a LoRA with which it draws in few steps."""
    controls: Mapping[str, FilePath] = field(default_factory=dict)
    """The folders of the controls that it brings with it, by their names."""
    motion: FilePath | None = None
    """The folder of the motion adapter that it brings with it."""
    image_encoder: FilePath | None = None
    """The folder of the image encoder that it brings with it for IP-Adapters."""
    vision: CLIPVision | None = None
    """What sees the picture that it moves, of a model that moves pictures."""

    def __repr__(self) -> str:
        width, height = self.native_size
        return f"<Model {self.name!r}: {self.kind}, {width}×{height}, {self.prediction} prediction>"

    @property
    def kind(self) -> str:
        """The family: "sd1", "sd2", "sdxl", "sdxl-refiner", "svd", "modelscope" or "latent-diffusion"."""
        return self.info.family.name

    @property
    def task(self) -> str:
        """What the UNet is given besides noise: "text", text with "inpaint" or "instruct", or a picture to
        "animate".
        """
        return self.info.task

    @property
    def prediction(self) -> str:
        """What the UNet answers with, a name of `sfumato.diffusion.predict`."""
        return self.info.prediction

    def path(self, size: tuple[int, int] | None = None) -> Path:
        """The path from noise to a picture of `size` (width, height), the native one if `None`."""
        path = self.info.path
        if not isinstance(path, DynamicFlow):
            return path
        width, height = size or self.native_size
        return path.at((width // self.factor) * (height // self.factor))

    @property
    def native_size(self) -> tuple[int, int]:
        """(width, height) in pixels that the UNet was trained at."""
        return self.info.native_size

    @property
    def factor(self) -> int:
        """Pixels to one latent, along each side."""
        return self.info.factor

    @property
    def latent(self) -> LatentSpec:
        """What its latents are like."""
        return LatentSpec(self.vae.config.latent_channels, self.factor)

    @property
    def defaults(self) -> Defaults:
        """How to draw where the request does not say."""
        return self.info.defaults

    @property
    def zero_negative(self) -> bool:
        """Whether "no negative prompt" means text states of zeros (SDXL), not an encoded empty text."""
        return bool(self.index.get("force_zeros_for_empty_prompt", self.info.family.zero_negative))

    @property
    def networks(self) -> dict[str, ModelNetwork]:
        """Every network by its place in the folder, without `tiny`, which no other program looks for."""
        encoders = dict(zip(self.info.family.text_encoders, self.text_encoders, strict=False))
        return {
            "unet": self.unet,
            "vae": self.vae,
            **encoders,
            **({ENCODER: self.vision} if self.vision else {}),
        }

    def levels(
        self, spacing: str, steps: int, size: tuple[int, int] | None = None, path: Path | None = None
    ) -> list[Level]:
        """The noise levels of a picture of `size` (width, height) in `steps`, `lcm` ones as it was distilled.

        `path`: another than its own. Raises `UsageError` for an unknown spacing, and for one that begins with
        pure noise where the network predicts the noise.
        """
        named = spacing_named(spacing)
        own = {"origin": self.schedule.original_inference_steps} if named.name == "lcm" else {}
        levels = named.levels(path or self.path(size), steps, **own)
        if levels[0].a == 0 and self.schedule.predicts_noise:
            why = " (rescale_betas_zero_snr)" if self.schedule.rescale_betas_zero_snr else ""
            raise UsageError(
                f"{self.name} predicts epsilon, which has no answer at pure noise, and its levels begin there"
                f"{why}: --prediction v if it predicts v, else --no-zero-terminal-snr, or a spacing that "
                "begins below, such as leading"
            )
        return levels

    def encode(
        self,
        content: Content | str,
        clip_skip: int = 0,
        device: torch.device | None = None,
        *,
        dialect: str = "plain",
        embeddings: Mapping[str, Vectors] | None = None,
    ) -> TextEmbedding:
        """Text states of one prompt, read as this family reads them; see `sfumato.prompt.encode`."""
        return encode(
            content,
            self.tokenizers,
            self.text_encoders,
            dialect=dialect,
            embeddings=embeddings,
            penultimate=self.info.family.penultimate,
            clip_skip=clip_skip,
            device=device,
        )

    def places(
        self,
        content: Content,
        clip_skip: int = 0,
        *,
        dialect: str = "plain",
        embeddings: Mapping[str, Vectors] | None = None,
    ) -> int:
        """The places T of the text states that `encode` makes of a prompt; raises what it would."""
        penultimate = self.info.family.penultimate
        ready = text_encoders(self.tokenizers, self.text_encoders, embeddings, penultimate, clip_skip)
        return max(places(content, encoder, dialect) for encoder in ready)

    def size_ids(self, size: tuple[int, int], *, negative: bool = False) -> Tensor | None:
        """What the UNet is told about a picture of `size` (width, height): (1, 6), (1, 5), or nothing."""
        made = self.info.family.size_ids
        return made and made(size, negative)
