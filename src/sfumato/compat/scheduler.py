"""What diffusers' schedulers share: settings that pass between classes, and the noise levels they give."""

import math
import pathlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise, takewhile
from typing import Any, ClassVar, Self, TypeVar

import numpy as np

from sfumato.checkpoint.layout import SCHEDULER
from sfumato.checkpoint.library import by_name
from sfumato.checkpoint.schedules import path_of
from sfumato.compat.clipping import bound_of
from sfumato.compat.plan import SampleArgs, SamplingPlan
from sfumato.compat.sources import IGNORED, hub_options, no_others, number, part_folder, whole
from sfumato.compat.stepping import SteppingMixin
from sfumato.config.schedule import ScheduleConfig
from sfumato.config.schedulers import SCHEDULERS as DEFAULTS
from sfumato.diffusion import spacing
from sfumato.diffusion.level import CLEAN, Flow, Level, Path, VariancePreserving
from sfumato.diffusion.predict import prediction_named
from sfumato.diffusion.samplers import sampler_named
from sfumato.diffusion.sampling import Sampler
from sfumato.diffusion.thresholding import bounded
from sfumato.errors import CheckpointError, UsageError, nearest, warn
from sfumato.files import make_folder, read_json, write_json

SUPPORTED: dict[str, tuple[Any, ...]] = {
    "use_dynamic_shifting": (False,),
    "prediction_type": ("epsilon", "v_prediction", "sample", "flow_prediction"),
    "variance_type": (None, "fixed_small", "fixed_small_log", "fixed_large"),
    "timestep_type": ("discrete", "continuous"),
    "interpolation_type": ("linear", "log_linear"),
    "final_sigmas_type": ("zero", "sigma_min"),
    "solver_p": (None,),
    "time_shift_type": ("exponential",),
    "invert_sigmas": (False,),
}
"""Settings of which only these values are supported."""
Found = TypeVar("Found")
MOST_STEPS = 1000
"""Steps of spacings by σ that a scheduler with fewer training times takes."""
NEARLY_PURE = 2.0**-24
"""What stands for ᾱ = 0 in schedulers that divide by it."""


class NearlyPure(VariancePreserving):
    """A path to pure noise whose noisiest level has ᾱ = `NEARLY_PURE`, even where the one before has less."""

    def level(self, t: float) -> Level:
        return super().level(t) if t < self.last else self.at(math.sqrt(1 / NEARLY_PURE - 1))

    def at(self, sigma: float) -> Level:
        level = super().at(sigma)
        return replace(level, t=self.last) if level.a**2 <= NEARLY_PURE * (1 + 1e-9) else level


class SchedulerConfig(dict[str, Any]):
    """A scheduler's settings, read as items or attributes.

    Settings of the classes that it was made from stay in it, for schedulers that are made from it.
    """

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(f"this scheduler has no setting {name!r}")


