"""The tasks of students: a whole network or a LoRA that draws in few steps what its teacher does in many."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sfumato import checkpoint
from sfumato.adapt import sampling_hints
from sfumato.adapt.live import attach_new
from sfumato.adapt.saving import save_lora
from sfumato.checkpoint import Model
from sfumato.checkpoint.families import Defaults
from sfumato.checkpoint.infer import TrainedRange, span
from sfumato.devices import DTYPES
from sfumato.diffusion.distill import LATENT, SOLVERS, LevelTable, pseudo_huber
from sfumato.diffusion.level import Flow
from sfumato.diffusion.predict import prediction_named
from sfumato.errors import UsageError
from sfumato.nets.inference import unpacked
from sfumato.nets.unet import UNet
from sfumato.train import sample_grid
from sfumato.train.consistency import (
    Consistency,
    Curriculum,
    Discretization,
    TeacherGuidance,
    X0Model,
    evenly,
    null_text,
)
from sfumato.train.context import StepContext
from sfumato.train.denoising import Batches
from sfumato.train.loop import Task
from sfumato.train.progressive import ProgressiveDistillation, half_steps
from sfumato.train.recipe import (
    ConsistencyRecipe,
    ConsistencyTrainingRecipe,
    DenoiserRecipe,
    ProgressiveRecipe,
    Recipe,
    StudentRecipe,
)
from sfumato.train.tasks import denoiser
from sfumato.train.tasks.common import MODEL
from sfumato.train.trajectories import (
    TrajectoryGenerator,
    TrajectoryRegression,
    cached_trajectories,
    level_table,
)

LORA = "lora.safetensors"
"""The file in a run's folder that holds a LoRA that was learned."""
TOLD_WIDTH = 256
"""Channels in which a student is told the guidance (Luo et al. 2023, §4.3)."""


def task(recipe: StudentRecipe, base: Model, device: torch.device, say: Callable[[str], None]) -> Task[Any]:
    """Raises `UsageError` for a base model that does not know what this recipe is to learn of it."""
    _check_teaches(recipe, base)
    base, examples = denoiser.examples(recipe, base, device)
    batches: Callable[[StepContext, int], Any] = examples
    maker = _Maker(recipe, base, device)
    student, drawer = maker.network(), maker.network().requires_grad_(False).eval()
    slow = {}
    if isinstance(recipe, ConsistencyRecipe) and recipe.slow:
        slow[recipe.slow] = maker.network().requires_grad_(False).eval()
    teacher = base.unet
    unpacked(teacher).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if recipe.compile:
        for net in (student, teacher, *slow.values()):
            net.compile()
    asked = partial(X0Model, prediction=prediction_named(base.prediction))
    guiding = _guiding(recipe, base, device)
    objective: Any
    if isinstance(recipe, ProgressiveRecipe):
        grid = LevelTable(half_steps(base.path(), recipe.halves), device)
        teacher_has_guidance = teacher.config.time_cond_proj_dim is not None
        objective = ProgressiveDistillation(
            asked(student), asked(teacher), grid, recipe.weighting, guiding, recipe.told, teacher_has_guidance
        )
    elif isinstance(recipe, ConsistencyRecipe) and recipe.walks:
        levels = base.levels("trailing", recipe.intervals)
        with torch.autocast(device.type, DTYPES[recipe.precision], enabled=recipe.precision != "float32"):
            generate = TrajectoryGenerator(
                asked(teacher), guiding, levels, examples, recipe.batch, recipe.seed, device
            )
            told = _told_of_walks(recipe, base, examples)
            batches = cached_trajectories(Path(recipe.run), recipe.walks, generate, told, say)
        distance = partial(_distance, huber=recipe.huber)
        objective = TrajectoryRegression(
            asked(student), level_table(levels, device), LATENT, distance, recipe.told
        )
    else:
        assert isinstance(recipe, ConsistencyRecipe)
        training = isinstance(recipe, ConsistencyTrainingRecipe)
        objective = Consistency(
            student=asked(student),
            slow=asked(slow[recipe.slow]) if slow else asked(student),
            teacher=None if training else asked(teacher),
            course=_course(recipe, base, device),
            solver=SOLVERS[recipe.solver],
            boundary=LATENT,
            distance=partial(_distance, huber=recipe.huber),
            guiding=guiding,
            told=recipe.told,
        )

    def show(state: dict[str, Tensor], path: Path) -> None:
        drawer.load_state_dict(state)
        if recipe.samples:
            dtype = DTYPES[recipe.precision]
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                drawn = sample_grid.draw(maker.model(drawer), drawer, recipe.samples)
            sample_grid.save(drawn, path)

    def finish(state: dict[str, Tensor], folder: Path) -> dict[str, float]:
        show(state, folder / "samples" / "last.webp")
        kept = maker.network().requires_grad_(False).eval()
        kept.load_state_dict(state)
        if isinstance(recipe, ConsistencyRecipe) and recipe.rank:
            wished = sampling_hints.header(maker.model(kept).own)
            told = {"made by": "sfumato", "base": base.fingerprint, **wished}
            save_lora(folder / LORA, {"unet": kept}, dtype=torch.float16, metadata=told)
        else:
            checkpoint.save(maker.model(kept), folder / MODEL, dtype=torch.float16, overwrite=True)
        return {}

    return Task(student, batches, objective, show, finish, slow)


