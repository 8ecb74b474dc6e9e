"""What can be trained: one file an objective, with its keys, its data, its loss and its task.

Every result but the scorer's and the upscaler's is a whole model folder, in which one network is new, or a
LoRA. The next recipe names the folder as its base.
"""

from collections.abc import Callable
from typing import Any

import torch

from sfumato.train.objectives.autoencoder import Autoencoding
from sfumato.train.objectives.consistency import Consistency, ConsistencyTraining, LatentConsistency
from sfumato.train.objectives.controlnet import ControlNetTraining
from sfumato.train.objectives.denoiser import Denoising
from sfumato.train.objectives.dreambooth import DreamBooth
from sfumato.train.objectives.instruct import InstructionTuning
from sfumato.train.objectives.motion import MotionTraining
from sfumato.train.objectives.progressive import Progressive
from sfumato.train.objectives.scorer import CaptionScoring
from sfumato.train.objectives.text import TextDistillation
from sfumato.train.objectives.textual_inversion import TextualInversion
from sfumato.train.objectives.tiny_autoencoder import TinyAutoencoding
from sfumato.train.objectives.upscaler import Upscaling
from sfumato.train.recipe import Objective, Recipe
from sfumato.train.task import Task

OBJECTIVES: dict[str, type[Objective]] = {
    objective.NAME: objective
    for objective in (
        TextDistillation,
        Autoencoding,
        TinyAutoencoding,
        Denoising,
        DreamBooth,
        TextualInversion,
        ControlNetTraining,
        MotionTraining,
        Upscaling,
        InstructionTuning,
        CaptionScoring,
        LatentConsistency,
        Consistency,
        ConsistencyTraining,
        Progressive,
    )
}


def task(recipe: Recipe, device: torch.device, report: Callable[[str], None] = lambda _: None) -> Task[Any]:
    """What `recipe` asks for, on `device`; `report(message)` is called before what takes long.

    Raises `UsageError`, `DataError` and `CheckpointError`.
    """
    torch.manual_seed(recipe.seed)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
    return recipe.objective.task(recipe, device, report)
