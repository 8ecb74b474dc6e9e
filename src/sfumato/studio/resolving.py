"""A request with every open field filled in, as a model likes it."""

import secrets
from typing import TYPE_CHECKING

from sfumato.decoders import TINY
from sfumato.edit import outpainting
from sfumato.edit.composition import HARMONISE
from sfumato.errors import UsageError
from sfumato.few_steps import apply_fast
from sfumato.request import MAX_SIDE, Request
from sfumato.studio import clips, enlarging

if TYPE_CHECKING:
    from sfumato.studio.drawing import Studio

DEFAULT_STRENGTH = 0.8
"""Of a drawing that begins with a picture; in a mask it begins with noise."""
DEFAULT_IMAGE_GUIDANCE = 1.5
"""γ_I of a model that edits by instruction, as in diffusers."""


def resolved(request: Request, studio: "Studio") -> Request:
    """`request` filled in for the model of `studio`. Raises `UsageError`, see `Studio.resolve`."""
    model, factor = studio.model, studio.factor
    task = model.task
    if task == "animate" and (request.frames is None or request.image is None):
        raise UsageError(f"{model.name} moves a picture: it draws clips, not pictures, and needs image")
    if task != "text" and request.image is None:
        raise UsageError(f"{model.name} is an {task} model: it edits pictures, and needs image")
    if task != "text" and request.inversion:
        raise UsageError(f"inversion is {request.inversion}: {model.name}, an {task} model, has none")
    if task != "instruct" and request.image_guidance is not None:
        raise UsageError(
            f"image_guidance is {request.image_guidance:g}: {model.name} is no model that edits by "
            "instruction, which alone reads it; see strength"
        )
    if task == "inpaint" and request.mask is None and request.extend is None:
        raise UsageError(f"{model.name} is an inpaint model: it needs mask, the part to draw anew")
    studio.decoders.check(request.decoder)
    if request.frames is not None:
        with studio.lock:
            request = clips.resolved(request, model, studio.motions)
    defaults = model.defaults
    canvas = studio.canvas(request)
    native = studio.native_size if canvas is None else canvas.size
    width, height = enlarging.drawn_size(request, native, factor)
    if max(width, height) > MAX_SIDE:
        raise UsageError(
            f"this would be drawn at {width}×{height} pixels, and at most {MAX_SIDE} a side are: "
            "give width and height"
        )
    for name, value in (("width", width), ("height", height)):
        if value % factor:
            below = max(value // factor, 1) * factor
            raise UsageError(
                f"{name} is {value}: must be a multiple of {factor} for this model, "
                f"such as {below} or {below + factor}"
            )
    if request.elements and request.harmonise is None:
        request = request.filled(harmonise=HARMONISE)
    if request.extend is not None:
        request = outpainting.resolved(request, task)
    elif request.mask is not None:
        request = request.filled(resample=request.resample or 1)
    if canvas is not None and request.strength is None:
        from_noise = canvas.mask is not None or task in ("instruct", "animate")
        usual = enlarging.strength_of(model) if enlarging.enlarges(request) else DEFAULT_STRENGTH
        request = request.filled(strength=1.0 if from_noise else usual)
    if task == "instruct" and request.image_guidance is None:
        own = model.own.get("image_guidance", DEFAULT_IMAGE_GUIDANCE)
        request = request.filled(image_guidance=own)
    if request.fast:
        request = apply_fast(request, model)
    sampler = request.sampler or request.inversion or defaults.sampler
    if request.inversion == "ddpm" and sampler != "ddpm":
        raise UsageError(f"sampler is {sampler}: with inversion ddpm it is ddpm, whose noise is kept")
    spacing = "lcm" if sampler in ("lcm", "tcd") else defaults.spacing
    options, steps = studio.options, request.steps or defaults.steps
    unseeded = request.variation_amount[len(request.variation_seed) :]
    request = enlarging.resolved(request.filled(width=width, height=height), model, steps)
    return request.filled(
        steps=steps,
        guidance=defaults.guidance if request.guidance is None else request.guidance,
        sampler=sampler,
        spacing=request.spacing or spacing,
        seed=_random_seed() if request.seed is None else request.seed,
        variation_seed=(*request.variation_seed, *(_random_seed() for _ in unseeded)),
        model=options.source,
        vae=options.vae,
        tiny=options.tiny if request.decoder == TINY else None,
        base=options.base,
        prediction=options.prediction,
        zero_terminal_snr=options.zero_terminal_snr,
    )


def _random_seed() -> int:
    return secrets.randbelow(2**32)
