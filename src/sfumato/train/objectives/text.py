"""Text-encoder distillation: embed a text as a sentence model does (Reimers & Gurevych 2020, §2).

    loss = 2·(1 − cos(e, t)) + 0.2·CE(20·E Tᵀ)

with e the encoder's projected pooled embedding, t the teacher's, and E, T those of the whole batch: each e is
to be near its own t, and nearer to it than to any other's.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Annotated, Any, cast

import pydantic.dataclasses
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from sfumato import checkpoint
from sfumato.data import pack
from sfumato.data.captions import TINTS, article
from sfumato.data.icons import rows
from sfumato.data.sets import SETS
from sfumato.errors import DataError, UsageError
from sfumato.evaluate.scorer import load_teacher
from sfumato.nets.sentence_bert import SentenceBert
from sfumato.nets.text import CLIPText
from sfumato.prompt.tokenizer import Tokenizer
from sfumato.train.cache import cached
from sfumato.train.context import StepContext
from sfumato.train.log import counts
from sfumato.train.objectives.common import BATCH, initial_network, matching_unet, with_weights
from sfumato.train.recipe import MODEL, Count, DataSection, NotNegative, Objective, Recipe
from sfumato.train.task import Task

TARGETS = "teacher.safetensors"
TEMPERATURE = 20.0
LABEL_WEIGHT, COMPOSED_WEIGHT = 3.0, 1.5
"""How often labels and composed texts are sampled, relative to words of the dictionary."""
MAX_TEST_TEXTS = 4096


@pydantic.dataclasses.dataclass(frozen=True)
class TextData(DataSection):
    """The texts that go with the icon set."""

    composed_texts: Count = 90_000
    """Texts made of labels, colours and styles, at most."""
    dictionary_texts: NotNegative = 1_000_000
    """Words and glosses besides, at most."""


@pydantic.dataclasses.dataclass(frozen=True)
class TextDistillation(Objective):
    """Trains the text encoder."""

    NAME, DATA = "text", TextData
    ADJUSTABLE = frozenset({"teacher"})

    teacher: str = ""
    """The folder of a sentence BERT; all-MiniLM-L6-v2, which `sfumato[eval]` brings, if it is empty."""
    max_tokens: Annotated[int, Field(ge=3)] = 32
    """Tokens of a text that are read, begin and end included."""

    def usage(self, recipe: Recipe) -> list[str]:
        return super().usage(recipe) if recipe.start == "base" else []

    def task(self, recipe: Recipe, device: torch.device, report: Callable[[str], None]) -> Task[Any]:
        base = checkpoint.load(recipe.base, dtype=torch.float32)
        if len(base.text_encoders) != 1:
            raise UsageError(
                f"the base model {recipe.base} has {len(base.text_encoders)} text encoders, not one"
            )
        teacher = SentenceBert.load(Path(self.teacher), device) if self.teacher else load_teacher(device)
        texts, frequencies = _texts(recipe)
        targets = _targets(recipe, teacher, texts, device, report)
        order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(recipe.seed))
        tests = order[: min(MAX_TEST_TEXTS, len(texts) // 8)]
        frequencies[tests] = 0
        cumulative = frequencies.cumsum(0)
        net = initial_network(recipe, base.text_encoders[0], base.text_encoders[0].config, "text")
        tokenizer = base.tokenizers[0].within(net.config.max_position_embeddings)
        if self.max_tokens > tokenizer.limit:
            raise UsageError(f"max_tokens is {self.max_tokens}: must be at most {tokenizer.limit}")
        ids = tokenized(texts, tokenizer, self.max_tokens)
        batches = TextBatches(ids.to(device), targets.to(device), (cumulative / cumulative[-1]).to(device))
        encoder = CLIPText(replace(net.config, projection_dim=teacher.width, with_projection=True))
        encoder.load_state_dict(net.state_dict(), strict=False)
        encoder.to(device)
        if recipe.compile:
            encoder.compile()

        def finish(state: dict[str, Tensor], folder: Path) -> dict[str, float]:
            kept = CLIPText(net.config)  # without the projection
            kept.load_state_dict({name: state[name] for name in kept.state_dict()})
            encoders = [kept.requires_grad_(False).eval()]
            unet = matching_unet(
                base.unet, text=kept.config.hidden_size, latent=base.vae.config.latent_channels
            )
            model = replace(
                base, text_encoders=encoders, tokenizers=[tokenizer], unet=unet, fast=None, controls={}
            )
            checkpoint.save(model, folder / MODEL, dtype=torch.float16, overwrite=True)
            rows = tests.to(device)
            return agreement(with_weights(encoder, state), batches.ids[rows], batches.targets[rows])

        return Task(encoder, batches, TextDistillationLoss(encoder), lambda state, path: None, finish)


@dataclass(frozen=True, eq=False)
class TextBatches:
    """Batches of token ids with the teacher's embeddings."""

    ids: Tensor
    """(N, T), integers of any width."""
    targets: Tensor
    """(N, P) unit vectors, in half precision."""
    cumulative: Tensor
    """(N,) float64, rising to 1: the distribution that texts are sampled from."""

    def __call__(self, context: StepContext, count: int) -> tuple[Tensor, Tensor]:
        """Ids (count, T) and targets (count, P)."""
        draws = torch.rand(count, generator=context.generator, device=self.ids.device, dtype=torch.float64)
        rows = torch.searchsorted(self.cumulative, draws).clamp(max=len(self.ids) - 1)
        return self.ids[rows].long(), self.targets[rows].float()


