"""From a recipe to a task: the base model, the network that is trained, its data, and what is kept of it.

Every result is a whole model folder, in which one network is new. The next recipe names it as its base.
"""

from collections.abc import Callable
from typing import Any

import torch

from sfumato import checkpoint
from sfumato.train.loop import Task
from sfumato.train.recipe import (
    AutoencoderRecipe,
    DenoiserRecipe,
    Recipe,
    ScorerRecipe,
    StudentRecipe,
    TextRecipe,
    TinyRecipe,
)
from sfumato.train.tasks import autoencoder, denoiser, scorer, student, text, tiny


def task(recipe: Recipe, device: torch.device, say: Callable[[str], None] = lambda _: None) -> Task[Any]:
    """What `recipe` asks for, on `device`; `say` hears of what takes long.

    Raises `UsageError`, `DataError` and `CheckpointError`.
    """
    torch.manual_seed(recipe.seed)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
    if isinstance(recipe, ScorerRecipe):
        return scorer.task(recipe, device)
    base = checkpoint.load(recipe.base, dtype=torch.float32)
    if isinstance(recipe, TextRecipe):
        return text.task(recipe, base, device)
    if isinstance(recipe, AutoencoderRecipe):
        return autoencoder.task(recipe, base, device)
    if isinstance(recipe, TinyRecipe):
        return tiny.task(recipe, base, device)
    if isinstance(recipe, StudentRecipe):
        return student.task(recipe, base, device, say)
    assert isinstance(recipe, DenoiserRecipe)
    return denoiser.task(recipe, base, device)
