"""Drives a real diffusers scheduler and one of our samplers over the same network, latents and noise."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sfumato.diffusion.level import Level, VariancePreserving, alphas_cumprod, scaled_linear_betas
from sfumato.diffusion.predict import clean_estimate, prediction_named
from sfumato.diffusion.samplers import SAMPLERS
from sfumato.diffusion.sampling import run

PATH = VariancePreserving(alphas_cumprod(scaled_linear_betas()))
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
DIFFUSERS_NAMES = {"epsilon": "epsilon", "v": "v_prediction", "x0": "sample"}
MIX = torch.randn(3, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def network(x: Tensor, t: float) -> Tensor:
    """A smooth nonlinear answer to x (B, 3, H, W), in the variance-preserving scaling, at time t."""
    mixed = torch.einsum("ij,bj...->bi...", (torch.eye(3).double() + 0.3 * MIX).to(x), x)
    return torch.tanh(mixed + 0.3 * float(t) / 1000)


def latents(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(11)).to(dtype)


class Drawn:
    """Noise that is the same, draw for draw, for a scheduler (as `randn_tensor`) and for our samplers."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, like: Tensor, /) -> Tensor:
        return self.randn_tensor(like.shape, dtype=like.dtype)

    def randn_tensor(self, shape: Any, dtype: Any = None, **_: Any) -> Tensor:
        self.count += 1
        seeded = torch.Generator().manual_seed(1000 + self.count)
        return torch.randn(tuple(shape), generator=seeded).to(dtype or torch.float32)


class Gap(int):
    """A step count that makes DDIM and PNDM take the true distance to the previous time for 1000 // count."""

    def __rfloordiv__(self, _: int) -> int:
        return int(self)


def theirs(
    scheduler: Any,
    monkeypatch: Any,
    answer: Callable[[Tensor, float], Tensor],
    before_step: Callable[[int], None] = lambda i: None,
    dtype: torch.dtype = torch.float32,
    **step_options: Any,
) -> Tensor:
    """Diffusers' last latent from `latents()`."""
    module = sys.modules[type(scheduler).__module__]
    if hasattr(module, "randn_tensor"):
        monkeypatch.setattr(module, "randn_tensor", Drawn().randn_tensor)
    x = latents(dtype)
    exploding = float(scheduler.init_noise_sigma) != 1.0  # its latents are in the a = 1 scaling
    if exploding:
        x = x * (scheduler.sigmas[0] ** 2 + 1) ** 0.5
    for i, t in enumerate(scheduler.timesteps):
        before_step(i)
        out = answer(scheduler.scale_model_input(x, t), t.item())
        x = scheduler.step(out, t, x, **step_options).prev_sample
    if exploding:
        x = x / (scheduler.sigmas[-1] ** 2 + 1) ** 0.5
    return x


def ours(
    name: str,
    levels: Sequence[Level],
    prediction: str,
    visited: list[Level] | None = None,
    answer: Callable[[Tensor, float], Tensor] = network,
    dtype: torch.dtype = torch.float32,
    **options: Any,
) -> Tensor:
    """Our last latent from `latents()`; the levels asked at are added to `visited`."""
    kind = prediction_named(prediction)

    def denoise(x: Tensor, level: Level) -> Tensor:
        if visited is not None:
            visited.append(level)
        return clean_estimate(kind, x, answer(x, level.t), [level] * len(x))

    return run(SAMPLERS[name].sample(latents(dtype), levels, Drawn(), **options), denoise)


def levels_of(scheduler: Any) -> list[Level]:
    """The levels that a scheduler with sigmas stops at, with its own (perhaps rounded) times."""
    sigmas, times = scheduler.sigmas.tolist(), scheduler.timesteps.tolist()
    if scheduler.order == 2:  # each inner sigma and time stands there twice
        sigmas, times = sigmas[:1] + sigmas[1::2], times[::2]
    steps = [PATH.at(sigma) for sigma in sigmas[: len(times)]]
    last = sigmas[len(times)]
    return [
        *(Level(level.a, level.s, t, path=PATH) for level, t in zip(steps, times, strict=True)),
        PATH.at(last) if last else Level(1.0, 0.0, 0.0),
    ]


def error(mine: Tensor, peer: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    assert torch.isfinite(mine).all()
    return ((mine - peer).abs().max() / peer.abs().max()).item()
