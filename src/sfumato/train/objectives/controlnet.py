"""A ControlNet for edges: a network g beside the denoiser f, which stays as it is (Zhang et al. 2023).

    loss = w(t) · |f(a_t·x0 + s_t·eps, t, text, g(a_t·x0 + s_t·eps, t, text, edges)) − target|²

over what `sfumato.train.objectives.denoiser` learns from, the edges being those of the pictures (Canny 1986).
Weights begin as the denoiser's own, where it has the same, and the last convolutions as zeros (§3.1). The
layers that read the edges begin at random.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from random import Random
from typing import Annotated, Any, cast

import numpy as np
import pydantic.dataclasses
import torch
from pydantic import Field
from torch import Tensor, nn

from sfumato import checkpoint
from sfumato.checkpoint import Model
from sfumato.checkpoint.control import LoadedControl
from sfumato.checkpoint.saving import save_network
from sfumato.config import ControlNetConfig, UNetConfig
from sfumato.config.base import Channels
from sfumato.config.unet import EncoderConfig
from sfumato.data.crops import Crop
from sfumato.diffusion.predict import prediction_named
from sfumato.edit.control_pictures import canny, thickened
from sfumato.files import make_folder
from sfumato.nets.controlnet import ControlNet
from sfumato.nets.inference import unpacked
from sfumato.nets.inputs import SizeConditioning
from sfumato.nets.unet import UNet
from sfumato.train import sample_grid
from sfumato.train.context import StepContext
from sfumato.train.examples import CaptionedBatches, CaptionedData, captioned_batches
from sfumato.train.objectives.denoiser import WEIGHTINGS, DenoisingLoss
from sfumato.train.recipe import Count, Objective, Recipe
from sfumato.train.task import Task
from sfumato.validation import one_of

SAMPLES = 8
"""Pictures whose edges the grid of samples is drawn from."""
RESULT = "controlnet"
"""The folder in a run's own that holds the result, in the diffusers layout."""


@pydantic.dataclasses.dataclass(frozen=True)
class EdgeData(CaptionedData):
    """Captioned pictures, and how their edges are taken."""

    thresholds: tuple[float, float] = (50.0, 200.0)
    """The range of the threshold from which an edge counts; pixels beside it count from half of that."""
    line_widths: Annotated[tuple[Count, ...], Field(min_length=1)] = (1,)
    """Edges are at random so many pixels wide, odd numbers: people draw wider than one pixel."""

    def check(self) -> None:
        super().check()
        if not all(width % 2 for width in self.line_widths):
            raise ValueError(f"line_widths are {list(self.line_widths)}: must be odd numbers")