@dataclass(frozen=True, eq=False)
class TextDistillationLoss:
    """The loss of an encoder with a projection to the teacher's width."""

    encoder: CLIPText

    def __call__(
        self, batch: tuple[Tensor, Tensor], generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss (B,) and the mean cosine."""
        ids, targets = batch
        vectors = F.normalize(self.encoder(ids).pooled.float(), dim=-1)
        cosine = (vectors * targets).sum(-1)
        own = torch.arange(len(ids), device=ids.device)
        contrast = F.cross_entropy(TEMPERATURE * vectors @ targets.T, own, reduction="none")
        return 2 * (1 - cosine) + 0.2 * contrast, {"cosine": cosine.mean()}


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


def _texts(recipe: Recipe) -> tuple[list[str], Tensor]:
    """The texts to learn from, and how often each is sampled (N,)."""
    data = cast(TextData, recipe.data)
    folder = Path(data.folder)
    shown = [row for of_part in rows(folder).values() for row in of_part if not row.held_out]
    if not shown:
        raise DataError(f"{folder} describes no pictures; `sfumato data icons` makes them")
    labels = sorted({row.label for row in shown} | {tag for row in shown for tag in row.tags})
    styles = sorted({style for icons in SETS.values() for style in icons.styles})
    own = composed(labels, styles, data.composed_texts, recipe.seed)
    others = sorted(set(pack.words(folder / pack.FOLDER)) - set(labels) - set(own))
    others = Random(recipe.seed).sample(others, min(data.dictionary_texts, len(others)))
    weights = [LABEL_WEIGHT] * len(labels) + [COMPOSED_WEIGHT] * len(own) + [1.0] * len(others)
    return [*labels, *own, *others], torch.tensor(weights, dtype=torch.float64)


def _targets(
    recipe: Recipe,
    teacher: SentenceBert,
    texts: list[str],
    device: torch.device,
    report: Callable[[str], None],
) -> Tensor:
    """The teacher's embedding of every text (N, P), in half precision, cached in the run's folder."""
    dtype = recipe.dtype(device)
    progress = counts(report, f"{recipe.run}: embedding texts")

    def embed() -> dict[str, Tensor]:
        vectors = torch.empty(len(texts), teacher.width, dtype=torch.float16)
        by_length = sorted(range(len(texts)), key=lambda place: len(texts[place]))  # less padding
        for start in range(0, len(texts), BATCH):
            progress(start, len(texts))
            places = by_length[start : start + BATCH]
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                vectors[places] = teacher.embed([texts[place] for place in places]).half().cpu()
        return {"vectors": vectors}

    digest = hashlib.sha256("\n".join(texts).encode("utf-8")).hexdigest()
    inputs = {"teacher": teacher.digest, "texts": digest}
    return cached(Path(recipe.run) / TARGETS, inputs, embed)["vectors"]
