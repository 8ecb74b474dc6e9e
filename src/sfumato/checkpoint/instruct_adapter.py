"""A model that edits by instruction, written as what it adds to a text-to-image model.

One safetensors file: the UNet's first layer, widened for the latent of the picture to edit, and a LoRA of
other layers in diffusers' layout with alpha = rank. Its header names the base model.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from sfumato import weights
from sfumato.config import UNetConfig
from sfumato.config.model_settings import SETTINGS_FILE, checked_settings
from sfumato.errors import CheckpointError
from sfumato.files import parse_json
from sfumato.nets.unet import UNet
from sfumato.weights import Header

TASK, BASE = "task", "base_model"
"""Entries of the header."""
FIRST = "unet.conv_in.weight"
_PREFIX, _DOWN, _UP = "unet.", ".lora_A.weight", ".lora_B.weight"


@dataclass(frozen=True)
class InstructAdapter:
    """What the header of such a file says."""

    path: Path
    header: Header
    base: str
    """The model that it is for, a name or a path."""
    settings: dict[str, Any]
    """What else `sfumato.json` would say."""

    @classmethod
    def of(cls, path: Path) -> "InstructAdapter | None":
        """What is in the file `path`, or `None` if that is another kind of file. Raises `CheckpointError`."""
        if path.suffix != ".safetensors" or not path.is_file():
            return None
        try:
            header = weights.header(path)
        except CheckpointError:
            return None  # who reads it as a model says what is wrong
        if header.metadata.get(TASK) != "instruct":
            return None
        if FIRST not in header.tensors or BASE not in header.metadata:
            missing = FIRST if FIRST not in header.tensors else f"{BASE} in its header"
            raise CheckpointError(f"{path} is an adapter for editing by instruction, and lacks {missing}")
        where = f"the {SETTINGS_FILE} of {path}"
        said = parse_json(header.metadata.get(SETTINGS_FILE, "{}").encode("utf-8", "replace"), where)
        return cls(path, header, header.metadata[BASE], checked_settings(said, where))

    def widened(self, config: UNetConfig) -> UNetConfig:
        """The base model's configuration with the input channels of this one."""
        shape = self.header.tensors[FIRST].shape
        if len(shape) != 4:
            raise CheckpointError(f"{self.path}: {FIRST} has shape {list(shape)}, no convolution's")
        return replace(config, in_channels=shape[1])

    def weights(self, unet: UNet) -> dict[str, Tensor]:
        """The weights of the whole UNet, of the base model's one: W + B A for each layer of the LoRA.

        Raises `CheckpointError` for a layer that the base model does not have, or has in another shape.
        """
        tensors = weights.read(self.path)
        state = dict(unet.state_dict())
        first = state["conv_in.weight"]
        due = (first.shape[0], tensors[FIRST].shape[1], *first.shape[2:])
        if tensors[FIRST].shape != due:
            raise CheckpointError(f"{self._unfit} {FIRST} has shape {list(tensors[FIRST].shape)}")
        state["conv_in.weight"] = tensors.pop(FIRST).to(first.dtype)
        for key in sorted(key for key in tensors if key.endswith(_DOWN)):
            name = key.removeprefix(_PREFIX).removesuffix(_DOWN) + ".weight"
            down, up = tensors.pop(key), tensors.pop(key.removesuffix(_DOWN) + _UP, None)
            weight = state.get(name)
            if weight is None or up is None:
                lacking = f"no layer {name}" if weight is None else f"no {_UP} beside {key}"
                raise CheckpointError(f"{self._unfit} there is {lacking}")
            change = up.float().flatten(1) @ down.float().flatten(1)
            if change.shape[0] != len(weight) or change.numel() != weight.numel():
                raise CheckpointError(
                    f"{self._unfit} {key} makes {list(change.shape)} of {list(weight.shape)}"
                )
            state[name] = (weight.float() + change.reshape(weight.shape)).to(weight.dtype)
        if tensors:
            raise CheckpointError(f"{self.path}: {min(tensors)!r} is no part of such an adapter")
        return state

    @property
    def _unfit(self) -> str:
        return f"{self.path} does not fit its base model {self.base}:"


def header_entries(base: str, settings: Mapping[str, Any]) -> dict[str, str]:
    """What the header of such a file says: the base model's name, and how it is drawn with."""
    said = {key: settings[key] for key in ("guidance", "image_guidance", "steps") if key in settings}
    return {TASK: "instruct", BASE: base, SETTINGS_FILE: json.dumps(said)}
