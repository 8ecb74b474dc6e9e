"""diffusers' schedulers by name: which of our samplers each is, and with what settings."""

from abc import abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import torch

from sfumato.compat import layout
from sfumato.compat.clipping import clamped, clamped_ddim
from sfumato.compat.scheduler import Plan, SampleArgs, Scheduler, SigmaScheduler, TimestepScheduler
from sfumato.diffusion.samplers.consistency import lcm, tcd
from sfumato.diffusion.samplers.ddim import ddim, ddpm, euler, euler_a
from sfumato.diffusion.samplers.dpm import dpm_solver_multistep, dpmpp_multistep, singlestep
from sfumato.diffusion.samplers.multistep import deis, lms, pndm
from sfumato.diffusion.samplers.rules import Solver
from sfumato.diffusion.samplers.runge_kutta import dpm2, dpm2_a, dpmpp_sde, heun
from sfumato.diffusion.samplers.unipc import unipc
from sfumato.diffusion.sampling import Sampler
from sfumato.errors import UsageError, nearest

Settings = Mapping[str, Any]

_ZERO_SNR = {"rescale_betas_zero_snr": False}
_CLIPPED = {
    "clip_sample": True,
    "clip_sample_range": 1.0,
    "thresholding": False,
    "dynamic_thresholding_ratio": 0.995,
    "sample_max_value": 1.0,
}
_STABLE = {"beta_start": 0.00085, "beta_end": 0.012}
_FEW = 15
"""With fewer steps multistep methods may lower their order towards the end."""


class DDIMScheduler(TimestepScheduler):
    OWN: ClassVar[Settings] = {
        "timestep_spacing": "leading",
        "set_alpha_to_one": True,
        **_CLIPPED,
        **_ZERO_SNR,
    }

    def _plan(self, args: SampleArgs) -> Plan:
        way, stops = self.stops(args)
        levels = layout.ended(stops, way, clean=self.config["set_alpha_to_one"])
        draws = len(stops) if args.eta > 0 else 0
        sampler: Sampler = partial(ddim, eta=args.eta)
        if self.config["clip_sample"]:
            sampler = partial(clamped_ddim, bound=self.config["clip_sample_range"], eta=args.eta)
        return Plan(sampler, levels, draws=draws)


class DDPMScheduler(TimestepScheduler):
    OWN: ClassVar[Settings] = {
        "timestep_spacing": "leading",
        "variance_type": "fixed_small",
        **_CLIPPED,
        **_ZERO_SNR,
    }
    TAKES = frozenset({"timesteps"})

    def _plan(self, args: SampleArgs) -> Plan:
        way, stops = self.stops(args)
        large = self.config["variance_type"] == "fixed_large"
        draws = sum(stop.t > 0 for stop in stops)
        sampler = clamped(partial(ddpm, large=large), self.settings)
        return Plan(sampler, layout.ended(stops, way, clean=True), draws=draws)


class PNDMScheduler(TimestepScheduler):
    OWN: ClassVar[Settings] = {
        "timestep_spacing": "leading",
        "skip_prk_steps": False,
        "set_alpha_to_one": False,
    }

    def _plan(self, args: SampleArgs) -> Plan:
        way, stops = self.stops(args)
        levels = layout.ended(stops, way, clean=self.config["set_alpha_to_one"])
        if len(levels) == 2:
            return Plan(ddim, levels)
        return Plan(partial(pndm, warm_up=not self.config["skip_prk_steps"]), levels)


class LCMScheduler(TimestepScheduler):
    OWN: ClassVar[Settings] = {
        **_STABLE,
        "beta_schedule": "scaled_linear",
        "timestep_spacing": "leading",
        "original_inference_steps": 50,
        "timestep_scaling": 10.0,
        "set_alpha_to_one": True,
        **_CLIPPED,
        "clip_sample": False,
        **_ZERO_SNR,
    }
    TAKES = frozenset({"timesteps"})

    def _plan(self, args: SampleArgs) -> Plan:
        way, stops = self.stops(args)
        sampler = clamped(partial(lcm, scaling=self.config["timestep_scaling"]), self.settings)
        return Plan(sampler, layout.ended(stops, way, clean=True), draws=len(stops) - 1)


class TCDScheduler(TimestepScheduler):
    OWN: ClassVar[Settings] = LCMScheduler.OWN
    TAKES = frozenset({"timesteps"})

    def _plan(self, args: SampleArgs) -> Plan:
        way, stops = self.stops(args)
        draws = len(stops) - 1 if args.eta > 0 else 0
        return Plan(partial(tcd, eta=args.eta), layout.ended(stops, way, clean=False), draws=draws)


class _Exploding(SigmaScheduler):
    """Its latents are seen in the a = 1 scaling."""

    SAMPLER: ClassVar[Sampler]

    def _plan(self, args: SampleArgs) -> Plan:
        way, stops = self.stops(args)
        clean = self.settings.get("final_sigmas_type", "zero") == "zero"
        levels = layout.ended(stops, way, clean=clean)
        sampler = clamped(type(self).SAMPLER, self.settings)
        return Plan(sampler, levels, self.start(stops), exploding=True, draws=self.draws(len(stops)))

    def draws(self, steps: int) -> int:
        """How many times noise is asked for."""
        return 0


