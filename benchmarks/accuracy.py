"""How exact samplers are for what they cost: ours and diffusers', against the exact ODE, in one run.

    python benchmarks/accuracy.py [--bed NAME]... [--write docs/accuracy.md]

Needs the `test` extra. It measures errors, not time, so a busy machine does not change its figures.
"""

import argparse
import inspect
import logging
import math
import platform
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import Tensor

from sfumato.diffusion.level import (
    VariancePreserving,
    alphas_cumprod,
    scaled_linear_betas,
    zero_terminal_snr,
)
from sfumato.diffusion.mixture import Mixture, mixture
from sfumato.diffusion.samplers import SAMPLERS, evaluations
from sfumato.diffusion.sampling import SeededNoise, run
from sfumato.diffusion.spacing import SPACINGS

BUDGETS = (5, 10, 20, 50)
LATENTS = 64
BEDS: dict[str, tuple[str, Callable[[], Mixture]]] = {
    "blobs": ("8 numbers, 5 overlapping components of spread 0.5", lambda: mixture(1, 8, 5, (0.5, 0.5))),
    "spectrum": (
        "24 numbers, 10 components whose spread falls from 2.5 to 0.1 as a picture's frequencies do",
        lambda: mixture(2, 24, 10, (1.0, 1.0), fall=1.0),
    ),
    "crowd": ("16 numbers, 30 components of spread 0.3 to 0.6", lambda: mixture(3, 16, 30, (0.3, 0.6))),
    "tight": (
        "8 numbers, 8 components of spread 0.05 to 0.3, far apart",
        lambda: mixture(4, 8, 8, (0.05, 0.3)),
    ),
}
ORDINARY = alphas_cumprod(scaled_linear_betas())
SCHEDULES = {"ordinary": ORDINARY, "zero-SNR": zero_terminal_snr(ORDINARY)}
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
EXPLODING = (
    diffusers.EulerDiscreteScheduler,
    diffusers.HeunDiscreteScheduler,
    diffusers.KDPM2DiscreteScheduler,
    diffusers.LMSDiscreteScheduler,
)
"""Schedulers that keep their latents in the a = 1 scaling."""


@dataclass(frozen=True)
class Bed:
    """A mixture on a schedule: latents at the noisiest level, and where the exact ODE takes them."""

    data: Mixture
    path: VariancePreserving
    start: Tensor
    end: Tensor

    def errors(self, x: Tensor) -> Tensor:
        """The root mean square error of each latent; (B,)."""
        return (x - self.end).square().mean(1).sqrt()


@dataclass(frozen=True)
class Row:
    """What one way of sampling came to: `rms` over all latents, `median` of the latents' own errors."""

    name: str
    budget: int
    evaluations: int
    rms: float
    median: float


def bed_of(data: Mixture, table: Tensor, latents: int = LATENTS) -> Bed:
    path = VariancePreserving(table)
    seeded = torch.Generator().manual_seed(9)
    start = torch.randn(latents, data.means.shape[1], generator=seeded, dtype=torch.float64)
    return Bed(data, path, start, data.flow(start, path.level(path.last)))


def measured(bed: Bed, name: str, budget: int, asked: int, x: Tensor) -> Row:
    errors = bed.errors(x)
    return Row(name, budget, asked, errors.square().mean().sqrt().item(), errors.median().item())


def ours(bed: Bed, budget: int) -> Iterator[Row]:
    """Every deterministic sampler of ours on every spacing, at most `budget` evaluations each."""
    for info in SAMPLERS.values():
        if info.random:
            continue
        choices = {"adams": (2, 3, 4), "unipc": (2, 3), "lms": (2, 3, 4)}.get(info.name, (None,))
        for spacing in SPACINGS.values():
            levels = next(
                levels
                for n in range(budget, 0, -1)
                if evaluations(info.name, levels := spacing.levels(bed.path, n)) <= budget
            )
            asked = evaluations(info.name, levels)
            for order in choices:
                options = {} if order is None else {"order": order}
                x = run(info.sample(bed.start, levels, SeededNoise([0]), **options), told_time(bed))
                label = info.name if order is None else f"{info.name} order {order}"
                yield measured(bed, f"{label}, {spacing.name}", budget, asked, x)


