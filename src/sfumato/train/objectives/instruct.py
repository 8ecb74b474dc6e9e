"""Editing by instruction: the denoiser, given a picture beside the noise (Brooks et al. 2023, §3.2).

    loss = w(t)·|f([x_t, I], t, instruction) − target|²

over pictures after an edit; x_t, w and target are those of `sfumato.train.objectives.denoiser`. I is the
latent of the picture before it, in further channels of the first layer, whose weights begin at zero.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import pydantic.dataclasses
import torch
from pydantic import Field

from sfumato import checkpoint
from sfumato.checkpoint import Model
from sfumato.diffusion.predict import prediction_named
from sfumato.train.objectives.denoiser import WEIGHTINGS, DenoisingLoss
from sfumato.train.objectives.unet import TrainedUNet
from sfumato.train.pairs import PairData, pair_batches
from sfumato.train.recipe import Objective, Recipe
from sfumato.train.task import Task
from sfumato.validation import one_of

RESULT = "instruct.safetensors"
"""What an adapter is written to in the run's folder: see `sfumato.checkpoint.instruct_adapter`."""


@pydantic.dataclasses.dataclass(frozen=True)
class InstructionTuning(Objective):
    """Trains an editor."""

    NAME, DATA, STARTS, TAKES_ADAPTER = "instruct", PairData, ("base",), True
    ADJUSTABLE = frozenset({"guidance", "image_guidance"})

    weighting: Annotated[str, one_of(WEIGHTINGS)] = "plain"
    """Of the loss over noise levels, a name of `WEIGHTINGS`."""
    timestep_shift: Annotated[float, Field(gt=0, le=100)] = 1.0
    """Above 1, noisy levels are trained more often: what is edited is decided there."""

    guidance: Annotated[float, Field(ge=0, le=100)] | None = None
    """What the result is drawn with unless a request says otherwise; the base model's own unless given."""
    image_guidance: Annotated[float, Field(ge=0, le=100)] = 1.5
    """The same of the picture's."""

    def result(self, recipe: Recipe) -> Path:
        return Path(recipe.run) / RESULT if recipe.adapter else super().result(recipe)

    def usage(self, recipe: Recipe) -> list[str]:
        return ["sfumato", "edit", "apple.png", "make it blue", "--model", str(self.result(recipe))]

    def task(self, recipe: Recipe, device: torch.device, report: Callable[[str], None]) -> Task[Any]:
        base = checkpoint.load(recipe.base, dtype=torch.float32)
        base, batches = pair_batches(recipe, base, device, report)
        trained = TrainedUNet(recipe, base, device, extra_channels=base.latent.channels)
        net = trained.network()
        loss = DenoisingLoss(
            net, base.path(), prediction_named(base.prediction), self.weighting, device, self.timestep_shift
        )

        def as_sampled(model: Model) -> Model:
            settings = {"image_guidance": self.image_guidance}
            if self.guidance is not None:
                settings["guidance"] = self.guidance
            info = replace(model.info, task="instruct")
            return replace(model, info=info, own={**model.own, **settings})

        return trained.task(net, batches, loss, as_sampled=as_sampled)
