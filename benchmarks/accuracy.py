"""How exact samplers are for what they cost: ours and diffusers', against the exact ODE, in one run.

    python benchmarks/accuracy.py [--bed NAME]... [--write docs/accuracy.md]

Needs the `test` extra. It measures errors, not time, so a busy machine does not change its figures. Every new
best of a side is printed as it is measured.
"""

import argparse
import inspect
import logging
import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import torch
from fitting import fitted
from measuring import LOAD, load, machine, say
from mixture import Mixture, mixture
from torch import Tensor

from sfumato.diffusion.level import (
    Level,
    VariancePreserving,
    alphas_cumprod,
    scaled_linear_betas,
    zero_terminal_snr,
)
from sfumato.diffusion.samplers import SAMPLERS, evaluations
from sfumato.diffusion.sampling import SeededNoise, run
from sfumato.diffusion.spacing import SPACINGS

BUDGETS = (5, 10, 20, 50)
LATENTS = 256
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
ADAMS = {
    "adams": {},
    "adams caution 1": {"caution": 1.0},
    "adams order 2 caution 0": {"caution": 0.0, "order": 2},
    "adams order 4 caution 0": {"caution": 0.0, "order": 4},
}
"""Variants of our most exact sampler, as `caution` and `order` trade exactness for robustness."""
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
class Ground:
    """Several mixtures side by side, their numbers in one row: one drive of a sampler measures it on all."""

    data: dict[str, Mixture]
    path: VariancePreserving
    start: Tensor
    end: Tensor

    @property
    def widths(self) -> list[int]:
        return [each.means.shape[1] for each in self.data.values()]

    def estimates(self, x: Tensor, t: float) -> tuple[Tensor, Tensor]:
        """E[x0 | x] and E[eps | x] as a network gives them that learns the level from the time it is told."""
        level = self.path.level(t)
        parts = zip(self.data.values(), x.split(self.widths, 1), strict=True)
        pairs = [each.estimates(part, level.a, level.s) for each, part in parts]
        return torch.cat([x0 for x0, _ in pairs], 1), torch.cat([eps for _, eps in pairs], 1)

    def answer(self, x: Tensor, level: Level) -> Tensor:
        return self.estimates(x, level.t)[0]

    def only(self, name: str) -> "Ground":
        """One of the mixtures by itself: our samplers may look at a whole row to choose their order."""
        place = list(self.data).index(name)
        starts, ends = (latents.split(self.widths, 1) for latents in (self.start, self.end))
        return Ground({name: self.data[name]}, self.path, starts[place], ends[place])

    def rows(self, name: str, budget: int, asked: int, x: Tensor) -> Iterator["Row"]:
        for data, off in zip(self.data, (x - self.end).split(self.widths, 1), strict=True):
            errors = off.square().mean(1)
            yield Row(data, name, budget, asked, errors.mean().sqrt().item(), errors.sqrt().median().item())


@dataclass(frozen=True)
class Row:
    """What one way of sampling came to: `rms` over all latents, `median` of the latents' own errors."""

    data: str
    name: str
    budget: int
    evaluations: int
    rms: float
    median: float


def ground(names: Iterable[str], table: Tensor, seed: int = 9) -> Ground:
    """The named data on a schedule, with latents at its noisiest level and where the exact ODE takes them."""
    path = VariancePreserving(table)
    data = {name: BEDS[name][1]() for name in names}
    starts, ends = [], []
    for each in data.values():
        seeded = torch.Generator().manual_seed(seed)
        starts.append(torch.randn(LATENTS, each.means.shape[1], generator=seeded, dtype=torch.float64))
        ends.append(each.flow(starts[-1], path.level(path.last)))
    return Ground(data, path, torch.cat(starts, 1), torch.cat(ends, 1))


def ours(on: Ground, budget: int, among: Callable[[str], bool] = bool) -> Iterator[Row]:
    """Every deterministic sampler of ours `among` on every spacing, at most `budget` evaluations each."""
    for name in on.data:
        alone = on.only(name)
        for info in SAMPLERS.values():
            if info.random or not among(info.name):
                continue
            for spacing in SPACINGS.values():
                levels = next(
                    levels
                    for n in range(budget, 0, -1)
                    if evaluations(info.name, levels := spacing.levels(on.path, n)) <= budget
                )
                asked = evaluations(info.name, levels)
                for label, options in (ADAMS if info.name == "adams" else {info.name: {}}).items():
                    x = run(info.sample(alone.start, levels, SeededNoise([]), **options), alone.answer)
                    yield from alone.rows(f"{label}, {spacing.name}", budget, asked, x)