@pydantic.dataclasses.dataclass(frozen=True)
class ControlNetTraining(Objective):
    """Trains a ControlNet for the base model."""

    NAME, DATA, STARTS = "controlnet", EdgeData, ("base",)

    attention: bool = True
    """Whether it attends to the text, as the denoiser does; without it is half as large."""
    embedding_channels: Annotated[tuple[Channels, ...], Field(min_length=1, max_length=8)] = (16, 32, 96, 256)
    """Channels of the convolutions that bring the edges to the latent's size."""
    weighting: Annotated[str, one_of(WEIGHTINGS)] = "plain"
    """Of the loss over noise levels, a name of `WEIGHTINGS`."""
    timestep_shift: Annotated[float, Field(gt=0, le=100)] = 1.0
    """Above 1, noisy levels are trained more often: where things are is decided there."""

    def check_recipe(self, recipe: Recipe) -> None:
        if recipe.samples.prompts:
            raise ValueError(
                "samples.prompts must be left out: samples are drawn by captions and edges of the data"
            )

    def result(self, recipe: Recipe) -> Path:
        return Path(recipe.run) / RESULT

    def usage(self, recipe: Recipe) -> list[str]:
        prompt = next(iter(recipe.samples.prompts), "a red apple")
        control = f"{self.result(recipe)}:canny:picture.png"
        return ["sfumato", "generate", prompt, "--model", recipe.base, "--control", control]

    def task(self, recipe: Recipe, device: torch.device, report: Callable[[str], None]) -> Task[Any]:
        base = checkpoint.load(recipe.base, dtype=torch.float32)
        data = cast(EdgeData, recipe.data)
        base, batches = captioned_batches(recipe, base, device, report, condition=edges_of(data))
        unet = unpacked(base.unet).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        net = self.network(unet)
        net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if recipe.compile:
            net.compile()
        loss = DenoisingLoss(
            Controlled(unet, net),
            base.path(),
            prediction_named(base.prediction),
            self.weighting,
            device,
            self.timestep_shift,
        )

        average = ControlNet(net.config).requires_grad_(False).eval()

        def show(state: dict[str, Tensor], path: Path) -> None:
            average.load_state_dict(state)
            save_samples(replace(base, unet=unet), average, batches, path)

        def finish(state: dict[str, Tensor], folder: Path) -> dict[str, float]:
            average.load_state_dict(state)
            make_folder(folder / RESULT)
            save_network(folder / RESULT, RESULT, average, torch.float16)
            show(state, folder / "samples" / "last.webp")
            return {}

        return Task(net, batches, loss, show, finish)

    def network(self, unet: UNet) -> ControlNet:
        """A new one for `unet`, as it is before the first step."""
        config = self.config(unet.config)
        net = ControlNet(config)
        own = net.state_dict()
        same = {name: weight for name, weight in unet.state_dict().items() if name in own}
        net.load_state_dict(same, strict=False)
        net.controlnet_cond_embedding.reset()
        net.zero_outputs()
        return net

    def config(self, unet: UNetConfig) -> ControlNetConfig:
        """Of a ControlNet that fits a UNet."""
        values = {each.name: getattr(unet, each.name) for each in fields(EncoderConfig)}
        values["in_channels"] = unet.out_channels
        if not self.attention:
            values["down_block_types"] = ("DownBlock2D",) * len(unet.down_block_types)
            values["mid_block_type"] = "UNetMidBlock2D"
        return ControlNetConfig(**values, conditioning_embedding_out_channels=self.embedding_channels)


@dataclass(eq=False)
class Controlled:
    """A UNet with a ControlNet beside it, as one network."""

    unet: UNet
    control: nn.Module

    def __call__(
        self, x: Tensor, t: Tensor, states: Tensor, size: SizeConditioning | None, condition: Tensor
    ) -> Tensor:
        """The UNet's answer (B, C, h, w) to `x`, with the residuals of what is shown to the ControlNet."""
        residuals = self.control(x, t, states, condition, size)
        time, context = self.unet.embed_time(t, size), self.unet.context(states)
        return self.unet.denoise(x, time, context, residuals=residuals)


def save_samples(model: Model, control: ControlNet, batches: CaptionedBatches, path: Path) -> None:
    """Write a grid of edges of the first training pictures, each with what is drawn by it and its caption."""
    context = StepContext(0, 0, 1, torch.Generator().manual_seed(0))
    size, rows = batches.order(context, SAMPLES)
    crops = [Crop(batches.dataset.sizes[row], size) for row in rows]
    assert batches.condition is not None
    edges = batches.condition(batches.dataset.load(rows, crops).cpu(), Random(0))
    pixels = edges.mul(255).byte().permute(0, 2, 3, 1).numpy()
    prompts = [batches.dataset.captions[row][0] for row in rows]
    controls = [[{"model": RESULT, "image": each}] for each in pixels]
    named = LoadedControl(RESULT, control, "")
    drawn = sample_grid.draw(model, prompts, batches.device, controls=controls, networks=[named])
    sample_grid.save(torch.stack([edges * 2 - 1, drawn], dim=1).flatten(0, 1), path)


def edges_of(data: EdgeData) -> Callable[[Tensor, Random], Tensor]:
    """From pictures (B, 3, H, W) in [−1, 1] to their edges (B, 3, H, W), 0 or 1."""

    def edges(pictures: Tensor, random: Random) -> Tensor:
        pixels = ((pictures + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        found = []
        for each in pixels:
            high = random.uniform(*data.thresholds)
            lines = canny(np.ascontiguousarray(each), high / 2, high)
            found.append(thickened(lines, random.choice(data.line_widths)))
        return torch.from_numpy(np.stack(found)).float().div(255)[:, None].expand(-1, 3, -1, -1)

    return edges
