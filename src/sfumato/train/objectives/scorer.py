"""The caption scorer: embed a picture as a sentence model embeds its caption.

    loss = 1 − cos(e, t) + 2·CE(softmax(30·E Tᵀ), softmax(30·T Tᵀ))

with e the network's embedding of a picture, t that of its caption, and E, T those of the whole batch. The
second term is CLIP's (Radford et al. 2021) with soft targets: a batch has several captions that say nearly
the same.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import pydantic.dataclasses
import torch
from torch import Tensor
from torch.nn import functional as F

from sfumato import weights
from sfumato.data.captions import TINTS
from sfumato.data.crops import Crop
from sfumato.data.icons import Icons, icon_dataset, load, tinted
from sfumato.data.sets import SETS
from sfumato.evaluate import features
from sfumato.evaluate.features import Features
from sfumato.evaluate.scorer import (
    AT_ONCE,
    READINGS,
    Head,
    HeadConfig,
    load_teacher,
    of_texts,
    read,
    retrieval,
)
from sfumato.nets.sentence_bert import SentenceBert
from sfumato.train.cache import cached
from sfumato.train.context import StepContext
from sfumato.train.log import counts
from sfumato.train.objectives.common import with_weights
from sfumato.train.recipe import Count, DataSection, Fraction, Objective, Recipe
from sfumato.train.task import Task

RESULT = "scorer.safetensors"
SEEN, HELD_OUT = "seen.safetensors", "held-out.safetensors"
CANDIDATES, MAX_TESTS = 1000, 2000
TEMPERATURE = 30.0
_MIN_DEVIATION = 1e-2


@pydantic.dataclasses.dataclass(frozen=True)
class ScorerData(DataSection):
    """The icon set."""

    max_pictures: Count = 16384
    """How many are learned from at most, drawn at random."""
    captions_per_picture: Count = 3
    tints_per_icon: Count = 1
    """Colourings of each one-colour icon."""


@pydantic.dataclasses.dataclass(frozen=True)
class CaptionScoring(Objective):
    """Trains the network that `sfumato evaluate` measures faithfulness to the prompt with."""

    NAME, DATA, STARTS = "scorer", ScorerData, ("scratch",)

    feature_dropout: Fraction = 0.2
    """The share of a picture's features that is hidden in each step."""

    def result(self, recipe: Recipe) -> Path:
        return Path(recipe.run) / RESULT

    def usage(self, recipe: Recipe) -> list[str]:
        return ["sfumato", "evaluate", "--data", recipe.data.folder, "--scorer", str(self.result(recipe))]

    def task(self, recipe: Recipe, device: torch.device, report: Callable[[str], None]) -> Task[Any]:
        backbone, teacher = features.load(device), load_teacher(device)
        sizes = {"readings": READINGS, "vector": teacher.width}
        head = Head(HeadConfig.from_dict(recipe.network | sizes, f"network of {self.NAME}")).to(device)
        data = cast(ScorerData, recipe.data)
        folder = Path(data.folder)
        icons, others = (load(folder, held_out=held_out, device=device) for held_out in (False, True))
        seen = _features(recipe, icons, data.max_pictures, SEEN, backbone, teacher, report)
        held_out = _features(recipe, others, MAX_TESTS, HELD_OUT, backbone, teacher, report)
        deviation, head.mean = torch.std_mean(seen["readings"].float(), dim=0)
        head.scale = 1 / deviation.clamp(min=_MIN_DEVIATION)

        def finish(state: dict[str, Tensor], folder: Path) -> dict[str, float]:
            kept, metrics = with_weights(head, state), {}
            if others.ink_rows:
                metrics["colour_held_out"] = _colour_accuracy(kept, others, backbone, teacher)
            for name, table in (("held_out", held_out), ("seen", seen)):
                found = retrieval(*_embedded(kept, table), among=CANDIDATES, seed=recipe.seed)
                metrics |= {f"{key}_{name}": float(value) for key, value in asdict(found).items()}
            count = len(seen["readings"])
            metadata = {
                "config": json.dumps(head.config.to_dict()),
                "figures": json.dumps({name: round(figure, 4) for name, figure in metrics.items()}),
                "trained": f"{recipe.steps} steps of {recipe.batch_size} from {count} pictures",
            }
            half = {name: tensor.half() for name, tensor in kept.state_dict().items()}
            weights.write(folder / RESULT, half, metadata)
            return metrics

        loss = CaptionScorerLoss(head, self.feature_dropout)
        return Task(head, CaptionedFeatures(**seen), loss, lambda state, path: None, finish)


