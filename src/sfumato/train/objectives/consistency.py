"""Consistency models: every point of an ODE trajectory maps to its end (Song et al. 2023).

    loss = w(n) · d( f(x, t_n+1),  f⁻(Ψ(x, t_n+1 → t_n), t_n) )

f is the student's consistency function, f⁻ the target network's (an EMA of the student, or itself) without
gradient, and Ψ one step of an ODE solver. What Ψ evaluates makes the method: a teacher, guided at a scale
that the student reads (latent consistency distillation, Luo et al. 2023, eq. 14); a teacher without guidance
(consistency distillation); or the data itself (consistency training, Song & Dhariwal 2024).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import pydantic.dataclasses
import torch
from pydantic import Field
from torch import Tensor

from sfumato import checkpoint
from sfumato.checkpoint import Model
from sfumato.checkpoint.families import Defaults
from sfumato.checkpoint.infer import TrainedRange
from sfumato.config.base import Positive
from sfumato.diffusion.distill import LATENT, SOLVERS, Solver, pseudo_huber
from sfumato.errors import UsageError
from sfumato.train.examples import CaptionedBatches, LatentBatch, captioned_batches
from sfumato.train.objectives.discretization import Curriculum, Discretization, uniform
from sfumato.train.objectives.distillation import (
    Distillation,
    Estimates,
    GuidedDistillation,
    Scale,
    refuse_student,
    student_model,
)
from sfumato.train.objectives.trajectories import (
    Distance,
    TrajectoryGenerator,
    TrajectoryLoss,
    cached_trajectories,
    level_table,
)
from sfumato.train.objectives.unet import TrainedUNet, X0Model
from sfumato.train.recipe import Fraction, NotNegative, Recipe
from sfumato.train.task import Task
from sfumato.validation import one_of

LCM_STEPS = 50
"""Into how many steps LCM samplers discretise the path of a model from consistency training."""


@pydantic.dataclasses.dataclass(frozen=True)
class ConsistencyKeys(Distillation):
    """What distillation and training have in common."""

    solver: Annotated[str, one_of(SOLVERS)] = "ddim"
    huber_c: Positive = 0.00054
    """c/√d of the distance √(‖x − y‖² + c²) − c over d numbers (Song & Dhariwal 2024, §3.3)."""
    target_ema: Fraction = 0.0
    """The decay of the EMA that is the target network; 0: the student itself."""

    def check_recipe(self, recipe: Recipe) -> None:
        super().check_recipe(recipe)
        if recipe.adapter and self.target_ema:
            raise ValueError("an adapter is its own target network: objective.target_ema = 0")

    @property
    def distance(self) -> Distance:
        return partial(_distance, huber_c=self.huber_c)

    def consistency_task(
        self,
        trained: TrainedUNet,
        batches: CaptionedBatches,
        estimates: Callable[[LatentBatch, torch.Generator], Estimates],
        discretization: Callable[[int], Discretization],
        as_sampled: Callable[[Model], Model],
    ) -> Task[Any]:
        """The task whose loss is `ConsistencyLoss`, for which see the arguments."""
        net, targets = trained.network(), {}
        if self.target_ema:
            targets[self.target_ema] = trained.network().requires_grad_(False).eval()
        loss = ConsistencyLoss(
            student=trained.x0_model(net),
            target=trained.x0_model(targets.get(self.target_ema, net)),
            estimates=estimates,
            discretization=discretization,
            solver=SOLVERS[self.solver],
            distance=self.distance,
            guidance_embedding=trained.guidance_embedding,
        )
        return trained.task(net, batches, loss, targets, as_sampled)


@pydantic.dataclasses.dataclass(frozen=True)
class Consistency(GuidedDistillation, ConsistencyKeys):
    """Distils the base model's ODE."""

    NAME = "consistency"

    target_ema: Fraction = 0.95
    discretization_steps: Annotated[int, Field(ge=1, le=1000)] = 50
    """Into how many steps the path is discretised."""
    trajectories: NotNegative = 0
    """Full trajectories of the base model, of `discretization_steps` each, to sample first and regress on in
    place of single steps; 0: none."""

    def check(self) -> None:
        super().check()
        if self.trajectories and self.target_ema:
            raise ValueError("trajectories have their endpoints as targets: target_ema = 0")

    def task(self, recipe: Recipe, device: torch.device, report: Callable[[str], None]) -> Task[Any]:
        base = checkpoint.load(recipe.base, dtype=torch.float32)
        refuse_student(recipe, base)
        if not recipe.adapter:
            self._check_strides(recipe, base)
        base, batches = captioned_batches(recipe, base, device, report)
        trained = TrainedUNet(recipe, base, device, self.guidance_embedding, apart=True)
        teacher = self.teacher(recipe, base, device)
        as_sampled = partial(_as_lcm, steps=self.discretization_steps, guidance=self.learned_range)
        if not self.trajectories:
            steps = uniform(base.path(), self.discretization_steps, device)
            return self.consistency_task(trained, batches, teacher, lambda step: steps, as_sampled)
        levels = base.levels("trailing", self.discretization_steps)
        generator = TrajectoryGenerator(teacher, levels, batches, recipe.batch_size, recipe.seed, device)
        inputs = _inputs(recipe, base, device, batches.dataset.digest)
        dtype = recipe.dtype(device)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            kept = cached_trajectories(Path(recipe.run), self.trajectories, generator, inputs, report)
        net, table = trained.network(), level_table(levels, device)
        loss = TrajectoryLoss(trained.x0_model(net), table, self.distance, self.guidance_embedding)
        return trained.task(net, kept, loss, as_sampled=as_sampled)

    def _check_strides(self, recipe: Recipe, base: Model) -> None:
        """Raise `UsageError` where LCM samplers would evaluate the student at other times than trained."""
        times, steps = round(base.path().last) + 1, self.discretization_steps
        if base.path().whole and times % steps:
            fewer = max(n for n in range(1, steps) if times % n == 0)
            raise UsageError(
                f"discretization_steps = {steps} does not divide the {times} times of {recipe.base}: "
                f"samplers would evaluate the student at times that it was not trained at; try {fewer}"
            )