class Scheduler(SteppingMixin, ABC):
    """One of diffusers' schedulers: settings that give a sampler and its levels.

    A pipeline reads the settings only; `set_timesteps` and `step` are for a program's own loop. Raises
    `UsageError` for unknown settings.
    """

    TAKES: ClassVar[frozenset[str]] = frozenset()
    """Which of `timesteps` and `sigmas` a call may give."""
    ENDS: ClassVar[str] = "zero"
    """The noise at the end: "zero", training's "sigma_min", or the name of the setting that says which."""
    DROPPED: ClassVar[int] = 0
    """How many of the least noisy even times are left out."""
    ROUNDED: ClassVar[bool] = True
    """Whether even times are whole."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        known = self.defaults()
        for name, value in list(settings.items()):
            if name not in known:
                raise UsageError(f"{type(self).__name__} has no setting {name!r}; {nearest(name, known)}")
            where, default = f"{type(self).__name__}: {name}", known[name]
            if value is None:
                settings[name] = default
            elif isinstance(default, bool):
                if value not in (True, False):
                    raise UsageError(f"{where} is {value!r}: must be True or False")
            elif isinstance(default, int):
                settings[name] = whole(where, value)
            elif isinstance(default, float):
                number(where, value)
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
    def from_config(cls, config: Mapping[str, Any] | str | pathlib.Path, **changes: Any) -> Self:
        """A scheduler of this class with the settings of another, or of a folder, and with `changes`.

        As in diffusers, settings left at their class's default are not passed on to another class.
        """
        if not isinstance(config, Mapping):
            return cls.from_pretrained(config, **changes)
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
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | pathlib.Path,
        subfolder: str | None = None,
        **changes: Any,
    ) -> Self:
        """The scheduler of a model's folder, or of the hub, as this class, with `changes`.

        Raises `CheckpointError` and `UsageError`.
        """
        config = cls.load_config(pretrained_model_name_or_path, subfolder, **hub_options(changes))
        return cls.from_config(
            config, **{name: value for name, value in changes.items() if name not in IGNORED}
        )

    @classmethod
    def load_config(
        cls,
        pretrained_model_name_or_path: str | pathlib.Path,
        subfolder: str | None = None,
        **others: Any,
    ) -> dict[str, Any]:
        """The content of a model's `scheduler_config.json`; `subfolder` is "scheduler" unless given.

        Raises `CheckpointError`.
        """
        hub = hub_options(others)
        no_others(f"{cls.__name__}.load_config", others)
        source = str(by_name(str(pretrained_model_name_or_path)) or pretrained_model_name_or_path)
        if subfolder is None and not (pathlib.Path(source).expanduser() / SCHEDULER).is_file():
            subfolder = "scheduler"
        folder = part_folder(source, subfolder, config=SCHEDULER, **hub)
        return read_json(folder / SCHEDULER, infinite=True)

    def save_pretrained(self, save_directory: str | pathlib.Path, **others: Any) -> None:
        """Write `scheduler_config.json` into a folder. Raises `OutputError`."""
        no_others("save_pretrained", others)
        make_folder(pathlib.Path(save_directory))
        content = {
            name: value
            for name, value in self.config.items()
            if (name[0] != "_" or name == "_class_name") and not callable(value) and value != -math.inf
        }
        write_json(pathlib.Path(save_directory) / SCHEDULER, content)

    save_config = save_pretrained

    def register_to_config(self, **changes: Any) -> None:
        """Change settings. Raises `UsageError`."""
        self.config = SchedulerConfig({**self.config, **type(self)(**self.settings | changes).config})

    @property
    def compatibles(self) -> "list[type[Scheduler]]":
        """The classes that can be made of its settings, by `from_config`."""
        found: list[type[Scheduler]] = []
        queue: list[Any] = [Scheduler]
        while queue:
            kind = queue.pop()
            queue += kind.__subclasses__()
            found += [kind] if kind.__name__ in DEFAULTS else []
        return sorted(found, key=lambda kind: kind.__name__)

    @property
    def settings(self) -> dict[str, Any]:
        """The class's own settings, without those of other classes in `config`."""
        return {name: self.config[name] for name in self.defaults()}

    @property
    def path(self) -> Path:
        """The path that it samples along. Raises `UsageError` for invalid betas."""
        return self.trained

    @property
    def trained(self) -> VariancePreserving:
        """The path of its betas."""
        path = self._from_schedule(lambda schedule: path_of(schedule)[0])
        if not isinstance(path, VariancePreserving):
            raise UsageError("prediction_type = 'flow_prediction' needs use_flow_sigmas = True")
        return path

    @property
    def prediction(self) -> str:
        """What the network predicts, a name of `sfumato.diffusion.predict`."""
        return prediction_named(self.config["prediction_type"]).name

    def _from_schedule(self, found: Callable[[ScheduleConfig], Found]) -> Found:
        """What the settings say of the network. Raises `UsageError` for invalid ones."""
        name = type(self).__name__
        # the betas' path is the same whatever the network is told, see `SigmaScheduler.continuous`
        unread = {*ScheduleConfig.FIXED, "timestep_type"}
        settings = {key: value for key, value in self.settings.items() if key not in unread}
        if settings.get("trained_betas") is not None:
            settings["trained_betas"] = [float(beta) for beta in settings["trained_betas"]]
        try:
            return found(ScheduleConfig.from_dict({"_class_name": name, **settings}, name))
        except CheckpointError as error:
            raise UsageError(str(error)) from None

    def plan(self, args: SampleArgs) -> SamplingPlan:
        """The sampler and levels for `args`. Raises `UsageError` for what the class does not support."""
        for name in ("timesteps", "sigmas"):
            if getattr(args, name) is not None and name not in self.TAKES:
                raise UsageError(f"{type(self).__name__} takes no {name}")
        if args.timesteps is not None and args.sigmas is not None:
            raise UsageError("only one of timesteps and sigmas can be given")
        if args.steps > (most := max(self.config["num_train_timesteps"], MOST_STEPS)):
            raise UsageError(f"num_inference_steps is {args.steps}: must be at most {most}")
        path = self.path
        levels = self.levels(path, args)
        levels = [*levels, CLEAN] if args.sigmas is not None else self.ended(path, levels)
        sampler, draws = self.sampler(args, levels)
        unused = (
            len([*takewhile(lambda pair: pair[0].sigma == pair[1].sigma, pairwise(levels))]) if draws else 0
        )
        return SamplingPlan(
            sampler,
            levels[args.first :],
            self.noise_scale(levels),
            self.EXPLODING,
            draws=draws - max(unused, args.first),
            unused=max(unused - args.first, 0),
        )

    def noise_scale(self, levels: Sequence[Level]) -> float:
        """What diffusers multiplies noise with that a drawing over `levels` begins with."""
        return 1.0

    @abstractmethod
    def levels(self, path: Path, args: SampleArgs) -> list[Level]:
        """A level for each step, without the one to end at."""

    def sampler(self, args: SampleArgs, levels: Sequence[Level]) -> tuple[Sampler, int]:
        """The sampler over `levels`, the last included, and how many times diffusers draws noise for it.

        The sampler begins with level number `args.first`.
        """
        return sampler_named(type(self).__name__).sample, 0

    @property
    def ends_clean(self) -> bool:
        """Whether sampling ends without noise, not at the least noisy level of training."""
        return self.settings.get(self.ENDS, self.ENDS) in ("zero", True)

    def ended(self, path: Path, levels: Sequence[Level]) -> list[Level]:
        """`levels` and the one to end at, which may be the last of them again."""
        return [*levels, CLEAN if self.ends_clean else path.level(path.first)]

    def times(self, path: Path, args: SampleArgs) -> list[float]:
        """The call's `timesteps`, or even times as `timestep_spacing` and `steps_offset` say."""
        settings, count, n = self.settings, self.config["num_train_timesteps"], args.steps
        if args.timesteps is not None:
            given = [float(t) for t in args.timesteps]
            falling = all(before > after for before, after in pairwise(given))
            if not (given and falling and given[0] < count and given[-1] >= 0):
                raise UsageError(f"timesteps must fall from below {count} to 0 or more, not {given}")
            return given
        if n > count:
            raise UsageError(f"num_inference_steps is {n}: the scheduler has {count} training times")
        offset, reach = settings.get("steps_offset", 0), self.reach(path)
        if not 0 <= offset < count:
            raise UsageError(f"steps_offset is {offset}: must be 0 to {count - 1}")
        points = n + self.DROPPED
        match settings.get("timestep_spacing", "linspace"):
            case "leading":
                if points > reach:
                    most = f"at most {reach - self.DROPPED} steps, or another timestep_spacing"
                    raise UsageError(f"num_inference_steps is {n}: 'leading' of this scheduler needs {most}")
                return [float(offset + (points - 1 - i) * (reach // points)) for i in range(n)]
            case "trailing":
                strides = (i * (count / n) for i in range(n))
                return [float(round(reach - stride) - 1) for stride in strides if stride < reach]
        even = np.linspace(0, reach - 1, points)[::-1][:n].tolist()
        return [float(round(t)) for t in even] if self.ROUNDED else even

    def reach(self, path: Path) -> int:
        """How many training times are used: those of λ above `lambda_min_clipped`."""
        least: float = self.settings.get("lambda_min_clipped", -math.inf)
        levels = [path.level(t) for t in range(int(path.last) + 1)] if least > -math.inf else []
        clipped = sum(level.lam < least for level in levels)
        left: int = self.config["num_train_timesteps"] - clipped
        if left < 2:
            raise UsageError(f"lambda_min_clipped is {least}: no training times are left")
        return left

    def bounded(self, sampler: Sampler) -> Sampler:
        """`sampler` with its clean estimates as `thresholding` and `clip_sample` say."""
        bound = bound_of(self.settings)
        return sampler if bound is None else bounded(sampler, bound)

    def check(self, name: str, allowed: Sequence[Any]) -> None:
        """Raise `UsageError` for a setting whose value is not one of `allowed`."""
        if self.config[name] not in allowed:
            right = " or ".join(map(repr, allowed))
            raise UsageError(
                f"{type(self).__name__}: {name} = {self.config[name]!r} is not supported, only {right}"
            )

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{type(self).__name__} has no {name!r}")

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.config.items() if k[0] != '_')})"
        )