@dataclass(frozen=True, eq=False)
class _Maker:
    """Makes students, all alike at first."""

    recipe: StudentRecipe
    base: Model
    device: torch.device

    def network(self) -> UNet:
        """A student that answers as the base model does."""
        recipe, base = self.recipe, self.base
        config = replace(base.unet.config, sample_size=base.native_size[0] // base.factor)
        if recipe.told and config.time_cond_proj_dim is None:
            config = replace(config, time_cond_proj_dim=TOLD_WIDTH)
        net = UNet(config)
        unpacked(net)
        missing, _ = net.load_state_dict(unpacked(base.unet).state_dict(), strict=False)
        with torch.no_grad():
            for name in missing:
                net.get_parameter(name).zero_()
        net.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if isinstance(recipe, ConsistencyRecipe) and recipe.rank:
            net.requires_grad_(False)
            generator = torch.Generator().manual_seed(recipe.seed)
            attach_new(net, recipe.rank, targets=recipe.layers, generator=generator)
        return net

    def model(self, unet: UNet) -> Model:
        """The base model with a student in its UNet's place, and how that is to be asked."""
        recipe, base = self.recipe, self.base
        guidance = sum(recipe.guided) / 2 if recipe.told else 1.0
        schedule: dict[str, Any]
        if isinstance(recipe, ProgressiveRecipe):
            own = Defaults(steps=recipe.halves, guidance=guidance, sampler="ddim", spacing="trailing")
            few = (recipe.halves, recipe.halves)
            schedule = {
                "class_name": "DDIMScheduler",
                "timestep_spacing": "trailing",
                "set_alpha_to_one": True,
            }
            distilled = base.info.distilled
        else:
            assert isinstance(recipe, ConsistencyRecipe)
            known = 50 if isinstance(recipe, ConsistencyTrainingRecipe) else recipe.intervals
            few = (1, min(8, known))
            own = Defaults(steps=min(4, known), guidance=guidance, sampler="lcm", spacing="lcm")
            schedule = {"class_name": "LCMScheduler", "original_inference_steps": known}
            distilled = "lcm"
        if isinstance(base.path(), Flow):
            del schedule["class_name"]  # diffusers has neither scheduler for a flow
        low, high = recipe.guided if recipe.told else (1.0, 1.0)
        info = replace(
            base.info, distilled=distilled, defaults=own, trained_range=TrainedRange(few, (low, high))
        )
        said = {**base.own, **vars(own), "steps_range": list(few), "guidance_range": [low, high]}
        asked = replace(base.schedule, clip_sample=False, **schedule)
        return replace(base, unet=unet, schedule=asked, info=info, own=said, fast=None)


def _check_teaches(recipe: StudentRecipe, base: Model) -> None:
    """Raise `UsageError` for a teacher of other times, steps or guidance than the recipe is about."""
    if isinstance(recipe, ConsistencyTrainingRecipe):
        return
    if isinstance(recipe, ConsistencyRecipe) and not recipe.rank and base.path().whole:
        times = round(base.path().last) + 1
        if times % recipe.intervals:
            fewer = max(n for n in range(1, recipe.intervals) if times % n == 0)
            raise UsageError(
                f"intervals = {recipe.intervals} does not divide the {times} times of {recipe.base}: "
                f"samplers would ask the student beside the times that it has learned; try {fewer}"
            )
    known = base.info.trained_range
    if known is None:
        return
    student = f"{recipe.base} is a student of {span(*known.steps)} steps"
    if isinstance(recipe, ConsistencyRecipe) or base.defaults.sampler == "lcm":
        raise UsageError(f"{student} and teaches none: base = the model that it has learned from")
    assert isinstance(recipe, ProgressiveRecipe)
    if not known.steps[0] <= 2 * recipe.halves <= known.steps[1]:
        raise UsageError(f"{student}, of which halves = {recipe.halves} is not half")
    guidance = span(*known.guidance)
    if base.unet.config.time_cond_proj_dim is not None and not recipe.told:
        raise UsageError(f"{student} that is told the guidance: told = true, guided within {guidance}")
    low, high = recipe.guided or (1.0, 1.0)
    if not known.guidance[0] <= low <= high <= known.guidance[1]:
        hint = "; leave guided out" if known.guidance == (1, 1) else ""
        raise UsageError(f"{student} that has learned guidance {guidance}, not {span(low, high)}{hint}")


def _told_of_walks(recipe: ConsistencyRecipe, base: Model, examples: Batches) -> dict[str, str]:
    """All that a teacher's walks depend on, besides their number and seed."""
    examined = {each.name for each in fields(DenoiserRecipe)} - {each.name for each in fields(Recipe)}
    names = sorted({*examined, "intervals", "guided", "told", "precision"} - recipe.FREE)
    told = {name: str(getattr(recipe, name)) for name in names}
    return {**told, "base": base.fingerprint, "data": examples.source.digest}


def _course(recipe: ConsistencyRecipe, base: Model, device: torch.device) -> Any:
    if isinstance(recipe, ConsistencyTrainingRecipe):
        first, last = recipe.first_intervals, recipe.last_intervals
        return Curriculum(base.path(), recipe.steps, first, last, device)
    course = evenly(base.path(), recipe.intervals, device)

    def always(step: int) -> Discretization:
        return course

    return always


def _guiding(recipe: StudentRecipe, base: Model, device: torch.device) -> TeacherGuidance | None:
    if not recipe.guided:
        return None
    silence = base.encode("", device=device)
    if base.zero_negative:
        silence = silence.zeroed()
    pooled = None if silence.pooled is None else silence.pooled.to(device).float()
    low, high = recipe.guided
    if not recipe.told:
        low = high = (low + high) / 2
    return TeacherGuidance(low, high, null_text(silence.states.to(device).float(), pooled))


def _distance(x: Tensor, y: Tensor, huber: float) -> Tensor:
    """Per number, so that a rate suits any size of picture; (B, …) to (B,)."""
    root = math.sqrt(x[0].numel())
    return pseudo_huber(x, y, huber * root) / root
