"""What diffusers' schedulers share: settings that pass between classes, and the noise levels they give."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Self

import torch

from sfumato.checkpoint.schedules import path_of
from sfumato.checkpoint.source import locate
from sfumato.compat.clipping import clamped
from sfumato.config.schedule import ScheduleConfig
from sfumato.config.schedulers import SCHEDULERS as DEFAULTS
from sfumato.diffusion import spacing
from sfumato.diffusion.level import CLEAN, Level, VariancePreserving
from sfumato.diffusion.samplers import sampler_named
from sfumato.diffusion.sampling import Sampler, visited
from sfumato.errors import CheckpointError, UsageError, nearest, warn
from sfumato.files import read_json

SUPPORTED: dict[str, tuple[Any, ...]] = {
    "thresholding": (False,),
    "shift_terminal": (None,),
    "use_dynamic_shifting": (False,),
    "prediction_type": ("epsilon", "v_prediction", "sample"),
    "use_flow_sigmas": (False, None),
    "variance_type": (None, "fixed_small", "fixed_small_log", "fixed_large"),
    "lambda_min_clipped": (-math.inf,),
    "timestep_type": ("discrete",),
    "interpolation_type": ("linear",),
    "predict_x0": (True,),
    "disable_corrector": ([], ()),
    "solver_p": (None,),
    "time_shift_type": ("exponential",),
}
"""Settings of which only these values are supported."""
NEARLY_PURE = 2.0**-24
"""What stands for ᾱ = 0 in schedulers that divide by it."""


class SchedulerConfig(dict[str, Any]):
    """A scheduler's settings, read as items or attributes.

    Settings of the classes that it was made from stay in it, for schedulers that are made from it.
    """

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(f"this scheduler has no setting {name!r}")


@dataclass(frozen=True)
class SampleArgs:
    """A call's arguments for its scheduler; `timesteps` has `steps` entries, `sigmas` one more."""

    steps: int = 50
    eta: float = 0.0
    timesteps: Sequence[float] | None = None
    sigmas: Sequence[float] | None = None
    original_steps: int | None = None
    """The number of times that a consistency model was trained at."""


@dataclass(frozen=True, eq=False)
class SamplingPlan:
    """A sampler and its levels, the last included.

    `init_noise_sigma`: the scale of the initial noise. `exploding`: diffusers' latents are scaled to a = 1.
    `draws`: how many times diffusers draws noise. `noise_dtype`: its precision, if not the network's.
    """

    sampler: Sampler
    levels: Sequence[Level]
    init_noise_sigma: float = 1.0
    exploding: bool = False
    draws: int = 0
    noise_dtype: torch.dtype | None = None

    @cached_property
    def evaluated(self) -> list[Level]:
        """The level of every evaluation."""
        return visited(self.sampler, self.levels)

    def scale(self, level: Level) -> float:
        """The factor from diffusers' latents at `level` to a·x0 + s·eps."""
        return level.a if self.exploding else 1.0