class TimestepScheduler(Scheduler):
    """Levels at training times; latents are not rescaled."""

    def levels(self, path: Path, args: SampleArgs) -> list[Level]:
        times = self.times(path, args)
        beyond = max(0.0, times[0] - path.last)
        return [path.level(t - beyond) for t in times]


class SigmaScheduler(Scheduler):
    """Levels at σ = s/a: those of even times, or as `use_karras_sigmas` and the like say."""

    FULL_RANGE: ClassVar[bool] = False
    """Whether those spacings span all training times, not the range of the even times."""
    WHOLE: ClassVar[tuple[str, ...]] = ()
    """The spacings whose times are rounded to training times."""
    TRUNCATED: ClassVar[bool] = False
    """Whether times are cut off to whole ones at last."""
    LAST: ClassVar[tuple[str, ...]] = ()
    """The spacings that end at their own last level where noise is left."""

    @property
    def path(self) -> Path:
        if self.settings.get("use_flow_sigmas"):
            return Flow(float(self.config["num_train_timesteps"]))
        path = self.trained
        return NearlyPure(path.alphas_cumprod) if path.level(path.last).a == 0 else path

    @property
    def continuous(self) -> bool:
        """Whether the network is told ln σ/4; other networks than those of v ignore the setting."""
        v = self.config["prediction_type"] == "v_prediction"
        return v and self.settings.get("timestep_type") == "continuous"

    @property
    def whole(self) -> Collection[str]:
        """`WHOLE`, if the other settings allow it."""
        return self.WHOLE

    @property
    def other_spacing(self) -> str | None:
        """The setting of another spacing than even times, if there is one."""
        chosen = [name for name in (*SIGMA_SPACINGS, "use_flow_sigmas") if self.settings.get(name)]
        if len(chosen) > 1:
            raise UsageError(f"only one of {' and '.join(chosen)} can be used")
        return chosen[0] if chosen else None

    def levels(self, path: Path, args: SampleArgs) -> list[Level]:
        settings, chosen = self.settings, self.other_spacing
        if args.timesteps is not None and chosen:
            raise UsageError(f"timesteps cannot be given together with {chosen}")
        if args.sigmas is not None:
            return [path.at(sigma) for sigma in _falling(args.sigmas)[:-1]]
        if chosen == "use_flow_sigmas":
            levels = self.flow_levels(path, args.steps)
        elif chosen and self.FULL_RANGE:
            levels = self.spaced(path, args.steps, chosen, [path.level(path.last), path.level(path.first)])
        else:
            levels = [_linear_in_sigma(path, t) for t in self.times(path, args)]
            if settings.get("interpolation_type") == "log_linear":
                even = spacing.exponential(path, args.steps + 1)[:-1]
                times = [*(level.t for level in levels), path.first]
                levels = [replace(path.at(at.sigma), t=t) for at, t in zip(even, times, strict=True)]
            if chosen:
                levels = self.spaced(path, args.steps, chosen, levels)
            levels = levels if self.continuous else levels[: args.steps]
        if self.continuous:
            levels = [replace(level, t=0.25 * math.log(level.sigma)) for level in levels]
        if self.TRUNCATED:
            levels = [replace(level, t=float(math.floor(level.t + 1e-6))) for level in levels]
        return levels

    def spaced(self, path: Path, n: int, chosen: str, span: Sequence[Level]) -> list[Level]:
        """`n` levels by the setting `chosen`, over `sigma_min` to `sigma_max` or else over `span`."""
        low, high = self.end("sigma_min", span[-1]), self.end("sigma_max", span[0])
        if low > high and n > 1:
            raise UsageError(f"sigma_min = {low:g} is above sigma_max = {high:g}")
        levels = SIGMA_SPACINGS[chosen](path, n, sigma_min=low, sigma_max=high)[:-1]
        if chosen in self.whole:
            levels = [replace(level, t=float(round(level.t))) for level in levels]
        return levels

    def flow_levels(self, path: Path, n: int) -> list[Level]:
        """Levels at even times of the straight path, shifted by `flow_shift`, without the clean one."""
        even = np.linspace(0, path.last - 1, n + 1)[:0:-1].tolist()
        return [path.level(shifted(u / path.last, self.config["flow_shift"]) * path.last) for u in even]

    def end(self, name: str, level: Level) -> float:
        """One end of another spacing: the setting `name`, or the σ of `level`."""
        sigma = self.settings.get(name)
        if sigma is None:
            return level.sigma
        if not 0 < sigma < math.inf:
            raise UsageError(f"{name} is {sigma}: must be positive")
        return float(sigma)

    def ended(self, path: Path, levels: Sequence[Level]) -> list[Level]:
        if not self.ends_clean and self.other_spacing in self.LAST:
            return [*levels, levels[-1]]
        if self.settings.get("interpolation_type") == "log_linear" and not (
            self.other_spacing or self.continuous
        ):
            return [*levels, path.level(path.first)]
        return super().ended(path, levels)


