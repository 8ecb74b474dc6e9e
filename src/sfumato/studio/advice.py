"""What the user should know of a picture that will probably not come out as hoped."""

import math
from collections.abc import Mapping

from sfumato.adapt.adapters import Adapters
from sfumato.checkpoint import Model
from sfumato.checkpoint.infer import span
from sfumato.edit.motion import ONE_WAY
from sfumato.expansion import Prepared
from sfumato.few_steps import CONSISTENCY_SAMPLERS, compatible, unmet_hints
from sfumato.names import TEXT2VIDEO_ZERO
from sfumato.prompt.chunks import chunks
from sfumato.prompt.meaning import Phrase, WeightedText
from sfumato.prompt.styles import MODELS, Style
from sfumato.request import OVERLAP, Request
from sfumato.studio import clips, editing, enlarging


def notes(picture: Prepared, model: Model, adapters: Adapters) -> tuple[str, ...]:
    """All that there is to say of a picture whose request is resolved."""
    request = picture.request
    idle = _idle(picture)
    if model.unet.reads_guidance and request.negative:
        idle = ["this model is told the guidance and reads no negative prompt"]
    if model.task == "animate" and (request.prompt or request.negative):
        idle = ["this model moves a picture and reads no text: the prompt changes nothing"]
    if request.overlap != OVERLAP and not request.multidiffusion:
        idle = [*idle, "overlap is given, but nothing is drawn in windows: see multidiffusion"]
    if request.cache_interval > 1 and (model.task == "animate" or _in_windows(request, model)):
        idle = [
            *idle,
            "cache_interval does nothing: it is not for windows, nor for models that move pictures",
        ]
    if request.motion == TEXT2VIDEO_ZERO and request.loop and clips.motion_of(request) in ONE_WAY:
        idle = [*idle, "what zooms in or grows is no loop: its last frame does not lead back to the first"]
    found = [*_size(request, model), *_unchanged(request), *idle, *_trained_range(request, model)]
    return (*found, *_hints(picture, adapters), *_cut_off(request, model))


def style_notes(request: Request, model: Model, styles: Mapping[str, Style]) -> list[str]:
    """Which styles of a request were made for another kind of model than this one."""
    kind = "stable-diffusion" if model.kind.startswith("sd") else None
    if model.name == "embedded":
        kind = "embedded"
    return [
        f"the style {name!r} was made for {MODELS[styles[name].models[0]]}, and suits this model less"
        for name in request.style
        if kind and name in styles and styles[name].models and kind not in styles[name].models
    ]


def _in_windows(request: Request, model: Model) -> bool:
    """Whether the last pass of a picture, or a clip, is drawn in windows."""
    windows_of = enlarging.windows if request.frames is None else clips.windows
    return windows_of(request, request.size, model, 0) is not None


def _size(request: Request, model: Model) -> list[str]:
    """Whether the network meets a size that it does not know: in the first pass, where shapes are made.

    A picture that it draws over lightly keeps its shapes.
    """
    if enlarging.keeps_shapes(request):
        return []
    size = width, height = enlarging.first_size(request, model.factor)
    native = model.native_size
    small = math.prod(size) < 0.5 * math.prod(native)
    if request.multidiffusion and not small and not enlarging.known(model, size):
        return [
            f"{width}×{height} is drawn in windows of {native[0]}×{native[1]}, each of which may repeat what "
            "the prompt says"
        ]
    found = []
    if small or math.prod(size) > enlarging.KNOWN_AREA * math.prod(native):
        found.append(
            f"{width}×{height} is far from the {native[0]}×{native[1]} this model was trained at; "
            "shapes may be broken or repeated"
        )
    if max(size) > enlarging.KNOWN_RATIO * min(size):
        found.append(f"{width}×{height} is longer than 2:1; shapes may be repeated")
    return found


def _unchanged(request: Request) -> list[str]:
    """Whether a strength of more than 0 comes to no step of the few."""
    if request.image is None or request.extend is not None or not request.strength:
        return []
    assert request.steps is not None
    if editing.first_step(request) < request.steps:
        return []
    return [
        f"strength {request.strength:g} of {request.steps} steps is less than one: nothing is drawn anew; "
        f"take {math.ceil(1 / request.strength)} steps or more"
    ]


def _idle(picture: Prepared) -> list[str]:
    """What is set but does nothing, as there is no guidance."""
    request = picture.request
    idle = [
        name
        for name, given in (
            ("the negative prompt", (request.origin or request).negative),
            ("guidance_interval", request.guidance_interval),
            ("guidance_rescale", request.guidance_rescale),
        )
        if given
    ]
    if not idle or request.guidance != 1:
        return []
    for prompt in (picture.prompt, *picture.regions):
        terms = prompt.terms(request.steps or 1)
        if not math.isclose(sum(term.weight for term in terms), 1, abs_tol=1e-6):
            return []
    why = "fast draws without guidance" if request.fast else "guidance 1 is the prompt alone"
    return [f"{name} does nothing: {why}" for name in idle]


def _trained_range(request: Request, model: Model) -> list[str]:
    """What a distilled model has not learned of what is asked of it."""
    trained, defaults = model.info.trained_range, model.defaults
    if trained is None:
        return []
    found = []
    if defaults.sampler in CONSISTENCY_SAMPLERS and not compatible(request, defaults.sampler):
        found.append(
            f"sampler {request.sampler!r} is not for what this distilled model has learned: "
            f"pictures will be worse; try {defaults.sampler!r}"
        )
    for name, value, (low, high), best in (
        ("steps", request.steps, trained.steps, defaults.steps),
        ("guidance", request.guidance, trained.guidance, defaults.guidance),
    ):
        if value is not None and not low <= value <= high:
            found.append(
                f"{name} {value:g} is not what this distilled model has learned ({span(low, high)}): "
                f"pictures will be worse, not better; try {best:g}"
            )
    return found


def _hints(picture: Prepared, adapters: Adapters) -> list[str]:
    """What LoRAs for few steps need and the request does not have, as far as they have been read."""
    found = []
    for each in picture.adapters:
        hints = adapters[each.name].sampling_hints if each.name in adapters.names else {}
        if each.weight and hints and (unmet := unmet_hints(hints, picture.request)):
            found.append(
                f"the LoRA {each.name!r} is for few steps: it draws well only with {', '.join(unmet)}"
            )
    return found


def _cut_off(request: Request, model: Model) -> list[str]:
    """Whether a plain prompt is longer than its one window."""
    found = []
    for name in ("prompt", "negative") if request.dialect == "plain" else ():
        text = Phrase((WeightedText(getattr(request, name)),))
        dropped = max((chunks(text, each, "plain")[1] for each in model.tokenizers), default=0)
        if dropped:
            found.append(
                f"the {name} is {dropped} tokens too long for one window, and a plain prompt has no "
                "other; its end was not read"
            )
    return found
