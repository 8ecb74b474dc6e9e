"""What diffusers' schedulers share: settings that pass from class to class, and a plan to draw by."""

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Self

import torch

from sfumato.checkpoint.source import locate
from sfumato.compat import layout
from sfumato.diffusion.level import Level, VariancePreserving
from sfumato.diffusion.sampling import Sampler
from sfumato.errors import CheckpointError, SfumatoWarning, UsageError, nearest
from sfumato.files import read_json

COMMON: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "prediction_type": "epsilon",
    "timestep_spacing": "linspace",
    "steps_offset": 0,
}
"""The settings of every scheduler, with the values that most classes give them."""

UNKNOWN_TO_US: dict[str, tuple[Any, ...]] = {
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
"""Settings with the values that are supported here."""


class Config(dict[str, Any]):
    """A scheduler's settings, to be read as items or attributes.

    Those of other classes that it was made from stay in it, and go on to whatever is made from it.
    """

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(f"this scheduler has no setting {name!r}")


@dataclass(frozen=True, eq=False)
class Plan:
    """How to draw: where the sampler stops, and how diffusers counts along.

    `start`: the scale of the initial noise. `exploding`: latents are seen in the a = 1 scaling. `draws`: how
    many times noise is asked for in all. `noise_dtype`: its precision, if not the network's.
    """

    sampler: Sampler
    levels: Sequence[Level]
    start: float = 1.0
    exploding: bool = False
    draws: int = 0
    noise_dtype: torch.dtype | None = None

    @cached_property
    def times(self) -> list[float]:
        """The time of every evaluation."""
        x, seen = torch.zeros(1, 1, 1, 1), []
        sampling = self.sampler(x, self.levels, torch.zeros_like)
        try:
            point = next(sampling)
            while True:
                seen.append(point.level.t)
                point = sampling.send(x)
        except StopIteration:
            return seen


@dataclass(frozen=True)
class SampleArgs:
    """What a call asks of its scheduler."""

    steps: int = 50
    eta: float = 0.0
    timesteps: Sequence[float] | None = None
    sigmas: Sequence[float] | None = None
    origin: int | None = None
    """The number of times that a consistency model was trained at."""


class Scheduler(ABC):
    """One of diffusers' schedulers by its name: only settings, and the plan they make.

    Stepping by hand is not supported: hand it to a pipeline. Raises `UsageError` for settings that the class
    does not have.
    """

    OWN: ClassVar[Mapping[str, Any]] = {}
    """The class's settings beside `COMMON`, or with other values than there."""
    WITHOUT: ClassVar[frozenset[str]] = frozenset()
    """Those of `COMMON` that it does not have."""
    TAKES: ClassVar[frozenset[str]] = frozenset()
    """Which of `timesteps` and `sigmas` a call may give it."""
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
        for name, allowed in UNKNOWN_TO_US.items():
            if name in self.config and self.config[name] not in allowed:
                self.refuse(name, allowed)

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Every setting of the class."""
        return {name: value for name, value in COMMON.items() if name not in cls.WITHOUT} | dict(cls.OWN)

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
                if name not in _everywhere():
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
        """The path of its betas."""
        return layout.path(self.settings, nearly_pure=isinstance(self, SigmaScheduler))

    def plan(self, args: SampleArgs) -> Plan:
        """How to draw what is asked for. Raises `UsageError` for what the class cannot do."""
        for name in ("timesteps", "sigmas"):
            if getattr(args, name) is not None and name not in self.TAKES:
                raise UsageError(f"{type(self).__name__} takes no {name}")
        if args.timesteps is not None and args.sigmas is not None:
            raise UsageError("only one of timesteps and sigmas can be given")
        return self._plan(args)

    @abstractmethod
    def _plan(self, args: SampleArgs) -> Plan:
        """The plan, once the arguments are known to go together."""

    def refuse(self, name: str, allowed: Sequence[Any]) -> None:
        """Raise `UsageError` for a setting whose value is not supported."""
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
    """Stops at training times, in the network's own scaling."""

    def stops(self, args: SampleArgs) -> tuple[VariancePreserving, list[Level]]:
        """The path, and a level for each step."""
        if args.timesteps is not None:
            times = descending(args.timesteps, self.config["num_train_timesteps"])
        elif "original_inference_steps" in self.settings:
            times = layout.distilled_times(self.settings, args.steps, args.origin)
        else:
            times = layout.even_times(self.settings, args.steps)
        way = self.path
        return way, [way.level(t) for t in times]


class SigmaScheduler(Scheduler):
    """Stops at sigmas, which may be laid out as Karras et al. 2022 do, or in other ways."""

    OWN: ClassVar[Mapping[str, Any]] = {
        "use_karras_sigmas": False,
        "use_exponential_sigmas": False,
        "use_beta_sigmas": False,
    }
    DROPPED: ClassVar[int] = 0
    WHOLE: ClassVar[bool] = False
    """Whether even times are whole."""
    FULL: ClassVar[bool] = False
    """Whether bent sigmas begin and end where training did, not where even times would."""
    ROUNDED: ClassVar[tuple[str, ...]] = ()
    """The bends whose times are rounded to training times."""

    def stops(self, args: SampleArgs) -> tuple[VariancePreserving, list[Level]]:
        """The path, and a level for each step."""
        settings = self.settings
        way, kind = self.path, layout.sigma_schedule(settings)
        if args.timesteps is not None and kind:
            raise UsageError(f"timesteps cannot be given together with use_{kind}_sigmas")
        if args.sigmas is not None:
            sigmas = [float(sigma) for sigma in args.sigmas][:-1]
            return way, layout.at_sigmas(way, sigmas, [way.time(sigma) for sigma in sigmas])
        if args.timesteps is not None:
            times = descending(args.timesteps, settings["num_train_timesteps"])
        else:
            times = layout.even_times(settings, args.steps, dropped=self.DROPPED, rounded=self.WHOLE)
        sigmas = [layout.sigma_at(way, t) for t in times]
        if kind:
            ends = (way.last, way.first) if self.FULL else (times[0], times[-1])
            top, low = (layout.sigma_at(way, t) for t in ends)
            top, low = settings.get("sigma_max") or top, settings.get("sigma_min") or low
            sigmas = layout.bent_sigmas(kind, top, low, args.steps)
            times = [way.time(sigma) for sigma in sigmas]
            if kind in self.ROUNDED and settings["beta_schedule"] != "squaredcos_cap_v2":
                times = [float(round(t)) for t in times]
        return way, layout.at_sigmas(way, sigmas, times)

    def start(self, stops: Sequence[Level]) -> float:
        """The scale of the initial noise in the a = 1 scaling."""
        top = stops[0].sigma
        return math.hypot(top, 1) if self.config["timestep_spacing"] == "leading" else top


def descending(times: Sequence[float], count: int) -> list[float]:
    """`times` that a caller gave. Raises `UsageError` unless they fall, within [0, `count`)."""
    given = [float(t) for t in times]
    falling = all(before > after for before, after in pairwise(given))
    if not given or not falling or given[0] >= count or given[-1] < 0:
        raise UsageError(f"timesteps must fall from below {count} to 0 or more, not {given}")
    return given


def _everywhere() -> set[str]:
    """The settings of every class."""
    found: set[str] = set()
    waiting = [Scheduler]
    while waiting:
        each = waiting.pop()
        found |= set(each.defaults())
        waiting += each.__subclasses__()
    return found
