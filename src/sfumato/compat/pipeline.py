"""What diffusers' pipelines share: loading, parts, and what a program may read and set."""

import json
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from inspect import signature
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import PIL.Image
import torch

from sfumato import checkpoint
from sfumato.checkpoint.layout import ENCODER, INDEX
from sfumato.checkpoint.saving import index_content, tokenizer_names
from sfumato.checkpoint.shape_model import is_shape_model
from sfumato.checkpoint.source import pull
from sfumato.compat.assembling import as_scheduler, assembled, schedule_of
from sfumato.compat.call import Call
from sfumato.compat.control_models import as_control
from sfumato.compat.drawing import CallState
from sfumato.compat.image_processor import VaeImageProcessor
from sfumato.compat.ip_adapter import IPAdapterMixin, IPAdapters, as_encoder
from sfumato.compat.loaded import NETWORKS, TOKENIZERS, LoadedModel, component
from sfumato.compat.loaders import AdapterState, LoaderMixin
from sfumato.compat.memory import MemoryMixin
from sfumato.compat.models import CLIPVisionModelWithProjection, PartConfig
from sfumato.compat.outputs import StableDiffusionXLPipelineOutput
from sfumato.compat.progress import ProgressMixin
from sfumato.compat.scheduler import Scheduler
from sfumato.compat.schedulers import scheduler_of
from sfumato.compat.sources import (
    Dtype,
    config_folder,
    hub_options,
    no_others,
    number,
    part_folder,
    single_file,
    size_in_bytes,
    wanted_dtype,
)
from sfumato.compat.utils import numpy_to_pil
from sfumato.errors import CheckpointError, UsageError, nearest, warn
from sfumato.files import read_file, read_json
from sfumato.names import TEXT2VIDEO_ZERO
from sfumato.options import EMBEDDED, ModelOptions
from sfumato.studio import Studio

MOST_YAML = 1 << 20
"""Bytes of an `original_config` that are read."""
ABSENT = ("safety_checker", "feature_extractor")
"""Parts that drawing does without."""
ZEROS = "force_zeros_for_empty_prompt"
"""Whether "no negative prompt" means text states of zeros, in SDXL."""
BESIDE = ("controlnet", "adapter", "motion_adapter")
"""The networks that pipelines have beside a model."""
SETTINGS = (ZEROS, "is_cosxl_edit")
"""Arguments of constructors that a model's index holds too."""
UNSUPPORTED = {
    "enable_freeu": "FreeU is not supported",
    "fuse_qkv_projections": "sfumato arranges its projections itself",
    "enable_group_offload": "use enable_model_cpu_offload()",
    "push_to_hub": "save_pretrained(folder), then `hf upload`",
}
"""Names of diffusers' pipelines that are left out, with what to do instead."""
_STATE = {*(each.name for each in fields(CallState)), "do_classifier_free_guidance"}
_PIPELINES = ("latent_consistency_txt2img",)
"""The community pipelines that are supported."""
_PARAMETERIZATION = re.compile(r"""^\s*parameterization:\s*["']?(\w+)""", re.MULTILINE)


