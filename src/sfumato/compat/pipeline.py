"""What diffusers' pipelines share: loading, parts, devices and memory, and the `Studio` that draws."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from inspect import signature
from pathlib import Path
from threading import RLock
from typing import Any, ClassVar, Self

import numpy as np
import PIL.Image
import torch

from sfumato import checkpoint, devices
from sfumato.checkpoint.layout import INDEX
from sfumato.checkpoint.saving import index_content
from sfumato.checkpoint.source import EMBEDDED, pull
from sfumato.compat.assembling import as_scheduler, assembled, schedule_of
from sfumato.compat.drawing import CallState
from sfumato.compat.loaders import AdapterState, LoaderMixin
from sfumato.compat.models import PartConfig, as_part, part_of
from sfumato.compat.outputs import ImageProcessor
from sfumato.compat.scheduler import Scheduler
from sfumato.compat.schedulers import scheduler_of
from sfumato.compat.sources import (
    Dtype,
    config_folder,
    hub_options,
    mapped_device,
    no_others,
    number,
    part_folder,
    single_file,
    size_in_bytes,
    wanted_dtype,
    whole,
)
from sfumato.compat.tokenizers import CLIPTokenizer, as_tokenizer
from sfumato.compat.utils import numpy_to_pil
from sfumato.errors import CheckpointError, UsageError, nearest, warn
from sfumato.files import read_file, read_json
from sfumato.nets.inference import for_inference
from sfumato.options import DEFAULT_DEVICE, DeviceOptions, ModelOptions
from sfumato.studio import Studio
from sfumato.studio.library import Library
from sfumato.validation import shown

TILE = 64
"""Latent cells to a side of the tiles of `enable_vae_tiling`."""
SLICES = 2
"""Parts of an attention's queries with "auto" slicing."""
MOST_YAML = 1 << 20
"""Bytes of an `original_config` that are read."""
NETWORKS = ("unet", "vae", "text_encoder", "text_encoder_2")
TOKENIZERS = ("tokenizer", "tokenizer_2")
ABSENT = ("safety_checker", "feature_extractor", "image_encoder")
"""Parts that drawing from a text does without."""
ZEROS = "force_zeros_for_empty_prompt"
"""Whether "no negative prompt" means text states of zeros, in SDXL."""
UNSUPPORTED = {
    "enable_freeu": "FreeU is not supported",
    **dict.fromkeys(
        ("load_ip_adapter", "unload_ip_adapter", "set_ip_adapter_scale", "encode_image"),
        "IP-Adapter is not supported",
    ),
    "fuse_qkv_projections": "sfumato arranges its projections itself",
    "enable_group_offload": "use enable_model_cpu_offload()",
    "push_to_hub": "save_pretrained(folder), then `hf upload`",
    "progress_bar": "callback_on_step_end sees every step",
}
"""Names of diffusers' pipelines that are left out, with what to do instead."""
_STATE = {*(each.name for each in fields(CallState)), "do_classifier_free_guidance"}
_PIPELINES = ("latent_consistency_txt2img",)
"""The community pipelines that are supported."""
_PARAMETERIZATION = re.compile(r"""^\s*parameterization:\s*["']?(\w+)""", re.MULTILINE)


