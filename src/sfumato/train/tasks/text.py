"""The task of the text encoder."""

import hashlib
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import cast

import torch
from torch import Tensor

from sfumato import checkpoint
from sfumato.checkpoint import Model
from sfumato.data.icons import rows
from sfumato.data.pack import words
from sfumato.data.sets import SETS
from sfumato.devices import DTYPES
from sfumato.errors import DataError, UsageError
from sfumato.evaluate.scorer import load_teacher
from sfumato.nets.sentence_bert import SentenceBert
from sfumato.nets.text import CLIPText
from sfumato.train.distilling import (
    COMPOSED_SHARE,
    LABEL_SHARE,
    TextDistillation,
    Texts,
    agreement,
    composed,
    tokenized,
)
from sfumato.train.encoded import made_once
from sfumato.train.loop import Task
from sfumato.train.recipe import TextRecipe
from sfumato.train.tasks.common import MODEL, fitting, in_batches, network

LESSONS = "lessons.safetensors"
PACK = "pack"
"""The folder in a data set's own that holds what it was rendered from."""


def task(recipe: TextRecipe, base: Model, device: torch.device) -> Task[tuple[Tensor, Tensor]]:
    if len(base.text_encoders) != 1:
        raise UsageError(f"the base model {recipe.base} has {len(base.text_encoders)} text encoders, not one")
    teacher = SentenceBert.load(Path(recipe.teacher), device) if recipe.teacher else load_teacher(device)
    texts, shares = _reading(recipe)
    targets = _lessons(recipe, teacher, texts, device)
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(recipe.seed))
    tests = order[: min(4096, len(texts) // 8)]
    shares[tests] = 0
    cumulative = shares.cumsum(0)
    net = cast(CLIPText, network(recipe, base.text_encoders[0], base.text_encoders[0].config, "text"))
    config = replace(net.config, projection_dim=teacher.width, with_projection=True)
    tokenizer = base.tokenizers[0].within(config.max_position_embeddings)
    if recipe.length > tokenizer.limit:
        raise UsageError(f"length = {recipe.length} is more than the {tokenizer.limit} tokens that are read")
    ids = tokenized(texts, tokenizer, recipe.length)
    batches = Texts(ids.to(device), targets.to(device), (cumulative / cumulative[-1]).to(device))
    encoder = CLIPText(config)
    encoder.load_state_dict(net.state_dict(), strict=False)
    encoder.to(device)
    if recipe.compile:
        encoder.compile()

    def finish(state: dict[str, Tensor], folder: Path) -> dict[str, float]:
        judged, kept = CLIPText(config).to(device).eval(), CLIPText(net.config)
        judged.load_state_dict(state)
        kept.load_state_dict({name: state[name] for name in kept.state_dict()})
        encoders = [kept.requires_grad_(False).eval()]
        unet = fitting(base.unet, text=kept.config.hidden_size, latent=base.vae.config.latent_channels)
        model = replace(base, text_encoders=encoders, tokenizers=[tokenizer], unet=unet, fast=None)
        checkpoint.save(model, folder / MODEL, dtype=torch.float16, overwrite=True)
        return agreement(judged, batches.ids[tests.to(device)], batches.targets[tests.to(device)])

    return Task(encoder, batches, TextDistillation(encoder), lambda state, path: None, finish)


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
    others = Random(recipe.seed).sample(others, min(recipe.others, len(others)))
    shares = [LABEL_SHARE] * len(labels) + [COMPOSED_SHARE] * len(own) + [1.0] * len(others)
    return [*labels, *own, *others], torch.tensor(shares, dtype=torch.float64)


def _lessons(recipe: TextRecipe, teacher: SentenceBert, texts: list[str], device: torch.device) -> Tensor:
    """What the teacher says of every text (N, P), in half precision, kept in the run's folder."""
    path, dtype = Path(recipe.run) / LESSONS, DTYPES[recipe.precision]
    told = {
        "teacher": teacher.digest,
        "texts": hashlib.sha256("\n".join(texts).encode("utf-8")).hexdigest(),
    }

    def make() -> dict[str, Tensor]:
        vectors = torch.empty(len(texts), teacher.width, dtype=torch.float16)
        by_length = sorted(range(len(texts)), key=lambda place: len(texts[place]))  # less of them is padding
        for start, end in in_batches(len(texts)):
            places = by_length[start:end]
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                said = teacher.embed([texts[place] for place in places])
            vectors[places] = said.half().cpu()
        return {"vectors": vectors}

    return made_once(path, told, make)["vectors"]
