"""The upscaler: small pictures to large ones, from pairs that are made by reducing pictures.

    loss = reconstruction(f(x ↓ k), x)

with ↓ k the reduction by a kernel drawn anew for each picture: area, bilinear or bicubic, after a slight blur
or none, rounded to the values of a file and with a little noise. `reconstruction` is the autoencoder's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import PIL.Image
import pydantic.dataclasses
import torch
from torch import Tensor
from torch.nn import functional as F

from sfumato import checkpoint
from sfumato.nets import upscaler
from sfumato.nets.upscaler import Upscaler, UpscalerConfig
from sfumato.train.objectives.autoencoder import psnr_of, reconstruction_loss
from sfumato.train.objectives.common import CroppedData, save_reconstructions, with_weights
from sfumato.train.pictures import RandomCrops, pictures_of
from sfumato.train.recipe import NotNegative, Objective, Recipe
from sfumato.train.task import Task

RESULT = "upscaler.safetensors"
BLUR = 0.6
"""The widest blur before a reduction: standard deviation in pixels of the reduced picture."""
NOISE = 0.01
"""The most noise on a reduced picture: standard deviation."""
TESTS = 256
"""Pictures that the metrics are taken from."""
LANCZOS = PIL.Image.Resampling.LANCZOS


@pydantic.dataclasses.dataclass(frozen=True)
class UpscalerData(CroppedData):
    """Pictures, or crops of them."""

    resolution: NotNegative = 0
    """Width and height in pixels of a folder's pictures before they are cropped; 0: the base model's."""


@pydantic.dataclasses.dataclass(frozen=True)
class Upscaling(Objective):
    """Trains a network that makes pictures larger, which `upscaler` names."""

    NAME, DATA, STARTS = "upscaler", UpscalerData, ("scratch",)

    def result(self, recipe: Recipe) -> Path:
        return Path(recipe.run) / RESULT

    def usage(self, recipe: Recipe) -> list[str]:
        return ["sfumato", "upscale", "PICTURE", "--upscaler", str(self.result(recipe))]

    def task(self, recipe: Recipe, device: torch.device, report: Callable[[str], None]) -> Task[Any]:
        net = Upscaler(UpscalerConfig.from_dict(recipe.network, f"network of {self.NAME}"))
        net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if recipe.compile:
            net.compile()
        data = cast(UpscalerData, recipe.data)
        base = checkpoint.load(recipe.base, dtype=torch.float32)
        pictures = pictures_of(recipe, base, data.resolution, device, report)
        tests = pictures.tests()
        tests = tests[:: max(len(tests) // TESTS, 1)]
        scale = net.config.scale

        def show(state: dict[str, Tensor], path: Path) -> None:
            kept = with_weights(net, state)
            save_reconstructions(tests, lambda x: kept(reduced(x, scale)), path)

        def finish(state: dict[str, Tensor], folder: Path) -> dict[str, float]:
            kept, which = with_weights(net, state), "held_out" if pictures.held_out else "seen"
            show(state, folder / "samples" / "last.webp")
            found = enlarging_psnr(kept, tests)
            metrics = {f"psnr_{which}_{name}": value for name, value in found.items()}
            trained = f"{recipe.steps} steps of {recipe.batch_size} crops of {data.crop_size} pixels"
            upscaler.save(kept, folder / RESULT, trained=trained)
            return metrics

        batches = RandomCrops(pictures.batches, data.crop_size) if data.crop_size else pictures.batches
        return Task(net, batches, UpscalerLoss(net), show, finish)


@dataclass(frozen=True, eq=False)
class UpscalerLoss:
    """The loss."""

    net: Upscaler

    def __call__(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """`x` (B, 3, S, S) in [−1, 1] to the loss (B,), and the mean squared error."""
        with torch.autocast(x.device.type, enabled=False):
            small = degraded(x, self.net.config.scale, generator)
        y = self.net(small).float()
        mse = ((y - x) ** 2).mean((1, 2, 3))
        return reconstruction_loss(y, x, mse), {"mse": mse.mean()}


def reduced(x: Tensor, scale: int, mode: str = "area") -> Tensor:
    """`x` (B, 3, H, W) made `scale` times smaller: "area", or "bilinear" or "bicubic" without aliasing."""
    if mode == "area":
        return F.avg_pool2d(x, scale)
    size = x.shape[2] // scale, x.shape[3] // scale
    return F.interpolate(x, size=size, mode=mode, antialias=True)


def degraded(x: Tensor, scale: int, generator: torch.Generator) -> Tensor:
    """Each of `x` (B, 3, H, W) reduced by a kernel of its own, as the module says."""
    count, device = len(x), x.device
    blur, noise, drawn = torch.rand(3, count, generator=generator, device=device).unbind()
    blurred = _blurred(x, blur * BLUR * scale)
    ways = torch.stack([reduced(blurred, scale, mode) for mode in ("area", "bilinear", "bicubic")])
    small = ways[(drawn * len(ways)).long(), torch.arange(count, device=device)]
    grain = torch.randn(small.shape, generator=generator, device=device)
    noisy = small + grain * (noise * NOISE)[:, None, None, None]
    return ((noisy.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


def _blurred(x: Tensor, deviation: Tensor) -> Tensor:
    """Each of `x` (B, C, H, W) under a Gaussian of its own `deviation` (B,) in pixels."""
    count, channels = x.shape[:2]
    places = torch.arange(-4, 5, device=x.device)
    kernel = torch.exp(-((places / deviation.clamp(min=1e-2)[:, None]) ** 2) / 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)[:, None]
    row = F.pad(x.reshape(1, -1, *x.shape[2:]), (4, 4, 4, 4), mode="replicate")
    row = F.conv2d(row, kernel[:, :, None], groups=count * channels)
    column: Tensor = F.conv2d(row, kernel[:, :, :, None], groups=count * channels)
    return column.reshape(x.shape)


@torch.no_grad()
def enlarging_psnr(net: Upscaler, pictures: Tensor, batch: int = 16) -> dict[str, float]:
    """Mean peak signal-to-noise ratios in dB over `pictures` (B, 3, S, S) in [−1, 1], reduced and enlarged.

    By the network and by Lanczos, each for pictures reduced by area and by bicubic interpolation.
    """
    totals: dict[str, float] = {}
    scale = net.config.scale
    for x in pictures.split(batch):
        for mode in ("area", "bicubic"):
            small = ((reduced(x, scale, mode).clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1
            for name, y in (("network", net(small)), ("lanczos", _lanczos(small, scale))):
                key = f"{name}_{mode}"
                totals[key] = totals.get(key, 0.0) + float(psnr_of(y.float(), x).sum())
    return {name: total / len(pictures) for name, total in totals.items()}


def _lanczos(x: Tensor, scale: int) -> Tensor:
    made = []
    for picture in x:
        array = ((picture + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
        size = (array.shape[1] * scale, array.shape[0] * scale)
        large = np.asarray(PIL.Image.fromarray(array).resize(size, LANCZOS), dtype=np.float32)
        made.append(torch.from_numpy(large / 127.5 - 1).permute(2, 0, 1))
    return torch.stack(made).to(x.device)
