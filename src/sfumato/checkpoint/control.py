"""Networks that steer a drawing by a picture: found, recognised by their files, and loaded."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from sfumato import weights
from sfumato.checkpoint import beside, controlnet_file, layout, ldm_keys, source
from sfumato.checkpoint.ip_adapter import (
    encoder_part,
    encoder_places,
    ip_adapter_config,
    ip_adapter_part,
    ip_adapter_table,
    is_ip_adapter,
    width_seen,
)
from sfumato.checkpoint.layout import Part
from sfumato.checkpoint.loading import build, empty_network, expected_shapes
from sfumato.checkpoint.t2i_adapter import is_t2i_adapter, t2i_adapter_part
from sfumato.checkpoint.unsupported import CONTROLS, described, family_of_tensors
from sfumato.config import (
    Config,
    ControlNetConfig,
    IPAdapterConfig,
    T2IAdapterConfig,
    UNetConfig,
)
from sfumato.errors import CheckpointError
from sfumato.nets.controlnet import ControlNet
from sfumato.nets.ip_adapter import IPAdapter
from sfumato.nets.t2i_adapter import T2IAdapter
from sfumato.nets.vision import CLIPVision

ControlNetwork = ControlNet | T2IAdapter | IPAdapter
"""What a control's file may hold."""

CLASSES: dict[str, type[Config]] = {"ControlNetModel": ControlNetConfig, "T2IAdapter": T2IAdapterConfig}
"""The classes that a folder's config.json may name. They are only compared."""


@dataclass(frozen=True, eq=False)
class LoadedControl:
    """A control's network, on the CPU; `fingerprint` identifies its files.

    `encoder`: of an IP-Adapter, the network through which it sees pictures, or the files of that.
    """

    name: str
    network: ControlNetwork
    fingerprint: str
    encoder: CLIPVision | Part | None = None


def load_control(
    name: str,
    unet: UNetConfig,
    *,
    own: Mapping[str, Path] | None = None,
    image_encoder: Path | None = None,
    dtype: torch.dtype | None = None,
    local_files_only: bool = False,
    names_only: bool = False,
) -> LoadedControl:
    """Load the control `name` for a `unet`: a diffusers folder, a `.safetensors` file, a hub id, or a name.

    A file may be one on the hub, "org/name/folder/file.safetensors". A name is one in the user's folder
    `controls`, or of `own`, what the drawing's model brings with it. `image_encoder`: its folder, if it
    brings one. `dtype`: what to convert the weights to; as stored if `None`. `names_only`: paths and hub ids
    mean nothing, as where strangers may name files. Raises `CheckpointError`.
    """
    half = dtype in (torch.float16, torch.bfloat16)
    path = beside.locate(
        "controls",
        name,
        own or {},
        fetch=_file_from_hub,
        prefer_half=half,
        local_files_only=local_files_only,
        names_only=names_only,
    )
    part = control_part(path, unet, prefer_half=half)
    parts, encoder = [part], None
    if isinstance(part.config, IPAdapterConfig):
        encoder = encoder_part(part.files[0], part.config, image_encoder)
        parts.append(encoder)
    network = build(part, dtype)
    assert isinstance(network, ControlNetwork)
    asked = json.dumps([each.config.to_dict() for each in parts], sort_keys=True)
    return LoadedControl(name, network, layout.fingerprint(path, parts, asked), encoder)


def ip_adapter_of(tensors: Mapping[str, Any], where: str) -> IPAdapter:
    """The IP-Adapter of a state dict in memory, as its file has it. Raises `CheckpointError`."""
    state = weights.checked(tensors, where)
    network = empty_network(ip_adapter_config(expected_shapes(state), where))
    assert isinstance(network, IPAdapter)
    table = ip_adapter_table(state)(network.state_dict())
    weights.check(state, ldm_keys.shapes(table, expected_shapes(network.state_dict())), where)
    network.load_state_dict(ldm_keys.from_file(table, state), assign=True)
    return network.requires_grad_(False).eval()


def _file_from_hub(repository: str, revision: str | None, name: str, local_files_only: bool) -> Path:
    """A control's file on the hub, in the cache, and of an IP-Adapter its image encoder there."""
    hub: dict[str, Any] = {"revision": revision, "local_files_only": local_files_only}
    file = source.hub_file(repository, name, **hub)
    tensors = weights.header(file).tensors
    if is_ip_adapter(tensors):
        adapter = ip_adapter_config({key: info.shape for key, info in tensors.items()}, str(file))
        for place in encoder_places(PurePosixPath(name)):
            try:
                config = source.hub_file(repository, f"{place}/config.json", **hub)
            except CheckpointError:
                continue  # it is not there; without any, loading says so
            if width_seen(adapter, config) == adapter.width:
                source.hub_file(repository, f"{place}/model.safetensors", **hub)
                break
    return file


def control_part(path: Path, unet: UNetConfig, *, prefer_half: bool = False) -> Part:
    """The network in `path`, a folder with its `config.json` or a file. Raises `CheckpointError`.

    What a file does not tell is as it must be beside `unet`.
    """
    of_file = partial(_file_part, unet=unet)
    return beside.part_in(path, "control", "control", CLASSES, of_file, prefer_half=prefer_half)


def _file_part(path: Path, unet: UNetConfig) -> Part:
    """The network in a file, by its tensors. Raises `CheckpointError`."""
    header = weights.header(path)
    if is_ip_adapter(header.tensors):
        return ip_adapter_part(path, header)
    if is_t2i_adapter(header.tensors):
        return t2i_adapter_part(path, header)
    if controlnet_file.is_controlnet(header.tensors):
        return controlnet_file.controlnet_part(path, header, unet)
    if (family := family_of_tensors(header.tensors)) in CONTROLS:
        raise CheckpointError(f"{path} is {family} of a kind that is not supported")
    what = described(header.tensors)
    raise CheckpointError(
        f"{path} is {what or 'no control'}; a control is a ControlNet, a T2I-Adapter or an IP-Adapter"
    )
