"""Where a pipeline's networks are and how much memory they take, under diffusers' names."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import torch

from sfumato import devices
from sfumato.compat.loaded import NETWORKS, LoadedModel
from sfumato.compat.sources import mapped_device, whole
from sfumato.errors import UsageError, warn
from sfumato.validation import shown

SLICES = 2
"""Parts of an attention's queries with "auto" slicing."""


def asked_place(
    device: torch.device, dtype: torch.dtype, places: Sequence[Any], named: Mapping[str, Any]
) -> tuple[torch.device, torch.dtype]:
    """Where to go by the arguments of `to`, from `device` and `dtype`. Raises `UsageError`."""
    others = [named[name] for name in sorted(named) if name != "silence_dtype_warnings"]
    for value in (*places, *(each for each in others if each is not None)):
        if isinstance(value, torch.dtype):
            dtype = devices.pick_dtype(device, value)
        elif isinstance(value, str | int | torch.device):
            device = devices.pick_device(f"cuda:{value}" if isinstance(value, int) else value)
        else:
            raise UsageError(f"to: {shown(value)} is neither a device nor a dtype")
    return device, dtype


class MemoryMixin:
    """Diffusers' methods for devices and for saving memory."""

    hf_device_map: dict[str, str] | None = None
    _loaded: LoadedModel

    @property
    def loaded(self) -> LoadedModel:
        """The model and its studio, which pipelines made from one another share."""
        return self._loaded

    def to(self, *places: Any, **named: Any) -> Self:
        """Move to a device, a dtype, or both: `to("cuda")`, `to(torch.float16)`, `to(torch_device=…)`."""
        self.loaded.move(*asked_place(self.device, self.dtype, places, named))
        return self

    def cuda(self) -> Self:
        return self.to("cuda")

    def cpu(self) -> Self:
        return self.to("cpu")

    def _place(self, device_map: str | Mapping[str, Any]) -> None:
        """Put all where `device_map` has the UNet: on a device, or for "balanced" the fastest one here."""
        self.to(mapped_device(device_map))
        self.hf_device_map = {name: str(self.device) for name in NETWORKS if self.loaded.part(name)}

    def reset_device_map(self) -> None:
        """Forget the device map, and move to the CPU."""
        if self.hf_device_map is not None:
            self.hf_device_map = None
            self.to("cpu")

    @property
    def device(self) -> torch.device:
        return self.loaded.device

    _execution_device = device

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.loaded.parts["unet"].dtype
        return dtype

    def _change(self, **changes: Any) -> None:
        """Change the device options from now on; adapters and embeddings stay."""
        self.loaded.options = replace(self.loaded.options, **changes)

    def enable_attention_slicing(self, slice_size: str | int | None = "auto") -> None:
        """Compute attention for a part of the queries at a time: the same result in less memory."""
        named: dict[Any, int] = {"auto": SLICES, None: SLICES, "max": 8}
        self._change(slices=named.get(slice_size) or whole("slice_size", slice_size))

    def disable_attention_slicing(self) -> None:
        self._change(slices=None)

    def set_attention_slice(self, slice_size: int | str | None) -> None:
        """See `enable_attention_slicing`; `None` switches it off."""
        self.disable_attention_slicing() if slice_size is None else self.enable_attention_slicing(slice_size)

    def enable_vae_tiling(self) -> None:
        """Decode pictures of more than `TILE` latent cells in tiles."""
        self.loaded.parts["vae"].enable_tiling()

    def disable_vae_tiling(self) -> None:
        self.loaded.parts["vae"].disable_tiling()

    def enable_vae_slicing(self) -> None:
        """Nothing to do: pictures of a batch are always decoded one by one."""

    disable_vae_slicing = enable_vae_slicing

    def upcast_vae(self) -> None:
        """Nothing to do: an autoencoder that needs float32 is always decoded in it."""

    def maybe_free_model_hooks(self) -> None:
        """Nothing to do: with offloading, weights are in main memory whenever they do not compute."""

    remove_all_hooks = maybe_free_model_hooks
    disable_freeu = maybe_free_model_hooks

    def unfuse_qkv_projections(self, unet: bool = True, vae: bool = True) -> None:
        """Nothing to do: sfumato arranges its projections itself."""

    def set_lora_device(self, adapter_names: Sequence[str], device: Any) -> None:
        """Nothing to do: adapters that are not active are in main memory."""

    def enable_lora_hotswap(self, **settings: Any) -> None:
        """Nothing to do: weights change in place, so that compiled networks see it."""

    def enable_model_cpu_offload(
        self, gpu_id: int | None = None, device: str | torch.device | None = None
    ) -> None:
        """Keep weights in main memory and copy them to the device, by default the fastest, when needed."""
        where = device if gpu_id is None else f"cuda:{gpu_id}"
        self._change(device=str(devices.pick_device(where)), offload=True)
        self.loaded.move(self.device, self.dtype)

    enable_sequential_cpu_offload = enable_model_cpu_offload

    def enable_xformers_memory_efficient_attention(self, attention_op: Any = None) -> None:
        """Warns that nothing changes: attention is always torch's own, which needs as little memory."""
        warn("xFormers is not used: attention is torch's own")

    def disable_xformers_memory_efficient_attention(self) -> None:
        """Nothing to do: see `enable_xformers_memory_efficient_attention`."""

    def set_use_memory_efficient_attention_xformers(self, valid: bool, attention_op: Any = None) -> None:
        """See `enable_xformers_memory_efficient_attention`."""
        if valid:
            self.enable_xformers_memory_efficient_attention()
