"""The state of a call, which a pipeline shows under diffusers' names."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass
class CallState:
    """What callbacks read as `pipe.guidance_scale`, and set as `pipe._guidance_scale`, and so on.

    `num_timesteps`: evaluations of the call under way. `interrupt`: whether a callback has asked for the
    latents as they are. `reads_guidance`: whether the network itself reads the scale.
    """

    guidance_scale: float = 1.0
    guidance_rescale: float = 0.0
    clip_skip: int | None = None
    cross_attention_kwargs: Mapping[str, Any] | None = None
    num_timesteps: int = 0
    interrupt: bool = False
    reads_guidance: bool = False

    @property
    def do_classifier_free_guidance(self) -> bool:
        """Whether there is a negative prompt to guide away from."""
        return self.guidance_scale > 1 and not self.reads_guidance
