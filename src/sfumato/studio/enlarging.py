"""Pictures larger than the model was trained at: a pass at its own size, a second one, windows, and
upscalers.
"""

import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import torch
from torch import Tensor
from torch.nn import functional as F

from sfumato import weights
from sfumato.checkpoint import Model
from sfumato.config.model_settings import DEFAULT_UPSCALER
from sfumato.decoders import Decoders
from sfumato.diffusion.guidance import ClassifierFreeGuidance
from sfumato.diffusion.sampling import Sampling
from sfumato.edit.canvas import LANCZOS, Canvas
from sfumato.engine import Decode, Job
from sfumato.errors import UsageError
from sfumato.nets import upscaler
from sfumato.nets.circular import continued
from sfumato.nets.inference import for_inference
from sfumato.nets.upscaler import Upscaler, enlarged
from sfumato.nets.windows import Windows
from sfumato.request import Request

EMBEDDED_UPSCALER = Path(upscaler.__file__).parents[1] / "models" / "upscaler" / "upscaler.safetensors"
KNOWN_AREA, KNOWN_RATIO = 1.5, 2.0
"""A model knows sizes of up to so many times its native area, and shapes of up to so many to one."""
STRENGTH, LATENT_STRENGTH = 0.3, 0.6
"""Of what was enlarged, unless the model says less, as one that knows whole icons and would make icons of
their parts. A latent that was made larger is blocks of cells until most of it is drawn anew.
"""
KEEPS_SHAPES = 0.5
"""Up to this strength a drawing over a picture keeps its shapes, whatever its size."""
REFINED_CELLS = 128
"""Latent cells a side of the windows of a pass that is given its shapes: 1,024 pixels."""
WITHOUT_NETWORK = (None, "lanczos", "latent")
MARGIN = 16
"""Pixels around a picture that Lanczos may read."""

Size = tuple[int, int]
"""Width and height in pixels."""


def known(model: Model, size: Size) -> bool:
    """Whether the model draws pictures of `size` as well as those of its own."""
    (width, height), native = size, model.native_size
    area = width * height / (native[0] * native[1])
    return area <= KNOWN_AREA and max(size) <= KNOWN_RATIO * min(size)


def first_size(request: Request, factor: int) -> Size:
    """The size of the first pass of a resolved request: its own where there is no second."""
    scale = request.upscale or 1.0
    if scale == 1:
        return request.size
    width, height = (max(round(side / scale / factor), 1) * factor for side in request.size)
    return width, height


def pass_sizes(request: Request, factor: int) -> list[Size]:
    """The sizes of the passes of a resolved request, one or two."""
    return list(dict.fromkeys([first_size(request, factor), request.size]))


def drawn_size(request: Request, native: Size, factor: int) -> Size:
    """The size of a request's picture: as it says, else `native`, as many times as it is enlarged."""
    scale = request.upscale or 1.0
    if request.image is not None and (request.width or request.height):
        scale = 1.0  # the other side follows from the given one
    wide, high = (round(side * scale / factor) * factor for side in native)
    return request.width or wide, request.height or high


def keeps_shapes(request: Request) -> bool:
    """Whether a request is drawn over all of a picture so lightly that its shapes stay."""
    drawn_over = request.image is not None and request.mask is None and request.extend is None
    return drawn_over and (request.strength or 0) <= KEEPS_SHAPES


def refines(request: Request) -> bool:
    """Whether a resolved request has a second pass of the network, or the decoder needs one's latent."""
    return request.upscale != 1 and (request.upscale_strength != 0 or request.upscaler == "latent")


def enlarges(request: Request) -> bool:
    """Whether the picture that a resolved request is drawn over, all of it, is enlarged first."""
    return request.upscaler is not None and request.upscale == 1 and request.mask is None


