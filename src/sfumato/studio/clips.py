"""Clips: what a request for one leaves open, its noise, and the windows of frames that it is drawn in."""

import math
from collections.abc import Iterator
from dataclasses import replace
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sfumato.checkpoint import Model
from sfumato.checkpoint.motion import LoadedMotion
from sfumato.checkpoint.schedules import path_of
from sfumato.decoders import Decoders
from sfumato.diffusion.free_noise import free_noise
from sfumato.diffusion.guidance import ClassifierFreeGuidance, Guidance
from sfumato.diffusion.level import DynamicFlow, Path
from sfumato.diffusion.sampling import Noise, SeededNoise
from sfumato.edit.canvas import Canvas
from sfumato.edit.clip_picture import clip_pixels
from sfumato.edit.motion import motion_in, placed, transforms, without_motion
from sfumato.errors import UsageError
from sfumato.expansion import Prepared, prompt_of
from sfumato.names import TEXT2VIDEO_ZERO
from sfumato.nets.denoiser import Denoiser
from sfumato.nets.inputs import SizeConditioning
from sfumato.nets.windows import Windows
from sfumato.request import MAX_FPS, Request
from sfumato.studio.motions import Motions
from sfumato.studio.pia import LOOPS, SCALES

CONTEXT = 16
"""Frames that a motion adapter attends to at once, unless it is given: as AnimateDiff was trained."""
CONTEXT_OVERLAP = 4
"""Of these the ones that neighbouring windows have in common."""
FPS = 8.0
MOVED_FPS = 7.0
"""Of Stable Video Diffusion."""
MOTION_AMOUNT, NOISE = 127, 0.02
REDRAWN = 0.3
"""The share of the steps in which every frame of a moved picture is drawn anew (Text2Video-Zero)."""
STILL_MOTION = "swing"
"""How something moves whose prompt does not say."""
FRAMES_DECODED = 8
"""Frames that are decoded at once, so that memory does not grow with the clip."""
MARGIN = 3
"""Frames on both sides that a decoder which sees frames together is shown besides."""