class Scheduler(ABC):
    """One of diffusers' schedulers: settings that give a sampler and its levels.

    Only a pipeline uses it; stepping by hand is not supported. Raises `UsageError` for unknown settings.
    """

    TAKES: ClassVar[frozenset[str]] = frozenset()
    """Which of `timesteps` and `sigmas` a call may give."""
    ENDS: ClassVar[str] = "zero"
    """The noise at the end: "zero", training's "sigma_min", or the name of the setting that says which."""
    DROPPED: ClassVar[int] = 0
    """How many of the least noisy even times are left out."""
    ROUNDED: ClassVar[bool] = True
    """Whether even times are whole."""
    order: ClassVar[int] = 1
    """Evaluations for each step."""

    def __init__(self, **settings: Any) -> None:
        known = self.defaults()
        for name in settings:
            if name not in known:
                raise UsageError(f"{type(self).__name__} has no setting {name!r}; {nearest(name, known)}")
        left_out = [name for name in known if name not in settings]
        self.config = SchedulerConfig(
            {**known, **settings, "_class_name": type(self).__name__, "_use_default_values": left_out}
        )
        for name, allowed in SUPPORTED.items():
            if name in self.config:
                self.check(name, allowed)

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Every setting of the class."""
        return dict(DEFAULTS[cls.__name__])

    @classmethod
    def from_config(cls, config: Mapping[str, Any], **changes: Any) -> Self:
        """A scheduler of this class with the settings of another, and with `changes`.

        As in diffusers, settings left at their class's default are not passed on to another class.
        """
        known = cls.defaults()
        unset = {*config.get("_use_default_values", ()), "_use_default_values"}
        given = {name: value for name, value in config.items() if name not in unset}
        for name in changes:
            if name not in known:
                if not any(name in settings for settings in DEFAULTS.values()):
                    raise UsageError(f"{cls.__name__} has no setting {name!r}; {nearest(name, known)}")
                warn(f"{cls.__name__} has no setting {name!r}: ignored")
        made = cls(**{name: value for name, value in (given | changes).items() if name in known})
        made.config = SchedulerConfig({**given, **made.config})
        return made

    @classmethod
    def from_pretrained(cls, source: str | Path, subfolder: str | None = None, **changes: Any) -> Self:
        """The scheduler of a model's folder, or of the hub, as this class."""
        folder = locate(source, local_files_only=bool(changes.pop("local_files_only", False)))
        for place in (folder / (subfolder or ""), folder / "scheduler"):
            if (place / "scheduler_config.json").is_file():
                return cls.from_config(read_json(place / "scheduler_config.json"), **changes)
        raise CheckpointError(f"{folder} has no scheduler/scheduler_config.json")

    @property
    def settings(self) -> dict[str, Any]:
        """The class's own settings, without those of other classes in `config`."""
        return {name: self.config[name] for name in self.defaults()}

    @property
    def path(self) -> VariancePreserving:
        """The path of its betas. Raises `UsageError` for invalid betas."""
        name, settings = type(self).__name__, self.settings
        if settings["trained_betas"] is not None:
            settings["trained_betas"] = [float(beta) for beta in settings["trained_betas"]]
        try:
            path, *_ = path_of(ScheduleConfig.from_dict({"_class_name": name, **settings}, name))
        except CheckpointError as error:
            raise UsageError(str(error)) from None
        assert isinstance(path, VariancePreserving)
        return path

    def plan(self, args: SampleArgs) -> SamplingPlan:
        """The sampler and levels for `args`. Raises `UsageError` for what the class does not support."""
        for name in ("timesteps", "sigmas"):
            if getattr(args, name) is not None and name not in self.TAKES:
                raise UsageError(f"{type(self).__name__} takes no {name}")
        if args.timesteps is not None and args.sigmas is not None:
            raise UsageError("only one of timesteps and sigmas can be given")
        path = self.path
        levels = self.ended(path, self.levels(path, args))
        sampler, draws = self.sampler(args, levels)
        return SamplingPlan(sampler, levels, draws=draws)

    @abstractmethod
    def levels(self, path: VariancePreserving, args: SampleArgs) -> list[Level]:
        """A level for each step, without the one to end at."""

    def sampler(self, args: SampleArgs, levels: Sequence[Level]) -> tuple[Sampler, int]:
        """The sampler over `levels`, the last included, and how many times diffusers draws noise for it."""
        return sampler_named(type(self).__name__).sample, 0

    @property
    def ends_clean(self) -> bool:
        """Whether sampling ends without noise, not at the least noisy level of training."""
        return self.settings.get(self.ENDS, self.ENDS) in ("zero", True)

    def ended(self, path: VariancePreserving, levels: Sequence[Level]) -> list[Level]:
        """`levels` and the one to end at."""
        if self.ends_clean:
            return [*levels, CLEAN]
        least = path.level(0)
        above = [level for level in levels if level.sigma > least.sigma * (1 + 1e-6)]
        if not above:
            raise UsageError(
                "these settings begin where they end, at the least noisy training time: take more steps"
            )
        return [*above, least]

    def even_levels(self, path: VariancePreserving, args: SampleArgs) -> list[Level]:
        """Levels at the call's `timesteps`, or as `timestep_spacing` and `steps_offset` say."""
        settings, count, n = self.settings, self.config["num_train_timesteps"], args.steps
        if args.timesteps is not None:
            given = [float(t) for t in args.timesteps]
            falling = all(before > after for before, after in pairwise(given))
            if not given or not falling or given[0] >= count or given[-1] < 0:
                raise UsageError(f"timesteps must fall from below {count} to 0 or more, not {given}")
            return [path.level(t) for t in given]
        if n > count:
            raise UsageError(f"num_inference_steps is {n}: the scheduler has {count} training times")
        match settings.get("timestep_spacing", "linspace"):
            case "leading":
                offset = settings["steps_offset"]
                return spacing.leading(path, n, offset=offset, dropped=self.DROPPED)[:-1]
            case "trailing":
                return spacing.trailing(path, n)[:-1]
        if n + self.DROPPED == 1:  # diffusers' linspace of one step is the least noisy time
            return [path.level(0)]
        return spacing.linspace(path, n, dropped=self.DROPPED, rounded=self.ROUNDED)[:-1]

    def clamped(self, sampler: Sampler) -> Sampler:
        """`sampler`, its clean estimates within ±`clip_sample_range` if `clip_sample` asks for it."""
        return clamped(sampler, self.config["clip_sample_range"]) if self.config["clip_sample"] else sampler

    def check(self, name: str, allowed: Sequence[Any]) -> None:
        """Raise `UsageError` for a setting whose value is not one of `allowed`."""
        if self.config[name] not in allowed:
            right = " or ".join(map(repr, allowed))
            raise UsageError(
                f"{type(self).__name__}: {name} = {self.config[name]!r} is not supported, only {right}"
            )

    def __getattr__(self, name: str) -> Any:
        if name in ("step", "set_timesteps", "scale_model_input", "add_noise", "timesteps", "sigmas"):
            raise AttributeError(
                f"{type(self).__name__}.{name} is not supported: schedulers here only hold settings; call "
                "the pipeline, whose callback_on_step_end sees every step"
            )
        raise AttributeError(f"{type(self).__name__} has no {name!r}")

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.config.items() if k[0] != '_')})"
        )


