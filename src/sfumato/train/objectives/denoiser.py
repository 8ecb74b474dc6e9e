"""The denoiser: predict the clean latent behind the noise (Ho et al. 2020; Salimans & Ho 2022).

    loss = w(t) · |f(a_t·x0 + s_t·eps, t, text) − target|²

over latents, their captions, times t spread evenly over the path, and noise eps; the target is the row of
`sfumato.diffusion.predict` that the model's schedule names, v = a·eps − s·x0 for the embedded one. With
`loss_mask` the mean of an example is that of its cells weighted by their masks m: Σ m·|…|² / Σ m.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

import pydantic.dataclasses
import torch
from pydantic import Field
from torch import Tensor

from sfumato import checkpoint
from sfumato.checkpoint import Model
from sfumato.diffusion.level import Path
from sfumato.diffusion.predict import Prediction, prediction_named
from sfumato.errors import UsageError
from sfumato.train.context import StepContext, seed_of
from sfumato.train.examples import CaptionedBatches, CaptionedData, LatentBatch, captioned_batches
from sfumato.train.objectives.unet import TrainedUNet
from sfumato.train.recipe import Objective, Recipe
from sfumato.train.task import Task, holding
from sfumato.validation import one_of

SNR_LIMIT = 5.0

WEIGHTINGS: dict[str, Callable[[Tensor, Prediction], Tensor]] = {
    "plain": lambda snr, prediction: torch.ones_like(snr),
    "min-snr": lambda snr, prediction: min_snr(snr, prediction),
}
"""Weights w(t) of the loss from signal-to-noise ratios a²/s² (T,)."""


@pydantic.dataclasses.dataclass(frozen=True)
class Denoising(Objective):
    """Trains the denoiser."""

    NAME, DATA, TAKES_ADAPTER = "denoiser", CaptionedData, True
    MASKS_LOSS, TRAINS_TEXT, VALIDATES = True, True, True

    weighting: Annotated[str, one_of(WEIGHTINGS)] = "plain"
    """Of the loss over noise levels, a name of `WEIGHTINGS`."""
    noise_offset: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Noise that all of a channel has in common, so that pictures may be dark or light as a whole."""

    def check_recipe(self, recipe: Recipe) -> None:
        words = isinstance(recipe.data, CaptionedData) and recipe.data.embeddings
        if words and recipe.adapter and recipe.adapter.written_layout == "peft":
            raise ValueError("adapter.layout must be 'kohya': PEFT's has no place for data.embeddings")

    def task(self, recipe: Recipe, device: torch.device, report: Callable[[str], None]) -> Task[Any]:
        base = checkpoint.load(recipe.base, dtype=torch.float32)
        base, own = captioned_batches(self.own_recipe(recipe), base, device, report)
        batches = self.batches(recipe, base, own, device, report)
        trained = TrainedUNet(recipe, base, device)
        net, encoders = trained.network(), trained.text_encoders()
        loss = self.loss(net, base, device)
        learned = trained.task(net, batches, loss, text_encoders=encoders)
        return measured(learned, self.own_recipe(recipe), own.held_out, device)

    def own_recipe(self, recipe: Recipe) -> Recipe:
        """The recipe of the pictures in the data's folder: `recipe`, unless a subclass adds others."""
        return recipe

    def loss(self, net: Callable[..., Tensor], base: Model, device: torch.device) -> "DenoisingLoss":
        """The loss of `net`, which predicts what the UNet of `base` does."""
        prediction = prediction_named(base.prediction)
        return DenoisingLoss(
            net, base.path(), prediction, self.weighting, device, noise_offset=self.noise_offset
        )

    def batches(
        self,
        recipe: Recipe,
        base: Model,
        own: CaptionedBatches,
        device: torch.device,
        report: Callable[[str], None],
    ) -> Callable[[StepContext, int], LatentBatch]:
        """What is learned from: `own`, and what a subclass adds."""
        return own