@dataclass(eq=False)
class LoadedModel(LoaderMixin):
    """A model and the studio that draws with it: pipelines made from one another share it.

    `options` but for the device and the precision, which are those of the UNet, unless weights stay in main
    memory. `parts`: its networks and tokenizers under diffusers' names. `left_out`: parts given as `None`.
    `library` outlives the studio that was `made` last.
    """

    model: checkpoint.Model
    source: str
    parts: dict[str, Any] = field(default_factory=dict)
    left_out: frozenset[str] = frozenset()
    options: DeviceOptions = DEFAULT_DEVICE
    state: AdapterState = field(default_factory=AdapterState)
    library: Library | None = None
    made: Studio | None = None
    lock: RLock = field(default_factory=RLock)

    def __post_init__(self) -> None:
        for name, network in self.model.networks.items():
            part = self.parts.setdefault(name, part_of(network))
            part.loaded = self
        for name, tokenizer in zip(TOKENIZERS, self.model.tokenizers, strict=False):
            self.parts.setdefault(name, CLIPTokenizer(tokenizer))

    def part(self, name: str) -> Any:
        """A network or a tokenizer, `None` if it was left out or there is none."""
        return None if name in self.left_out else self.parts.get(name)

    @property
    def device(self) -> torch.device:
        """Where the networks compute."""
        if self.options.offload:
            return torch.device(str(self.options.device))
        device: torch.device = self.parts["unet"].device
        return device

    @property
    def adapters(self) -> AdapterState:
        return self.state

    @property
    def components(self) -> dict[str, Any]:
        return {name: self.part(name) for name in self.parts}

    @property
    def studio(self) -> Studio:
        """The studio that draws, made anew when the device, the precision or the memory savings change."""
        with self.lock:
            return self._studio()

    def _studio(self) -> Studio:
        unet, old = self.parts["unet"], self.made
        options = replace(
            self.options,
            device=str(self.device),
            dtype=str(unet.dtype).removeprefix("torch."),
            tile=TILE if self.parts["vae"].use_tiling else None,
            compiled=unet.compiled,
        )
        if old is None or old.device_options != options:
            if old is not None:
                old.adapt(())
            self.made = Studio(self.model, ModelOptions(self.source), options)
            self.library = self.made.library = self.library or self.made.library
        assert self.made is not None
        home = torch.device("cpu") if options.offload else self.device
        for encoder in self.model.text_encoders:
            weight = encoder.final_layer_norm.weight
            if (weight.device, weight.dtype) != (home, self.made.dtype):  # a program has moved it by itself
                for_inference(encoder, self.device, self.made.dtype, offload=options.offload)
        return self.made

    def move(self, device: torch.device, dtype: torch.dtype) -> None:
        """Bring every network to a device and a precision."""
        if self.options.offload:
            self.options = replace(self.options, device=str(device))
        for network in self.model.networks.values():
            for_inference(network, device, dtype, offload=self.options.offload)

    def varied(self, changes: Mapping[str, Any]) -> "LoadedModel":
        """The same with other parts; adapters and embeddings stay unless their networks change."""
        given = {name: part for name, part in changes.items() if part is not None}
        parts = self.parts | given
        networks = {name: parts[name].network for name in self.model.networks}
        tokenizers = [parts[name].tokenizer for name in TOKENIZERS if name in parts]
        own = given.keys() & {"unet", "text_encoder", "text_encoder_2"}
        return LoadedModel(
            assembled(networks, tokenizers, self.model.scheduler, self.model) if given else self.model,
            self.source,
            parts,
            (self.left_out - given.keys()) | (changes.keys() - given.keys()),
            self.options,
            AdapterState() if own else self.state,
            None if own else self.library,
        )