def resolved(request: Request, model: Model, motions: Motions) -> Request:
    """A request for a clip with what it leaves open filled in: by a motion adapter, by Text2Video-Zero, or by
    a model of clips without either.

    Raises `UsageError` for windows that the motion adapter does not know, and for a model that draws none.
    """
    if model.task not in ("text", "animate"):
        raise UsageError(f"frames is {request.frames}: {model.name}, an {model.task} model, draws no clips")
    if request.travel and model.task == "animate":
        raise UsageError(f"travel is given: {model.name} moves a picture and reads no text")
    by_itself = model.info.frames is not None
    if by_itself and request.motion is not None:
        raise UsageError(
            f"motion is {request.motion}: {model.name} draws clips by itself, without an adapter"
        )
    name = None if by_itself else request.motion or motions.default
    motion = motions.fetch(name)
    if motion is not None:
        known = motion.network.frames
        context = request.context or min(CONTEXT, known)
        if context > known:
            raise UsageError(f"context is {context}: the motion adapter {name} knows {known} frames")
    else:
        context = request.context or model.info.frames or CONTEXT
    request = _of_a_moved_picture(request, model, motion)
    overlap = request.context_overlap
    if name == TEXT2VIDEO_ZERO and overlap:
        raise UsageError(f"context_overlap is {overlap}: without a motion adapter windows have none")
    if overlap is None:
        overlap = 0 if name == TEXT2VIDEO_ZERO else min(CONTEXT_OVERLAP, context // 2)
    if overlap >= context:
        raise UsageError(f"context_overlap is {overlap}: must be less than context, which is {context}")
    usual = MOVED_FPS if model.task == "animate" else FPS
    return request.filled(
        motion=name,
        fps=request.fps or min(usual, MAX_FPS / (request.interpolate or 1)),
        context=context,
        context_overlap=overlap,
        upscale=1.0,
        multidiffusion=False,
    )


def _of_a_moved_picture(request: Request, model: Model, motion: LoadedMotion | None) -> Request:
    """What a model or an adapter that moves a picture is told of it, filled in; refused for every other."""
    if motion is not None and motion.network.conv_in is not None:
        if request.image is None:
            raise UsageError(f"the motion adapter {motion.name} is PIA's, which moves a picture: give image")
        if request.noise_augmentation is not None:
            raise UsageError("noise_augmentation is given: PIA shows the picture as it is")
        amount = request.motion_amount or 0
        if amount >= len(SCALES):
            raise UsageError(f"motion_amount is {amount}: PIA knows 0 to {len(SCALES) - 1}")
        amount += LOOPS if request.loop and amount < LOOPS else 0
        return request.filled(
            motion_amount=amount, strength=1.0 if request.strength is None else request.strength
        )
    if model.task == "animate":
        return request.filled(
            motion_amount=MOTION_AMOUNT if request.motion_amount is None else request.motion_amount,
            noise_augmentation=NOISE if request.noise_augmentation is None else request.noise_augmentation,
        )
    for name in ("motion_amount", "noise_augmentation"):
        if (value := getattr(request, name)) is not None:
            raise UsageError(
                f"{name} is {value:g}: {model.name} is no model that moves a picture (Stable Video "
                "Diffusion), nor the motion adapter PIA's, which alone read it"
            )
    return request


def picture_noise(noise: Noise, size: tuple[int, int]) -> Tensor:
    """The noise (1, 3, H, W) of the picture that is moved: the first of a clip's own `noise`."""
    return noise(torch.empty(1, 3, size[1], size[0]))


def guidance(
    model: Model,
    denoiser: Denoiser,
    decoders: Decoders,
    canvas: Canvas,
    request: Request,
    windows: Windows | None,
) -> Guidance:
    """The guidance of a picture that is moved (Blattmann et al. 2023, appendix D).

    The network sees the picture as CLIP's vector in the text's place and, with noise, as a latent beside
    every frame; guided is from neither. The scale rises from 1 at the first frame to `request.guidance` at
    the last.
    """
    assert model.vision is not None
    assert request.fps is not None
    assert request.frames is not None
    assert request.guidance is not None
    assert request.seed is not None
    assert request.motion_amount is not None
    amount = request.noise_augmentation or 0.0
    shown, device = canvas.shown, denoiser.device
    vision = model.vision
    pixels = clip_pixels(shown, vision.config.image_size).to(device, vision.dtype)
    with torch.no_grad():
        states = vision(pixels).pooled[:, None]
    noisy = shown + amount * picture_noise(SeededNoise([request.seed]), request.size)
    # as it was trained: the raw latent
    latent = model.vae.unscale(decoders.encode(noisy, seamless=request.seamless or ""))
    channels = each_frame(latent, request)
    ids = torch.tensor([[request.fps - 1, request.motion_amount, amount]])
    told = SizeConditioning(torch.empty(1, 0), ids)
    seamless = request.seamless or ""
    conditioned, without = (
        denoiser.condition(
            share * states, told, channels=share * channels, windows=windows, seamless=seamless
        )
        for share in (1, 0)
    )
    if request.guidance == 1:
        return ClassifierFreeGuidance.of(conditioned)
    scale = torch.linspace(1, request.guidance, request.frames, device=device).view(1, 1, -1, 1, 1)
    return ClassifierFreeGuidance.of(
        conditioned, without, scale, interval=request.guidance_interval or (0.0, math.inf)
    )


def decoded_parts(frames: int, together: bool) -> Iterator[tuple[slice, slice]]:
    """Which of so many frames are decoded at once, and which of the decoded ones are kept.

    Where the decoder sees frames `together`, it is shown some on both sides of those that are kept.
    """
    margin = MARGIN if together else 0
    for first in range(0, frames, FRAMES_DECODED):
        last = min(first + FRAMES_DECODED, frames)
        low, high = max(first - margin, 0), min(last + margin, frames)
        yield slice(low, high), slice(first - low, last - low)


def noise(eps: Tensor, request: Request) -> Tensor:
    """The noise of a resolved request's clip, (1, C, F, h, w), shared by its windows."""
    if request.frames is None:
        return eps
    if request.motion == TEXT2VIDEO_ZERO:
        return eps[:, :, :1].expand_as(eps)
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
        loop=request.loop and request.motion != TEXT2VIDEO_ZERO,
        first=request.motion == TEXT2VIDEO_ZERO,
    )
    return found if found.split(shape) else None