def fetch(request: Request, decoders: Decoders) -> dict[str, str]:
    """Have the network of a resolved request's upscaler ready, if it has one; its fingerprint, by its name.

    Raises `CheckpointError`.
    """
    if request.upscaler in WITHOUT_NETWORK or (request.upscale == 1 and not enlarges(request)):
        return {}
    assert request.upscaler is not None
    return {request.upscaler: network(request.upscaler, decoders.device, decoders.dtype).fingerprint}


def decode(request: Request, decoders: Decoders) -> Decode:
    """From the last latent of a resolved request to its pixels, those of a first pass enlarged."""
    decoded = decoders.function(request.decoder, request.seamless or "")
    if request.upscale == 1 or refines(request):
        return decoded
    return lambda latent: enlarge(decoded(latent), request, decoders)


def only(canvas: Canvas, model: Model, key: Any) -> Job:
    """The drawing of a picture that is enlarged and no more: no network is asked, and no latent decoded."""

    def sampling() -> Sampling:
        return torch.zeros(model.latent.shape(canvas.size))
        yield  # a coroutine that asks nothing

    nothing = ClassifierFreeGuidance.of(None)
    return Job(key, sampling(), nothing, decode=lambda latent: canvas.shown)


def second_step(request: Request) -> int:
    """The step that the second pass begins with, by its strength."""
    assert request.upscale_steps is not None
    return request.upscale_steps - request.upscale_steps_taken


def resolved(request: Request, model: Model, steps: int) -> Request:
    """`request`, whose size and strength are known, with all that is said here of its passes filled in."""
    if request.extend is not None or request.frames:  # drawn in passes and windows of its own
        return request.filled(upscale=1.0, multidiffusion=False)
    scale, windows = request.upscale, request.multidiffusion
    large = not known(model, request.size)
    if scale is None:
        keeps = request.mask is not None or keeps_shapes(request)
        scale = 1.0 if keeps or not large or windows else _scale(request.size, model.native_size)
    if windows is None:
        windows = large
    request = request.filled(upscale=scale, multidiffusion=windows)
    if scale == 1:
        for name in ("upscale_strength", "upscale_steps", *(("upscaler",) if request.image is None else ())):
            if getattr(request, name) is not None:
                raise UsageError(
                    f"{name} is given, but nothing is enlarged: set upscale as well, to 2 or more"
                )
        return request
    if len(pass_sizes(request, model.factor)) == 1:
        width, height = request.size
        raise UsageError(f"upscale is {scale:g}: of {width}×{height} that is no smaller picture; 2 would be")
    name = upscaler_of(request, model)
    strength = LATENT_STRENGTH if name == "latent" else strength_of(model)
    return request.filled(
        upscaler=name,
        upscale_steps=request.upscale_steps or steps,
        upscale_strength=strength if request.upscale_strength is None else request.upscale_strength,
    )


def upscaler_of(request: Request, model: Model) -> str:
    """What enlarges where the request does not say."""
    return request.upscaler or str(model.own.get("upscaler", DEFAULT_UPSCALER))


def strength_of(model: Model) -> float:
    """How much of what was enlarged is drawn anew where the request does not say."""
    return float(model.own.get("upscale_strength", STRENGTH))


def _scale(size: Size, native: Size) -> float:
    """How many times larger `size` is than the native one: by area, and by the shorter side where the shape
    is one that the model does not know, so that the first pass is as high (or wide) as it knows, and drawn in
    windows.
    """
    if max(size) <= KNOWN_RATIO * min(size):
        return max(math.sqrt(math.prod(size) / math.prod(native)), 1.0)
    return max(min(side / own for side, own in zip(size, native, strict=True)), 1.0)


