"""`sfumato samplers`: what there is to draw with, and when to choose it. Answers without torch."""

import json

from sfumato.cli import console
from sfumato.names import SAMPLERS, SPACINGS

SAMPLER_USES = {
    "ddpm": "the original random walk back from noise (Ho 2020); needs many steps",
    "ddim": "its deterministic form (Song 2021); first order, robust",
    "euler": "first order, the plainest; soft pictures at few steps",
    "euler-a": "Euler with fresh noise each step; lively, never settles as steps grow",
    "heun": "second order, two evaluations a step (Karras 2022)",
    "dpm2": "second order by a midpoint, two evaluations a step",
    "dpm2-a": "the midpoint rule with fresh noise each step",
    "dpmpp-2s": "DPM-Solver++ second order, singlestep (Lu 2022)",
    "dpmpp-2s-a": "the same with fresh noise each step",
    "dpmpp-2m": "DPM-Solver++ second order from the step before; a safe choice for 10 to 30 steps",
    "dpmpp-2m-sde": "the same with noise; more detail, more steps",
    "dpmpp-3m": "DPM-Solver++ third order from two steps before; precise from 15 steps on",
    "dpmpp-3m-sde": "the same with noise; for 30 steps and more",
    "dpmpp-sde": "DPM-Solver++ with noise, two evaluations a step",
    "dpm-solver-1": "DPM-Solver first order; the same as ddim",
    "dpm-solver-2s": "DPM-Solver second order in the noise, two evaluations a step",
    "dpm-solver-3s": "DPM-Solver third order in the noise, three evaluations a step",
    "dpm-solver-2m": "DPM-Solver second order in the noise, from the step before",
    "dpm-solver-3m": "DPM-Solver third order in the noise, from two steps before",
    "unipc": "predictor and corrector of high order (Zhao 2023); strong at 5 to 15 steps",
    "lms": "linear multistep of order four (Adams-Bashforth)",
    "deis": "exponential integrator by polynomial extrapolation (Zhang 2023)",
    "pndm": "pseudo linear multistep, order four (Liu 2022); Stable Diffusion's first default",
    "lcm": "for latent consistency models: 1 to 8 steps",
    "tcd": "for trajectory consistency distillation: 1 to 8 steps",
    "consistency": "for consistency models: 1 to 4 steps",
}

SPACING_USES = {
    "leading": "whole strides from the first training time up; the old default",
    "linspace": "evenly spread times, both ends included",
    "trailing": "whole strides from the last time down; right for zero terminal SNR and few steps",
    "karras": "evenly spread in σ^(1/7): many small steps near the end (Karras 2022)",
    "exponential": "evenly spread in log σ",
    "beta": "quantiles of a Beta(0.6, 0.6): dense at both ends",
}


def samplers(as_json: bool) -> None:
    """Print every sampler and spacing with what it is for and its names elsewhere."""
    tables = {"samplers": (SAMPLERS, SAMPLER_USES), "spacings": (SPACINGS, SPACING_USES)}
    if as_json:
        told = {
            kind: [{"name": name, "use": uses[name], "aliases": names[name]} for name in names]
            for kind, (names, uses) in tables.items()
        }
        console.result(json.dumps(told, ensure_ascii=False))
        return
    lines: list[str] = []
    for kind, (names, uses) in tables.items():
        lines += ["", kind] if lines else [kind]
        lines += [f"  {name:14} {uses[name]}" for name in names]
    console.result("\n".join(lines))
