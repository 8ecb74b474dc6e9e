"""From a latent to pixels: by the model's full autoencoder, by its tiny one, or by a linear map."""

from collections.abc import Callable
from functools import cached_property, partial

import torch
from torch import Tensor
from torch.nn import functional as F

from sfumato import devices
from sfumato.checkpoint import Model
from sfumato.errors import NumericsError, UsageError
from sfumato.nets.inference import for_inference
from sfumato.nets.tiny_vae import AutoencoderTiny
from sfumato.nets.vae import AutoencoderKL
from sfumato.options import DEFAULT_DEVICE, DeviceOptions

FULL, TINY = "full", "tiny"


class Decoders:
    """What a model decodes its latents with, ready on `device`; `options` say in what tiles, and how
    placed.
    """

    def __init__(
        self, model: Model, device: torch.device, dtype: torch.dtype, options: DeviceOptions = DEFAULT_DEVICE
    ) -> None:
        self.model, self.device, self.dtype, self.options = model, device, dtype, options
        for name in self.names:
            self._ready(name, self._dtypes(name)[0])
        self._functions = {name: partial(self.decode, name=name) for name in self.names}

    @property
    def names(self) -> tuple[str, ...]:
        """The decoders that there are."""
        return (FULL,) if self.model.tiny is None else (FULL, TINY)

    @property
    def quickest(self) -> str:
        """The one for previews."""
        return self.names[-1]

    def check(self, name: str) -> None:
        """Raise `UsageError` unless there is a decoder `name`."""
        if name not in self.names:
            raise UsageError(
                f"{self.model.name} has no {name} decoder: leave decoder at {FULL!r}, or give the model one, "
                "such as a TAESD for its kind: sfumato.load(..., tiny=PATH), --tiny PATH"
            )

    def function(self, name: str) -> Callable[[Tensor], Tensor]:
        """`decode` by the decoder `name`: the same function at every call, by which an engine batches."""
        self.check(name)
        return self._functions[name]

    @torch.no_grad()
    @devices.own_precision
    def decode(self, latent: Tensor, name: str = FULL) -> Tensor:
        """The UNet's latent (B, C, h, w) as pixels (B, 3, H, W), about [−1, 1], by the decoder `name`.

        Decoded once more in float32 if half precision overflows. Raises `NumericsError` where that is not
        finite either, and `UsageError` as `check` does.
        """
        self.check(name)
        for dtype in self._dtypes(name):
            net = self._ready(name, dtype)
            raw = net.unscale(latent.to(self.device, dtype))
            tile = self.options.tile
            pixels = net.decode_tiled(raw, tile, tile // 4) if tile else net.decode(raw)
            if bool(torch.isfinite(pixels).all()):
                return pixels
        raise NumericsError(f"the decoded picture is not finite, in {self._dtypes(name)[0]} and in float32")

    @torch.no_grad()
    @devices.own_precision
    def encode(self, pixels: Tensor, noise: Tensor | None = None) -> Tensor:
        """Pixels (B, 3, H, W) in [−1, 1] as the UNet's latent (B, C, h, w) in float32.

        The most likely one, or with standard normal `noise` (B, C, h, w) one drawn at random. Encoded once
        more in float32 if half precision overflows. Raises `NumericsError` where that is not finite either.
        """
        tile = self.options.tile
        for dtype in self._dtypes(FULL):
            net = self._ready(FULL, dtype)
            x = pixels.to(self.device, dtype)
            found = net.encode_tiled(x, tile, tile // 4) if tile else net.encode(x)
            raw = found.mean.float() if noise is None else found.float().sample(noise.to(self.device))
            latent = net.scale(raw)
            if bool(torch.isfinite(latent).all()):
                return latent
        raise NumericsError("the encoded picture is not finite, in float32 either")

    def latent_rgb(self, latent: Tensor) -> Tensor:
        """Pixels (B, 3, h, w), one for each latent cell: the linear map nearest to what the decoder does."""
        weight, bias = self._colours
        return torch.einsum("bchw,cd->bdhw", latent.float(), weight) + bias[:, None, None]

    @cached_property
    def _colours(self) -> tuple[Tensor, Tensor]:
        """Least-squares fit (C, 3), (3,) of the full decoder on patches of random colour."""
        shape = (1, self.model.vae.config.latent_channels, 12, 12)
        patches = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(self.device)
        pixels = self.decode(F.interpolate(patches, scale_factor=4.0))
        seen = F.interpolate(pixels.float(), size=patches.shape[2:], mode="area")
        known = patches.flatten(2)[0].T
        known = torch.cat([known, torch.ones_like(known[:, :1])], dim=1)
        fitted = torch.linalg.lstsq(known, seen.flatten(2)[0].T).solution
        return fitted[:-1], fitted[-1]

    def _dtypes(self, name: str) -> tuple[torch.dtype, ...]:
        """The precisions to try: some full autoencoders overflow in float16."""
        upcast = name == FULL and getattr(self.model.vae.config, "force_upcast", False)
        if self.dtype == torch.float32 or (upcast and self.dtype == torch.float16):
            return (torch.float32,)
        return self.dtype, torch.float32

    def _ready(self, name: str, dtype: torch.dtype) -> AutoencoderKL | AutoencoderTiny:
        net = self.model.tiny if name == TINY else self.model.vae
        assert net is not None
        options = self.options
        return for_inference(net, self.device, dtype, offload=options.offload, compiled=options.compiled)