def windows(request: Request, size: Size, model: Model, budget: float) -> Windows | None:
    """The windows of a pass of `size`, if it has any; `budget` as an engine's.

    They are of the model's size, and larger in a pass that is given its shapes: a part of an object without
    the rest of it would be made an object of its own. The first of two passes has windows only where its
    size is larger than the model knows.
    """
    last = size == request.size
    if not request.multidiffusion or not (last or not known(model, size)):
        return None
    height, width = model.latent.shape(model.native_size)[-2:]
    if last and (request.upscale != 1 or keeps_shapes(request)):
        height, width = max(height, REFINED_CELLS), max(width, REFINED_CELLS)
    at_once = max(int(budget / (height * width)), 1)
    found = Windows((height, width), request.overlap, request.seamless or "", at_once, model.factor)
    return found if found.split(model.latent.shape(size)) else None


def enlarge_latent(latent: Tensor, request: Request, decoders: Decoders) -> Tensor:
    """The latent (1, C, h, w) of a first pass at the size of the second: its own numbers, or those of its
    picture.
    """
    seamless = request.seamless or ""
    if request.upscaler == "latent":
        *_, height, width = decoders.model.latent.shape(request.size)
        return F.interpolate(latent, size=(height, width), mode="nearest-exact")
    pixels = decoders.decode(latent, request.decoder, seamless)
    return decoders.encode(enlarge(pixels, request, decoders), seamless=seamless).to(latent)


def enlarge(pixels: Tensor, request: Request, decoders: Decoders) -> Tensor:
    """Pixels (1, 3, H, W) in [−1, 1] at the size of `request`, by its upscaler, in float32 on the CPU.

    A network enlarges until that size is reached, and Lanczos brings the result to it.
    """
    seamless, (width, height) = request.seamless or "", request.size
    x = pixels.float().clamp(-1, 1)
    if request.upscaler not in WITHOUT_NETWORK:
        assert request.upscaler is not None
        net = network(request.upscaler, decoders.device, decoders.dtype).net
        x = x.to(decoders.device)
        with torch.inference_mode():
            while x.shape[3] < width or x.shape[2] < height:
                x = enlarged(net, x, seamless).clamp(-1, 1)
    return _lanczos(x.cpu(), (width, height), seamless)


def enlarged_canvas(canvas: Canvas, request: Request, decoders: Decoders) -> Canvas:
    """`canvas`, all of which is drawn at the size of `request`, with its picture enlarged to that."""
    pixels = torch.from_numpy(canvas.pixels / np.float32(127.5) - 1).permute(2, 0, 1)[None]
    large = ((enlarge(pixels, request, decoders)[0] + 1) * 127.5).round().to(torch.uint8)
    width, height = request.size
    return replace(
        canvas,
        pixels=large.permute(1, 2, 0).contiguous().numpy(),
        box=(0, 0, width, height),
        size=request.size,
    )


class ReadyUpscaler(NamedTuple):
    """An upscaler ready to compute, and 16 hexadecimal digits that identify its weights."""

    net: Upscaler
    fingerprint: str


@cache
def network(name: str, device: torch.device, dtype: torch.dtype) -> ReadyUpscaler:
    """The upscaler called `name`: "embedded", or that of a file, which is read once. Raises
    `CheckpointError`.
    """
    path = EMBEDDED_UPSCALER if name == "embedded" else Path(name)
    net = upscaler.load(path)
    fingerprint = weights.digest(net.state_dict())
    return ReadyUpscaler(for_inference(net, device, dtype), fingerprint)


def _lanczos(x: Tensor, size: Size, seamless: str) -> Tensor:
    """Pixels (1, 3, H, W) in [−1, 1] at (width, height) `size`."""
    height, width = x.shape[2:]
    if (width, height) == size:
        return x
    around = ((continued(x, MARGIN, seamless)[0] + 1) * 127.5).round().to(torch.uint8)
    picture = PIL.Image.fromarray(around.permute(1, 2, 0).contiguous().numpy())
    left, top = MARGIN * ("x" in seamless), MARGIN * ("y" in seamless)
    box = (left, top, left + width, top + height)
    pixels = np.asarray(picture.resize(size, LANCZOS, box), dtype=np.float32) / 127.5 - 1
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous()
