"""What diffusers' schedulers share: settings that pass from class to class, and levels made of them."""

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Self

import torch

from sfumato.checkpoint.infer import path_of
from sfumato.checkpoint.source import locate
from sfumato.compat.clipping import clamped
from sfumato.config.schedule import ScheduleConfig
from sfumato.config.schedulers import SCHEDULERS as DEFAULTS
from sfumato.diffusion import spacing
from sfumato.diffusion.level import CLEAN, Level, VariancePreserving
from sfumato.diffusion.samplers import sampler_named
from sfumato.diffusion.sampling import Sampler, visited
from sfumato.errors import CheckpointError, SfumatoWarning, UsageError, nearest
from sfumato.files import read_json

SUPPORTED: dict[str, tuple[Any, ...]] = {
    "thresholding": (False,),
    "use_flow_sigmas": (False, None),
    "use_dynamic_shifting": (False,),
    "shift_terminal": (None,),
    "variance_type": (None, "fixed_small", "fixed_small_log", "fixed_large"),
    "lambda_min_clipped": (-float("inf"),),
    "timestep_type": ("discrete",),
    "interpolation_type": ("linear",),
    "predict_x0": (True,),
    "disable_corrector": ([], ()),
    "solver_p": (None,),
    "time_shift_type": ("exponential",),
}
"""Settings of which only these values are supported."""
BETAS = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "rescale_betas_zero_snr",
)
"""Settings that make the path."""
NEARLY_PURE = 2.0**-24
"""What stands for ᾱ = 0 in schedulers that divide by it."""


class Config(dict[str, Any]):
    """A scheduler's settings, to be read as items or attributes.

    Those of other classes that it was made from stay in it, and go on to whatever is made from it.
    """

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(f"this scheduler has no setting {name!r}")


@dataclass(frozen=True)
class SampleArgs:
    """What a call asks of its scheduler; `timesteps` or `sigmas` are `steps` in number, sigmas one more."""

    steps: int = 50
    eta: float = 0.0
    timesteps: Sequence[float] | None = None
    sigmas: Sequence[float] | None = None
    original_steps: int | None = None
    """The number of times that a consistency model was trained at."""


@dataclass(frozen=True, eq=False)
class SamplingPlan:
    """The sampler and its levels, the last included, and how diffusers counts along.

    `init_noise_sigma`: the scale of the initial noise. `exploding`: latents are scaled to a = 1. `draws`: how
    many times noise is drawn in all. `noise_dtype`: its precision, if not the network's.
    """

    sampler: Sampler
    levels: Sequence[Level]
    init_noise_sigma: float = 1.0
    exploding: bool = False
    draws: int = 0
    noise_dtype: torch.dtype | None = None

    @cached_property
    def times(self) -> list[float]:
        """The time of every evaluation."""
        return [level.t for level in visited(self.sampler, self.levels)]


