"""Clips: what a request for one leaves open, its noise, and the windows of frames that it is drawn in."""

import torch
from torch import Tensor

from sfumato.checkpoint import Model
from sfumato.checkpoint.motion import LoadedMotion
from sfumato.checkpoint.schedules import path_of
from sfumato.diffusion.free_noise import free_noise
from sfumato.diffusion.level import DynamicFlow, Path
from sfumato.errors import UsageError
from sfumato.nets.windows import Windows
from sfumato.request import Request

CONTEXT = 16
"""Frames that a motion adapter attends to at once, unless it is given: as AnimateDiff was trained."""
CONTEXT_OVERLAP = 4
"""Of these the ones that neighbouring windows have in common."""
FPS = 8.0
FRAMES_DECODED = 8
"""Frames that are decoded at once, so that memory does not grow with the clip."""


def resolved(request: Request, model: Model, motion: LoadedMotion) -> Request:
    """A request for a clip with what it leaves open filled in, to be drawn with `motion`.

    Raises `UsageError` for windows that the motion adapter does not know.
    """
    if model.task != "text":
        raise UsageError(f"frames is {request.frames}: {model.name}, an {model.task} model, draws no clips")
    known = motion.network.frames
    context = request.context or min(CONTEXT, known)
    if context > known:
        raise UsageError(f"context is {context}: the motion adapter {motion.name} knows {known} frames")
    overlap = (
        min(CONTEXT_OVERLAP, context // 2) if request.context_overlap is None else request.context_overlap
    )
    if overlap >= context:
        raise UsageError(f"context_overlap is {overlap}: must be less than context, which is {context}")
    return request.filled(
        motion=motion.name,
        fps=request.fps or FPS,
        context=context,
        context_overlap=overlap,
        upscale=1.0,
        multidiffusion=False,
    )


def noise(eps: Tensor, request: Request) -> Tensor:
    """The noise of a resolved request's clip, (1, C, F, h, w), shared by its windows."""
    if request.frames is None:
        return eps
    assert request.context is not None
    assert request.context_overlap is not None
    assert request.seed is not None
    return free_noise(eps, request.context, max(request.context_overlap, 1), request.seed)


def windows(request: Request, size: tuple[int, int], model: Model, budget: float) -> Windows | None:
    """The windows of frames of a resolved request's clip, if it has more than one or is a loop."""
    shape = model.latent.shape(size, frames=request.frames)
    if request.frames is None or request.context is None:
        return None
    cells = request.context * shape[-2] * shape[-1]
    found = Windows(
        (shape[-2], shape[-1]),
        at_once=max(int(budget / cells), 1),
        factor=model.factor,
        frames=request.context,
        frame_overlap=request.context_overlap or 0,
        loop=request.loop,
    )
    return found if found.split(shape) else None


def path(motion: LoadedMotion | None, model: Model) -> Path | None:
    """The path from noise to a clip, where it is another than that of the model's pictures."""
    if motion is None or (schedule := motion.schedule(model.schedule)) is model.schedule:
        return None
    found, *_ = path_of(schedule)
    assert not isinstance(found, DynamicFlow)
    return found


def each_frame(x0: Tensor, request: Request) -> Tensor:
    """A picture's latent (1, C, h, w) as that of a clip which shows it in every frame, if one is asked."""
    if request.frames is None:
        return x0
    return x0.unsqueeze(2).expand(-1, -1, request.frames, -1, -1).contiguous()


def pixels_of(frames: Tensor) -> Tensor:
    """Pixels (1, 3, F, H, W) in [−1, 1] as (F, H, W, 3) of 0 to 255."""
    rgb = (frames[0].float() / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8)
    return rgb.permute(1, 2, 3, 0).contiguous().cpu()
