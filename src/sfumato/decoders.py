"""From a latent to pixels: by the model's full autoencoder, by its tiny one, or by a linear map."""

import math
from collections.abc import Callable, Sequence
from functools import cache, cached_property, partial

import torch
from torch import Tensor
from torch.nn import functional as F

from sfumato import devices
from sfumato.checkpoint import Model
from sfumato.errors import NumericsError, UsageError
from sfumato.nets.circular import circular, continued
from sfumato.nets.inference import for_inference, uncompiled
from sfumato.nets.temporal_vae import TemporalAutoencoderKL
from sfumato.nets.tiny_vae import AutoencoderTiny
from sfumato.nets.vae import AutoencoderKL, Gaussian
from sfumato.options import DEFAULT_DEVICE, DeviceOptions

FULL, TINY = "full", "tiny"
TILE = 128
"""Cells a side of the tiles that large latents are decoded in: 1,024 pixels of most autoencoders."""


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
        self._function = cache(partial(partial, self.decode))

    @property
    def names(self) -> tuple[str, ...]:
        """The decoders that there are."""
        return (FULL,) if self.model.tiny is None else (FULL, TINY)

    @property
    def sees_frames(self) -> bool:
        """Whether the full decoder makes the frames of a clip agree."""
        return isinstance(self.model.vae, TemporalAutoencoderKL)

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

    def function(self, name: str, seamless: str = "") -> Callable[[Tensor], Tensor]:
        """`decode` by the decoder `name`: the same function at every call, by which an engine batches."""
        self.check(name)
        return self._function(name=name, seamless=seamless)

    @torch.no_grad()
    @devices.own_precision
    def decode(self, latent: Tensor, name: str = FULL, seamless: str = "") -> Tensor:
        """The UNet's latent (B, C, h, w) as pixels (B, 3, H, W), about [−1, 1], by the decoder `name`.

        Of clips (B, C, F, h, w), to (B, 3, F, H, W), every frame is decoded by itself, unless the decoder
        `sees_frames`.
        Along the axes `seamless` ("x", "y", "xy") it goes on at the opposite edge. Decoded once more in
        float32 if half precision overflows. Raises `NumericsError` where that is not finite either, and
        `UsageError` as `check` does.
        """
        self.check(name)
        if latent.ndim == 5 and not (name == FULL and self.sees_frames):
            frames: Tensor = self.decode(latent.transpose(1, 2).flatten(0, 1), name, seamless)
            clips: Tensor = frames.unflatten(0, (len(latent), -1)).transpose(1, 2)
            return clips
        for dtype in self._dtypes(name):
            net = self._ready(name, dtype)
            pixels = self._decoded(net, net.unscale(latent.to(self.device, dtype)), seamless)
            if bool(torch.isfinite(pixels).all()):
                return pixels
        raise NumericsError(f"the decoded picture is not finite, in {self._dtypes(name)[0]} and in float32")

    @torch.no_grad()
    @devices.own_precision
    def encode(self, pixels: Tensor, noise: Tensor | None = None, *, seamless: str = "") -> Tensor:
        """Pixels (B, 3, H, W) in [−1, 1] as the UNet's latent (B, C, h, w) in float32.

        The most likely one, or with standard normal `noise` (B, C, h, w) one drawn at random. `seamless` as
        in `decode`. Encoded once more in float32 if half precision overflows. Raises `NumericsError` where
        that is not finite either.
        """
        for dtype in self._dtypes(FULL):
            net = self._ready(FULL, dtype)
            found = self._encoded(net, pixels.to(self.device, dtype), seamless)
            raw = found.mean.float() if noise is None else found.float().sample(noise.to(self.device))
            latent = net.scale(raw)
            if bool(torch.isfinite(latent).all()):
                return latent
        raise NumericsError("the encoded picture is not finite, in float32 either")

    def _decoded(self, net: AutoencoderKL | AutoencoderTiny, raw: Tensor, seamless: str) -> Tensor:
        """Raw latents as pixels, whole or in tiles."""
        tile = self.tile(raw.shape)
        if not tile:
            decode = uncompiled(net, "decode") if seamless else net.decode
            with circular(seamless):
                pixels: Tensor = decode(raw)
            return pixels
        margin, factor = tile // 4, self.model.factor
        pixels = net.decode_tiled(continued(raw, margin, seamless), tile, margin)
        return _cut(pixels, margin * factor, seamless)

    def _encoded(self, net: AutoencoderKL | AutoencoderTiny, pixels: Tensor, seamless: str) -> Gaussian:
        """Pixels as raw latents, whole or in tiles."""
        factor = self.model.factor
        tile = self.tile((pixels.shape[2] // factor, pixels.shape[3] // factor))
        if not tile:
            with circular(seamless):
                return net.encode(pixels)
        margin = tile // 4
        found = net.encode_tiled(continued(pixels, margin * factor, seamless), tile, margin)
        return Gaussian(_cut(found.mean, margin, seamless), _cut(found.logvar, margin, seamless))

    def tile(self, shape: Sequence[int]) -> int | None:
        """The side in cells of the tiles that a latent (…, h, w) is decoded in; `None` where it is whole.

        Unless the options say one, latents of more than `TILE` × `TILE` cells are in tiles of that side: the
        memory is then that of one.
        """
        side = self.options.tile or (TILE if math.prod(shape[-2:]) > TILE**2 else None)
        return None if side is None or max(shape[-2:]) <= side else side

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


def _cut(x: Tensor, margin: int, axes: str) -> Tensor:
    """`x` (B, C, H, W) without `margin` pixels at both ends of `axes`."""
    x = x[..., margin:-margin, :] if "y" in axes else x
    return x[..., margin:-margin] if "x" in axes else x