def ours_fitted(on: Ground, budget: int) -> Iterator[Row]:
    """`adams` on levels fitted to the network, on latents other than those it is measured with."""
    for name in on.data:
        alone, pilots = on.only(name), ground([name], on.path.alphas_cumprod, seed=77)
        for label, options in ADAMS.items():
            sample = partial(SAMPLERS["adams"].sample, **options)
            levels = fitted(on.path, budget, sample, pilots.answer, pilots.start, pilots.end, SeededNoise([]))
            x = run(sample(alone.start, levels, SeededNoise([])), alone.answer)
            yield from alone.rows(f"{label}, fitted", budget, budget, x)


def theirs(on: Ground, budget: int, among: Callable[[str], bool] = bool) -> Iterator[Row | str]:
    """Every deterministic diffusers scheduler with its options, those `among`; a text where one fails."""
    zero = on.path.level(on.path.last).a == 0
    for scheduler, name, options in schedulers():
        known = inspect.signature(scheduler.__init__).parameters
        times = options.get("times")
        if (
            (zero and "rescale_betas_zero_snr" not in known)
            or (times and len(times) != budget)
            or not among(name)
        ):
            continue
        settings = BETAS | options | {"prediction_type": "v_prediction" if zero else "epsilon"}
        settings |= {"rescale_betas_zero_snr": True} if zero else {}
        settings = {key: value for key, value in settings.items() if key in known}
        try:
            made = _within(scheduler, settings, budget, times)
            rows = list(on.rows(name, budget, len(made.timesteps), _drive(made, on, zero)))
        except Exception as error:
            yield f"{name}: {type(error).__name__}"
            continue
        yield from rows if all(math.isfinite(row.rms) for row in rows) else [f"{name}: not a number"]


def _within(kind: Any, settings: dict[str, Any], budget: int, times: list[int] | None) -> Any:
    """A scheduler set to the most steps that ask the network at most `budget` times, or to given `times`."""
    for n in range(budget, 0, -1):
        scheduler = kind(**settings)
        if times:
            scheduler.set_timesteps(timesteps=times)
        else:
            scheduler.set_timesteps(n)
        if len(scheduler.timesteps) <= budget:
            return scheduler
    raise ValueError("no step count fits")


def _drive(scheduler: Any, on: Ground, of_v: bool) -> Tensor:
    x = on.start
    if isinstance(scheduler, EXPLODING):
        x = x * math.hypot(1, float(scheduler.sigmas[0]))
    drawing = "generator" in inspect.signature(scheduler.step).parameters
    extra = {"generator": torch.Generator().manual_seed(0)} if drawing else {}
    for t in scheduler.timesteps:
        x0, eps = on.estimates(scheduler.scale_model_input(x, t).double(), float(t))
        level = on.path.level(float(t))
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


def best(rows: Iterable[Row], data: str, budget: int, count: int = 1) -> list[Row]:
    """The most exact rows on one data at one budget; options that change nothing come once."""
    ranked = sorted((r for r in rows if (r.data, r.budget) == (data, budget)), key=lambda row: row.rms)
    unique = {f"{row.rms:.3e}": row for row in reversed(ranked)}
    return sorted(unique.values(), key=lambda row: row.rms)[:count]


def measured(side: str, found: Iterable[Row | str]) -> Iterator[Row | str]:
    """`found` as it comes, a line printed at once for every new best on its data at its budget."""
    least: dict[tuple[str, int], float] = {}
    for row in found:
        if isinstance(row, Row) and row.rms < least.get((row.data, row.budget), math.inf):
            least[row.data, row.budget] = row.rms
            figures = f"{row.name}: rms {row.rms:.2g}, median {row.median:.2g}"
            say(f"  {side}: {row.data}, {row.budget} evaluations, {figures} ({LOAD} {load()})")
        yield row


