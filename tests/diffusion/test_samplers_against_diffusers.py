"""Our samplers equal the real diffusers schedulers, run live on the same latents, network and noise."""

from dataclasses import dataclass, field
from typing import Any

import diffusers
import pytest
from peer import BETAS, DIFFUSERS_NAMES, PATH, Gap, error, levels_of, network, ours, theirs

from sfumato.diffusion.predict import clean_estimate, noise_estimate, prediction_named
from sfumato.diffusion.spacing import SPACINGS, leading

STEPS = (1, 2, 4, 10, 25)
CLOSE = 1e-4
EVEN = ("leading", "linspace", "trailing")
BENT = ("karras", "exponential", "beta")
COUNTS_ALL = {"leading": {"offset": 1}, "linspace": {}, "trailing": {}}
NOT_ROUNDED = {**COUNTS_ALL, "linspace": {"rounded": False}}
DROPS_ONE = {**COUNTS_ALL, "leading": {"offset": 1, "dropped": 1}, "linspace": {"dropped": 1}}


@dataclass(frozen=True)
class Pair:
    """One of our samplers and the diffusers scheduler it should equal."""

    ours: str
    theirs: str
    config: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    step: dict[str, Any] = field(default_factory=dict)
    spacings: tuple[str, ...] = EVEN
    layout: dict[str, dict[str, Any]] = field(default_factory=lambda: COUNTS_ALL)
    lacks: tuple[str, ...] = ()
    label: str = ""

    def __str__(self) -> str:
        return f"{self.ours}{self.label}"


ENDS = {"dpmsolver": {"final_sigmas_type": "sigma_min"}, "dpmsolver++": {}, "sde-dpmsolver++": {}}


def multistep(ours: str, order: int, kind: str, label: str = "", **config: Any) -> Pair:
    options = config.pop("options", {})
    return Pair(
        ours,
        "DPMSolverMultistepScheduler",
        {"solver_order": order, "algorithm_type": kind, "lower_order_final": False, **ENDS[kind], **config},
        options,
        spacings=EVEN + BENT,
        layout=DROPS_ONE,
        label=label,
    )


def singlestep(ours: str, order: int, kind: str, label: str = "", **config: Any) -> Pair:
    options = config.pop("options", {})
    return Pair(
        ours,
        "DPMSolverSinglestepScheduler",
        {"solver_order": order, "algorithm_type": kind, "lower_order_final": True, **ENDS[kind], **config},
        options,
        spacings=("linspace", *BENT),
        layout=DROPS_ONE,
        label=label,
    )


PAIRS = [
    Pair("ddpm", "DDPMScheduler", {"clip_sample": False}),
    # with the large variance diffusers' last step ends noisy unless its time is 0
    Pair("ddpm", "DDPMScheduler", {"clip_sample": False, "variance_type": "fixed_large"}, {"large": True}, spacings=("linspace",), label="-large"),
    Pair("ddim", "DDIMScheduler", {"clip_sample": False}),
    Pair("ddim", "DDIMScheduler", {"clip_sample": False}, {"eta": 1.0}, {"eta": 1.0}, label="-eta-1"),
    Pair("euler", "EulerDiscreteScheduler", spacings=EVEN + BENT, layout=NOT_ROUNDED),
    Pair("euler-a", "EulerAncestralDiscreteScheduler", layout=NOT_ROUNDED, lacks=("x0",)),
    Pair("heun", "HeunDiscreteScheduler", spacings=EVEN + BENT, layout=NOT_ROUNDED),
    Pair("dpm2", "KDPM2DiscreteScheduler", spacings=EVEN + BENT, layout=NOT_ROUNDED, lacks=("x0",)),
    Pair("dpm2-a", "KDPM2AncestralDiscreteScheduler", spacings=EVEN + BENT, layout=NOT_ROUNDED, lacks=("x0",)),
    Pair("lms", "LMSDiscreteScheduler", spacings=EVEN + BENT, layout=NOT_ROUNDED),
    Pair("pndm", "PNDMScheduler", {"skip_prk_steps": True, "set_alpha_to_one": True}, lacks=("v", "x0")),
    Pair("unipc", "UniPCMultistepScheduler", {"lower_order_final": False}, spacings=EVEN + BENT, layout=DROPS_ONE),
    multistep("dpm-solver-1", 1, "dpmsolver"),
    multistep("dpm-solver-2m", 2, "dpmsolver"),
    multistep("dpm-solver-3m", 3, "dpmsolver", options={"solver": "published"}),
    multistep("dpmpp-2m", 2, "dpmsolver++"),
    multistep("dpmpp-2m", 2, "dpmsolver++", "-heun", solver_type="heun", options={"solver": "heun"}),
    multistep("dpmpp-3m", 3, "dpmsolver++", options={"solver": "published"}),
    multistep("dpmpp-2m-sde", 2, "sde-dpmsolver++"),
    singlestep("dpm-solver-1", 1, "dpmsolver", "-single"),
    singlestep("dpm-solver-2s", 2, "dpmsolver"),
    singlestep("dpm-solver-3s", 3, "dpmsolver", solver_type="heun"),
    singlestep("dpmpp-2s", 2, "dpmsolver++"),
    singlestep("dpmpp-3s", 3, "dpmsolver++", solver_type="heun"),
    singlestep("dpmpp-3s", 3, "dpmsolver++", "-midpoint", options={"solver": "midpoint"}),
]