class TimestepScheduler(Scheduler):
    """Levels at training times; latents are not rescaled."""

    def levels(self, path: VariancePreserving, args: SampleArgs) -> list[Level]:
        return self.even_levels(path, args)


class SigmaScheduler(Scheduler):
    """Levels at σ = s/a: those of even times, or as `use_karras_sigmas` and the like say."""

    FULL_RANGE: ClassVar[bool] = False
    """Whether those spacings span all training times, not the range of the even times."""
    WHOLE: ClassVar[tuple[str, ...]] = ()
    """The spacings whose times are rounded to training times."""

    @property
    def path(self) -> VariancePreserving:
        path = super().path
        if path.level(path.last).a == 0:
            return VariancePreserving([*path.alphas_cumprod.tolist()[:-1], NEARLY_PURE])
        return path

    def levels(self, path: VariancePreserving, args: SampleArgs) -> list[Level]:
        settings = self.settings
        chosen = [name for name in SIGMA_SPACINGS if settings.get(name)]
        if len(chosen) > 1:
            raise UsageError(f"only one of {' and '.join(chosen)} can be used")
        if args.timesteps is not None and chosen:
            raise UsageError(f"timesteps cannot be given together with {chosen[0]}")
        if args.sigmas is not None:
            return [path.at(float(sigma)) for sigma in args.sigmas[:-1]]
        levels = [_linear_in_sigma(path, level) for level in self.even_levels(path, args)]
        if not chosen:
            return levels
        if self.FULL_RANGE:
            levels = [path.level(path.last), path.level(path.first)]
        ends = {
            "sigma_max": settings.get("sigma_max") or levels[0].sigma,
            "sigma_min": settings.get("sigma_min") or levels[-1].sigma,
        }
        levels = SIGMA_SPACINGS[chosen[0]](path, args.steps, **ends)[:-1]
        if chosen[0] in self.WHOLE and settings["beta_schedule"] != "squaredcos_cap_v2":
            return [replace(level, t=float(round(level.t))) for level in levels]
        return levels


class KDiffusionScheduler(SigmaScheduler):
    """A sampler of k-diffusion: latents are scaled to a = 1, even times are not rounded."""

    ROUNDED = False

    def plan(self, args: SampleArgs) -> SamplingPlan:
        plan = super().plan(args)
        start = plan.levels[0].sigma
        start = math.hypot(start, 1) if self.config["timestep_spacing"] == "leading" else start
        return replace(plan, init_noise_sigma=start, exploding=True)


class SolverScheduler(SigmaScheduler):
    """DPM-Solver, UniPC and DEIS: even times without the least noisy one, noise in float32."""

    ENDS, DROPPED, FULL_RANGE = "final_sigmas_type", 1, True
    WHOLE = ("use_karras_sigmas", "use_lu_lambdas")

    def plan(self, args: SampleArgs) -> SamplingPlan:
        self.check("solver_order", (1, 2, 3))
        if self.ENDS in self.settings:
            self.check(self.ENDS, ("zero", "sigma_min"))
        return replace(super().plan(args), noise_dtype=torch.float32)

    def chosen(self, name: str, known: Mapping[str, str]) -> str:
        """The value of a setting in this class's terms: `known` translates those of other classes."""
        if self.config[name] not in known:
            self.check(name, sorted({*known.values()}))
        return known[self.config[name]]


def beta_sigmas(path: VariancePreserving, n: int, *, sigma_min: float, sigma_max: float) -> list[Level]:
    """σ, not time, at even quantiles of a Beta(0.6, 0.6) distribution."""
    quantiles = (spacing.beta_quantile(1 - i / max(n - 1, 1), 0.6, 0.6) for i in range(n))
    return [*(path.at(sigma_min + q * (sigma_max - sigma_min)) for q in quantiles), CLEAN]


SIGMA_SPACINGS = {
    "use_karras_sigmas": spacing.karras,
    "use_lu_lambdas": spacing.exponential,
    "use_exponential_sigmas": spacing.exponential,
    "use_beta_sigmas": beta_sigmas,
}


def _linear_in_sigma(path: VariancePreserving, level: Level) -> Level:
    """The level at the same time, which need not be whole, σ interpolated linearly instead of ln σ."""
    below = path.level(math.floor(level.t))
    part = level.t - below.t
    if part == 0:
        return level
    return replace(path.at((1 - part) * below.sigma + part * path.level(below.t + 1).sigma), t=level.t)
