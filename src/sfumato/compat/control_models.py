"""Networks beside a UNet, under their names in diffusers: those that steer it, and motion adapters."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from sfumato.checkpoint import layout
from sfumato.checkpoint.layout import Part
from sfumato.checkpoint.loading import build, empty_network, new_network
from sfumato.checkpoint.motion import motion_part
from sfumato.compat.models import ModelOutput, ModelPart
from sfumato.compat.sources import (
    Dtype,
    hub_options,
    mapped_device,
    no_others,
    part_folder,
    single_file,
    wanted_dtype,
)
from sfumato.config import Config, ControlNetConfig, MotionAdapterConfig, T2IAdapterConfig
from sfumato.errors import CheckpointError, UsageError
from sfumato.files import read_json
from sfumato.nets.controlnet import ControlNet
from sfumato.nets.inputs import SizeConditioning
from sfumato.nets.motion import MotionAdapter as MotionAdapterNetwork
from sfumato.nets.t2i_adapter import T2IAdapter as T2IAdapterNetwork


class ControlPart(ModelPart):
    """A network beside a UNet."""

    PLACE = "control"
    CONFIG: ClassVar[type[Config]]

    def __init__(self, network: Any = None, **settings: Any) -> None:
        """Around a `network`, or a new one of these `settings`, its weights random.

        Raises `CheckpointError`.
        """
        super().__init__(network or new_network(self.read_config(settings)))

    @classmethod
    def read_config(cls, settings: Mapping[str, Any]) -> Config:
        """Its settings, checked. Raises `CheckpointError`."""
        name = cls.__name__
        known = {key: value for key, value in settings.items() if key[0] != "_"}
        return cls.CONFIG.from_dict({**known, "_class_name": name}, f"the config of {name}")

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        subfolder: str | None = None,
        torch_dtype: Dtype = None,
        dtype: Dtype = None,
        variant: str | None = None,
        device_map: str | Mapping[str, Any] | None = None,
        **others: Any,
    ) -> Self:
        """Load the network in a folder or on the hub, in float32 unless told otherwise.

        Raises `CheckpointError` and `UsageError`.
        """
        where, hub = f"{cls.__name__}.from_pretrained", hub_options(others)
        no_others(where, others, ignored=("adapter_type",))
        source = pretrained_model_name_or_path
        folder = part_folder(source, subfolder, weights=True, variant=variant, **hub)
        content = read_json(folder / "config.json")
        if content.get("_class_name") != cls.__name__:
            raise CheckpointError(f"{folder} holds a {content.get('_class_name')}, not a {cls.__name__}")
        headers, chosen = layout.read_headers(folder, variant=variant)
        tensors = {key: info for header in headers.values() for key, info in header.tensors.items()}
        config = cls.CONFIG.from_dict(content, str(folder / "config.json"))
        part = Part(cls.PLACE, cls.__name__, config, str(folder), headers, tensors, chosen)
        return cls(build(part, wanted_dtype(where, dtype, torch_dtype))).to(mapped_device(device_map))

    @classmethod
    def from_single_file(cls, *source: Any, **settings: Any) -> Self:
        """Not supported: raises `UsageError`."""
        raise UsageError(
            f"{cls.__name__}.from_single_file is not supported: give from_pretrained a folder in the "
            "diffusers layout"
        )


class ControlNetModel(ControlPart):
    """A ControlNet (Zhang et al. 2023)."""

    CONFIG = ControlNetConfig
    network: ControlNet

    @torch.no_grad()
    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float,
        encoder_hidden_states: Tensor,
        controlnet_cond: Tensor,
        conditioning_scale: float = 1.0,
        *,
        added_cond_kwargs: Mapping[str, Tensor] | None = None,
        return_dict: bool = True,
        **others: Any,
    ) -> Any:
        """Residuals for a UNet's noisy latents `sample`: (skips, mid), times `conditioning_scale`.

        `controlnet_cond` (B, 3, H, W) in [0, 1]. Raises `UsageError` for what is not supported.
        """
        no_others("ControlNetModel", others)
        times = torch.as_tensor(timestep, device=sample.device).float().expand(len(sample))
        size = None
        if added_cond_kwargs:
            size = SizeConditioning(added_cond_kwargs["text_embeds"], added_cond_kwargs["time_ids"])
        states = encoder_hidden_states.to(self.dtype)
        found = self.network(sample.to(self.dtype), times, states, controlnet_cond.to(self.dtype), size)
        found = found.map(lambda each: each * conditioning_scale)
        skips, mid = list(found.skips), found.mid
        return ControlNetOutput(skips, mid) if return_dict else (skips, mid)


class ControlNetOutput(ModelOutput):
    """`down_block_res_samples`: one for each skip; `mid_block_res_sample`: of the deepest part."""

    def __init__(self, down_block_res_samples: list[Tensor], mid_block_res_sample: Tensor | None) -> None:
        self.down_block_res_samples, self.mid_block_res_sample = down_block_res_samples, mid_block_res_sample

    def to_tuple(self) -> tuple[Any, ...]:
        return self.down_block_res_samples, self.mid_block_res_sample


class T2IAdapter(ControlPart):
    """A T2I-Adapter (Mou et al. 2023)."""

    CONFIG = T2IAdapterConfig
    network: T2IAdapterNetwork

    @property
    def downscale_factor(self) -> int:
        """Pixels for each cell of the first features."""
        return self.network.config.downscale_factor

    @torch.no_grad()
    def forward(self, x: Tensor) -> list[Tensor]:
        """A picture (B, C, H, W) in [0, 1] to features for each level of a UNet's way down."""
        return list(self.network(x.to(self.dtype)))


