"""Drawing in few steps: what a request has to ask of a LoRA for that, and what it may not."""

from collections.abc import Mapping
from typing import Any

from sfumato.checkpoint import Model
from sfumato.checkpoint.infer import span
from sfumato.errors import UsageError
from sfumato.request import Request

CONSISTENCY_SAMPLERS = ("lcm", "tcd", "consistency")
"""The samplers that ask a network for the picture at the end of the way, as only some have learned it."""
STEPS, MOST_STEPS, SAMPLER, SPACING, GUIDANCE = 4, 8, "lcm", "lcm", 1.0


def apply_fast(request: Request, model: Model) -> Request:
    """A `fast` request with its steps, sampler and guidance filled in.

    Raises `UsageError` where the model has nothing to draw fast with, and for what does not go with it.
    """
    if model.fast is None:
        few = model.info.trained_range is not None
        raise UsageError(f"{model.name} {'draws in few steps as it is: leave fast out' if few else _LACKING}")
    if (request.steps or STEPS) > MOST_STEPS:
        raise UsageError(
            f"steps is {request.steps}: fast draws in 1 to {MOST_STEPS}; leave fast out for more"
        )
    if request.guidance not in (None, GUIDANCE):
        raise UsageError(
            f"guidance is {request.guidance:g}: fast has learned one guidance and takes none besides; "
            "leave guidance out, or fast"
        )
    if request.sampler not in (None, SAMPLER):
        raise UsageError(
            f"sampler is {request.sampler!r}: fast draws with {SAMPLER!r}; leave one of them out"
        )
    if request.spacing not in (None, SPACING):
        raise UsageError(
            f"spacing is {request.spacing!r}: fast has learned the noise levels of {SPACING!r}; "
            "leave one of them out"
        )
    return request.filled(steps=request.steps or STEPS, guidance=GUIDANCE, sampler=SAMPLER)


def compatible(request: Request, sampler: str) -> bool:
    """Whether a resolved `request` draws with `sampler` or with its like."""
    return request.sampler == sampler or (
        sampler in CONSISTENCY_SAMPLERS and request.sampler in CONSISTENCY_SAMPLERS
    )


def unmet_hints(hints: Mapping[str, Any], request: Request) -> list[str]:
    """What a LoRA with these `sfumato.adapt.sampling_hints` needs and a resolved `request` does not have."""
    wrong = [] if compatible(request, hints["sampler"]) else [f"sampler {hints['sampler']!r}"]
    for value, key, form in (
        (request.steps, "steps_range", "{} steps"),
        (request.guidance, "guidance_range", "guidance {}"),
    ):
        low, high = hints[key]
        if value is not None and not low <= value <= high:
            wrong.append(form.format(span(low, high)))
    return wrong


_LACKING = (
    "has nothing to draw fast with: use a model that has, or learn it with `sfumato distill` "
    "(objective.name = 'latent-consistency', adapter.rank = 32)"
)
