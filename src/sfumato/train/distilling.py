"""The text encoder: say of a text what a larger model says of it (Reimers & Gurevych 2020, §2).

    loss = 2·(1 − cos(e, t)) + 0.2·CE(20·E Tᵀ)

with e the encoder's pooled vector, t the teacher's, and E, T those of the whole batch: near its own, and
nearer than to anybody else's.
"""

from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor
from torch.nn import functional as F

from sfumato.data.captions import TINTS, article
from sfumato.nets.text import CLIPText
from sfumato.prompt.tokenizer import Tokenizer
from sfumato.train.context import StepContext

SHARPNESS = 20.0
LABEL_SHARE, COMPOSED_SHARE = 3.0, 1.5
"""How often what captions are made of is read, relative to other words."""


@dataclass(frozen=True, eq=False)
class Texts:
    """Batches of token ids with the teacher's vectors."""

    ids: Tensor
    """(N, T), whole numbers of any width."""
    targets: Tensor
    """(N, P) unit vectors, in half precision."""
    cumulative: Tensor
    """(N,) float64, rising to 1."""

    def __call__(self, context: StepContext, count: int) -> tuple[Tensor, Tensor]:
        """Ids (count, T) and targets (count, P)."""
        draws = torch.rand(count, generator=context.generator, device=self.ids.device, dtype=torch.float64)
        rows = torch.searchsorted(self.cumulative, draws).clamp(max=len(self.ids) - 1)
        return self.ids[rows].long(), self.targets[rows].float()


@dataclass(frozen=True, eq=False)
class TextDistillation:
    """The objective, for an encoder with a projection to the teacher's width."""

    encoder: CLIPText

    def __call__(
        self, batch: tuple[Tensor, Tensor], generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss (B,) and the mean cosine."""
        ids, targets = batch
        vectors = F.normalize(self.encoder(ids).pooled.float(), dim=-1)
        cosine = (vectors * targets).sum(-1)
        own = torch.arange(len(ids), device=ids.device)
        choice = F.cross_entropy(SHARPNESS * vectors @ targets.T, own, reduction="none")
        return 2 * (1 - cosine) + 0.2 * choice, {"cosine": cosine.mean()}


@torch.no_grad()
def agreement(encoder: CLIPText, ids: Tensor, targets: Tensor) -> dict[str, float]:
    """Over ids (N, T): the mean cosine with `targets` (N, P), and how often of all N the own is nearest."""
    parts = [encoder(part.long()).pooled.float() for part in ids.split(512)]
    vectors = F.normalize(torch.cat(parts), dim=-1)
    right = (vectors @ targets.float().T).argmax(1) == torch.arange(len(ids), device=ids.device)
    cosine = (vectors * targets.float()).sum(-1)
    return {"cosine_held_out": float(cosine.mean()), "retrieval": float(right.float().mean())}


def tokenized(texts: list[str], tokenizer: Tokenizer, length: int) -> Tensor:
    """Ids (N, length) int32: begin, the first of the text, end, padding."""
    rows = []
    for text in texts:
        row = [tokenizer.bos, *tokenizer.encode(text)[: length - 2], tokenizer.eos]
        rows.append(row + [tokenizer.pad] * (length - len(row)))
    return torch.tensor(rows, dtype=torch.int32)


def composed(labels: list[str], styles: list[str], count: int, seed: int) -> list[str]:
    """`count` texts at most such as prompts are: colours, styles and two things together."""
    random, tints, found = Random(seed), list(TINTS), set[str]()
    for _ in range(count):
        a, b, tint, style = (random.choice(list_) for list_ in (labels, labels, tints, styles))
        ways = (
            f"{tint} {a}",
            f"{article(a)}, {style}",
            f"{a} and {b}",
            f"{article(tint)} {a} on {article(random.choice(tints))} background",
            f"{a} with {b}",
            f"{style} of {article(tint)} {a}",
            article(a),
        )
        found.add(random.choice(ways))
    return sorted(found)
