"""The samplers by name: what each is, where it comes from, and what it costs."""

import importlib.util
import re
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from sfumato import names
from sfumato.diffusion.level import Flow, Level
from sfumato.diffusion.samplers.adams import adams
from sfumato.diffusion.samplers.consistency import consistency, lcm, tcd
from sfumato.diffusion.samplers.ddim import ddim, ddpm, euler, euler_a
from sfumato.diffusion.samplers.dpm import dpm_solver_multistep, dpmpp_multistep, singlestep
from sfumato.diffusion.samplers.multistep import deis, lms, pndm
from sfumato.diffusion.samplers.runge_kutta import dpm2, dpm2_a, dpmpp_2s_a, dpmpp_sde, heun
from sfumato.diffusion.samplers.sa_solver import sa_solver
from sfumato.diffusion.samplers.unipc import unipc
from sfumato.diffusion.sampling import Noise, Point, Sampler, Sampling, visited
from sfumato.diffusion.spacing import linspace
from sfumato.errors import SfumatoError, UsageError, warn
from sfumato.files import regular
from sfumato.names import sampler_name

S = TypeVar("S", bound=Sampler)


@dataclass(frozen=True)
class SamplerInfo:
    """One sampler. `sample(x, levels, noise, **options)` is its coroutine.

    `order`: its order of accuracy without fresh noise. `random`: whether it adds fresh noise.
    `evaluations_per_step`: evaluations of the network in a middle step; `evaluations` counts all of them.
    """

    name: str
    sample: Sampler
    order: int
    evaluations_per_step: int
    random: bool
    summary: str
    source: str


SAMPLERS = {
    info.name: info
    for info in (
        SamplerInfo("ddpm", ddpm, 1, 1, True,
                    "ancestral sampling as first published; needs many steps", "Ho et al. 2020"),
        SamplerInfo("ddim", ddim, 1, 1, False, "first order, deterministic", "Song et al. 2021"),
        SamplerInfo("euler", euler, 1, 1, False,
                    "ddim in sigma coordinates, with churn as an option", "Karras et al. 2022"),
        SamplerInfo("euler-a", euler_a, 1, 1, True,
                    "ancestral Euler; the picture keeps changing with the steps", "Crowson 2022"),
        SamplerInfo("heun", heun, 2, 2, False, "second order: the trapezoidal rule", "Karras et al. 2022"),
        SamplerInfo("dpm2", dpm2, 2, 2, False,
                    "second order: the midpoint rule", "Lu et al. 2022; Crowson 2022"),
        SamplerInfo("dpm2-a", dpm2_a, 2, 2, True, "dpm2 with fresh noise", "Crowson 2022"),
        SamplerInfo("dpm-solver-1", partial(dpm_solver_multistep, order=1), 1, 1, False,
                    "the same as ddim", "Lu et al. 2022"),
        SamplerInfo("dpm-solver-2s", partial(singlestep, order=2, of_noise=True), 2, 1, False,
                    "second order in eps, singlestep", "Lu et al. 2022"),
        SamplerInfo("dpm-solver-3s", partial(singlestep, order=3, of_noise=True, solver="heun"), 3, 1, False,
                    "third order in eps, singlestep", "Lu et al. 2022"),
        SamplerInfo("dpm-solver-2m", partial(dpm_solver_multistep, order=2), 2, 1, False,
                    "second order in eps, multistep", "Lu et al. 2022"),
        SamplerInfo("dpm-solver-3m", partial(dpm_solver_multistep, order=3), 3, 1, False,
                    "third order in eps, multistep", "Lu et al. 2022"),
        SamplerInfo("dpmpp-2s", partial(singlestep, order=2), 2, 1, False,
                    "second order, singlestep", "Lu et al. 2022b"),
        SamplerInfo("dpmpp-3s", partial(singlestep, order=3, solver="heun"), 3, 1, False,
                    "third order, singlestep", "Lu et al. 2022b"),
        SamplerInfo("dpmpp-2s-a", dpmpp_2s_a, 2, 2, True,
                    "second order with fresh noise", "Lu et al. 2022b; Crowson 2022"),
        SamplerInfo("dpmpp-2m", dpmpp_multistep, 2, 1, False, "second order, multistep", "Lu et al. 2022b"),
        SamplerInfo("dpmpp-3m", partial(dpmpp_multistep, order=3), 3, 1, False,
                    "third order, multistep", "Lu et al. 2022b"),
        SamplerInfo("dpmpp-2m-sde", partial(dpmpp_multistep, eta=1.0), 2, 1, True,
                    "dpmpp-2m with fresh noise", "Lu et al. 2022b"),
        SamplerInfo("dpmpp-3m-sde", partial(dpmpp_multistep, order=3, eta=1.0), 3, 1, True,
                    "dpmpp-3m with fresh noise", "Lu et al. 2022b; Crowson 2022"),
        SamplerInfo("dpmpp-sde", dpmpp_sde, 2, 2, True,
                    "fine texture, two evaluations a step", "Lu et al. 2022b; Crowson 2022"),
        SamplerInfo("unipc", unipc, 3, 1, False,
                    "predictor-corrector, multistep: good with few steps", "Zhao et al. 2023"),
        SamplerInfo("sa-solver", sa_solver, 2, 1, True,
                    "predictor-corrector with fresh noise in the middle times", "Xue et al. 2023"),
        SamplerInfo("lms", lms, 4, 1, False,
                    "linear multistep: a polynomial in sigma through four eps estimates", "Crowson 2022"),
        SamplerInfo("deis", deis, 3, 1, False,
                    "multistep: a polynomial in log sigma through three eps estimates", "Zhang & Chen 2023"),
        SamplerInfo("pndm", pndm, 2, 1, False, "Adams–Bashforth on even times", "Liu et al. 2022"),
        SamplerInfo("adams", adams, 3, 1, False,
                    "Adams–Bashforth–Moulton in the angle: most exact for its cost", "Salimans & Ho 2022"),
        SamplerInfo("lcm", lcm, 1, 1, True,
                    "for networks distilled to 1 to 8 steps (LCM)", "Luo et al. 2023"),
        SamplerInfo("tcd", tcd, 1, 1, True,
                    "for networks distilled along trajectories (TCD)", "Zheng et al. 2024"),
        SamplerInfo("consistency", consistency, 1, 1, True, "for consistency models", "Song et al. 2023"),
    )
}  # fmt: skip


