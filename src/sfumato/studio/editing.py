"""How a drawing over a picture begins, what the network is given of the picture, and what is kept of it."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from sfumato.checkpoint import Model
from sfumato.decoders import Decoders
from sfumato.diffusion.inpainting import keep_known
from sfumato.diffusion.inversion import ddim_inversion, ddpm_inversion, with_residuals
from sfumato.diffusion.level import Level
from sfumato.diffusion.sampling import Noise, Sampler, Sampling, Start, Wrapper, resumed
from sfumato.edit.canvas import Canvas
from sfumato.request import Request
from sfumato.studio import clips


def first_step(request: Request) -> int:
    """The step that a drawing begins with, by its strength; those taken are rounded down, as in diffusers."""
    assert request.steps is not None
    return 0 if request.strength is None else request.steps - int(request.steps * request.strength)


def input_channels(
    model: Model, decoders: Decoders, canvas: Canvas | None, seamless: str = ""
) -> Tensor | None:
    """What the network is given of a picture besides the latent (1, C, h, w), by the model's task."""
    if canvas is None or model.task == "text":
        return None
    if model.task == "instruct":
        # as it was trained: the raw latent
        return model.vae.unscale(decoders.encode(canvas.shown, seamless=seamless))
    mask = canvas.cells(model.factor)
    assert mask is not None
    kept = decoders.encode(canvas.kept, seamless=seamless)
    return torch.cat([mask.to(kept), kept], dim=1)


def begun(
    model: Model, decoders: Decoders, canvas: Canvas, request: Request, eps: Tensor, noise: Noise
) -> tuple[Start | None, list[Wrapper]]:
    """What a drawing over `canvas` begins with, `None` if with noise alone, and what keeps the rest."""
    first = first_step(request)
    mask = canvas.cells(model.factor)
    keeps = mask is not None and model.task != "inpaint"
    if not first and not keeps:
        return None, []
    x0 = clips.each_frame(decoders.encode(canvas.shown, seamless=request.seamless or "").to(eps), request)
    if mask is None:
        return Start(x0, first), []
    mask = mask.to(eps)
    if request.fill in ("noise", "nothing"):
        filling = noise(x0) if request.fill == "noise" else torch.zeros_like(x0)
        x0 = mask * filling + (1 - mask) * x0
    wrappers: list[Wrapper] = [partial(keep_known, known=x0, eps=eps, mask=mask)] if keeps else []
    return Start(x0, first) if first else None, wrappers


def inverted(request: Request, sampler: Sampler) -> Sampler:
    """From a clean latent to the noise that draws it, and from there by the request and `sampler`."""

    def sample(x: Tensor, levels: Sequence[Level], noise: Noise) -> Sampling:
        first = first_step(request)
        if request.inversion == "ddpm":
            x, residuals = yield from ddpm_inversion(x, levels, noise, first=first)
            drawing = with_residuals(x, levels[first:], residuals)
        else:
            x = yield from ddim_inversion(x, levels, first=first)
            drawing = sampler(x, levels[first:], noise)
        return (yield from resumed(drawing, first))

    return sample