class DiffusionPipeline(MemoryMixin, ProgressMixin, LoaderMixin, IPAdapterMixin):
    """Base class of the pipelines; its `from_pretrained` chooses the pipeline by the model."""

    CALLBACK_TENSORS: ClassVar[tuple[str, ...]] = ("latents", "prompt_embeds", "negative_prompt_embeds")
    PARTS: ClassVar[tuple[str, ...]] = ()
    """The names of its parts besides the scheduler, those of a whole model."""
    OUTPUT: ClassVar[type[Any]] = StableDiffusionXLPipelineOutput
    """What a call returns."""
    CALL: ClassVar[type[Call]] = Call
    """What a call is."""
    UPCAST: ClassVar[bool] = False
    """Whether pictures are encoded in float32 in diffusers, which decides the noise of their latents."""
    OPTIONAL: ClassVar[tuple[str, ...]] = (*ABSENT, ENCODER)
    """The names of its parts that drawing does without; only an image encoder may be one."""
    BESIDE: ClassVar[tuple[str, ...]] = ()
    """The names of its networks beside a model, which pipelines do not share with `DiffusionPipeline`."""
    REFINER_LACKS: ClassVar[tuple[str, ...]] = ()
    """The names of its parts that SDXL's refiner does not have."""
    CORRECTED: ClassVar[Mapping[str, Any]] = {}
    """Settings of old schedulers' files that diffusers corrects in this pipeline, and what they become."""
    KINDS: ClassVar[tuple[type["DiffusionPipeline"], ...]] = ()
    """The pipelines that this one's loaders choose from, in the order in which a model is tried."""

    SHAPES: ClassVar[Any] = None
    """What loads models of shapes."""

    def __init__(self, given: Mapping[str, Any] | None = None) -> None:
        """Of the arguments of a constructor: networks and tokenizers, a scheduler, and nothing else.

        Raises `UsageError` for a part that is missing or does not fit, `CheckpointError` where the parts do
        not go together.
        """
        if given is None:
            raise UsageError(f"{type(self).__name__}: a pipeline is made by from_pretrained, or of its parts")
        for name in ABSENT:
            _refuse_absent(name, given.get(name))
        parts = {name: component(name, given[name]) for name in self.PARTS}
        settings = {name: given[name] for name in SETTINGS if given.get(name) is not None}
        scheduler = as_scheduler(given["scheduler"])
        owner: LoadedModel | None = next(
            (parts[name].loaded for name in NETWORKS if parts.get(name) and parts[name].loaded), None
        )
        if owner is None:
            for name, part in parts.items():
                if part is None and name not in self.REFINER_LACKS:
                    raise UsageError(f"{type(self).__name__} needs a {name}")
            networks = {name: parts[name].network for name in (*NETWORKS, ENCODER) if parts.get(name)}
            tokenizers = [parts[name].tokenizer for name in TOKENIZERS if parts.get(name)]
            plan = scheduler.settings | {"_class_name": type(scheduler).__name__}
            model = assembled(networks, tokenizers, plan)
            model.index |= {ZEROS: model.zero_negative} | settings
            loaded = LoadedModel(model, model.name, {name: part for name, part in parts.items() if part})
        else:
            changes = {name: part for name, part in parts.items() if part is not owner.part(name)}
            loaded = owner.varied(changes) if changes else owner
        if not self.fits(loaded.model):
            raise _misfit(type(self).__name__, loaded.model)
        self._loaded = loaded
        if given.get(ENCODER) is not None:
            self.image_encoder = given[ENCODER]
        for name in self.BESIDE:
            setattr(self, name, given[name])
        self.scheduler = scheduler
        for name, right in self.CORRECTED.items():
            if self.scheduler.config.get(name, right) != right:
                self.scheduler.config[name] = right
        self.state = CallState()
        latent = loaded.model.latent
        sizes: Any = {"vae_scale_factor": latent.factor, "vae_latent_channels": latent.channels}
        self.image_processor = VaeImageProcessor(**sizes)
        self.mask_processor = VaeImageProcessor(
            **sizes, do_normalize=False, do_binarize=True, do_convert_grayscale=True
        )

    def _draw(self, given: Mapping[str, Any]) -> Any:
        """Draw as the `locals()` of a call say."""
        with self.studio.lock:
            return self.CALL(self, given).result()

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
        options = {"variant": variant, "local_files_only": local}
        wanted = wanted_dtype("from_pretrained", dtype, torch_dtype)
        if (shapes := vars(cls).get("SHAPES")) and is_shape_model(ModelOptions.of(place, **options), wanted):
            made: Self = shapes.load(place, str(source), wanted, scheduler, device_map, options, others)
            return made
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
        encoder = others.get(ENCODER)
        given = {name: others[name] for name in (*NETWORKS, *TOKENIZERS) if name in others}
        settings = {name: others[name] for name in SETTINGS if others.get(name) is not None}
        beside = {name: others[name] for name in BESIDE if others.get(name) is not None}
        left = {name: value for name, value in others.items() if name not in (*given, *beside)}
        no_others(cls.__name__, left, ignored=(*SETTINGS, "feature_extractor", ENCODER))
        parts = {name: component(name, value) for name, value in given.items() if value is not None}
        networks = {name: part.network for name, part in parts.items() if name in NETWORKS}
        model = checkpoint.load(place, dtype=dtype, given=networks, **options)
        kinds: list[Any] = [each for each in vars(cls).get("KINDS", (cls,)) if {*each.BESIDE} == {*beside}]
        if not kinds:
            raise UsageError(
                f"{cls.__name__} needs {' and '.join(cls.BESIDE)}"
                if cls.BESIDE
                else f"{cls.__name__} takes no {' and '.join(beside)}"
            )
        fitting = [each for each in kinds if each.fits(model)]
        if not fitting:
            raise _misfit(cls.__name__, model)
        named = [each for each in fitting if each.__name__ == model.index.get("_class_name")]
        kind = [*named, *fitting][0]
        model.index = {**model.index, **settings}
        left_out = frozenset(name for name, value in given.items() if value is None)
        model.tokenizers = [
            parts[name].tokenizer if name in parts else own
            for name, own in zip(tokenizer_names(model), model.tokenizers, strict=True)
        ]
        loaded = LoadedModel(model, source, dict(parts), left_out)
        components = {name: loaded.part(name) for name in kind.PARTS}
        made: Self = kind(**components, **beside, scheduler=scheduler or scheduler_of(model.scheduler))
        if encoder is not None:
            made.image_encoder = encoder
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
        names = (*kind.PARTS, *kind.BESIDE, "scheduler", *(name for name in SETTINGS if name in changes))
        components = {name: getattr(pipeline, name, None) for name in names}
        components |= {name: changes.pop(name) for name in names if name in changes}
        for name in ABSENT:
            _refuse_absent(name, changes.pop(name, None))
        encoder = changes.pop(ENCODER, None)
        no_others("from_pipe", changes)
        made: Self = kind(**components)
        if encoder is not None:
            made.image_encoder = encoder
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
            self.studio.adapt(tuple(self.adapters.fused.values()), motion=TEXT2VIDEO_ZERO)
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
    def ip_adapters(self) -> IPAdapters:
        return self._loaded.ip_adapters

    @property
    def image_encoder(self) -> CLIPVisionModelWithProjection | None:
        """What IP-Adapters see pictures through; it can be assigned."""
        return self.ip_adapters.encoder

    @image_encoder.setter
    def image_encoder(self, value: Any) -> None:
        self.ip_adapters.encoder = as_encoder(value)

    @property
    def components(self) -> dict[str, Any]:
        """Every part by its name: the arguments of another pipeline of this kind."""
        parts = {name: self.loaded.part(name) for name in self.PARTS}
        beside = {name: getattr(self, name) for name in (*self.BESIDE, *self.OPTIONAL)}
        return parts | {"scheduler": self.scheduler, **beside}

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
            return self.loaded.part(name)
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
        elif name in self.BESIDE:
            super().__setattr__(name, as_control(name, value))
        elif name in self.PARTS:  # `None` leaves a part out
            if getattr(value, "_orig_mod", None) is getattr(self, name):  # what torch.compile makes of it
                getattr(self, name).compile()
            elif (part := component(name, value)) is not getattr(self, name):
                self._loaded = self._loaded.varied({name: part})
        else:
            super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        setattr(self, name, None) if name in self.PARTS else super().__delattr__(name)

    def register_modules(self, **parts: Any) -> None:
        """Assign several parts at once."""
        for name, part in parts.items():
            setattr(self, name, part)

    @staticmethod
    def numpy_to_pil(images: "np.ndarray[Any, Any]") -> list[PIL.Image.Image]:
        """Pictures (B, H, W, 3) in [0, 1] as PIL images."""
        return numpy_to_pil(images)


def _misfit(name: str, model: checkpoint.Model) -> UsageError:
    task = "" if model.task == "text" else f", an {model.task} model"
    return UsageError(f"{name} does not draw with {model.name}, of kind {model.kind}{task}")


def _refuse_absent(name: str, value: Any) -> None:
    """Raise `UsageError` for a safety checker: only `None` will do.

    A feature extractor only prepares pictures for it, and is left alone.
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
