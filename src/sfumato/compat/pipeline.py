"""What diffusers' pipelines share: loading, devices and memory, and the `Studio` that draws."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch

from sfumato import checkpoint, devices
from sfumato.checkpoint.source import pull
from sfumato.compat.drawing import CallState
from sfumato.compat.loaders import LoaderMixin
from sfumato.compat.scheduler import Scheduler
from sfumato.compat.schedulers import scheduler_of
from sfumato.errors import UsageError, nearest, warn
from sfumato.options import DeviceOptions, ModelOptions
from sfumato.studio import Studio

TILE = 64
"""Latent cells to a side of the tiles of `enable_vae_tiling`."""
SLICES = 2
"""Parts of an attention's queries with "auto" slicing."""
_COMPONENTS = ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
_ABSENT = ("safety_checker", "feature_extractor", "image_encoder")
_UNSUPPORTED = {
    "enable_freeu": "FreeU is not supported",
    "load_ip_adapter": "IP-Adapter is not supported",
    "save_pretrained": "save with sfumato.checkpoint.save(pipe.model, folder)",
    "fuse_qkv_projections": "sfumato arranges its projections itself",
    "enable_group_offload": "use enable_model_cpu_offload()",
    "components": "make another pipeline with from_pretrained",
}
_HARMLESS = (
    "low_cpu_mem_usage",
    "add_watermarker",
    "requires_safety_checker",
    "custom_revision",
    "resume_download",
)
"""Arguments of `from_pretrained` that change nothing here."""
_STATE = {*(each.name for each in fields(CallState)), "do_classifier_free_guidance"}
_PIPELINES = ("latent_consistency_txt2img",)
"""The community pipelines that are supported."""


