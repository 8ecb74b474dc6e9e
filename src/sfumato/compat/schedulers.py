"""diffusers' schedulers by name: which sampler each is, and with which options."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sfumato.checkpoint.schedules import path_of, prediction_of
from sfumato.compat.clipping import bound_of
from sfumato.compat.plan import SampleArgs, SamplingPlan
from sfumato.compat.pndm import pndm_cut, repeated_second
from sfumato.compat.scheduler import (
    SIGMA_SPACINGS,
    KDiffusionScheduler,
    Scheduler,
    SolverScheduler,
    TimestepScheduler,
    shifted,
)
from sfumato.config.schedulers import SCHEDULERS as DEFAULTS
from sfumato.diffusion import spacing
from sfumato.diffusion.level import CLEAN, Level, Path, VarianceExploding, VariancePreserving
from sfumato.diffusion.samplers.consistency import lcm, tcd
from sfumato.diffusion.samplers.ddim import ddim, ddim_inverse, ddpm, euler, euler_a
from sfumato.diffusion.samplers.dpm import dpm_solver_multistep, dpmpp_multistep, singlestep
from sfumato.diffusion.samplers.multistep import deis, lms, pndm
from sfumato.diffusion.samplers.rules import Solver
from sfumato.diffusion.samplers.runge_kutta import dpm2_a, heun
from sfumato.diffusion.samplers.sa_solver import sa_solver
from sfumato.diffusion.samplers.unipc import unipc
from sfumato.diffusion.sampling import Noise, Sampler, Sampling, resumed
from sfumato.diffusion.thresholding import bounded_ddim
from sfumato.errors import UsageError, nearest

_FEW = 15
"""With fewer steps `lower_order_final` takes effect."""
_TIMES = frozenset({"timesteps"})


class DDIMScheduler(TimestepScheduler):
    ENDS = "set_alpha_to_one"

    def sampler(self, args: SampleArgs, levels: Sequence[Level]) -> tuple[Sampler, int]:
        if not args.eta >= 0:
            raise UsageError(f"eta is {args.eta}: must be 0 or more")
        sampler: Sampler = partial(ddim, eta=args.eta)
        if (bound := bound_of(self.settings)) is not None:
            sampler = partial(bounded_ddim, bound=bound, eta=args.eta)
        stride = self.config["num_train_timesteps"] // args.steps

        def target(level: Level) -> Level:
            """A step goes back by training times / steps, even where the next step begins at another time."""
            return level.path.level(level.t - stride) if level.path and level.t >= stride else levels[-1]

        return one_by_one(sampler, target), args.steps if args.eta > 0 else 0


def one_by_one(sampler: Sampler, target: Callable[[Level], Level]) -> Sampler:
    """`sampler` in steps of their own: from each level to its target, not to the next level."""

    def sample(x: Tensor, levels: Sequence[Level], noise: Noise) -> Sampling:
        for step, here in enumerate(levels[:-1]):
            x = yield from resumed(sampler(x, (here, target(here)), noise), step)
        return x

    return sample


class DDIMParallelScheduler(DDIMScheduler):
    """`DDIMScheduler`; what it adds is for pipelines that evaluate several steps at once."""


class DDIMInverseScheduler(TimestepScheduler):
    """From a picture's latents to the noise that DDIM draws them from."""

    def levels(self, path: Path, args: SampleArgs) -> list[Level]:
        self.check("timestep_spacing", ("leading", "trailing"))
        times = self.times(path, args)[::-1]
        stride = self.config["num_train_timesteps"] // args.steps
        first = CLEAN if self.config["set_alpha_to_one"] else path.level(path.first)
        levels = [path.level(t - stride) if t >= stride else first for t in times]
        return [*(replace(level, t=t) for level, t in zip(levels, times, strict=True)), path.level(times[-1])]

    def ended(self, path: Path, levels: Sequence[Level]) -> list[Level]:
        return list(levels)

    def sampler(self, args: SampleArgs, levels: Sequence[Level]) -> tuple[Sampler, int]:
        path = self.path
        sampler = partial(ddim_inverse, bound=bound_of(self.settings))
        return one_by_one(sampler, lambda here: path.level(here.t)), 0


class DDPMScheduler(TimestepScheduler):
    TAKES = _TIMES

    def sampler(self, args: SampleArgs, levels: Sequence[Level]) -> tuple[Sampler, int]:
        sampler = partial(ddpm, large=self.config["variance_type"] == "fixed_large")
        return self.bounded(sampler), sum(level.t > 0 for level in levels)