def told_time(bed: Bed) -> Callable[..., Tensor]:
    """The exact network, which like a real one learns the level only through the time it is told."""
    return lambda x, level: bed.data.denoise(x, bed.path.level(level.t))


def theirs(bed: Bed, budget: int) -> Iterator[Row | str]:
    """Every deterministic diffusers scheduler with its options; a text where one fails."""
    zero = bed.path.level(bed.path.last).a == 0
    for scheduler, name, options in schedulers():
        known = inspect.signature(scheduler.__init__).parameters
        if zero and "rescale_betas_zero_snr" not in known:
            continue
        settings = BETAS | options | ({"rescale_betas_zero_snr": True} if zero else {})
        settings["prediction_type"] = "v_prediction" if zero else "epsilon"
        settings = {key: value for key, value in settings.items() if key in known}
        times = settings.pop("times", None) or options.get("times")
        if times and len(times) != budget:
            continue
        try:
            made = _within(scheduler, settings, budget, times)
            x = _drive(made, bed, zero)
        except Exception as error:
            yield f"{name}: {type(error).__name__}"
            continue
        row = measured(bed, name, budget, len(made.timesteps), x)
        yield row if math.isfinite(row.rms) else f"{name}: not a number"


def _within(scheduler: Any, settings: dict[str, Any], budget: int, times: list[int] | None) -> Any:
    """The scheduler set to the most steps that ask the network at most `budget` times."""
    for n in range(budget, 0, -1):
        made = scheduler(**settings)
        if times:
            made.set_timesteps(timesteps=times)
        else:
            made.set_timesteps(n)
        if len(made.timesteps) <= budget:
            return made
    raise ValueError("no step count fits")


def _drive(scheduler: Any, bed: Bed, of_v: bool) -> Tensor:
    x = bed.start
    if isinstance(scheduler, EXPLODING):
        x = x * math.hypot(1, float(scheduler.sigmas[0]))
    random = "generator" in inspect.signature(scheduler.step).parameters
    extra = {"generator": torch.Generator().manual_seed(0)} if random else {}
    for t in scheduler.timesteps:
        level = bed.path.level(float(t))
        x0, eps = bed.data.estimates(scheduler.scale_model_input(x, t).double(), level.a, level.s)
        out = level.a * eps - level.s * x0 if of_v else eps
        x = scheduler.step(out, t, x, return_dict=False, **extra)[0]
    return x.double()


def schedulers() -> Iterator[tuple[Any, str, dict[str, Any]]]:
    """Class, name and options of all that is deterministic and made for such a path."""
    d = diffusers
    for spacing, of in _spacings(d.DDIMScheduler):
        for one in (True, False):
            options = {"clip_sample": False, "set_alpha_to_one": one}
            yield d.DDIMScheduler, f"DDIM, {spacing}{_flags(to_zero=one)}", options | of
    for spacing, of in _spacings(d.PNDMScheduler):
        for skip in (True, False):
            for one in (True, False):
                options = {"skip_prk_steps": skip, "set_alpha_to_one": one}
                yield d.PNDMScheduler, f"PNDM, {spacing}{_flags(prk=not skip, to_zero=one)}", options | of
    for scheduler in EXPLODING:
        name = scheduler.__name__.removesuffix("DiscreteScheduler")
        for spacing, of in _spacings(scheduler):
            yield scheduler, f"{name}, {spacing}", of
    multi, single = d.DPMSolverMultistepScheduler, d.DPMSolverSinglestepScheduler
    for kind, mark in ((multi, "M"), (single, "S")):
        for spacing, of in _spacings(kind):
            for name, options in _dpm_options(kind):
                yield kind, f"{name.replace('*', mark)}, {spacing}", options | of
    for spacing, of in _spacings(d.UniPCMultistepScheduler):
        for order in (1, 2, 3):
            for solver in ("bh1", "bh2"):
                for final in ("zero", "sigma_min"):
                    for of_x0 in (True, False):
                        for lower in (True, False):
                            name = f"UniPC-{order} {solver} {'x0' if of_x0 else 'eps'}, {spacing}, {final}"
                            yield (
                                d.UniPCMultistepScheduler,
                                name + _flags(lower_final=lower),
                                {
                                    "solver_order": order,
                                    "solver_type": solver,
                                    "final_sigmas_type": final,
                                    "predict_x0": of_x0,
                                    "lower_order_final": lower,
                                }
                                | of,
                            )
    for spacing, of in _spacings(d.DEISMultistepScheduler):
        for order in (1, 2, 3):
            for lower in (True, False):
                options = {"solver_order": order, "lower_order_final": lower}
                name = f"DEIS-{order}, {spacing}{_flags(lower_final=lower)}"
                yield d.DEISMultistepScheduler, name, options | of
    for spacing, of in _spacings(d.SASolverScheduler):
        for predictor, corrector in (
            (1, 0),
            (1, 1),
            (1, 2),
            (2, 0),
            (2, 1),
            (2, 2),
            (2, 3),
            (3, 0),
            (3, 2),
            (3, 3),
        ):
            for kind in ("data_prediction", "noise_prediction"):
                for lower in (True, False):
                    name = (
                        f"SA-{predictor}/{corrector} tau 0 {kind[:4]}, {spacing}{_flags(lower_final=lower)}"
                    )
                    yield (
                        d.SASolverScheduler,
                        name,
                        {
                            "predictor_order": predictor,
                            "corrector_order": corrector,
                            "algorithm_type": kind,
                            "tau_func": _no_noise,
                            "lower_order_final": lower,
                        }
                        | of,
                    )


