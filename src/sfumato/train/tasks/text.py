"""The task of the text encoder."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from sfumato import checkpoint, weights
from sfumato.checkpoint import Model
from sfumato.data.icons import rows
from sfumato.data.pack import words
from sfumato.data.sets import SETS
from sfumato.errors import DataError, UsageError
from sfumato.nets.text import CLIPText
from sfumato.train.distilling import (
    COMPOSED_SHARE,
    LABEL_SHARE,
    Distilling,
    Texts,
    agreement,
    composed,
    tokenized,
)
from sfumato.train.loop import Task
from sfumato.train.recipe import TextRecipe
from sfumato.train.tasks.common import MODEL, in_batches, network
from sfumato.train.teacher import Teacher

LESSONS = "lessons.safetensors"
PACK = "pack"
"""The folder in a data set's own that holds what it was rendered from."""


def task(recipe: TextRecipe, base: Model, device: torch.device) -> Task[tuple[Tensor, Tensor]]:
    if len(base.text_encoders) != 1:
        raise UsageError(f"the base model {recipe.base} has {len(base.text_encoders)} text encoders, not one")
    teacher = Teacher.load(Path(recipe.teacher), device)
    texts, shares = _reading(recipe)
    ids = tokenized(texts, base.tokenizers[0], recipe.length)
    targets = _lessons(recipe, teacher, texts)
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(recipe.seed))
    tests = order[: min(4096, len(texts) // 8)]
    shares[tests] = 0
    cumulative = shares.cumsum(0)
    batches = Texts(ids.to(device), targets.to(device), (cumulative / cumulative[-1]).to(device))

    net = cast(CLIPText, network(recipe, base.text_encoders[0], base.text_encoders[0].config, "text"))
    config = replace(net.config, projection_dim=teacher.width, with_projection=True)
    encoder = CLIPText(config)
    encoder.load_state_dict(net.state_dict(), strict=False)
    encoder.to(device)
    if recipe.compile:
        encoder.compile()

    def finish(state: dict[str, Tensor], folder: Path) -> dict[str, float]:
        judged, kept = CLIPText(config).to(device).eval(), CLIPText(net.config)
        judged.load_state_dict(state)
        kept.load_state_dict({name: state[name] for name in kept.state_dict()})
        model = replace(base, text_encoders=[kept.requires_grad_(False).eval()])
        checkpoint.save(model, folder / MODEL, dtype=torch.float16, overwrite=True)
        return agreement(judged, batches.ids[tests.to(device)], batches.targets[tests.to(device)])

    return Task(encoder, batches, Distilling(encoder), lambda state, path: None, finish)


def _reading(recipe: TextRecipe) -> tuple[list[str], Tensor]:
    """The texts to learn from, and how often each is read (N,)."""
    folder = Path(recipe.data)
    shown = [row for of_part in rows(folder).values() for row in of_part if not row.held_out]
    if not shown:
        raise DataError(f"{folder} describes no pictures; `sfumato data icons` makes them")
    labels = sorted({row.label for row in shown} | {tag for row in shown for tag in row.tags})
    styles = sorted({style for icons in SETS.values() for style in icons.styles})
    own = composed(labels, styles, recipe.composed, recipe.seed)
    others = sorted(set(words(folder / PACK)) - set(labels) - set(own))
    shares = [LABEL_SHARE] * len(labels) + [COMPOSED_SHARE] * len(own) + [1.0] * len(others)
    return [*labels, *own, *others], torch.tensor(shares, dtype=torch.float64)


def _lessons(recipe: TextRecipe, teacher: Teacher, texts: list[str]) -> Tensor:
    """What the teacher says of every text (N, P), in half precision, kept in the run's folder."""
    path = Path(recipe.run) / LESSONS
    told = {"texts": hashlib.sha256("\n".join(texts).encode("utf-8")).hexdigest()}
    if path.is_file() and weights.metadata(path) == told:
        return weights.read(path)["vectors"]
    vectors = torch.empty(len(texts), teacher.width, dtype=torch.float16)
    for start, end in in_batches(len(texts)):
        vectors[start:end] = teacher.embed(texts[start:end])
    path.parent.mkdir(parents=True, exist_ok=True)
    weights.write(path, {"vectors": vectors}, told)
    return vectors