def report(names: list[str]) -> str:
    """All tables, as Markdown."""
    summary, tables, failures = [], [], set[str]()
    for schedule, table in SCHEDULES.items():
        on = ground(names, table)
        say(f"{schedule} schedule")
        mine, fits, found = (
            list(measured(side, (row for budget in budgets for row in rows(on, budget))))
            for side, rows, budgets in (
                ("Sfumato", ours, BUDGETS),
                ("Sfumato, fitted", ours_fitted, [budget for budget in BUDGETS if budget <= 10]),
                ("diffusers", theirs, BUDGETS),
            )
        )
        peers = [row for row in found if isinstance(row, Row)]
        failures |= {text for text in found if isinstance(text, str)}
        for name in names:
            tables.append(f"\n### {name}, {schedule} schedule\n")
            for budget in BUDGETS:
                summary.append(_summary(schedule, name, budget, peers, mine, fits))
                tables += [f"\n{budget} evaluations\n", *_side_by_side(name, budget, peers, mine + fits)]
    versions = {"diffusers": diffusers.__version__, "torch": torch.__version__}
    return "\n".join(
        [
            INTRODUCTION.format(**versions, latents=LATENTS),
            *(f"- **{name}**: {BEDS[name][0]}." for name in names),
            "\n## Sfumato and diffusers\n",
            "| schedule | data | asked | diffusers' best | our best | ratio | `adams` on `balanced` "
            "| on fitted levels | ratio | best medians | ratio |",
            "|---|---|---|---|---|---|---|---|---|---|---|",
            *summary,
            "\n## The best of each, by data\n",
            *tables,
            "\n## Combinations that fail in diffusers\n",
            *(f"- {text}" for text in condensed(failures)),
            "",
        ]
    )


def _summary(
    schedule: str, data: str, budget: int, peers: list[Row], mine: list[Row], fits: list[Row]
) -> str:
    def at(rows: list[Row]) -> list[Row]:
        return [row for row in rows if (row.data, row.budget) == (data, budget)]

    their, our = (min(row.rms for row in at(rows)) for rows in (peers, mine))
    their_median, our_median = (min(row.median for row in at(rows)) for rows in (peers, mine))
    plain = next(row.rms for row in at(mine) if row.name == "adams, balanced")
    fit = min((row.rms for row in at(fits)), default=math.nan)
    fit_cells = f"{fit:.2g} | **{their / fit:.1f}**" if at(fits) else " | "
    return (
        f"| {schedule} | {data} | {budget} | {their:.2g} | {our:.2g} | **{their / our:.1f}** | {plain:.2g} | "
        f"{fit_cells} | {their_median:.2g}, {our_median:.2g} | {their_median / our_median:.1f} |"
    )


def _side_by_side(data: str, budget: int, peers: list[Row], mine: list[Row]) -> Iterator[str]:
    yield "| diffusers | asked | rms | median | Sfumato | asked | rms | median |"
    yield "|---|---|---|---|---|---|---|---|"
    for pair in zip(best(peers, data, budget, 5), best(mine, data, budget, 5), strict=True):
        cells = (f"{row.name} | {row.evaluations} | {row.rms:.2g} | {row.median:.2g}" for row in pair)
        yield f"| {' | '.join(cells)} |"


def condensed(failures: Iterable[str]) -> list[str]:
    """Failures by scheduler and reason, with how many combinations of options share them."""
    groups = Counter[str]()
    for text in failures:
        name, reason = text.rsplit(": ", 1)
        groups[f"{name.split(' ')[0].rstrip(',')}: {reason}"] += 1
    return [f"{group} ({count} combinations)" for group, count in sorted(groups.items())]


INTRODUCTION = """# Accuracy of the samplers

This page is written by `python benchmarks/accuracy.py --write docs/accuracy.md` (diffusers {diffusers},
torch {torch}).

The data is a Gaussian mixture, whose x0 is exact, so all error is the sampler's. Every sampler starts
from the same {latents} latents at the noisiest level of Stable Diffusion's schedule, ordinary or with zero
terminal SNR. Its result is compared with the exact solution of the probability-flow ODE at zero noise. The
network is conditioned on the time, as a real one is, and is exact at every time, also between whole ones.
Latents are float64.

"Asked" counts network evaluations; samplers with two evaluations a step take fewer steps. The error is the
root mean square over all latents; the median is over the errors of single latents. Where the mixture's
components lie far apart, the rms is dominated by the few latents that end at the wrong one; the median says
more.

Schedulers that begin below the noisiest level (`leading`) get the same latents there, as in pipelines. Those
that stop above zero noise (`sigma_min`) are compared at zero like the rest. "Best" is the best of all
combinations, searched separately for each line on both sides. `adams` on `balanced`, with default options, is
one choice for all lines; its default `caution` of 2 is for guided networks and not the most accurate here.

Fitted levels are optimised for each data and step count on other latents (`benchmarks/fitting.py`), with some
hundred sampling runs once for a network. Diffusers' counterpart are the published AYS timesteps, which are
among its rows.

The data, each of root mean square 0.85:
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bed", action="append", choices=list(BEDS), help="only this data; may be repeated")
    parser.add_argument("--write", type=Path, help="write the report here instead of printing it")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    say(f"{machine('cpu')}.")
    text = report(options.bed or list(BEDS))
    if options.write:
        options.write.write_text(text, encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