def compare(pair, spacing, prediction, steps, monkeypatch):
    told = "epsilon" if prediction in pair.lacks else prediction
    config = {**BETAS, **pair.config, "prediction_type": DIFFUSERS_NAMES[told]}
    if spacing in BENT:
        config[f"use_{spacing}_sigmas"] = True
    elif pair.theirs != "DPMSolverSinglestepScheduler":
        config |= {"timestep_spacing": spacing, "steps_offset": 1 if spacing == "leading" else 0}
    scheduler = getattr(diffusers, pair.theirs)(**config)
    scheduler.set_timesteps(steps)
    if spacing in BENT:
        levels = levels_of(scheduler)
    elif spacing == "linspace" and steps == 1 and pair.layout is not DROPS_ONE:
        levels = leading(PATH, 1)  # diffusers' single point is the least noisy one, where ours is the noisiest
    else:
        levels = SPACINGS[spacing].levels(PATH, steps, **pair.layout[spacing])
    if pair.config.get("final_sigmas_type") == "sigma_min":
        levels[-1] = PATH.level(0)

    kind, visited = prediction_named(prediction), []
    mine = ours(pair.ours, levels, prediction, visited, **pair.options)
    places = iter(visited)

    def as_noise(x, t):
        """What the network answers, told as noise, for a scheduler that lacks the network's prediction type."""
        level = next(places)
        return noise_estimate(x, clean_estimate(kind, x, network(x, t), [level] * len(x)), level)

    def right_gap(i):
        """DDIM and PNDM look for the previous time at a distance of 1000 // steps, where it need not be."""
        times = [*sorted({*scheduler.timesteps.tolist()}, reverse=True), -1]
        place = times.index(scheduler.timesteps[i].item())
        if pair.theirs == "PNDMScheduler" and i == 1:
            place -= 1
        scheduler.num_inference_steps = Gap(times[place] - times[place + 1])

    answer = as_noise if prediction in pair.lacks else network
    fix = right_gap if pair.theirs in ("DDIMScheduler", "PNDMScheduler") else lambda i: None
    return error(mine, theirs(scheduler, monkeypatch, answer, fix, **pair.step))


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("prediction", ["epsilon", "v", "x0"])
@pytest.mark.parametrize(
    ("pair", "spacing"), [(pair, spacing) for pair in PAIRS for spacing in pair.spacings], ids=str
)
def test_sampler_equals_the_diffusers_scheduler(pair, spacing, prediction, steps, monkeypatch):
    assert compare(pair, spacing, prediction, steps, monkeypatch) < CLOSE