class KDiffusionScheduler(SigmaScheduler):
    """A sampler of k-diffusion: latents are scaled to a = 1, even times are not rounded."""

    ROUNDED, EXPLODING = False, True

    def noise_scale(self, levels: Sequence[Level]) -> float:
        start = levels[0].sigma
        return math.hypot(start, 1) if self.config["timestep_spacing"] == "leading" else start


class SolverScheduler(SigmaScheduler):
    """DPM-Solver, UniPC and the like: even times without the least noisy one, whole times."""

    DROPPED, FULL_RANGE, TRUNCATED = 1, True, True
    WHOLE: ClassVar[tuple[str, ...]] = ("use_karras_sigmas",)
    ORDERS: ClassVar[Mapping[str, tuple[int, ...]]] = {"solver_order": (1, 2, 3)}

    def plan(self, args: SampleArgs) -> SamplingPlan:
        for name, allowed in self.ORDERS.items():
            self.check(name, allowed)
        return super().plan(args)

    def chosen(self, name: str, known: Mapping[str, str]) -> str:
        """The value of a setting in this class's terms: `known` translates those of other classes."""
        if self.config[name] not in known:
            self.check(name, sorted({*known.values()}))
        return known[self.config[name]]


def beta_sigmas(path: Path, n: int, *, sigma_min: float, sigma_max: float) -> list[Level]:
    """σ, not time, at even quantiles of a Beta(0.6, 0.6) distribution."""
    quantiles = (spacing.beta_quantile(1 - i / max(n - 1, 1), 0.6, 0.6) for i in range(n))
    return [*(path.at(sigma_min + q * (sigma_max - sigma_min)) for q in quantiles), CLEAN]


