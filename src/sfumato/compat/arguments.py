"""What the arguments of calls must be, and how they are read."""

from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sfumato.compat.sources import number, whole
from sfumato.errors import UsageError
from sfumato.validation import shown

Text = str | Sequence[str] | None
StepEnd = Callable[..., Mapping[str, Any] | None]
Size = tuple[int, int] | None


def check(given: Mapping[str, Any]) -> None:
    """Raise `UsageError` for an argument of a call that is not of its kind, or given in two ways."""
    for names, right, fits in _KINDS:
        for name in names.split():
            if given.get(name) is not None and not fits(given[name]):
                raise UsageError(f"{name} is {shown(given[name])}: must be {right}")
    for name, other in _EITHER:
        if given.get(name) is not None and given.get(other) is not None:
            raise UsageError(f"give {name} or {other}, not both")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) or (_is_list(value) and all(isinstance(each, str) for each in value))


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) > 0


def _are_numbers(value: Any) -> bool:
    if isinstance(value, Tensor | np.ndarray):
        return value.ndim == 1 and len(value) > 0
    return _is_list(value) and all(isinstance(each, Real) for each in value)


def _are_generators(value: Any) -> bool:
    return all(isinstance(each, torch.Generator) for each in (value if _is_list(value) else [value]))


_KINDS: tuple[tuple[str, str, Callable[[Any], bool]], ...] = (
    ("prompt prompt_2 negative_prompt negative_prompt_2", "a text or a list of texts", _is_text),
    ("timesteps sigmas", "a list of numbers", _are_numbers),
    (
        "original_size target_size crops_coords_top_left negative_original_size negative_target_size "
        "negative_crops_coords_top_left",
        "two numbers",
        lambda value: _are_numbers(value) and len(value) == 2,
    ),
    (
        "latents prompt_embeds negative_prompt_embeds pooled_prompt_embeds negative_pooled_prompt_embeds "
        "masked_image_latents",
        "a tensor",
        lambda value: isinstance(value, Tensor),
    ),
    ("generator", "a torch.Generator or a list of them", _are_generators),
    ("cross_attention_kwargs", "a dictionary", lambda value: isinstance(value, Mapping)),
    ("callback_on_step_end", "a function", callable),
    ("callback_on_step_end_tensor_inputs", "a list of names", _is_text),
    ("return_dict", "True or False", lambda value: isinstance(value, int)),
)
"""The arguments of calls, what they are, and whether a value is that."""
_EITHER = (
    ("prompt", "prompt_embeds"),
    ("prompt_2", "prompt_embeds"),
    ("negative_prompt", "negative_prompt_embeds"),
    ("negative_prompt_2", "negative_prompt_embeds"),
    ("ip_adapter_image", "ip_adapter_image_embeds"),
)


def optional(name: str, given: Mapping[str, Any]) -> int | None:
    """A whole number that may be left out. Raises `UsageError`."""
    return None if given.get(name) is None else whole(name, given[name])


def steps_of(given: Mapping[str, Any]) -> int:
    """How many steps a call takes from pure noise. Raises `UsageError`."""
    for name, more in (("timesteps", 0), ("sigmas", 1)):
        if given.get(name) is not None:
            return len(given[name]) - more
    return whole("num_inference_steps", given["num_inference_steps"])


def share(name: str, given: Mapping[str, Any], low: str = "above 0", high: str = "at most 1") -> float | None:
    """A number in [0, 1] that may be left out; "above 0", "below 1": without that end.

    Raises `UsageError`.
    """
    if given.get(name) is None:
        return None
    value = number(name, given[name])
    if not (0 <= value <= 1) or (value == 0 and low == "above 0") or (value == 1 and high == "below 1"):
        raise UsageError(f"{name} is {value:g}: must be {low} and {high}")
    return value


def listed(text: Text) -> list[str] | None:
    """One prompt or several as a list."""
    return None if text is None else [text] if isinstance(text, str) else list(text)