class EulerDiscreteScheduler(_Exploding):
    OWN: ClassVar[Settings] = {
        **SigmaScheduler.OWN,
        "sigma_min": None,
        "sigma_max": None,
        "final_sigmas_type": "zero",
        "interpolation_type": "linear",
        "timestep_type": "discrete",
        **_ZERO_SNR,
    }
    TAKES = frozenset({"timesteps", "sigmas"})
    SAMPLER = staticmethod(euler)


class EulerAncestralDiscreteScheduler(_Exploding):
    OWN: ClassVar[Settings] = _ZERO_SNR
    SAMPLER = staticmethod(euler_a)

    def draws(self, steps: int) -> int:
        return steps


class HeunDiscreteScheduler(_Exploding):
    OWN: ClassVar[Settings] = {
        **SigmaScheduler.OWN,
        **_STABLE,
        "clip_sample": False,
        "clip_sample_range": 1.0,
    }
    TAKES = frozenset({"timesteps"})
    SAMPLER = staticmethod(heun)
    order = 2


class KDPM2DiscreteScheduler(_Exploding):
    OWN: ClassVar[Settings] = {**SigmaScheduler.OWN, **_STABLE}
    ROUNDED = ("karras",)
    SAMPLER = staticmethod(dpm2)
    order = 2


class KDPM2AncestralDiscreteScheduler(_Exploding):
    OWN: ClassVar[Settings] = {**SigmaScheduler.OWN, **_STABLE}
    ROUNDED = ("karras",)
    SAMPLER = staticmethod(dpm2_a)
    order = 2

    def draws(self, steps: int) -> int:
        return steps - 1


class DPMSolverSDEScheduler(_Exploding):
    OWN: ClassVar[Settings] = {**SigmaScheduler.OWN, **_STABLE, "noise_sampler_seed": None}
    SAMPLER = staticmethod(dpmpp_sde)
    order = 2


class LMSDiscreteScheduler(_Exploding):
    SAMPLER = partial(lms, bootstrap=False)


class _Multistep(SigmaScheduler):
    """DPM-Solver and its kin: they stop one even time earlier, and bend over all of training."""

    OWN: ClassVar[Settings] = {
        **SigmaScheduler.OWN,
        "solver_order": 2,
        "thresholding": False,
        "dynamic_thresholding_ratio": 0.995,
        "sample_max_value": 1.0,
        "lower_order_final": True,
        "use_flow_sigmas": False,
        "flow_shift": 1.0,
        "use_dynamic_shifting": False,
        "time_shift_type": "exponential",
    }
    DROPPED, WHOLE, FULL = 1, True, True
    ROUNDED = ("karras", "lu")
    ORDERS: ClassVar[tuple[int, ...]] = (1, 2, 3)

    def _plan(self, args: SampleArgs) -> Plan:
        if self.config["solver_order"] not in self.ORDERS:
            self.refuse("solver_order", self.ORDERS)
        way, stops = self.stops(args)
        kind = self.settings.get("final_sigmas_type", "sigma_min")
        if kind not in ("zero", "sigma_min"):
            self.refuse("final_sigmas_type", ("zero", "sigma_min"))
        levels = layout.ended(stops, way, clean=kind == "zero")
        sampler, draws = self.sampler(len(stops), kind == "zero")
        return Plan(sampler, levels, draws=draws, noise_dtype=torch.float32)

    @abstractmethod
    def sampler(self, steps: int, clean: bool) -> tuple[Sampler, int]:
        """The sampler for so many steps, to the picture or to just before it, and how often it draws."""

    def chosen(self, name: str, known: Mapping[str, str]) -> str:
        """The value of a setting, what other classes call it read as what this one does."""
        value = self.config[name]
        if value not in known:
            self.refuse(name, sorted({*known.values()}))
        return known[value]


_SOLVERS = {
    "midpoint": "midpoint",
    "heun": "heun",
    "logrho": "midpoint",
    "bh1": "midpoint",
    "bh2": "midpoint",
}
_ALGORITHMS = {
    "dpmsolver++": "dpmsolver++",
    "sde-dpmsolver++": "sde-dpmsolver++",
    "dpmsolver": "dpmsolver",
    "deis": "dpmsolver++",
}
_OF_SOLVERS = {
    "algorithm_type": "dpmsolver++",
    "solver_type": "midpoint",
    "final_sigmas_type": "zero",
    "lambda_min_clipped": -float("inf"),
    "variance_type": None,
}