class DiffusionPipeline(LoaderMixin):
    """Base class of the pipelines; its `from_pretrained` chooses the pipeline by the model."""

    CALLBACK_TENSORS: ClassVar[tuple[str, ...]] = ("latents", "prompt_embeds", "negative_prompt_embeds")
    PARTS: ClassVar[tuple[str, ...]] = ()
    """The names of its parts besides the scheduler, those of a whole model."""
    OPTIONAL: ClassVar[tuple[str, ...]] = ABSENT
    """The names of its parts that are always `None` here."""
    KINDS: ClassVar[tuple[type["DiffusionPipeline"], ...]] = ()
    """The pipelines that there are, in the order in which a model is tried."""
    hf_device_map: dict[str, str] | None = None

    def __init__(self, given: Mapping[str, Any] | None = None) -> None:
        """Of the arguments of a constructor: networks and tokenizers, a scheduler, and nothing else.

        Raises `UsageError` for a part that is missing or does not fit, `CheckpointError` where the parts do
        not go together.
        """
        if given is None:
            raise UsageError(f"{type(self).__name__}: a pipeline is made by from_pretrained, or of its parts")
        for name in ABSENT:
            _refuse_absent(name, given.get(name))
        parts = {name: _as_part(name, given[name]) for name in self.PARTS}
        scheduler = as_scheduler(given["scheduler"])
        owner: LoadedModel | None = next(
            (parts[name].loaded for name in NETWORKS if parts.get(name) and parts[name].loaded), None
        )
        if owner is None:
            for name, part in parts.items():
                if part is None:
                    raise UsageError(f"{type(self).__name__} needs a {name}")
            networks = {name: parts[name].network for name in NETWORKS if name in parts}
            tokenizers = [parts[name].tokenizer for name in TOKENIZERS if name in parts]
            settings = scheduler.settings | {"_class_name": type(scheduler).__name__}
            model = assembled(networks, tokenizers, settings)
            model.index[ZEROS] = given.get(ZEROS, model.zero_negative)
            loaded = LoadedModel(model, model.name, parts)
        else:
            changes = {name: part for name, part in parts.items() if part is not owner.part(name)}
            loaded = owner.varied(changes) if changes else owner
        if not self.fits(loaded.model):
            raise UsageError(
                f"{type(self).__name__} does not draw with {loaded.model.name}, of kind {loaded.model.kind}"
            )
        self._loaded = loaded
        self.scheduler = scheduler
        self.state = CallState()
        self.progress: dict[str, Any] = {}
        self.image_processor = ImageProcessor()

    @classmethod
    def fits(cls, model: checkpoint.Model) -> bool:
        """Whether this pipeline draws with such a model."""
        return False

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        torch_dtype: Dtype = None,
        dtype: Dtype = None,
        variant: str | None = None,
        scheduler: Any = None,
        custom_pipeline: str | None = None,
        device_map: str | Mapping[str, Any] | None = None,
        **others: Any,
    ) -> Self:
        """Load a folder, a file, a hub id or "embedded", on the CPU, in float32 unless told otherwise.

        Raises `CheckpointError`, and `UsageError` for what is not supported.
        """
        source = pretrained_model_name_or_path
        if custom_pipeline is not None and custom_pipeline not in _PIPELINES:
            known = nearest(custom_pipeline, _PIPELINES)
            raise UsageError(f"custom_pipeline = {custom_pipeline!r} is not supported; {known}")
        place, hub = source, hub_options(others)
        local = hub.pop("local_files_only")
        if any(hub.values()) and source != EMBEDDED and not Path(source).expanduser().exists():
            place = pull(str(source), variant=variant, local_files_only=local, **hub)
        wanted = wanted_dtype("from_pretrained", dtype, torch_dtype)
        options = {"variant": variant, "local_files_only": local}
        return cls._load(place, str(source), wanted, scheduler, device_map, options, others)

    @classmethod
    def from_single_file(
        cls,
        pretrained_model_link_or_path: str | Path,
        *,
        torch_dtype: Dtype = None,
        dtype: Dtype = None,
        scheduler: Any = None,
        config: str | Path | None = None,
        original_config: str | Path | Mapping[str, Any] | None = None,
        device_map: str | Mapping[str, Any] | None = None,
        **others: Any,
    ) -> Self:
        """Load one `.safetensors` file, a local one or at an address on the hub; see `from_pretrained`.

        `config`: a model's folder or hub id, whose configurations, tokenizers and scheduler are taken.
        `original_config`: the file or content of the YAML that came with a checkpoint, which says what its
        network predicts. What else it says is in the file itself.
        """
        hub = hub_options(others)
        file = single_file(pretrained_model_link_or_path, **hub)
        ignored = ("variant", "load_safety_checker", "original_config_file")
        others = {name: value for name, value in others.items() if name not in ignored}
        wanted = wanted_dtype("from_single_file", dtype, torch_dtype)
        options: dict[str, Any] = {"local_files_only": True}
        if original_config is not None:
            options["prediction"] = _prediction(original_config)
        if config is not None:
            options["configs_of"] = config_folder(config, **hub)
        return cls._load(file, str(file), wanted, scheduler, device_map, options, others)

    @classmethod
    def _load(
        cls,
        place: str | Path,
        source: str,
        dtype: torch.dtype | None,
        scheduler: Any,
        device_map: str | Mapping[str, Any] | None,
        options: Mapping[str, Any],
        others: Mapping[str, Any],
    ) -> Self:
        for name in ABSENT:
            _refuse_absent(name, others.get(name))
        given = {name: others[name] for name in (*NETWORKS, *TOKENIZERS) if name in others}
        zeros = others.get(ZEROS)
        left = {name: value for name, value in others.items() if name not in given}
        no_others(cls.__name__, left, ignored=(ZEROS, "feature_extractor"))
        parts = {name: _as_part(name, value) for name, value in given.items() if value is not None}
        networks = {name: part.network for name, part in parts.items() if name in NETWORKS}
        model = checkpoint.load(place, dtype=dtype, given=networks, **options)
        kinds = cls.KINDS if cls is DiffusionPipeline else (cls,)
        kind: Any = next((each for each in kinds if each.fits(model)), None)
        if kind is None:
            raise UsageError(f"{cls.__name__} does not draw with {model.name}, of kind {model.kind}")
        if zeros is not None:
            model.index = {**model.index, ZEROS: bool(zeros)}
        left_out = frozenset(name for name, value in given.items() if value is None)
        model.tokenizers = [
            parts[name].tokenizer if name in parts else own
            for name, own in zip(TOKENIZERS, model.tokenizers, strict=False)
        ]
        loaded = LoadedModel(model, source, dict(parts), left_out)
        components = {name: loaded.part(name) for name in kind.PARTS}
        made: Self = kind(**components, scheduler=scheduler or scheduler_of(model.scheduler))
        if device_map is not None:
            made._place(device_map)
        return made

    @classmethod
    def from_pipe(cls, pipeline: Any, **changes: Any) -> Self:
        """A pipeline of the parts of another, which they share, with some of them changed.

        It keeps the precision unless `dtype` (or `torch_dtype`) says another. Raises `UsageError`.
        """
        asked = changes.pop("dtype", None), changes.pop("torch_dtype", None)
        kind: Any = type(pipeline) if cls is DiffusionPipeline else cls
        names = (*kind.PARTS, "scheduler")
        components = {name: getattr(pipeline, name, None) for name in names}
        components |= {name: changes.pop(name) for name in names if name in changes}
        for name in ABSENT:
            _refuse_absent(name, changes.pop(name, None))
        no_others("from_pipe", changes)
        made: Self = kind(**components)
        if asked != (None, None) and (dtype := wanted_dtype("from_pipe", *asked)) is not None:
            made.to(dtype)
        return made

    @classmethod
    def download(cls, pretrained_model_name: str, **settings: Any) -> Path:
        """Bring a model from the hub into the cache; the folder that it is in. Raises `CheckpointError`."""
        hub, variant = hub_options(settings), settings.pop("variant", None)
        no_others("download", settings)
        if Path(pretrained_model_name).is_dir():
            return Path(pretrained_model_name)
        return pull(pretrained_model_name, variant=variant, **hub)

    @classmethod
    def load_config(cls, pretrained_model_name_or_path: str | Path, **others: Any) -> dict[str, Any]:
        """The content of a model's `model_index.json`. Raises `CheckpointError`."""
        hub = hub_options(others)
        no_others("load_config", others)
        return read_json(part_folder(pretrained_model_name_or_path, None, config=INDEX, **hub) / INDEX)

    def save_pretrained(
        self,
        save_directory: str | Path,
        safe_serialization: bool = True,
        variant: str | None = None,
        max_shard_size: int | str | None = None,
        **others: Any,
    ) -> None:
        """Write the model as a folder that diffusers reads too, with the scheduler and the fused adapters.

        A model that is there already is replaced. Raises `OutputError` and `UsageError`.
        """
        if not safe_serialization:
            raise UsageError("safe_serialization = False is not supported: pickles are never written")
        no_others("save_pretrained", others)
        if self.adapters.active:
            warn("adapters that are not fused are not saved with the model")
        settings = {
            key: value for key, value in self.scheduler.config.items() if key != "_use_default_values"
        }
        with self.studio.lock:
            if self.studio.embeddings:
                warn("learned embeddings are not saved with the model")
            self.studio.adapt(tuple(self.adapters.fused.values()))
            model = replace(self.model, scheduler=settings, schedule=schedule_of(settings))
            checkpoint.save(
                model,
                save_directory,
                variant=variant,
                shard_bytes=size_in_bytes(max_shard_size),
                overwrite=True,
            )

    @property
    def model(self) -> checkpoint.Model:
        """The model as Sfumato holds it."""
        return self._loaded.model

    @property
    def studio(self) -> Studio:
        """The studio that draws."""
        return self._loaded.studio

    @property
    def adapters(self) -> AdapterState:
        return self._loaded.adapters

    @property
    def components(self) -> dict[str, Any]:
        """Every part by its name: the arguments of another pipeline of this kind."""
        parts = {name: self._loaded.part(name) for name in self.PARTS}
        return parts | {"scheduler": self.scheduler, **dict.fromkeys(self.OPTIONAL)}

    @property
    def parameters(self) -> dict[str, Any]:
        """The arguments of another pipeline of this kind besides the parts."""
        return {ZEROS: self.model.zero_negative} if ZEROS in signature(type(self).__init__).parameters else {}

    @property
    def lora_scale(self) -> float:
        """The scale of the adapters in the latest call."""
        return number("scale", (self.state.cross_attention_kwargs or {}).get("scale", 1.0))

    @property
    def config(self) -> PartConfig:
        """What `model_index.json` says: the class of each part, and where the model came from."""
        content = index_content(self.model)
        return PartConfig(content | {"_class_name": type(self).__name__, "_name_or_path": self.name_or_path})

    def __repr__(self) -> str:
        return f"{type(self).__name__} {json.dumps(self.config, indent=2, default=str)}"

    @property
    def name_or_path(self) -> str:
        """Where the model came from."""
        return self._loaded.source

    def to(self, *places: Any, **named: Any) -> Self:
        """Move to a device, a dtype, or both: `to("cuda")`, `to(torch.float16)`, `to(torch_device=…)`."""
        named.pop("silence_dtype_warnings", None)
        device, dtype = self.device, self.dtype
        for value in (*places, *(named[name] for name in sorted(named) if named[name] is not None)):
            if isinstance(value, torch.dtype):
                dtype = devices.pick_dtype(device, value)
            elif isinstance(value, str | int | torch.device):
                device = devices.pick_device(f"cuda:{value}" if isinstance(value, int) else value)
            else:
                raise UsageError(f"to: {shown(value)} is neither a device nor a dtype")
        self._loaded.move(device, dtype)
        return self

    def cuda(self) -> Self:
        return self.to("cuda")

    def cpu(self) -> Self:
        return self.to("cpu")

    def _place(self, device_map: str | Mapping[str, Any]) -> None:
        """Put all where `device_map` has the UNet: on a device, or for "balanced" the fastest one here."""
        self.to(mapped_device(device_map))
        self.hf_device_map = {name: str(self.device) for name in NETWORKS if self._loaded.part(name)}

    def reset_device_map(self) -> None:
        """Forget the device map, and move to the CPU."""
        if self.hf_device_map is not None:
            self.hf_device_map = None
            self.to("cpu")

    @property
    def device(self) -> torch.device:
        return self._loaded.device

    _execution_device = device

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self._loaded.parts["unet"].dtype
        return dtype

    @property
    def vae_scale_factor(self) -> int:
        """Pixels to a latent cell."""
        return self.model.factor

    @property
    def scheduler(self) -> Scheduler:
        """The scheduler, which sets the sampler and the noise levels; it can be assigned."""
        return self._scheduler

    @scheduler.setter
    def scheduler(self, value: Any) -> None:
        self._scheduler = as_scheduler(value)

    def __getattr__(self, name: str) -> Any:
        if name in (*NETWORKS, *TOKENIZERS) and name in self.PARTS:
            return self.__dict__["_loaded"].part(name)
        if name.removeprefix("_") in _STATE:
            return getattr(self.__dict__["state"], name.removeprefix("_"))
        if name in ABSENT:
            return None
        why = UNSUPPORTED.get(name, "it is not supported")
        raise AttributeError(f"{type(self).__name__} of sfumato.compat has no {name}: {why}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name[:1] == "_" and name[1:] in _STATE:
            setattr(self.state, name[1:], value)
        elif name in ABSENT:
            _refuse_absent(name, value)
        elif name in self.PARTS:  # `None` leaves a part out
            if getattr(value, "_orig_mod", None) is getattr(self, name):  # what torch.compile makes of it
                getattr(self, name).compile()
            elif (part := _as_part(name, value)) is not getattr(self, name):
                self._loaded = self._loaded.varied({name: part})
        else:
            super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        setattr(self, name, None) if name in self.PARTS else super().__delattr__(name)

    def register_modules(self, **parts: Any) -> None:
        """Assign several parts at once."""
        for name, part in parts.items():
            setattr(self, name, part)

    def _change(self, **changes: Any) -> None:
        """Change the device options from now on; adapters and embeddings stay."""
        self._loaded.options = replace(self._loaded.options, **changes)

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
        self._loaded.parts["vae"].enable_tiling()

    def disable_vae_tiling(self) -> None:
        self._loaded.parts["vae"].disable_tiling()

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
        self._loaded.move(self.device, self.dtype)

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

    def set_progress_bar_config(self, **config: Any) -> None:
        """`disable=True` for none; other settings of diffusers' bar change nothing."""
        self.progress = config

    @staticmethod
    def numpy_to_pil(images: "np.ndarray[Any, Any]") -> list[PIL.Image.Image]:
        """Pictures (B, H, W, 3) in [0, 1] as PIL images."""
        return numpy_to_pil(images)


def _as_part(name: str, value: Any) -> Any:
    """A network or a tokenizer in the place `name`."""
    if value is None:
        return None
    return as_tokenizer(value) if name in TOKENIZERS else as_part(name, value)


def _refuse_absent(name: str, value: Any) -> None:
    """Raise `UsageError` for a safety checker or an image encoder: only `None` will do.

    A feature extractor only prepares pictures for these, and is left alone.
    """
    if value is not None and name != "feature_extractor":
        raise UsageError(f"{name} is not supported: only None")


def _prediction(original_config: str | Path | Mapping[str, Any]) -> str | None:
    """What the YAML of the original code says that the network predicts: "v", or nothing, which is noise."""
    if isinstance(original_config, Mapping):
        params = original_config.get("model", {}).get("params", {})
        found = params.get("parameterization") if isinstance(params, Mapping) else None
    else:
        path = single_file(original_config)
        try:
            text = read_file(path, MOST_YAML).decode("utf-8", "replace")
        except OSError as error:
            raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
        match = _PARAMETERIZATION.search(text)
        found = match and match[1]
    return "v" if found == "v" else None
