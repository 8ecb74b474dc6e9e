"""A scheduler's steps taken by hand, as in a program's own loop around a network."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from sfumato.compat.noise import BatchNoise, Generators
from sfumato.compat.outputs import Output
from sfumato.compat.plan import SampleArgs, SamplingPlan
from sfumato.diffusion.level import Level, Path, VariancePreserving
from sfumato.diffusion.predict import clean_estimate, network_input, prediction_named
from sfumato.diffusion.sampling import Point, Sampling
from sfumato.errors import UsageError


@dataclass
class SchedulerOutput(Output):
    """`prev_sample`: the latents (B, …) of the next time. `pred_original_sample`: the clean estimate."""

    prev_sample: Tensor
    pred_original_sample: Tensor | None = None


class Steps:
    """A sampler on its way over the levels of a plan."""

    def __init__(self, plan: SamplingPlan) -> None:
        self.plan, self.drawn = plan, 0
        self.sampling: Sampling | None = None
        self.point: Point | None = None
        self.returned: Tensor | None = None

    @property
    def level(self) -> Level:
        """The level of the next evaluation."""
        return self.plan.levels[0] if self.point is None else self.point.level

    def step(self, prediction: str, out: Tensor, sample: Tensor, generator: Generators) -> SchedulerOutput:
        """Give the sampler the network's answer `out` (B, …) to `sample` (B, …) at `level`."""
        plan = self.plan
        draw = self._draw = BatchNoise(
            generator, tuple(out.shape), out.device, plan.noise_dtype or out.dtype
        ).block
        x = sample.to(torch.promote_types(sample.dtype, torch.float32)) * plan.scale(self.level)
        if self.sampling is None:
            for _ in range(plan.unused):
                draw()
            self.sampling = plan.sampler(x.clone(), plan.levels, self._noise)
            self.point = next(self.sampling)
        elif sample is not self.returned:
            self._point.x.copy_(x)
        x0 = clean_estimate(prediction_named(prediction), self._point.x, out, [self._point.level] * len(x))
        try:
            self.point = self.sampling.send(x0)
            there, latents = self.point.level, self.point.x
        except StopIteration as done:
            self.point, there, latents = None, plan.levels[-1], done.value
            for _ in range(plan.draws - self.drawn):
                draw()
        self.returned = (latents / plan.scale(there)).to(out.dtype)
        return SchedulerOutput(self.returned, x0.to(out.dtype))

    def _noise(self, like: Tensor, /) -> Tensor:
        self.drawn += 1
        return self._draw().to(like)

    @property
    def _point(self) -> Point:
        assert self.point is not None
        return self.point


