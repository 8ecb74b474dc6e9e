"""A scheduler's `clip_sample` and `thresholding`: meant for pixels, not latents."""

from collections.abc import Mapping
from typing import Any

from sfumato.diffusion.thresholding import Bound, dynamic_threshold
from sfumato.errors import UsageError


def bound_of(settings: Mapping[str, Any]) -> Bound | None:
    """How a scheduler bounds clean estimates (B, …); `thresholding` goes before `clip_sample`.

    Raises `UsageError` for settings out of range.
    """
    if settings.get("thresholding"):
        ratio, most = settings["dynamic_thresholding_ratio"], settings["sample_max_value"]
        return lambda x0: dynamic_threshold(x0, ratio, most)
    if settings.get("clip_sample"):
        bound = settings["clip_sample_range"]
        if not bound > 0:
            raise UsageError(f"clip_sample_range is {bound}: must be positive")
        return lambda x0: x0.clamp(-bound, bound)
    return None