def path(motion: LoadedMotion | None, model: Model) -> Path | None:
    """The path from noise to a clip, where it is another than that of the model's pictures."""
    if motion is None or (schedule := motion.schedule(model.schedule)) is model.schedule:
        return None
    found, *_ = path_of(schedule)
    assert not isinstance(found, DynamicFlow)
    return found


def frames_begun(request: Request) -> int | None:
    """Frames of the latent that a drawing begins with, of Text2Video-Zero one, unless its prompts travel;
    `None` of a picture.
    """
    return 1 if request.motion == TEXT2VIDEO_ZERO and not request.travel else request.frames


def each_frame(x0: Tensor, request: Request) -> Tensor:
    """A picture's latent (1, C, h, w) as that of a clip which shows it in every frame, if one is asked."""
    if request.frames is None:
        return x0
    frames = frames_begun(request)
    assert frames is not None
    return x0.unsqueeze(2).expand(-1, -1, frames, -1, -1).contiguous()


def still(picture: Prepared) -> Prepared:
    """The picture of a clip by Text2Video-Zero, whose prompt says nothing of its motion."""
    request = picture.request
    if request.motion != TEXT2VIDEO_ZERO:
        return picture
    return replace(picture, prompt=prompt_of(request, without_motion))


def second_step(request: Request) -> int:
    """The step with which a moved picture is drawn on in every frame (Text2Video-Zero)."""
    assert request.steps is not None
    return request.steps - max(int(request.steps * REDRAWN), 1)


def moved_latent(latent: Tensor, request: Request, decoders: Decoders) -> Tensor:
    """A first frame's latent (1, C, 1, h, w), or that of every frame, as a clip's, (1, C, F, h, w), moved as
    its prompt says.

    Text2Video-Zero (Khachatryan et al. 2023, §4.2) moves the latent by a translation; here the picture is
    moved by any of `sfumato.edit.motion`, and encoded frame by frame.
    """
    assert request.frames is not None
    assert request.seed is not None
    seamless = request.seamless or ""
    motion = motion_of(request)
    assert motion is not None
    at, parts = transforms(motion, request.frames, Random(request.seed)), []
    shown = latent.expand(-1, -1, request.frames, -1, -1).split(FRAMES_DECODED, dim=2)
    for frames, part in zip(shown, at.split(FRAMES_DECODED), strict=True):
        pixels = decoders.decode(frames, request.decoder, seamless)[0].float().clamp(-1, 1).cpu()
        parts.append(decoders.encode(placed(pixels.transpose(0, 1), part), seamless=seamless))
    return torch.cat(parts).transpose(0, 1)[None].to(latent)


def motion_of(request: Request) -> str | None:
    """How a moved picture moves: as its prompt says, or one of its frames' texts.

    Without such a word it swings, and where its prompts travel it stands still.
    """
    said = (motion_in(text) for text in (request.prompt, *request.travel.values()))
    return next(filter(None, said), None if request.travel else STILL_MOTION)


def interpolated(picture: Prepared) -> Prepared:
    """The clip of `picture` with the frames in between, whose texts lie between theirs."""
    request, factor = picture.request, picture.request.interpolate
    if not factor:
        return picture
    travel = {factor * frame: text for frame, text in request.travel.items()}
    request = request.filled(frames=request.clip_frames, travel=travel)
    return still(replace(picture, request=request, prompt=prompt_of(request)))


def same_noise(noise: Noise) -> Noise:
    """Noise (1, C, F, h, w) that is the same in every frame, made of `noise`."""
    return lambda like: noise(like[:, :, :1]).expand_as(like)


def pixels_of(frames: Tensor) -> NDArray[np.uint8]:
    """Pixels (1, 3, F, H, W) in [−1, 1] as (F, H, W, 3) of 0 to 255."""
    rgb = (frames[0].float() / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8)
    found: NDArray[np.uint8] = rgb.permute(1, 2, 3, 0).contiguous().cpu().numpy()
    return found