class MotionAdapter(ControlPart):
    """A motion adapter of AnimateDiff (Guo et al. 2023)."""

    CONFIG = MotionAdapterConfig
    network: MotionAdapterNetwork

    @classmethod
    def from_single_file(  # type: ignore[override]
        cls,
        pretrained_model_link_or_path: str | Path,
        *,
        torch_dtype: Dtype = None,
        dtype: Dtype = None,
        **others: Any,
    ) -> Self:
        """Load a `.safetensors` file, in the names of AnimateDiff's own program or of diffusers.

        Raises `CheckpointError` and `UsageError`.
        """
        where, hub = f"{cls.__name__}.from_single_file", hub_options(others)
        no_others(where, others, ignored=("config", "original_config"))
        part = motion_part(single_file(pretrained_model_link_or_path, **hub))
        return cls(build(part, wanted_dtype(where, dtype, torch_dtype)))


class Several(nn.Module):
    """Several networks that are used together."""

    def __init__(self, nets: Sequence[Any]) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets)


class MultiControlNetModel(Several):
    """Several ControlNets, each with a picture and a scale of its own."""

    def __init__(self, controlnets: Sequence[Any]) -> None:
        """Of these or diffusers' own. Raises `UsageError`."""
        super().__init__([as_control("controlnet", each) for each in controlnets])


class MultiAdapter(Several):
    """Several T2I-Adapters, each with a picture and a scale of its own."""

    def __init__(self, adapters: Sequence[Any]) -> None:
        """Of these or diffusers' own. Raises `UsageError`."""
        super().__init__([as_control("adapter", each) for each in adapters])

    @property
    def adapters(self) -> nn.ModuleList:
        """The adapters."""
        return self.nets


_KINDS: dict[str, tuple[type[ControlPart], type[Several] | None]] = {
    "controlnet": (ControlNetModel, MultiControlNetModel),
    "adapter": (T2IAdapter, MultiAdapter),
    "motion_adapter": (MotionAdapter, None),
}


def as_control(name: str, value: Any) -> Any:
    """The network or networks in a pipeline's place `name`: one of these, or of diffusers, or a list of them.

    The parameters of diffusers' are copied. Raises `UsageError` for anything else.
    """
    one, several = _KINDS[name]
    if isinstance(value, nn.Module) and isinstance(getattr(value, "_orig_mod", None), nn.Module):
        value = value._orig_mod
    if isinstance(value, one) or (several and isinstance(value, several)):
        return value
    if several and isinstance(value, list | tuple) and value:
        return several(value)
    if several and type(value).__name__ == several.__name__:
        return several(list(value.nets if name == "controlnet" else value.adapters))
    config = getattr(value, "config", None)
    if type(value).__name__ != one.__name__ or not isinstance(value, nn.Module) or config is None:
        known = f"a {one.__name__}{' or a list of them' if several else ''}"
        raise UsageError(f"{name} must be {known}, not {type(value).__name__}")
    part = one(empty_network(one.read_config(dict(config))).eval())
    state = {key: each.detach().clone() for key, each in value.state_dict().items()}
    part.load_state_dict(state, assign=True)
    part.requires_grad_(False)
    return part


def networks(value: Any) -> list[Any]:
    """Sfumato's own networks in a pipeline's `controlnet` or `adapter`."""
    return [each.network for each in (value.nets if isinstance(value, Several) else [value])]
