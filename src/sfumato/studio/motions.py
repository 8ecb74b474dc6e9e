"""The motion adapters of a studio's clips: read once, and one of them between the layers of the UNet."""

from collections.abc import Iterator

import torch
from torch import nn

from sfumato.adapt.adapters import Adapters
from sfumato.checkpoint import Model
from sfumato.checkpoint.layout import MOTION
from sfumato.checkpoint.motion import LoadedMotion, load_motion
from sfumato.errors import CheckpointError
from sfumato.names import TEXT2VIDEO_ZERO
from sfumato.nets.inference import for_inference
from sfumato.nets.motion import detach_motion
from sfumato.options import DeviceOptions


class Motions:
    """Motion adapters by what requests call them, for one model."""

    def __init__(
        self,
        model: Model,
        device: torch.device,
        dtype: torch.dtype,
        options: DeviceOptions,
        *,
        local_files_only: bool,
    ) -> None:
        self.model, self.device, self.dtype = model, device, dtype
        self.options, self.local_files_only = options, local_files_only
        self.names_only = False
        """Whether requests may name only what the user's folder holds, and no paths."""
        self.attached: str | None = None
        """The one that is in the UNet."""
        self._loaded: dict[str, LoadedMotion] = {}

    @property
    def default(self) -> str:
        """The one that the model brings, else the way without any."""
        return TEXT2VIDEO_ZERO if self.model.motion is None else MOTION

    def fetch(self, name: str | None) -> LoadedMotion | None:
        """The motion adapter `name`, read if it has not been, where it is one. Raises `CheckpointError`."""
        if name is None or name == TEXT2VIDEO_ZERO:
            return None
        if name not in self._loaded:
            self.add(
                load_motion(
                    name,
                    own={} if self.model.motion is None else {MOTION: self.model.motion},
                    dtype=self.dtype,
                    local_files_only=self.local_files_only,
                    names_only=self.names_only,
                )
            )
        return self._loaded[name]

    def add(self, motion: LoadedMotion) -> None:
        """Have one that is in memory ready, under its name. Raises `CheckpointError` if it does not fit."""
        if reason := motion.network.misfit(self.model.unet.config):
            raise CheckpointError(
                f"the motion adapter {motion.name} was made for another base than {self.model.name}: {reason}"
            )
        for_inference(motion.network, self.device, self.dtype, offload=self.options.offload)
        self._loaded[motion.name] = motion

    @property
    def shows_picture(self) -> bool:
        """Whether the one in the UNet reads a picture (PIA), so that nothing else can be drawn with it."""
        return self.attached is not None and self._loaded[self.attached].network.conv_in is not None

    def networks(self) -> Iterator[nn.Module]:
        """Those that are in memory."""
        return (each.network for each in self._loaded.values())

    def __contains__(self, name: object) -> bool:
        return name in self._loaded

    def attach(self, name: str, adapters: Adapters) -> bool:
        """Put one that was fetched into the UNet, in place of another; whether anything changed.

        For what is none the UNet is left without. The `adapters` of its layers that are in the weights are
        taken out first: they may be in those of its modules.
        """
        if name == (self.attached or TEXT2VIDEO_ZERO):
            return False
        adapters.set_adapters(())
        if name == TEXT2VIDEO_ZERO:
            detach_motion(self.model.unet)
        else:
            self._loaded[name].network.attach(self.model.unet)
        adapters.find_layers("unet")
        self.attached = None if name == TEXT2VIDEO_ZERO else name
        return True