@dataclass(frozen=True, eq=False)
class CaptionedFeatures:
    """Batches of pictures' features with the embeddings of their captions."""

    readings: Tensor
    """(N, R), in half precision."""
    captions: Tensor
    """(N, K), rows of `vectors`."""
    vectors: Tensor
    """(U, P) unit vectors, in half precision."""

    def __call__(self, context: StepContext, count: int) -> tuple[Tensor, Tensor]:
        """Features (count, R) and embeddings (count, P)."""
        place, generator = self.readings.device, context.generator
        rows = torch.randint(len(self.readings), (count,), generator=generator, device=place)
        ways = torch.randint(self.captions.shape[1], (count,), generator=generator, device=place)
        return self.readings[rows].float(), self.vectors[self.captions[rows, ways]].float()


@dataclass(frozen=True, eq=False)
class CaptionScorerLoss:
    """The loss; a share `dropout` of the features is replaced by their mean."""

    head: Head
    dropout: float

    def __call__(
        self, batch: tuple[Tensor, Tensor], generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss (B,) and the mean cosine."""
        readings, texts = batch
        kept = torch.rand(readings.shape, generator=generator, device=readings.device) >= self.dropout
        vectors = F.normalize(self.head(torch.where(kept, readings, self.head.mean)).float(), dim=-1)
        cosine = (vectors * texts).sum(-1)
        targets = (TEMPERATURE * texts @ texts.T).softmax(-1)
        contrast = F.cross_entropy(TEMPERATURE * vectors @ texts.T, targets, reduction="none")
        return 1 - cosine + 2 * contrast, {"cosine": cosine.mean()}


@torch.no_grad()
def _features(
    recipe: Recipe,
    icons: Icons,
    most: int,
    name: str,
    backbone: Features,
    teacher: SentenceBert,
    report: Callable[[str], None],
) -> dict[str, Tensor]:
    """Features (N, R) of at most `most` pictures, the rows of their captions (N, K) and the embeddings of
    these (U, P), cached in the run's folder as `name`. Pictures of more weight are more likely among them.
    """
    data = cast(ScorerData, recipe.data)
    dataset = icon_dataset(
        icons, seed=recipe.seed, captions=data.captions_per_picture, tints=data.tints_per_icon
    )
    chances = torch.tensor(dataset.weights, dtype=torch.float64)
    generator = torch.Generator().manual_seed(recipe.seed)
    drawn = torch.multinomial(chances, min(most, len(dataset)), generator=generator).tolist()
    captions = [dataset.captions[place] for place in drawn]
    inputs = {
        "captions": hashlib.sha256(json.dumps(captions).encode("utf-8")).hexdigest(),
        "pictures": dataset.digest,
        "teacher": teacher.digest,
    }
    device = icons.pictures.device
    dtype = recipe.dtype(device)

    whole = Crop((dataset.side, dataset.side), (dataset.side, dataset.side))
    progress = counts(report, f"{recipe.run}: measuring pictures")

    def make() -> dict[str, Tensor]:
        texts = list(dict.fromkeys(text for own in captions for text in own))
        numbers = {text: number for number, text in enumerate(texts)}
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            parts = []
            for start in range(0, len(drawn), AT_ONCE):
                progress(start, len(drawn))
                some = drawn[start : start + AT_ONCE]
                parts.append(read(backbone, dataset.load(some, [whole] * len(some))).half())
            vectors = of_texts(teacher, texts).half()
        rows = torch.tensor([[numbers[text] for text in own] for own in captions])
        return {"readings": torch.cat(parts), "captions": rows, "vectors": vectors}

    found = cached(Path(recipe.run) / name, inputs, make)
    return {name: tensor.to(device) for name, tensor in found.items()}


@torch.no_grad()
def _embedded(head: Head, table: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Embeddings (N, P) of at most `MAX_TESTS` pictures, and of the first caption of each (N, P)."""
    texts = table["vectors"][table["captions"][:MAX_TESTS, 0]].float()
    return F.normalize(head(table["readings"][:MAX_TESTS].float()), dim=-1), texts


@torch.no_grad()
def _colour_accuracy(head: Head, icons: Icons, backbone: Features, teacher: SentenceBert) -> float:
    """How often, of one-colour icons on white, the caption with the right colour is nearer than those that
    differ from it in nothing but the colour; the colours take turns.
    """
    names = [name for name in TINTS if name != "white"]
    right = []
    for place, row in enumerate(icons.ink_rows):
        own = place % len(names)
        ink = torch.tensor([TINTS[names[own]]]).float() / 127.5 - 1
        inks = icons.inks[[place]]
        picture = tinted(inks, ink.to(inks.device), torch.ones(1, 3, device=inks.device))
        vector = F.normalize(head(read(backbone, picture)), dim=-1)
        texts = of_texts(teacher, [f"{name} {row.label}, {SETS[row.set].styles[0]}" for name in names])
        right.append(int((texts @ vector[0]).argmax()) == own)
    return sum(right) / len(right)