class DPMSolverMultistepScheduler(_Multistep):
    OWN: ClassVar[Settings] = {
        **_Multistep.OWN,
        **_OF_SOLVERS,
        "euler_at_final": False,
        "use_lu_lambdas": False,
        **_ZERO_SNR,
    }
    TAKES = frozenset({"timesteps"})

    def sampler(self, steps: int, clean: bool) -> tuple[Sampler, int]:
        order, kind = self.config["solver_order"], self.chosen("algorithm_type", _ALGORITHMS)
        solver = self.chosen("solver_type", _SOLVERS)
        if self.config["euler_at_final"] and not clean:
            self.refuse("euler_at_final", (False,))
        how: dict[str, Any] = {
            "order": order,
            "solver": "published" if order == 3 else solver,
            "bootstrap": False,
            "lower_order_final": self.config["lower_order_final"] and steps < _FEW,
        }
        if kind == "dpmsolver":
            if clean:
                raise UsageError("algorithm_type = 'dpmsolver' needs final_sigmas_type = 'sigma_min'")
            return partial(dpm_solver_multistep, **how), 0
        random = kind == "sde-dpmsolver++"
        return partial(dpmpp_multistep, eta=float(random), **how), steps if random else 0


class DPMSolverSinglestepScheduler(_Multistep):
    OWN: ClassVar[Settings] = {**_Multistep.OWN, **_OF_SOLVERS, "lower_order_final": False}
    WITHOUT = frozenset({"timestep_spacing", "steps_offset"})
    TAKES = frozenset({"timesteps"})

    def sampler(self, steps: int, clean: bool) -> tuple[Sampler, int]:
        order, kind = self.config["solver_order"], self.chosen("algorithm_type", _ALGORITHMS)
        if kind == "dpmsolver" and clean:
            raise UsageError("algorithm_type = 'dpmsolver' needs final_sigmas_type = 'sigma_min'")
        if self.config["lower_order_final"] and not clean and order > 1 and steps % order == 0:
            self.refuse("lower_order_final", (False,))
        if kind == "sde-dpmsolver++":
            if order > 1:
                raise UsageError(
                    "DPMSolverSinglestepScheduler: algorithm_type = 'sde-dpmsolver++' is supported with "
                    "solver_order = 1; DPMSolverMultistepScheduler has it with 2"
                )
            return partial(dpmpp_multistep, order=1, eta=1.0), steps
        solver: Solver = "heun" if self.chosen("solver_type", _SOLVERS) == "heun" else "midpoint"
        return partial(singlestep, order=order, of_noise=kind == "dpmsolver", solver=solver), 0


class UniPCMultistepScheduler(_Multistep):
    OWN: ClassVar[Settings] = {
        **_Multistep.OWN,
        "predict_x0": True,
        "solver_type": "bh2",
        "disable_corrector": [],
        "solver_p": None,
        "final_sigmas_type": "zero",
        "sigma_min": None,
        "sigma_max": None,
        "shift_terminal": None,
        **_ZERO_SNR,
    }

    def sampler(self, steps: int, clean: bool) -> tuple[Sampler, int]:
        known = {"bh1": "bh1", "bh2": "bh2", "midpoint": "bh2", "heun": "bh2", "logrho": "bh2"}
        solver: Solver = "bh1" if self.chosen("solver_type", known) == "bh1" else "midpoint"
        order, lower_order_final = self.config["solver_order"], self.config["lower_order_final"]
        return partial(unipc, order=order, solver=solver, lower_order_final=lower_order_final), 0


class DEISMultistepScheduler(_Multistep):
    OWN: ClassVar[Settings] = {**_Multistep.OWN, "algorithm_type": "deis", "solver_type": "logrho"}

    def sampler(self, steps: int, clean: bool) -> tuple[Sampler, int]:
        self.chosen("algorithm_type", {"deis": "deis", "dpmsolver": "deis", "dpmsolver++": "deis"})
        self.chosen("solver_type", dict.fromkeys(("logrho", "midpoint", "heun", "bh1", "bh2"), "logrho"))
        lower_order_final = self.config["lower_order_final"] and steps < _FEW
        return partial(
            deis, order=self.config["solver_order"], bootstrap=False, lower_order_final=lower_order_final
        ), 0


SCHEDULERS: dict[str, type[Scheduler]] = {
    kind.__name__: kind
    for kind in (
        DDIMScheduler,
        DDPMScheduler,
        DEISMultistepScheduler,
        DPMSolverMultistepScheduler,
        DPMSolverSDEScheduler,
        DPMSolverSinglestepScheduler,
        EulerAncestralDiscreteScheduler,
        EulerDiscreteScheduler,
        HeunDiscreteScheduler,
        KDPM2AncestralDiscreteScheduler,
        KDPM2DiscreteScheduler,
        LCMScheduler,
        LMSDiscreteScheduler,
        PNDMScheduler,
        TCDScheduler,
        UniPCMultistepScheduler,
    )
}


def scheduler_of(config: Mapping[str, Any]) -> Scheduler:
    """The scheduler that a model's `scheduler_config.json` names. Raises `UsageError` for another."""
    name = str(config.get("_class_name"))
    if name not in SCHEDULERS:
        raise UsageError(f"the scheduler {name} is not supported; {nearest(name, SCHEDULERS)}")
    return SCHEDULERS[name].from_config(config)
