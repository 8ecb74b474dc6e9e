"""diffusers' schedulers by name: which sampler each is, and with which options."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from sfumato.compat.clipping import clamped_ddim
from sfumato.compat.scheduler import (
    KDiffusionScheduler,
    SampleArgs,
    Scheduler,
    SolverScheduler,
    TimestepScheduler,
)
from sfumato.config.schedulers import SCHEDULERS as DEFAULTS
from sfumato.diffusion import spacing
from sfumato.diffusion.level import Level, VariancePreserving
from sfumato.diffusion.samplers.consistency import lcm, tcd
from sfumato.diffusion.samplers.ddim import ddim, ddpm, euler_a
from sfumato.diffusion.samplers.dpm import dpm_solver_multistep, dpmpp_multistep, singlestep
from sfumato.diffusion.samplers.multistep import deis, lms, pndm
from sfumato.diffusion.samplers.rules import Solver
from sfumato.diffusion.samplers.runge_kutta import dpm2_a, heun
from sfumato.diffusion.samplers.unipc import unipc
from sfumato.diffusion.sampling import Sampler
from sfumato.errors import UsageError, nearest

_FEW = 15
"""With fewer steps `lower_order_final` takes effect."""
_TIMES = frozenset({"timesteps"})


class DDIMScheduler(TimestepScheduler):
    ENDS = "set_alpha_to_one"

    def sampler(self, args: SampleArgs, levels: Sequence[Level]) -> tuple[Sampler, int]:
        sampler: Sampler = partial(ddim, eta=args.eta)
        if self.config["clip_sample"]:
            sampler = partial(clamped_ddim, bound=self.config["clip_sample_range"], eta=args.eta)
        return sampler, args.steps if args.eta > 0 else 0


class DDPMScheduler(TimestepScheduler):
    TAKES = _TIMES

    def sampler(self, args: SampleArgs, levels: Sequence[Level]) -> tuple[Sampler, int]:
        sampler = partial(ddpm, large=self.config["variance_type"] == "fixed_large")
        return self.clamped(sampler), sum(level.t > 0 for level in levels)


class PNDMScheduler(TimestepScheduler):
    ENDS = "set_alpha_to_one"

    def sampler(self, args: SampleArgs, levels: Sequence[Level]) -> tuple[Sampler, int]:
        return ddim if len(levels) == 2 else partial(pndm, warm_up=not self.config["skip_prk_steps"]), 0


class _ConsistencyScheduler(TimestepScheduler):
    """Levels at the times that a consistency model was distilled at."""

    TAKES = _TIMES

    def levels(self, path: VariancePreserving, args: SampleArgs) -> list[Level]:
        if args.timesteps is not None:
            return super().levels(path, args)
        count = self.config["num_train_timesteps"]
        known = args.original_steps
        known = self.config["original_inference_steps"] if known is None else known
        if not 1 <= known <= count:
            raise UsageError(f"original_inference_steps is {known}: must be 1 to {count}")
        if args.steps > known:
            most = f"at most original_inference_steps = {known}"
            raise UsageError(f"num_inference_steps is {args.steps}: must be {most}")
        return spacing.lcm(path, args.steps, origin=known)[:-1]


class LCMScheduler(_ConsistencyScheduler):
    def sampler(self, args: SampleArgs, levels: Sequence[Level]) -> tuple[Sampler, int]:
        return self.clamped(partial(lcm, scaling=self.config["timestep_scaling"])), args.steps - 1


class TCDScheduler(_ConsistencyScheduler):
    ENDS = "sigma_min"

    def sampler(self, args: SampleArgs, levels: Sequence[Level]) -> tuple[Sampler, int]:
        return partial(tcd, eta=args.eta), args.steps - 1 if args.eta > 0 else 0


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
        return self.clamped(heun), 0


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
_ALGORITHMS = {each: each for each in ("dpmsolver++", "sde-dpmsolver++", "dpmsolver")}
_ALGORITHMS["deis"] = "dpmsolver++"


class _DPMSolverScheduler(SolverScheduler):
    TAKES = _TIMES

    def algorithm(self) -> str:
        """The `algorithm_type`. Raises `UsageError` where it cannot end without noise but should."""
        name = self.chosen("algorithm_type", _ALGORITHMS)
        if name == "dpmsolver" and self.ends_clean:
            raise UsageError("algorithm_type = 'dpmsolver' needs final_sigmas_type = 'sigma_min'")
        return name


class DPMSolverMultistepScheduler(_DPMSolverScheduler):
    def sampler(self, args: SampleArgs, levels: Sequence[Level]) -> tuple[Sampler, int]:
        order, algorithm = self.config["solver_order"], self.algorithm()
        solver = self.chosen("solver_type", _SOLVERS)
        if not self.ends_clean:
            self.check("euler_at_final", (False,))
        options: dict[str, Any] = {
            "order": order,
            "solver": "published" if order == 3 else solver,
            "bootstrap": False,
            "lower_order_final": self.config["lower_order_final"] and args.steps < _FEW,
        }
        if algorithm == "dpmsolver":
            return partial(dpm_solver_multistep, **options), 0
        eta = float(algorithm == "sde-dpmsolver++")
        return partial(dpmpp_multistep, eta=eta, **options), args.steps if eta else 0


class DPMSolverSinglestepScheduler(_DPMSolverScheduler):
    def sampler(self, args: SampleArgs, levels: Sequence[Level]) -> tuple[Sampler, int]:
        order, algorithm = self.config["solver_order"], self.algorithm()
        if not self.ends_clean and order > 1 and args.steps % order == 0:
            self.check("lower_order_final", (False,))
        if algorithm == "sde-dpmsolver++":
            if order > 1:
                raise UsageError(
                    "DPMSolverSinglestepScheduler: algorithm_type = 'sde-dpmsolver++' is supported with "
                    "solver_order = 1; DPMSolverMultistepScheduler has it with 2"
                )
            return partial(dpmpp_multistep, order=1, eta=1.0), args.steps
        solver: Solver = "heun" if self.chosen("solver_type", _SOLVERS) == "heun" else "midpoint"
        return partial(singlestep, order=order, of_noise=algorithm == "dpmsolver", solver=solver), 0


class UniPCMultistepScheduler(SolverScheduler):
    def sampler(self, args: SampleArgs, levels: Sequence[Level]) -> tuple[Sampler, int]:
        known = dict.fromkeys(("bh2", "midpoint", "heun", "logrho"), "bh2") | {"bh1": "bh1"}
        solver: Solver = "bh1" if self.chosen("solver_type", known) == "bh1" else "midpoint"
        lower = self.config["lower_order_final"]
        return partial(unipc, order=self.config["solver_order"], solver=solver, lower_order_final=lower), 0


class DEISMultistepScheduler(SolverScheduler):
    ENDS = "sigma_min"

    def sampler(self, args: SampleArgs, levels: Sequence[Level]) -> tuple[Sampler, int]:
        self.chosen("algorithm_type", dict.fromkeys(("deis", "dpmsolver", "dpmsolver++"), "deis"))
        self.chosen("solver_type", dict.fromkeys(("logrho", "midpoint", "heun", "bh1", "bh2"), "logrho"))
        lower = self.config["lower_order_final"] and args.steps < _FEW
        order = self.config["solver_order"]
        return partial(deis, order=order, bootstrap=False, lower_order_final=lower), 0


SCHEDULERS: dict[str, type[Scheduler]] = {
    name: kind for name, kind in sorted(globals().items()) if name in DEFAULTS
}


def scheduler_of(config: Mapping[str, Any]) -> Scheduler:
    """The scheduler that a model's `scheduler_config.json` names. Raises `UsageError` for another."""
    name = str(config.get("_class_name"))
    if name not in SCHEDULERS:
        raise UsageError(f"the scheduler {name} is not supported; {nearest(name, SCHEDULERS)}")
    return SCHEDULERS[name].from_config(config)