class DiffusionPipeline(LoaderMixin):
    """Base class of the pipelines; its `from_pretrained` chooses the pipeline by the model."""

    CALLBACK_TENSORS: ClassVar[tuple[str, ...]] = ("latents", "prompt_embeds", "negative_prompt_embeds")

    def __init__(self, model: checkpoint.Model, source: str, dtype: torch.dtype = torch.float32) -> None:
        """Made by `from_pretrained` and `from_single_file`. Raises `UsageError` for an unknown scheduler."""
        super().__init__()
        self.model, self.source = model, source
        self.scheduler = scheduler_of(model.scheduler)
        self.state = CallState()
        self._options = DeviceOptions(device="cpu", dtype=_name(dtype))
        self._studio: Studio | None = None
        self.progress: dict[str, Any] = {}

    @classmethod
    def fits(cls, model: checkpoint.Model) -> bool:
        """Whether this pipeline draws with such a model."""
        return False

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        torch_dtype: torch.dtype | str | None = None,
        variant: str | None = None,
        scheduler: Scheduler | None = None,
        use_safetensors: bool | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        custom_pipeline: str | None = None,
        **others: Any,
    ) -> Self:
        """Load a folder, a file, a hub id or "embedded", on the CPU, in float32 unless told otherwise.

        Raises `CheckpointError`, and `UsageError` for what is not supported.
        """
        if use_safetensors is False:
            raise UsageError("use_safetensors = False is not supported: pickles are never read")
        if custom_pipeline is not None and custom_pipeline not in _PIPELINES:
            known = nearest(custom_pipeline, _PIPELINES)
            raise UsageError(f"custom_pipeline = {custom_pipeline!r} is not supported; {known}")
        for name, value in others.items():
            if name not in _HARMLESS and value is not None:
                raise UsageError(f"from_pretrained: {name} is not supported; {cls._instead(name)}")
        place = source
        if revision is not None and not Path(source).expanduser().exists() and source != "embedded":
            place = pull(str(source), variant=variant, revision=revision)
        return cls._load(place, str(source), torch_dtype, scheduler, variant, local_files_only)

    @classmethod
    def from_single_file(
        cls, path: str | Path, *, torch_dtype: torch.dtype | str | None = None, **others: Any
    ) -> Self:
        """Load one `.safetensors` file; see `from_pretrained`."""
        scheduler = others.pop("scheduler", None)
        local = bool(others.pop("local_files_only", True))
        for name, value in others.items():
            if name not in (*_HARMLESS, "use_safetensors") and value is not None:
                raise UsageError(f"from_single_file: {name} is not supported; {cls._instead(name)}")
        return cls._load(path, str(path), torch_dtype, scheduler, None, local)

    @staticmethod
    def _instead(name: str) -> str:
        if name in _COMPONENTS:
            return "parts cannot be exchanged: put them together in a folder of their own"
        if name in _ABSENT:
            return "only None"
        return "leave it out"

    @classmethod
    def _load(
        cls,
        place: str | Path,
        source: str,
        dtype: torch.dtype | str | None,
        scheduler: Scheduler | None,
        variant: str | None,
        local_files_only: bool,
    ) -> Self:
        wanted = devices.pick_dtype(torch.device("cpu"), None if dtype == "auto" else dtype or torch.float32)
        model = checkpoint.load(place, dtype=wanted, variant=variant, local_files_only=local_files_only)
        kinds = [kind for kind in (cls.__subclasses__() or [cls]) if kind.fits(model)]
        if not kinds:
            raise UsageError(f"{cls.__name__} does not draw with {model.name}, an {model.kind} model")
        made = kinds[0](model, source, wanted)
        if scheduler is not None:
            made.scheduler = scheduler
        return made

    @property
    def studio(self) -> Studio:
        """The studio that draws, made anew when the device, the precision or the memory savings change."""
        if self._studio is None:
            self._studio = Studio(self.model, ModelOptions(self.source), self._options)
        return self._studio

    def _change(self, **changes: Any) -> None:
        """Change the device options from now on; adapters and embeddings stay."""
        options = replace(self._options, **changes)
        if options == self._options:
            return
        old, self._options, self._studio = self._studio, options, None
        if old is not None:
            old.adapt(())
            self.studio.library = old.library

    def to(self, *places: Any, **named: Any) -> Self:
        """Move to a device, a dtype, or both: `to("cuda")`, `to(torch.float16)`, `to(torch_device=…)`."""
        for value in (*places, *(named[name] for name in sorted(named) if named[name] is not None)):
            if isinstance(value, torch.dtype):
                self._change(dtype=_name(value))
            elif isinstance(value, str | torch.device):
                self._change(device=str(devices.pick_device(value)))
        return self

    def cuda(self) -> Self:
        return self.to("cuda")

    def cpu(self) -> Self:
        return self.to("cpu")

    @property
    def device(self) -> torch.device:
        return torch.device(str(self._options.device))

    _execution_device = device

    @property
    def dtype(self) -> torch.dtype:
        return devices.pick_dtype(self.device, self._options.dtype)

    @property
    def vae_scale_factor(self) -> int:
        """Pixels to a latent cell."""
        return self.model.factor

    @property
    def scheduler(self) -> Scheduler:
        """The scheduler, which sets the sampler and the noise levels; it can be assigned."""
        return self._scheduler

    @scheduler.setter
    def scheduler(self, value: Scheduler) -> None:
        if not isinstance(value, Scheduler):
            raise UsageError(f"pipe.scheduler must be one of sfumato.compat, not {type(value).__name__}")
        self._scheduler = value

    def __getattr__(self, name: str) -> Any:
        if name in _COMPONENTS and name in (parts := self._parts()):
            return parts[name]
        if name.removeprefix("_") in _STATE:
            return getattr(self.__dict__["state"], name.removeprefix("_"))
        if name in _ABSENT:
            return None
        why = _UNSUPPORTED.get(name, "it is not supported")
        raise AttributeError(f"{type(self).__name__} of sfumato.compat has no {name}: {why}")

    def _parts(self) -> dict[str, Any]:
        """The networks and tokenizers by their names in diffusers."""
        model: checkpoint.Model = self.__dict__["model"]
        networks: dict[str, Any] = dict(model.networks)
        for index, tokenizer in enumerate(model.tokenizers):
            networks["tokenizer" if index == 0 else "tokenizer_2"] = tokenizer
        return networks

    def __setattr__(self, name: str, value: Any) -> None:
        if name[:1] == "_" and name[1:] in _STATE:
            setattr(self.state, name[1:], value)
        elif name == "unet" and getattr(value, "_orig_mod", None) is self.model.unet:
            self._change(compiled=True)
        elif name in _COMPONENTS:
            if value is not self._parts().get(name):
                raise UsageError(f"pipe.{name} cannot be replaced; {self._instead(name)}")
        elif name in _ABSENT:
            if value is not None:
                raise UsageError(f"pipe.{name} is not supported; only None")
        else:
            super().__setattr__(name, value)

    def enable_attention_slicing(self, slice_size: str | int | None = "auto") -> None:
        """Compute attention for a part of the queries at a time: the same result in less memory."""
        named: dict[str | int | None, int] = {"auto": SLICES, None: SLICES, "max": 8}
        self._change(slices=int(named.get(slice_size) or slice_size or 0))

    def disable_attention_slicing(self) -> None:
        self._change(slices=None)

    def enable_vae_tiling(self) -> None:
        """Decode pictures of more than `TILE` latent cells in tiles."""
        self._change(tile=TILE)

    def disable_vae_tiling(self) -> None:
        self._change(tile=None)

    def enable_vae_slicing(self) -> None:
        """Nothing to do: pictures of a batch are always decoded one by one."""

    disable_vae_slicing = enable_vae_slicing

    def enable_model_cpu_offload(
        self, gpu_id: int | None = None, device: str | torch.device | None = None
    ) -> None:
        """Keep weights in main memory and copy them to the device, by default the fastest, when needed."""
        where = device if gpu_id is None else f"cuda:{gpu_id}"
        self._change(device=str(devices.pick_device(where)), offload=True)

    enable_sequential_cpu_offload = enable_model_cpu_offload

    def enable_xformers_memory_efficient_attention(self, attention_op: Any = None) -> None:
        """Warns that nothing changes: attention is always torch's own, which needs as little memory."""
        warn("xFormers is not used: attention is torch's own")

    def disable_xformers_memory_efficient_attention(self) -> None:
        """Nothing to do: see `enable_xformers_memory_efficient_attention`."""

    def set_progress_bar_config(self, **config: Any) -> None:
        """`disable=True` for none; other settings of diffusers' bar change nothing."""
        self.progress = config


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
