"""The scorer: say of a picture what a larger model says of its caption.

    loss = 1 − cos(e, t) + 2·CE(softmax(30·E Tᵀ), softmax(30·T Tᵀ))

with e the network's vector of a picture, t the vector of its caption, and E, T those of the whole batch. The
second term is that of Radford et al. (2021), except that captions which say nearly the same share what is
right: a batch has several of many things.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from sfumato.evaluate.scorer import Head
from sfumato.train.context import StepContext

SHARPNESS = 30.0


@dataclass(frozen=True, eq=False)
class CaptionedFeatures:
    """Batches of what was read from pictures, with the vectors of their captions."""

    readings: Tensor
    """(N, R), in half precision."""
    captions: Tensor
    """(N, K), rows of `vectors`."""
    vectors: Tensor
    """(U, P) unit vectors, in half precision."""

    def __call__(self, context: StepContext, count: int) -> tuple[Tensor, Tensor]:
        """Readings (count, R) and vectors (count, P)."""
        place, generator = self.readings.device, context.generator
        rows = torch.randint(len(self.readings), (count,), generator=generator, device=place)
        ways = torch.randint(self.captions.shape[1], (count,), generator=generator, device=place)
        return self.readings[rows].float(), self.vectors[self.captions[rows, ways]].float()


@dataclass(frozen=True, eq=False)
class CaptionScorerLoss:
    """The objective."""

    head: Head
    drop: float
    """The share of readings that are hidden, lest few of them decide."""

    def __call__(
        self, batch: tuple[Tensor, Tensor], generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss (B,) and the mean cosine."""
        readings, texts = batch
        kept = torch.rand(readings.shape, generator=generator, device=readings.device) >= self.drop
        vectors = F.normalize(self.head(torch.where(kept, readings, self.head.mean)).float(), dim=-1)
        cosine = (vectors * texts).sum(-1)
        right = (SHARPNESS * texts @ texts.T).softmax(-1)
        choice = F.cross_entropy(SHARPNESS * vectors @ texts.T, right, reduction="none")
        return 1 - cosine + 2 * choice, {"cosine": cosine.mean()}