class Scheduler(ABC):
    """One of diffusers' schedulers by its name: its settings, and the sampler and levels they make.

    Stepping by hand is not supported: hand it to a pipeline. Raises `UsageError` for settings that the class
    does not have.
    """

    TAKES: ClassVar[frozenset[str]] = frozenset()
    """Which of `timesteps` and `sigmas` a call may give it."""
    EXPLODING: ClassVar[bool] = False
    """Whether its latents are scaled to a = 1, not as the network has them."""
    NOISE_DTYPE: ClassVar[torch.dtype | None] = None
    """The precision that its noise is drawn in, if not the network's."""
    order: ClassVar[int] = 1
    """Evaluations for each step."""

    def __init__(self, **settings: Any) -> None:
        known = self.defaults()
        for name in settings:
            if name not in known:
                raise UsageError(f"{type(self).__name__} has no setting {name!r}; {nearest(name, known)}")
        left_out = [name for name in known if name not in settings]
        self.config = Config(
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

        As in diffusers, a setting that stands at its class's own value does not go over to another class.
        """
        known = cls.defaults()
        unset = {*config.get("_use_default_values", ()), "_use_default_values"}
        given = {name: value for name, value in config.items() if name not in unset}
        for name in changes:
            if name not in known:
                if not any(name in settings for settings in DEFAULTS.values()):
                    raise UsageError(f"{cls.__name__} has no setting {name!r}; {nearest(name, known)}")
                warnings.warn(
                    f"{cls.__name__} has no setting {name!r}: ignored", SfumatoWarning, stacklevel=2
                )
        made = cls(**{name: value for name, value in (given | changes).items() if name in known})
        made.config = Config({**given, **made.config})
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
        """The class's own settings, without what only goes along in `config`."""
        return {name: self.config[name] for name in self.defaults()}

    @property
    def path(self) -> VariancePreserving:
        """The path of its betas. Raises `UsageError` for betas that make none."""
        name, settings = type(self).__name__, self.settings
        betas = {key: settings[key] for key in BETAS if key in settings}
        if betas["trained_betas"] is not None:
            betas["trained_betas"] = [float(beta) for beta in betas["trained_betas"]]
        try:
            path, *_ = path_of(ScheduleConfig.from_dict(betas, name))
        except CheckpointError as error:
            raise UsageError(str(error)) from None
        assert isinstance(path, VariancePreserving)
        return path

    def plan(self, args: SampleArgs) -> SamplingPlan:
        """How to draw what `args` ask for. Raises `UsageError` for what the class cannot do."""
        for name in ("timesteps", "sigmas"):
            if getattr(args, name) is not None and name not in self.TAKES:
                raise UsageError(f"{type(self).__name__} takes no {name}")
        if args.timesteps is not None and args.sigmas is not None:
            raise UsageError("only one of timesteps and sigmas can be given")
        path = self.path
        stops = self.levels(path, args)
        levels = self.ended(path, stops)
        sampler, draws = self.sampler(args, levels)
        start = stops[0].sigma if self.EXPLODING else 1.0
        if self.EXPLODING and self.config["timestep_spacing"] == "leading":
            start = math.hypot(start, 1)
        return SamplingPlan(sampler, levels, start, self.EXPLODING, draws, self.NOISE_DTYPE)

    @abstractmethod
    def levels(self, path: VariancePreserving, args: SampleArgs) -> list[Level]:
        """A level for each step, without the one to end at."""

    def sampler(self, args: SampleArgs, levels: Sequence[Level]) -> tuple[Sampler, int]:
        """The sampler over `levels`, the last included, and how many times diffusers draws noise for it."""
        return sampler_named(type(self).__name__).sample, 0

    @property
    def ends_clean(self) -> bool:
        """Whether drawing ends at no noise, not at the least noisy level of training."""
        return bool(self.settings.get("final_sigmas_type", "zero") == "zero")

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

    def even_levels(
        self, path: VariancePreserving, n: int, *, dropped: int = 0, rounded: bool = True
    ) -> list[Level]:
        """`n` levels as `timestep_spacing` and `steps_offset` say; see `sfumato.diffusion.spacing`."""
        settings, count = self.settings, self.config["num_train_timesteps"]
        if n > count:
            raise UsageError(f"num_inference_steps is {n}: the scheduler has {count} training times")
        match name := settings.get("timestep_spacing", "linspace"):
            case "leading":
                levels = spacing.leading(path, n, offset=settings["steps_offset"], dropped=dropped)
            case "linspace" if n + dropped > 1:
                levels = spacing.linspace(path, n, dropped=dropped, rounded=rounded)
            case "linspace":  # numpy's begins at the other end
                return [path.level(0)]
            case "trailing":
                levels = spacing.trailing(path, n)
            case _:
                known = ("leading", "linspace", "trailing")
                hint = nearest(str(name), known)
                raise UsageError(f"timestep_spacing = {name!r} is not supported; {hint}")
        return levels[:-1]

    def given_times(self, times: Sequence[float]) -> list[float]:
        """`times` of a caller. Raises `UsageError` unless they fall, all of them training times."""
        given, count = [float(t) for t in times], self.config["num_train_timesteps"]
        falling = all(before > after for before, after in pairwise(given))
        if not given or not falling or given[0] >= count or given[-1] < 0:
            raise UsageError(f"timesteps must fall from below {count} to 0 or more, not {given}")
        return given

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
    """Levels at training times, in the network's own scaling."""

    def levels(self, path: VariancePreserving, args: SampleArgs) -> list[Level]:
        if args.timesteps is not None:
            return [path.level(t) for t in self.given_times(args.timesteps)]
        return self.even_levels(path, args.steps)


class SigmaScheduler(Scheduler):
    """Levels at σ = s/a, which is spaced evenly in time, or as `use_karras_sigmas` and its kin say."""

    DROPPED: ClassVar[int] = 0
    """Even times laid out beyond the least noisy one that is used."""
    WHOLE: ClassVar[bool] = False
    """Whether even times are whole."""
    FULL_RANGE: ClassVar[bool] = False
    """Whether such σ span all of training, not the range of the even times."""
    ROUNDED: ClassVar[tuple[str, ...]] = ()
    """The spacings of σ whose times are rounded to training times."""

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
        if args.timesteps is not None:
            times = self.given_times(args.timesteps)
        else:
            times = [
                level.t
                for level in self.even_levels(path, args.steps, dropped=self.DROPPED, rounded=self.WHOLE)
            ]
        levels = [_linear_in_sigma(path, t) for t in times]
        if not chosen:
            return levels
        ends = (path.level(path.last), path.level(path.first)) if self.FULL_RANGE else (levels[0], levels[-1])
        top, low = settings.get("sigma_max") or ends[0].sigma, settings.get("sigma_min") or ends[1].sigma
        levels = SIGMA_SPACINGS[chosen[0]](path, args.steps, sigma_min=low, sigma_max=top)[:-1]
        if chosen[0] in self.ROUNDED and settings["beta_schedule"] != "squaredcos_cap_v2":
            levels = [replace(level, t=float(round(level.t))) for level in levels]
        return levels


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


def _linear_in_sigma(path: VariancePreserving, t: float) -> Level:
    """The level at a time that need not be whole, σ interpolated linearly."""
    below = min(math.floor(t), math.ceil(path.last) - 1)
    if t == below:
        return path.level(t)
    sigma = (1 - (t - below)) * path.level(below).sigma + (t - below) * path.level(below + 1).sigma
    return replace(path.at(sigma), t=t)