def measured(
    task: Task[LatentBatch], recipe: Recipe, held_out: CaptionedBatches | None, device: torch.device
) -> Task[LatentBatch]:
    """`task`, whose loss is measured on what is `held_out`, if there is anything."""
    if held_out is None:
        return task
    dtype, generator = recipe.dtype(device), torch.Generator(device)

    def validate(state: dict[str, Tensor]) -> float:
        losses = []
        on = torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
        with torch.no_grad(), holding(task.net, state):
            for number in range(recipe.validation.batches):
                generator.manual_seed(seed_of(recipe.seed, number))
                batch = held_out(StepContext(number, 0, 1, generator), recipe.batch_size)
                with on:
                    losses.append(task.loss(batch, generator)[0].mean())
        return float(torch.stack(losses).mean())

    return replace(task, validate=validate)


class DenoisingLoss:
    """The loss of a network `net(x, t, states, added)`, or `net(x, t, states, added, condition)`."""

    def __init__(
        self,
        net: Callable[..., Tensor],
        path: Path,
        prediction: Prediction,
        weighting: str,
        device: torch.device,
        shift: float = 1.0,
        noise_offset: float = 0.0,
    ) -> None:
        """`noise_offset`: the deviation of noise that is the same all over a channel (Guttenberg 2023).
        `shift`: of the times, s·u / (1 + (s − 1)·u) for a uniform u (Esser et al. 2024, eq. 23)."""
        self.net, self.prediction, self.shift = net, prediction, shift
        self.noise_offset = noise_offset
        self.times = torch.arange(path.first, path.last + 1, device=device)
        levels = [path.level(t) for t in self.times.tolist()]
        a, s = torch.tensor([(level.a, level.s) for level in levels], dtype=torch.float64).unbind(1)
        self.a, self.s = a.float().to(device), s.float().to(device)
        self.weights = WEIGHTINGS[weighting]((a / s) ** 2, prediction).float().to(device)

    def __call__(self, batch: LatentBatch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss (B,); the metric is the unweighted one of the noisier half of the path."""
        x0, count, device = batch.x0, len(batch.x0), batch.x0.device
        strata = torch.arange(count, device=device)
        if batch.weights is not None:  # its examples are of several kinds, in the order of their kinds
            strata = strata[torch.randperm(count, generator=generator, device=device)]
        u = (torch.rand(count, generator=generator, device=device) + strata) / count
        u = self.shift * u / (1 + (self.shift - 1) * u)
        index = (u * len(self.times)).long().clamp(max=len(self.times) - 1)
        a, s = (table[index].view(-1, *[1] * (x0.ndim - 1)) for table in (self.a, self.s))
        eps = torch.randn(x0.shape, generator=generator, device=device)
        if self.noise_offset:
            common = torch.randn(*x0.shape[:2], 1, 1, generator=generator, device=device)
            eps = eps + self.noise_offset * common
        x = self.prediction.input(a * x0 + s * eps, a, s)
        if batch.channels is not None:
            x = torch.cat([x, batch.channels], dim=1)
        shown = () if batch.condition is None else (batch.condition,)
        out = self.net(x, self.times[index], batch.states, batch.added, *shown)
        squared = (out.float() - self.prediction.target(x0, eps, a, s)) ** 2
        if batch.cells is not None:
            squared = squared * (batch.cells / batch.cells.mean((1, 2, 3), keepdim=True))
        error = squared.mean(tuple(range(1, x0.ndim)))
        noisy = index >= len(self.times) // 2
        half = (error * noisy).sum() / noisy.sum().clamp(min=1)
        weights = self.weights[index] if batch.weights is None else self.weights[index] * batch.weights
        return weights * error, {"noisy_half": half}


def min_snr(snr: Tensor, prediction: Prediction) -> Tensor:
    """min(SNR, 5) in units of the loss on x0 (Hang et al. 2023, eq. 8), in those of this `prediction`.

    Weight 0 at pure noise would leave the first step of a zero-terminal-SNR model untrained: it gets the
    least of the other weights.
    """
    x0 = snr.clamp(max=SNR_LIMIT)
    units = {"epsilon": snr, "v": snr + 1, "x0": torch.ones_like(snr)}
    if prediction.name not in units:
        raise UsageError(f"weighting 'min-snr' is not defined for {prediction.name} prediction; use 'plain'")
    weight = x0 / units[prediction.name]
    return torch.where(snr > 0, weight, weight[snr > 0].min())
