"""Our samplers equal the real diffusers schedulers, run live on the same latents, network and noise."""

from dataclasses import dataclass, field
from typing import Any

import diffusers
import pytest
import torch
from peer import BETAS, DIFFUSERS_NAMES, PATH, Drawn, Gap, error, latents, levels_of, network, ours, theirs

from sfumato.diffusion.level import CLEAN, Level
from sfumato.diffusion.predict import clean_estimate, prediction_named
from sfumato.diffusion.samplers import SAMPLERS
from sfumato.diffusion.samplers.rules import noise_in
from sfumato.diffusion.sampling import run
from sfumato.diffusion.spacing import SPACINGS, leading, trailing

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
    options, spacings = config.pop("options", {}), config.pop("spacings", EVEN + BENT)
    return Pair(
        ours,
        "DPMSolverMultistepScheduler",
        {"solver_order": order, "algorithm_type": kind, "lower_order_final": False, **ENDS[kind], **config},
        options,
        spacings=spacings,
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


AS_PUBLISHED = {"solver": "published", "bootstrap": False}
PAIRS = [
    Pair("ddpm", "DDPMScheduler", {"clip_sample": False}),
    # with the large variance diffusers' last step ends noisy unless its time is 0
    Pair(
        "ddpm",
        "DDPMScheduler",
        {"clip_sample": False, "variance_type": "fixed_large"},
        {"large": True},
        spacings=("linspace",),
        label="-large",
    ),
    Pair("ddim", "DDIMScheduler", {"clip_sample": False}),
    Pair("ddim", "DDIMScheduler", {"clip_sample": False}, {"eta": 1.0}, {"eta": 1.0}, label="-eta-1"),
    Pair("euler", "EulerDiscreteScheduler", spacings=EVEN + BENT, layout=NOT_ROUNDED),
    Pair("euler-a", "EulerAncestralDiscreteScheduler", layout=NOT_ROUNDED, lacks=("x0",)),
    Pair("heun", "HeunDiscreteScheduler", spacings=EVEN + BENT, layout=NOT_ROUNDED),
    Pair("dpm2", "KDPM2DiscreteScheduler", spacings=EVEN + BENT, layout=NOT_ROUNDED, lacks=("x0",)),
    Pair(
        "dpm2-a",
        "KDPM2AncestralDiscreteScheduler",
        spacings=(*EVEN, "karras", "exponential"),  # with beta its float32 σ_down is off by 1e-4
        layout=NOT_ROUNDED,
        lacks=("x0",),
    ),
    Pair("lms", "LMSDiscreteScheduler", {}, {"bootstrap": False}, spacings=EVEN + BENT, layout=NOT_ROUNDED),
    Pair("pndm", "PNDMScheduler", {"skip_prk_steps": True, "set_alpha_to_one": True}, lacks=("v", "x0")),
    Pair(
        "unipc",
        "UniPCMultistepScheduler",
        {},
        {"lower_order_final": True},
        spacings=EVEN + BENT,
        layout=DROPS_ONE,
    ),
    Pair(
        "unipc",
        "UniPCMultistepScheduler",
        {"solver_order": 3},
        {"order": 3, "lower_order_final": True},
        layout=DROPS_ONE,
        label="-3",
    ),
    Pair(
        "unipc",
        "UniPCMultistepScheduler",
        {"solver_type": "bh1", "final_sigmas_type": "sigma_min"},  # to zero it is NaN
        {"solver": "bh1", "lower_order_final": True},
        layout=DROPS_ONE,
        label="-bh1",
    ),
    Pair(
        "deis",
        "DEISMultistepScheduler",
        {"solver_order": 3, "lower_order_final": False},
        {"bootstrap": False},
        layout=DROPS_ONE,
    ),
    multistep("dpm-solver-1", 1, "dpmsolver"),
    multistep("dpm-solver-2m", 2, "dpmsolver"),
    multistep("dpm-solver-3m", 3, "dpmsolver", options=AS_PUBLISHED, spacings=EVEN),  # else NaN
    multistep("dpmpp-2m", 2, "dpmsolver++"),
    multistep("dpmpp-2m", 2, "dpmsolver++", "-heun", solver_type="heun", options={"solver": "heun"}),
    multistep("dpmpp-3m", 3, "dpmsolver++", options=AS_PUBLISHED),
    multistep("dpmpp-2m-sde", 2, "sde-dpmsolver++"),
    multistep("dpmpp-2m-sde", 2, "sde-dpmsolver++", "-heun", solver_type="heun", options={"solver": "heun"}),
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
    if str(pair) == "dpm-solver-2s" and steps % 2 == 0:
        config["lower_order_final"] = (
            False  # which halves the order of the last pair; odd counts crash without
        )
    scheduler = getattr(diffusers, pair.theirs)(**config)
    scheduler.set_timesteps(steps)
    if spacing in BENT or (prediction in pair.lacks and hasattr(scheduler, "sigmas")):
        levels = levels_of(scheduler)
    elif spacing == "linspace" and steps == 1 and pair.layout is not DROPS_ONE:
        levels = leading(
            PATH, 1
        )  # diffusers' single point is the least noisy one, where ours is the noisiest
    else:
        levels = SPACINGS[spacing].levels(PATH, steps, **pair.layout[spacing])
    if pair.config.get("final_sigmas_type") == "sigma_min" or pair.theirs == "DEISMultistepScheduler":
        levels[-1] = PATH.level(0)

    kind, visited = prediction_named(prediction), []
    # an x0 told as noise near the picture and carried over a long step loses float32's last four digits
    dtype = torch.float64 if prediction in pair.lacks else torch.float32
    mine = ours(pair.ours, levels, prediction, visited, dtype=dtype, **pair.options)
    places = iter(visited)

    def as_noise(x, t):
        """The network's answer as noise, for a scheduler that lacks its prediction type."""
        level = next(places)
        return noise_in(x, clean_estimate(kind, x, network(x, t), [level] * len(x)), level)

    def right_gap(i):
        """DDIM and PNDM look for the previous time at a distance of 1000 // steps, where it need not be."""
        times = [*sorted({*scheduler.timesteps.tolist()}, reverse=True), -1]
        place = times.index(scheduler.timesteps[i].item())
        if pair.theirs == "PNDMScheduler" and i == 1:
            place -= 1
        scheduler.num_inference_steps = Gap(times[place] - times[place + 1])

    answer = as_noise if prediction in pair.lacks else network
    fix = right_gap if pair.theirs in ("DDIMScheduler", "PNDMScheduler") else lambda i: None
    return error(mine, theirs(scheduler, monkeypatch, answer, fix, dtype, **pair.step))


@pytest.mark.parametrize(
    ("pair", "spacing"), [(pair, spacing) for pair in PAIRS for spacing in pair.spacings], ids=str
)
def test_sampler_equals_the_diffusers_scheduler(pair, spacing, monkeypatch):
    for prediction, steps in (*(("epsilon", steps) for steps in STEPS), ("v", 10), ("x0", 10)):
        assert compare(pair, spacing, prediction, steps, monkeypatch) < CLOSE, (prediction, steps)


@pytest.mark.parametrize("steps", [4, 10, 25])
def test_pndm_with_its_warm_up_equals_diffusers(steps, monkeypatch):
    scheduler = diffusers.PNDMScheduler(**BETAS, skip_prk_steps=False, set_alpha_to_one=True)
    scheduler.set_timesteps(steps)
    peer = theirs(scheduler, monkeypatch, network)
    assert error(ours("pndm", leading(PATH, steps), "epsilon", warm_up=True), peer) < CLOSE


@pytest.mark.parametrize(
    ("name", "scheduler"), [("ddim", diffusers.DDIMScheduler), ("pndm", diffusers.PNDMScheduler)]
)
def test_ending_at_the_first_training_level_is_diffusers_set_alpha_to_one_false(name, scheduler, monkeypatch):
    options = {"skip_prk_steps": True} if name == "pndm" else {"clip_sample": False}
    peer = scheduler(**BETAS, **options, set_alpha_to_one=False, steps_offset=1)
    peer.set_timesteps(10)
    levels = [*leading(PATH, 10, offset=1)[:-1], PATH.level(0)]
    assert error(ours(name, levels, "epsilon"), theirs(peer, monkeypatch, network)) < CLOSE


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("prediction", ["epsilon", "v", "x0"])
def test_lcm_equals_diffusers(prediction, steps, monkeypatch):
    scheduler = diffusers.LCMScheduler(**BETAS, prediction_type=DIFFUSERS_NAMES[prediction])
    scheduler.set_timesteps(steps)
    levels = [*(PATH.level(t) for t in scheduler.timesteps.tolist()), CLEAN]
    assert error(ours("lcm", levels, prediction), theirs(scheduler, monkeypatch, network)) < CLOSE


@pytest.mark.parametrize("eta", [0.0, 0.333333, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 4, 10])
@pytest.mark.parametrize("prediction", ["epsilon", "v", "x0"])
def test_tcd_equals_diffusers_where_its_inner_times_are_whole(prediction, steps, eta, monkeypatch):
    """Diffusers rounds (1 − γ)·t' down, where we interpolate: with these times and γ it is whole."""
    scheduler = diffusers.TCDScheduler(**BETAS, prediction_type=DIFFUSERS_NAMES[prediction])
    times = [999 - i * (960 // steps) for i in range(steps)]
    scheduler.set_timesteps(timesteps=times, original_inference_steps=1000)
    levels = [*(PATH.level(t) for t in times), PATH.level(0)]
    peer = theirs(scheduler, monkeypatch, network, eta=eta)
    assert error(ours("tcd", levels, prediction, eta=eta), peer) < CLOSE


def test_tcds_gamma_is_diffusers_and_its_times_are_rounded_down_where_asked(monkeypatch):
    scheduler = diffusers.TCDScheduler(**BETAS)
    scheduler.set_timesteps(4)
    levels = [*(PATH.level(t) for t in scheduler.timesteps.tolist()), PATH.level(0)]
    peer = theirs(scheduler, monkeypatch, network)
    assert error(ours("tcd", levels, "epsilon", whole=True), peer) < CLOSE


@pytest.mark.parametrize("orders", [(1, 1), (2, 2), (3, 3), (2, 3)])
@pytest.mark.parametrize("kind", ["data_prediction", "noise_prediction"])
@pytest.mark.parametrize("tau", [0.0, 0.6, 1.0])
def test_sa_solver_equals_diffusers(orders, kind, tau, monkeypatch):
    predictor, corrector = orders
    scheduler = diffusers.SASolverScheduler(
        **BETAS,
        predictor_order=predictor,
        corrector_order=corrector,
        algorithm_type=kind,
        tau_func=lambda t: tau,
        timestep_spacing="trailing",
    )
    scheduler.set_timesteps(8)
    mine = ours(
        "sa-solver",
        levels_of(scheduler),
        "epsilon",
        tau=lambda level: tau,
        predictor_order=predictor,
        corrector_order=corrector,
        of_noise=kind == "noise_prediction",
    )
    assert error(mine, theirs(scheduler, monkeypatch, network)) < CLOSE


class OnePath:
    """Replaces diffusers' Brownian tree: two draws a step, the second call's noise containing the first's."""

    def __init__(self):
        self.draws, self.first = Drawn(), None

    def __call__(self, sigma, sigma_next):
        like = torch.empty(2, 3, 4, 4)
        if self.first is None:
            self.first = (self.draws(like), sigma_next)
            return self.first[0]
        (z, middle), self.first = self.first, None
        up = [
            there * (1 - (there / here) ** 2) ** 0.5
            for here, there in ((sigma, middle), (middle, sigma_next))
        ]
        whole = sigma_next * (1 - (sigma_next / sigma) ** 2) ** 0.5
        return ((sigma_next / middle) ** 2 * up[0] * z + up[1] * self.draws(like)) / whole


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("prediction", ["epsilon", "v"])
@pytest.mark.parametrize("spacing", ["linspace", "trailing", "karras", "exponential", "beta"])
def test_dpmpp_sde_equals_diffusers_on_one_brownian_path(spacing, prediction, steps, monkeypatch):
    bent = {f"use_{spacing}_sigmas": True} if spacing in BENT else {"timestep_spacing": spacing}
    scheduler = diffusers.DPMSolverSDEScheduler(**BETAS, prediction_type=DIFFUSERS_NAMES[prediction], **bent)
    scheduler.set_timesteps(steps)
    scheduler.noise_sampler = OnePath()
    peer = theirs(scheduler, monkeypatch, network)
    assert error(ours("dpmpp-sde", levels_of(scheduler), prediction), peer) < CLOSE


@pytest.mark.parametrize("steps", [1, 2, 4, 10, 25])
def test_consistency_equals_diffusers_on_the_exploding_path(steps, monkeypatch):
    scheduler = diffusers.CMStochasticIterativeScheduler(clip_denoised=False)
    scheduler.set_timesteps(steps)
    peer = theirs(scheduler, monkeypatch, network)
    levels = [
        Level(1.0, s, t)
        for s, t in zip(scheduler.sigmas.tolist(), scheduler.timesteps.tolist(), strict=False)
    ]

    def denoise(x, level):
        near = (level.s - 0.002) ** 2 + 0.25
        skip, out = 0.25 / near, (level.s - 0.002) * 0.5 / (level.s**2 + 0.25) ** 0.5
        return skip * x + out * network(x / (level.s**2 + 0.25) ** 0.5, level.t)

    x = latents() * (levels[0].s ** 2 + 1) ** 0.5
    mine = run(SAMPLERS["consistency"].sample(x, [*levels, CLEAN], Drawn(), sigma_min=0.002), denoise)
    assert error(mine, peer) < CLOSE


@pytest.mark.parametrize(
    "options", [{"s_churn": 4.0}, {"s_churn": 40.0, "s_tmin": 0.1, "s_tmax": 5.0, "s_noise": 1.01}]
)
def test_churn_equals_diffusers_for_an_answer_that_ignores_the_latent(options, monkeypatch):
    """Diffusers asks before it raises the noise, Karras et al. after: only such an answer agrees."""
    scheduler = diffusers.EulerDiscreteScheduler(**BETAS, timestep_spacing="trailing")
    scheduler.set_timesteps(10)
    fixed = latents().flip(0)
    peer = theirs(scheduler, monkeypatch, lambda x, t: fixed, **options)
    mine = ours("euler", trailing(PATH, 10), "epsilon", answer=lambda x, t: fixed, **options)
    assert error(mine, peer) < CLOSE