SIGMA_SPACINGS = {
    "use_karras_sigmas": spacing.karras,
    "use_lu_lambdas": spacing.exponential,
    "use_exponential_sigmas": spacing.exponential,
    "use_beta_sigmas": beta_sigmas,
}


def shifted(u: float, shift: float) -> float:
    """A time u of a flow, in [0, 1], moved towards noise (Esser et al. 2024, eq. 23)."""
    return shift * u / (1 + (shift - 1) * u)


def _falling(sigmas: Sequence[float]) -> list[float]:
    """A call's `sigmas` as numbers. Raises `UsageError` unless they fall to 0 or more."""
    given = [float(sigma) for sigma in sigmas]
    falling = all(before > after for before, after in pairwise(given))
    if len(given) < 2 or not (falling and given[0] < math.inf and given[-1] >= 0):
        raise UsageError(f"sigmas must fall to 0 or more, at least two of them, not {given}")
    return given


def _linear_in_sigma(path: Path, t: float) -> Level:
    """The level at time `t`, which need not be whole, σ interpolated linearly instead of ln σ.

    Beyond the path's ends only the time goes on.
    """
    below = path.level(math.floor(t))
    part = t - below.t
    if part <= 0 or below.t == path.last:
        return replace(below, t=t)
    return replace(path.at((1 - part) * below.sigma + part * path.level(below.t + 1).sigma), t=t)