def sampler_named(name: str) -> SamplerInfo:
    """The sampler called `name` here, in A1111 ("DPM++ 2M SDE") or in diffusers ("DDIMScheduler").

    One in the user's folder of samplers is read when it is first asked for. Raises `UsageError`.
    """
    found = sampler_name(name)
    if found not in SAMPLERS:
        _read(names.own_samplers()[found], found)
    return SAMPLERS[found]


def read_own_samplers() -> None:
    """Register all samplers in the user's folder, with a warning of each that cannot be."""
    for name in names.own_samplers():
        try:
            sampler_named(name)
        except UsageError as error:
            warn(str(error))


def register_sampler(name: str, *, order: int = 1, summary: str = "", source: str = "") -> Callable[[S], S]:
    """Make a sampler of one's own known by `name`, to requests and to the command: a decorator.

    It is a generator function `(x, levels, noise)` that yields a `Point` for every estimate that it needs, is
    sent the clean estimate x0, and returns the last latent, of the shape of `x`: see `Sampler`. `order`,
    `summary` and `source` are for the list of samplers. Registering a name of one's own again replaces it.
    Raises `UsageError` for a name that is ours, and for a sampler that fails over a few levels of numbers.
    """
    if (
        not isinstance(name, str)
        or names.plain(name) != name
        or not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name)
    ):
        raise UsageError(f"sampler name {name!r}: must be a text of lower-case letters, digits and hyphens")
    if ours := names.find(name, names.BUILT_IN):
        raise UsageError(f"sampler name {name!r}: {ours} is built in; choose another")

    def register(sample: S) -> S:
        guarded = _guarded(name, sample)
        per_step, random = _costs(guarded)
        SAMPLERS[name] = SamplerInfo(name, guarded, order, per_step, random, summary, source)
        names.SAMPLERS[name] = ()
        return sample

    return register


def evaluations(name: str, levels: Sequence[Level]) -> int:
    """How many evaluations of the network the sampler takes over `levels`, exactly."""
    return len(visited(sampler_named(name).sample, levels))


def _guarded(name: str, sample: Sampler) -> Sampler:
    """`sample` with its mistakes told as such: it is not ours."""

    def sampling(x: Tensor, levels: Sequence[Level], noise: Noise) -> Sampling:
        try:
            steps = sample(x, levels, noise)
            if not isinstance(steps, Generator):
                raise TypeError(f"it must be a generator function, which yields; it returned {type(steps)}")
            point = next(steps)
            while True:
                if not isinstance(point, Point):
                    raise TypeError(f"it must yield Point(x, level, step), not {type(point)}")
                point = steps.send((yield point))
        except StopIteration as done:
            last = done.value
        except SfumatoError:
            raise
        except Exception as error:
            raise UsageError(f"the sampler {name!r} failed: {type(error).__name__}: {error}") from error
        if not isinstance(last, Tensor) or last.shape != x.shape:
            found = tuple(last.shape) if isinstance(last, Tensor) else type(last)
            raise UsageError(
                f"the sampler {name!r} failed: it must return the last latent, {tuple(x.shape)}, not {found}"
            )
        return last

    return sampling


def _costs(sample: Sampler) -> tuple[int, bool]:
    """Evaluations of a middle step, and whether there is fresh noise, from two dry runs over numbers."""
    drawn: list[Tensor] = []

    def noise(like: Tensor, /) -> Tensor:
        drawn.append(like)
        return torch.zeros_like(like)

    def counted(steps: int) -> int:
        levels = linspace(Flow(), steps)[1:]  # without pure noise, where σ is infinite
        return len(visited(lambda x, levels, _: sample(x, levels, noise), levels))

    return counted(9) - counted(8), bool(drawn)


def _read(file: Path, name: str) -> None:
    """Run a Python file of the user's own folder, which registers the sampler of its name."""
    spec = importlib.util.spec_from_file_location(f"sfumato_samplers.{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    try:
        regular(file)
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from error
    try:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    except SfumatoError as error:
        raise UsageError(f"{file}: {error}") from error
    except (Exception, SystemExit) as error:
        raise UsageError(f"{file} cannot be run: {type(error).__name__}: {error}") from error
    if name not in SAMPLERS:
        raise UsageError(f"{file} registers no sampler {name!r}: add @sfumato.register_sampler({name!r})")