def _no_noise(_: float) -> int:
    return 0


def _dpm_options(kind: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    multi = kind is diffusers.DPMSolverMultistepScheduler
    for algorithm in ("dpmsolver++", "dpmsolver"):
        for order in (1, 2, 3):
            for solver in ("midpoint", "heun") if order == 2 or (order == 3 and not multi) else ("midpoint",):
                for final in ("zero", "sigma_min") if algorithm == "dpmsolver++" else ("sigma_min",):
                    for lower in (True, False):
                        for euler in (True, False) if multi and not lower else (False,):
                            flags = _flags(lower_final=lower, euler_final=euler)
                            name = f"{algorithm.replace('dpmsolver', 'DPM-Solver')} {order}* {solver}"
                            options: dict[str, Any] = {
                                "algorithm_type": algorithm,
                                "solver_order": order,
                                "solver_type": solver,
                                "final_sigmas_type": final,
                                "lower_order_final": lower,
                            }
                            if multi:
                                options["euler_at_final"] = euler
                            yield f"{name} {final}{flags}", options


def _flags(**flags: bool) -> str:
    return "".join(f", {name}" for name, on in flags.items() if on)


def _spacings(scheduler: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every way in which a scheduler can place its levels. Bent sigmas that ignore the spacing come once."""
    known = inspect.signature(scheduler.__init__).parameters
    spaced = ("linspace", "leading", "trailing") if "timestep_spacing" in known else ("linspace",)
    for spacing in spaced:
        yield spacing, {"timestep_spacing": spacing}
    for bent in ("karras", "exponential", "beta", "lu"):
        flag = f"use_{bent}_{'lambdas' if bent == 'lu' else 'sigmas'}"
        if flag in known:
            for spacing in spaced if scheduler in EXPLODING else ("linspace",):
                yield (
                    f"{bent} of {spacing}" if spacing != "linspace" else bent,
                    {
                        flag: True,
                        "timestep_spacing": spacing,
                    },
                )
    if "timesteps" in inspect.signature(scheduler.set_timesteps).parameters:
        times = diffusers.schedulers.AysSchedules["StableDiffusionTimesteps"]
        yield "AYS", {"times": times, "timestep_spacing": "trailing"}


def best(rows: Iterable[Row], budget: int, count: int = 1) -> list[Row]:
    """The most exact rows of a budget, one for each error: options that change nothing come once."""
    ranked = sorted((row for row in rows if row.budget == budget), key=lambda row: row.rms)
    unique = {f"{row.rms:.3e}": row for row in reversed(ranked)}
    return sorted(unique.values(), key=lambda row: row.rms)[:count]


def report(beds: list[str]) -> str:
    """All tables, as Markdown."""
    head, body, failures = [], [], Counter[str]()
    chosen: dict[tuple[str, int], list[float]] = {}
    for schedule, table in SCHEDULES.items():
        for name in beds:
            bed = bed_of(BEDS[name][1](), table)
            mine = [row for budget in BUDGETS for row in ours(bed, budget)]
            found = [row for budget in BUDGETS for row in theirs(bed, budget)]
            peers = [row for row in found if isinstance(row, Row)]
            failures.update({text for text in found if isinstance(text, str)})
            body.append(f"\n### {name}, {schedule} schedule\n")
            for budget in BUDGETS:
                a, b = best(mine, budget)[0], best(peers, budget)[0]
                fixed = next(r for r in mine if r.budget == budget and r.name == default_name(budget))
                chosen.setdefault((schedule, budget), []).append(b.rms / fixed.rms)
                medians = [min(row.median for row in rows if row.budget == budget) for rows in (mine, peers)]
                head.append(
                    f"| {name} | {schedule} | {budget} | {b.rms:.2g} | {a.rms:.2g} | **{b.rms / a.rms:.1f}** | "
                    f"{fixed.rms:.2g} | {b.rms / fixed.rms:.1f} | {medians[1] / medians[0]:.1f} |"
                )
                body += [
                    f"\n{budget} evaluations\n",
                    "| diffusers | asked | rms | median | Sfumato | asked | rms | median |",
                    "|---|---|---|---|---|---|---|---|",
                ]
                body += [
                    f"| {p.name} | {p.evaluations} | {p.rms:.2g} | {p.median:.2g} "
                    f"| {m.name} | {m.evaluations} | {m.rms:.2g} | {m.median:.2g} |"
                    for p, m in zip(best(peers, budget, 5), best(mine, budget, 5), strict=True)
                ]
            print("\n".join(head[-len(BUDGETS) :]), flush=True)
    lines = [
        INTRODUCTION.format(
            diffusers=diffusers.__version__, torch=torch.__version__, python=platform.python_version()
        )
    ]
    lines += [f"- **{name}**: {BEDS[name][0]}." for name in beds]
    lines += [
        "\n## Ours against theirs\n",
        "| data | schedule | evaluations | diffusers' best | our best | ratio | `adams` on `balanced` | ratio "
        "| ratio of medians |",
        "|---|---|---|---|---|---|---|---|---|",
        *head,
        "\n## The best of both, by data\n",
        *body,
        "\n## What diffusers could not do\n",
        *(f"- {text}" for text in condensed(failures)),
    ]
    return "\n".join(lines) + "\n"


def default_name(budget: int) -> str:
    """Our default at so many evaluations, chosen once for all data."""
    return f"adams order {2 if budget < 8 else 4}, balanced"


def condensed(failures: Counter[str]) -> list[str]:
    """Failures by scheduler, spacing and reason, with how many combinations of options share them."""
    groups = Counter[str]()
    for text in failures:
        name, reason = text.rsplit(": ", 1)
        groups[f"{name.split(' ')[0].split(',')[0]}: {reason}"] += 1
    return [f"{group} ({count} combinations)" for group, count in sorted(groups.items())]


INTRODUCTION = """# How exact the samplers are

This page is written by `benchmarks/accuracy.py` (diffusers {diffusers}, torch {torch}, Python {python}).

A Gaussian mixture has an exact clean estimate, so what is left of a sampler's error is its own. Every sampler
starts from the same 64 latents at the noisiest level of Stable Diffusion's schedule, and its result is compared
with the exact solution of the probability-flow ODE from those latents down to no noise at all. The network is
told a time, as a real one is, and answers exactly for that time, also between whole ones. Latents are float64.

"Evaluations" counts how often the network is asked; methods that ask twice in a step take fewer steps. The
error is the root mean square over all latents; the medians are of the single latents' errors. Where data lies
in islands, the rms is ruled by the few latents that end on the wrong one, and the median says more.

Schedulers that begin below the noisiest level (`leading`) are given the same latents there, as pipelines give
them, and those that stop above zero noise (`sigma_min`) are compared at zero like the rest. "Best" is the best
of all combinations, searched anew for each line, on both sides. `adams` on `balanced` is one choice for all
lines: order 2 under 8 evaluations, order 4 from there on.

The data, each of root mean square 0.85:
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bed", action="append", choices=list(BEDS), help="only this data; may be repeated")
    parser.add_argument("--write", type=Path, help="write the report here instead of printing it")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    text = report(options.bed or list(BEDS))
    if options.write:
        options.write.write_text(text, encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