@pydantic.dataclasses.dataclass(frozen=True)
class LatentConsistency(Consistency):
    """Distils the guided model's ODE; a whole student reads the guidance scale."""

    NAME = "latent-consistency"

    guidance_range: tuple[Scale, Scale] = (2.0, 8.0)
    guidance_embedding: bool = True


@pydantic.dataclasses.dataclass(frozen=True)
class ConsistencyTraining(ConsistencyKeys):
    """Learns from the data alone, in ever shorter steps."""

    NAME = "consistency-training"

    initial_discretization_steps: Annotated[int, Field(ge=2)] = 10
    final_discretization_steps: Annotated[int, Field(ge=2)] = 1280

    def check(self) -> None:
        super().check()
        if self.initial_discretization_steps > self.final_discretization_steps:
            raise ValueError(
                f"initial_discretization_steps is {self.initial_discretization_steps}: must be at most "
                f"final_discretization_steps = {self.final_discretization_steps}"
            )

    def task(self, recipe: Recipe, device: torch.device, report: Callable[[str], None]) -> Task[Any]:
        base = checkpoint.load(recipe.base, dtype=torch.float32)
        base, batches = captioned_batches(recipe, base, device, report)
        return self.consistency_task(
            TrainedUNet(recipe, base, device, apart=True),
            batches,
            estimates=lambda batch, generator: (lambda x, level: batch.x0, None),
            discretization=Curriculum(
                base.path(),
                recipe.steps,
                self.initial_discretization_steps,
                self.final_discretization_steps,
                device,
            ),
            as_sampled=partial(_as_lcm, steps=LCM_STEPS),
        )


@dataclass(frozen=True, eq=False)
class ConsistencyLoss:
    """The loss."""

    student: X0Model
    target: X0Model
    """The target network: an EMA of the student, or itself."""
    estimates: Callable[[LatentBatch, torch.Generator], Estimates]
    """Whose ODE is followed: a teacher's, or that of the data itself."""
    discretization: Callable[[int], Discretization]
    """By step of the run."""
    solver: Solver
    distance: Distance
    guidance_embedding: bool = False
    """Whether the student reads the guidance scale."""

    def __call__(self, batch: LatentBatch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss (B,), and the mean distance without weights."""
        x0, count = batch.x0, len(batch.x0)
        levels, weights = self.discretization(batch.step).sample(count, generator, x0.ndim)
        here, _, there = levels
        eps = torch.randn(x0.shape, generator=generator, device=x0.device)
        x = here.noisy(x0, eps)
        denoiser, scale = self.estimates(batch, generator)
        read = scale if self.guidance_embedding else None
        with torch.no_grad():
            stepped = self.solver(denoiser, x, *levels)
            target = LATENT(self.target.denoiser(batch, read), stepped.float(), there)
        found = LATENT(self.student.denoiser(batch, read), x, here)
        distance = self.distance(found, target)
        return weights * distance, {"distance": distance.mean()}


def _distance(x: Tensor, y: Tensor, huber_c: float) -> Tensor:
    """Per number, so that a learning rate suits any size of latents; (B, …) to (B,)."""
    root = math.sqrt(x[0].numel())
    return pseudo_huber(x, y, huber_c * root) / root


def _as_lcm(model: Model, steps: int, guidance: tuple[float, float] = (1.0, 1.0)) -> Model:
    """`model` as LCM samplers use it: `steps` on its path, `guidance` scales that it reads."""
    defaults = Defaults(steps=min(4, steps), guidance=sum(guidance) / 2, sampler="lcm", spacing="lcm")
    learned = TrainedRange((1, min(8, steps)), guidance)
    schedule = {"class_name": "LCMScheduler", "original_inference_steps": steps}
    return student_model(model, defaults, learned, "lcm", **schedule)


def _inputs(recipe: Recipe, base: Model, device: torch.device, data: str) -> dict[str, str]:
    """All that a teacher's trajectories depend on, besides their number and seed."""
    keys = [f"objective.{key}" for key in ("discretization_steps", "guidance_range", "guidance_embedding")]
    own = {key: str(value) for key, value in recipe.identity().items() if key in keys or key[:5] == "data."}
    return {**own, "precision": str(recipe.dtype(device)), "base": base.fingerprint, "data": data}