class SteppingMixin:
    """What programs with a loop of their own read and call; pipelines do not."""

    EXPLODING: ClassVar[bool] = False
    """Whether diffusers' latents are scaled to a = 1."""
    ETA: ClassVar[float] = 0.0
    """What `step` has for `eta` unless it is told."""
    config: Any
    _args: SampleArgs | None = None
    _plan: SamplingPlan | None = None
    _steps: Steps | None = None

    @property
    @abstractmethod
    def path(self) -> Path: ...

    @property
    @abstractmethod
    def trained(self) -> VariancePreserving: ...

    @property
    @abstractmethod
    def prediction(self) -> str: ...

    @abstractmethod
    def plan(self, args: SampleArgs) -> SamplingPlan: ...

    order: ClassVar[int] = 1
    """Evaluations for each step."""

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: Any = None,
        *,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
        original_inference_steps: int | None = None,
    ) -> None:
        """Choose the times of a loop. `device` changes nothing. Raises `UsageError`."""
        given = [each for each in (num_inference_steps, timesteps, sigmas) if each is not None]
        if len(given) != 1:
            raise UsageError("set_timesteps takes one of num_inference_steps, timesteps and sigmas")
        steps = num_inference_steps or len(timesteps or (sigmas or [0.0])[1:])
        if steps < 1:
            raise UsageError(f"num_inference_steps is {steps}: must be at least 1")
        self._args = SampleArgs(
            steps, timesteps=timesteps, sigmas=sigmas, original_steps=original_inference_steps
        )
        self._plan, self._steps = self.plan(self._args), None

    @property
    def num_inference_steps(self) -> int | None:
        """The steps of `set_timesteps`, `None` before it."""
        return None if self._args is None else self._args.steps

    @property
    def timesteps(self) -> Tensor:
        """The time of every evaluation, falling; all training times before `set_timesteps`."""
        if self._plan is None:
            return torch.arange(self.config["num_train_timesteps"] - 1, -1, -1)
        times = torch.tensor([level.t for level in self._plan.evaluated], dtype=torch.float32)
        return times if self.EXPLODING else times.long()

    @property
    def sigmas(self) -> Tensor:
        """σ of every level, the last included; of all training times before `set_timesteps`."""
        if self._plan is not None:
            return torch.tensor([level.sigma for level in self._plan.levels])
        return torch.tensor([self.path.level(t).sigma for t in self.timesteps.tolist()] + [0.0])

    @property
    def init_noise_sigma(self) -> float:
        """What a loop multiplies its first noise with."""
        if self._plan is None and not self.EXPLODING:
            return 1.0
        return (self._plan or self.plan(SampleArgs(self.config["num_train_timesteps"]))).init_noise_sigma

    @property
    def alphas_cumprod(self) -> Tensor:
        """ᾱ_t of all training times (T,)."""
        return self.trained.alphas_cumprod.float()

    @property
    def alphas(self) -> Tensor:
        """1 − β_t of all training times (T,)."""
        table = self.trained.alphas_cumprod
        return (table / torch.cat([torch.ones(1, dtype=table.dtype), table[:-1]])).float()

    @property
    def betas(self) -> Tensor:
        """β_t of all training times (T,)."""
        return 1 - self.alphas

    def __len__(self) -> int:
        return int(self.config["num_train_timesteps"])

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """`sample` (B, …) in the scale in which the network sees it at `timestep`."""
        steps = self._at(timestep)
        x = sample * steps.plan.scale(steps.level)
        return network_input(prediction_named(self.prediction), x, [steps.level] * len(x))

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        *,
        eta: float | None = None,
        generator: Generators = None,
        return_dict: bool = True,
    ) -> Any:
        """The latents of the next time from the network's answer to `sample` (B, …) at `timestep`.

        Times follow those of `set_timesteps`; a loop may begin at any of them. `eta`: that of DDIM and TCD,
        by default 0 and 0.3.
        Raises `UsageError` for another time than the next.
        """
        steps = self._at(timestep, self.ETA if eta is None else eta)
        with torch.no_grad():
            made = steps.step(self.prediction, model_output, sample, generator)
        if steps.point is None:
            self._steps = None
        return made if return_dict else (made.prev_sample, made.pred_original_sample)

    def _at(self, timestep: Any, eta: float | None = None) -> Steps:
        """The steps, begun at `timestep` if none has been taken."""
        if self._plan is None or self._args is None:
            raise UsageError(f"{type(self).__name__}: call set_timesteps first")
        t = self._plan.levels[0].t if timestep is None else float(timestep)
        begun = self._steps is not None and self._steps.sampling is not None
        if not begun:
            if eta is not None and eta != self._args.eta:
                self._args = replace(self._args, eta=eta)
                self._plan = self.plan(self._args)
            self._steps = self._begun(self._plan, self._args, t)
        steps = self._steps
        if steps is None or not _same(steps.level.t, t):
            due = self.timesteps.tolist() if steps is None else [steps.level.t]
            raise UsageError(f"{type(self).__name__}: a step at time {t:g} is not due; next is {_shown(due)}")
        return steps

    def _begun(self, plan: SamplingPlan, args: SampleArgs, t: float) -> Steps | None:
        """The steps from time `t` on, where there is one."""
        level = _nearest(plan.levels[:-1], t)
        if level is None:
            return None
        latest = max(number for number, each in enumerate(plan.evaluated) if each.t == level.t)
        return Steps(self.plan(replace(args, first=latest // self.order)))

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """`original_samples` (B, …) with the noise of `timesteps` (B,), in the scale of the latents."""
        plan, exploding, given = self._plan, self.EXPLODING, torch.as_tensor(timesteps).flatten().tolist()
        due = [] if plan is None else plan.evaluated
        levels = [_nearest(due, float(t)) or self.path.level(float(t)) for t in given]
        a = _column([1.0 if exploding else level.a for level in levels], original_samples)
        s = _column([level.sigma if exploding else level.s for level in levels], original_samples)
        return a * original_samples + s * noise

    def get_velocity(self, sample: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """v = a·noise − s·sample (B, …) at `timesteps` (B,), the target of v-prediction."""
        path = self.trained
        levels = [path.level(float(t)) for t in timesteps.flatten().tolist()]
        a, s = (_column([getattr(level, name) for level in levels], sample) for name in "as")
        return a * noise - s * sample


def _column(numbers: Sequence[float], like: Tensor) -> Tensor:
    """One number for each row of `like` (B, …)."""
    return torch.tensor(numbers, dtype=like.dtype, device=like.device).view(-1, *(1,) * (like.ndim - 1))


def _nearest(levels: Sequence[Level], t: float) -> Level | None:
    """The first of those `levels` that are nearest to time `t`, if it is one of theirs."""
    nearest = min(levels, key=lambda level: abs(level.t - t), default=None)
    return nearest if nearest is not None and _same(nearest.t, t) else None


def _same(t: float, other: float) -> bool:
    """Whether two times are one, but for what a whole or a float32 time leaves out."""
    return abs(t - other) < 0.01 or int(t) == other


def _shown(times: Sequence[float]) -> str:
    return ", ".join(f"{t:g}" for t in times[:3]) + (", …" if len(times) > 3 else "")