class DDPMParallelScheduler(DDPMScheduler):
    """`DDPMScheduler`; what it adds is for pipelines that evaluate several steps at once."""


class PNDMScheduler(TimestepScheduler):
    ENDS = "set_alpha_to_one"

    def plan(self, args: SampleArgs) -> SamplingPlan:
        plan = super().plan(args)
        if not (args.first and self.config["skip_prk_steps"]):
            return plan
        path, stride = self.path, self.config["num_train_timesteps"] // args.steps
        whole = super().plan(replace(args, first=0)).levels

        def after(level: Level) -> Level:
            return path.level(level.t - stride) if level.t >= stride else whole[-1]

        sampler = partial(pndm_cut, before=lambda level: path.level(level.t + stride), after=after)
        return replace(plan, sampler=sampler, levels=[*repeated_second(whole)[args.first :], whole[-1]])

    def sampler(self, args: SampleArgs, levels: Sequence[Level]) -> tuple[Sampler, int]:
        warm_up = not self.config["skip_prk_steps"]
        return ddim if len(levels) == 2 else partial(pndm, warm_up=warm_up, whole=True), 0


class _ConsistencyScheduler(TimestepScheduler):
    """Levels at the times that a consistency model was distilled at."""

    TAKES = _TIMES

    def levels(self, path: Path, args: SampleArgs) -> list[Level]:
        if args.timesteps is not None:
            return super().levels(path, args)
        count = self.config["num_train_timesteps"]
        known = args.original_steps
        known = self.config["original_inference_steps"] if known is None else known
        if not 1 <= known <= count:
            raise UsageError(f"original_inference_steps is {known}: must be 1 to {count}")
        used = int(known * args.strength)
        if args.steps > used:
            part = f" × strength {args.strength:g}" if args.strength < 1 else ""
            most = f"at most original_inference_steps = {known}{part}"
            raise UsageError(f"num_inference_steps is {args.steps}: must be {most}")
        if args.strength < 1:
            stride = count // known
            return [path.level((used - used * i // args.steps) * stride - 1) for i in range(args.steps)]
        return spacing.lcm(path, args.steps, origin=known)[:-1]


class LCMScheduler(_ConsistencyScheduler):
    def sampler(self, args: SampleArgs, levels: Sequence[Level]) -> tuple[Sampler, int]:
        return self.bounded(partial(lcm, scaling=self.config["timestep_scaling"])), args.steps - 1


class TCDScheduler(_ConsistencyScheduler):
    ENDS = "sigma_min"
    ETA = 0.3

    def sampler(self, args: SampleArgs, levels: Sequence[Level]) -> tuple[Sampler, int]:
        if not 0 <= args.eta <= 1:
            raise UsageError(f"eta is {args.eta}: must be 0 to 1")
        return partial(tcd, eta=args.eta, whole=True), args.steps - 1 if args.eta > 0 else 0


class EulerDiscreteScheduler(KDiffusionScheduler):
    ENDS = "final_sigmas_type"
    TAKES = frozenset({"timesteps", "sigmas"})


class EulerAncestralDiscreteScheduler(KDiffusionScheduler):
    def sampler(self, args: SampleArgs, levels: Sequence[Level]) -> tuple[Sampler, int]:
        return euler_a, args.steps


class HeunDiscreteScheduler(KDiffusionScheduler):
    TAKES = _TIMES
    order = 2

    def sampler(self, args: SampleArgs, levels: Sequence[Level]) -> tuple[Sampler, int]:
        return self.bounded(heun), 0


class KDPM2DiscreteScheduler(KDiffusionScheduler):
    WHOLE = ("use_karras_sigmas",)
    order = 2


class KDPM2AncestralDiscreteScheduler(KDiffusionScheduler):
    WHOLE = ("use_karras_sigmas",)
    order = 2

    def sampler(self, args: SampleArgs, levels: Sequence[Level]) -> tuple[Sampler, int]:
        return dpm2_a, args.steps - 1


class DPMSolverSDEScheduler(KDiffusionScheduler):
    order = 2


class LMSDiscreteScheduler(KDiffusionScheduler):
    def sampler(self, args: SampleArgs, levels: Sequence[Level]) -> tuple[Sampler, int]:
        return partial(lms, bootstrap=False), 0


_SOLVERS = dict.fromkeys(("midpoint", "logrho", "bh1", "bh2"), "midpoint") | {"heun": "heun"}
_ALGORITHMS = {each: each for each in ("dpmsolver++", "sde-dpmsolver++", "dpmsolver", "sde-dpmsolver")}
_ALGORITHMS["deis"] = "dpmsolver++"


class _DPMSolverScheduler(SolverScheduler):
    ENDS = "final_sigmas_type"
    TAKES = _TIMES

    def algorithm(self) -> str:
        """The `algorithm_type`. Raises `UsageError` where it cannot end without noise but should."""
        name = self.chosen("algorithm_type", _ALGORITHMS)
        if name in ("dpmsolver", "sde-dpmsolver") and self.ends_clean:
            raise UsageError(f"algorithm_type = {name!r} needs final_sigmas_type = 'sigma_min'")
        return name

    def ended(self, path: Path, levels: Sequence[Level]) -> list[Level]:
        if self.config["use_flow_sigmas"] and not self.ends_clean:
            prediction = {"prediction_type": "epsilon"}
            sigma_min = type(self)(**self.settings | prediction).trained.level(0).sigma
            return [*levels, path.level(sigma_min * path.last)]
        return super().ended(path, levels)


class DPMSolverMultistepScheduler(_DPMSolverScheduler):
    WHOLE = ("use_karras_sigmas", "use_lu_lambdas")

    def plan(self, args: SampleArgs) -> SamplingPlan:
        return replace(super().plan(args), noise_dtype=torch.float32)

    @property
    def whole(self) -> Collection[str]:
        return () if self.settings["beta_schedule"] == "squaredcos_cap_v2" else self.WHOLE

    def sampler(self, args: SampleArgs, levels: Sequence[Level]) -> tuple[Sampler, int]:
        order, algorithm = self.config["solver_order"], self.algorithm()
        heun, eta = self.chosen("solver_type", _SOLVERS) == "heun", float(algorithm.startswith("sde"))
        solver: Solver = "heun" if heun else "midpoint"
        if order == 3 and algorithm == "sde-dpmsolver++":
            solver = "published-sde-heun" if heun else "published-sde"
        elif order == 3:
            solver = "published-heun" if heun else "published"
        sampler = partial(
            dpm_solver_multistep if algorithm.endswith("dpmsolver") else dpmpp_multistep,
            order=order,
            eta=eta,
            solver=solver,
            bootstrap=False,
            lower_order_final=self.config["lower_order_final"] and len(levels) <= _FEW,
            euler_at_final=self.config["euler_at_final"],
        )
        return self.bounded(sampler), len(levels) - 1 if eta else 0


class EDMScheduler(Scheduler):
    """A scheduler of EDM (Karras et al. 2022): levels by σ alone, latents in the scale a = 1."""

    ENDS, EXPLODING = "final_sigmas_type", True

    @property
    def path(self) -> Path:
        path = self._from_schedule(lambda schedule: path_of(schedule)[0])
        assert isinstance(path, VarianceExploding)
        return path

    @property
    def prediction(self) -> str:
        return self._from_schedule(prediction_of)

    @property
    def trained(self) -> VariancePreserving:
        raise UsageError(f"{type(self).__name__} has no betas: its levels are sigmas")

    def levels(self, path: Path, args: SampleArgs) -> list[Level]:
        if self.config["sigma_schedule"] == "karras":
            return spacing.karras(path, args.steps, rho=self.config["rho"])[:-1]
        return spacing.exponential(path, args.steps)[:-1]

    def noise_scale(self, levels: Sequence[Level]) -> float:
        return math.hypot(self.config["sigma_max"], 1)

    def ended(self, path: Path, levels: Sequence[Level]) -> list[Level]:
        return [*levels, CLEAN if self.ends_clean else path.at(self.config["sigma_min"])]


class EDMEulerScheduler(EDMScheduler):
    def sampler(self, args: SampleArgs, levels: Sequence[Level]) -> tuple[Sampler, int]:
        return euler, 0


class EDMDPMSolverMultistepScheduler(EDMScheduler, DPMSolverMultistepScheduler):
    TAKES = frozenset()

    def algorithm(self) -> str:
        self.check("algorithm_type", ("dpmsolver++", "sde-dpmsolver++", "deis"))
        return super().algorithm()


class DPMSolverSinglestepScheduler(_DPMSolverScheduler):
    def sampler(self, args: SampleArgs, levels: Sequence[Level]) -> tuple[Sampler, int]:
        self.check("algorithm_type", ("dpmsolver++", "sde-dpmsolver++", "dpmsolver", "deis"))
        algorithm = self.algorithm()
        solver: Solver = "heun" if self.chosen("solver_type", _SOLVERS) == "heun" else "midpoint"
        eta = float(algorithm == "sde-dpmsolver++")
        sampler = partial(
            singlestep,
            order=self.config["solver_order"],
            of_noise=algorithm == "dpmsolver",
            eta=eta,
            solver=solver,
            lower_order_final=self.config["lower_order_final"],
            before=levels[: args.first],
        )
        return self.bounded(sampler), len(levels) - 1 if eta else 0


class UniPCMultistepScheduler(SolverScheduler):
    ENDS, LAST = "final_sigmas_type", (*SIGMA_SPACINGS, "use_flow_sigmas")

    def flow_levels(self, path: Path, n: int) -> list[Level]:
        """Levels that begin with noise, all but pure."""
        even = np.linspace(1, 1 / path.last, n + 1)[:-1].tolist()
        us = [shifted(u, self.config["flow_shift"]) for u in even]
        if terminal := self.config["shift_terminal"]:
            if n == 1:
                raise UsageError("shift_terminal needs at least 2 steps")
            us = [1 - (1 - u) * (1 - terminal) / (1 - us[-1]) for u in us]
        return [path.level(min(u, 1 - 1e-6) * path.last) for u in us]

    def sampler(self, args: SampleArgs, levels: Sequence[Level]) -> tuple[Sampler, int]:
        known = dict.fromkeys(("bh2", "midpoint", "heun", "logrho"), "bh2") | {"bh1": "bh1"}
        of_noise = not self.config["predict_x0"]
        sampler = partial(
            unipc,
            order=self.config["solver_order"],
            solver="bh1" if self.chosen("solver_type", known) == "bh1" else "midpoint",
            of_noise=of_noise,
            lower_order_final=self.config["lower_order_final"],
            uncorrected=[step - args.first for step in self.config["disable_corrector"]],
        )
        # diffusers does not bound estimates with predict_x0 = False
        return sampler if of_noise else self.bounded(sampler), 0


class DEISMultistepScheduler(SolverScheduler):
    ENDS, LAST = "sigma_min", (*SIGMA_SPACINGS, "use_flow_sigmas")

    def sampler(self, args: SampleArgs, levels: Sequence[Level]) -> tuple[Sampler, int]:
        self.chosen("algorithm_type", dict.fromkeys(("deis", "dpmsolver", "dpmsolver++"), "deis"))
        self.chosen("solver_type", dict.fromkeys(("logrho", "midpoint", "heun", "bh1", "bh2"), "logrho"))
        lower = self.config["lower_order_final"] and len(levels) <= _FEW
        order = self.config["solver_order"]
        return self.bounded(partial(deis, order=order, bootstrap=False, lower_order_final=lower)), 0


class SASolverScheduler(SolverScheduler):
    ENDS, LAST = "sigma_min", (*SIGMA_SPACINGS, "use_flow_sigmas")
    ORDERS = MappingProxyType({"predictor_order": (1, 2, 3, 4), "corrector_order": (1, 2, 3, 4)})

    def sampler(self, args: SampleArgs, levels: Sequence[Level]) -> tuple[Sampler, int]:
        self.check("algorithm_type", ("data_prediction", "noise_prediction"))
        tau = self.config["tau_func"] or (lambda t: float(200 <= t <= 800))
        sampler = partial(
            sa_solver,
            tau=lambda level: tau(level.t),
            predictor_order=self.config["predictor_order"],
            corrector_order=self.config["corrector_order"],
            of_noise=self.config["algorithm_type"] == "noise_prediction",
            lower_order_final=self.config["lower_order_final"],
        )
        return self.bounded(sampler), len(levels) - 1


SCHEDULERS: dict[str, type[Scheduler]] = {
    name: kind for name, kind in sorted(globals().items()) if name in DEFAULTS
}


AysSchedules = {
    "StableDiffusionTimesteps": [999, 850, 736, 645, 545, 455, 343, 233, 124, 24],
    "StableDiffusionSigmas": [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.0],
    "StableDiffusionXLTimesteps": [999, 845, 730, 587, 443, 310, 193, 116, 53, 13],
    "StableDiffusionXLSigmas": [14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.38, 0.234, 0.113, 0.0],
}
"""Times and sigmas for ten steps (Sabour et al. 2024, Align Your Steps), for `timesteps=` and `sigmas=`."""


def scheduler_of(config: Mapping[str, Any]) -> Scheduler:
    """The scheduler that a model's `scheduler_config.json` names. Raises `UsageError` for another."""
    name = str(config.get("_class_name"))
    if name not in SCHEDULERS:
        raise UsageError(f"the scheduler {name} is not supported; {nearest(name, SCHEDULERS)}")
    return SCHEDULERS[name].from_config(config)
