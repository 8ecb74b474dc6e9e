"""The denoiser: what was the latent before noise covered it (Ho et al. 2020; Salimans & Ho 2022)?

    loss = w(t) · |f(a_t·x0 + s_t·eps, t, text) − target|²

over pictures, their captions, times t spread evenly over the path, and noise eps; the target is the row of
`sfumato.diffusion.predict` that the model's schedule names, v = a·eps − s·x0 for the embedded one.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sfumato.data.caption_transform import CaptionTransform
from sfumato.data.crops import CropPolicy, Dataset
from sfumato.devices import sent
from sfumato.diffusion.level import Path
from sfumato.diffusion.predict import Prediction
from sfumato.errors import UsageError
from sfumato.nets.inputs import SizeConditioning
from sfumato.prompt.encode import size_ids
from sfumato.train.context import StepContext
from sfumato.train.encoded import LatentsOf, StatesOf
from sfumato.train.order import VIEWS, WORDS, Order, random_of

SNR_LIMIT = 5.0

WEIGHTINGS: dict[str, Callable[[Tensor, Prediction], Tensor]] = {
    "plain": lambda snr, prediction: torch.ones_like(snr),
    "min-snr": lambda snr, prediction: min_snr(snr, prediction),
}
"""Weights w(t) of the loss from signal-to-noise ratios a²/s² (T,)."""


def min_snr(snr: Tensor, prediction: Prediction) -> Tensor:
    """min(SNR, 5) in units of the loss on x0 (Hang et al. 2023, eq. 8), in those of this `prediction`.

    Weight 0 at pure noise would leave the first step of a zero-terminal-SNR model untaught: it gets what
    the least of the others gets.
    """
    x0 = snr.clamp(max=SNR_LIMIT)
    units = {"epsilon": snr, "v": snr + 1, "x0": torch.ones_like(snr)}
    if prediction.name not in units:
        raise UsageError(f"weighting 'min-snr' is not defined for {prediction.name} prediction; use 'plain'")
    weight = x0 / units[prediction.name]
    return torch.where(snr > 0, weight, weight[snr > 0].min())


@dataclass(frozen=True, eq=False)
class Examples:
    """Latents with what to say of them."""

    x0: Tensor
    """(B, C, h, w)."""
    states: Tensor
    """(B, T, D)."""
    added: SizeConditioning | None = None
    """For SDXL: the texts' pooled rows (B, P), and how each picture was framed (B, 6)."""
    step: int = 0
    """Of the run."""


@dataclass(frozen=True, eq=False)
class Batches:
    """Batches of captioned pictures of one size each."""

    source: Dataset
    order: Order
    wording: CaptionTransform
    framing: CropPolicy
    latents: LatentsOf
    states: StatesOf
    device: torch.device

    def __call__(self, context: StepContext, count: int) -> Examples:
        """`count` examples."""
        size, rows = self.order(context, count)
        random = random_of(context, WORDS)
        texts = [self.wording.text(self.source.captions[row], random) for row in rows]
        random = random_of(context, VIEWS)
        views = [self.framing.view(self.source.sizes[row], size, random) for row in rows]
        x0 = self.latents(rows, views).contiguous(memory_format=torch.channels_last)
        states, pooled = self.states(texts)
        added = None
        if pooled is not None:
            ids = [size_ids(size, original=view.original, crop=view.crop) for view in views]
            added = SizeConditioning(pooled, sent(torch.cat(ids), self.device))
        return Examples(x0, states, added, context.step)


class Denoising:
    """The objective, for a network `net(x, t, states, added)`."""

    def __init__(
        self, net: nn.Module, path: Path, prediction: Prediction, weighting: str, device: torch.device
    ) -> None:
        self.net, self.prediction = net, prediction
        self.times = torch.arange(path.first, path.last + 1, device=device)
        levels = [path.level(t) for t in self.times.tolist()]
        a, s = torch.tensor([(level.a, level.s) for level in levels], dtype=torch.float64).unbind(1)
        self.a, self.s = a.float().to(device), s.float().to(device)
        self.weights = WEIGHTINGS[weighting]((a / s) ** 2, prediction).float().to(device)

    def __call__(self, batch: Examples, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss (B,); the metric is the unweighted one of the noisier half of the path."""
        x0, count, device = batch.x0, len(batch.x0), batch.x0.device
        u = torch.rand(count, generator=generator, device=device) + torch.arange(count, device=device)
        index = (u / count * len(self.times)).long().clamp(max=len(self.times) - 1)
        a, s = (table[index].view(-1, 1, 1, 1) for table in (self.a, self.s))
        eps = torch.randn(x0.shape, generator=generator, device=device)
        out = self.net(a * x0 + s * eps, self.times[index], batch.states, batch.added)
        error = ((out.float() - self.prediction.target(x0, eps, a, s)) ** 2).mean((1, 2, 3))
        noisy = index >= len(self.times) // 2
        half = (error * noisy).sum() / noisy.sum().clamp(min=1)
        return self.weights[index] * error, {"noisy_half": half}
