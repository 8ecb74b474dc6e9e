"""The networks of a pipeline under their names in diffusers and transformers."""

from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from sfumato import weights
from sfumato.checkpoint import grouping, header_config, keys, layout, replacement_parts, single
from sfumato.checkpoint.families import FAMILIES
from sfumato.checkpoint.loading import build, empty_network, new_network
from sfumato.checkpoint.model import ModelNetwork
from sfumato.checkpoint.report import Report
from sfumato.checkpoint.saving import save_network
from sfumato.compat.noise import BatchNoise, Generators
from sfumato.compat.outputs import Output
from sfumato.compat.sources import (
    Dtype,
    hub_options,
    mapped_device,
    no_others,
    part_folder,
    single_file,
    wanted_dtype,
)
from sfumato.config import Config
from sfumato.errors import CheckpointError, UsageError, nearest
from sfumato.files import make_folder, read_json
from sfumato.nets.inputs import SizeConditioning
from sfumato.nets.network import Residuals
from sfumato.nets.temporal_vae import TemporalAutoencoderKL
from sfumato.nets.text import CLIPText
from sfumato.nets.tiny_vae import AutoencoderTiny as TinyNetwork
from sfumato.nets.unet import UNet
from sfumato.nets.vae import AutoencoderKL as KLNetwork
from sfumato.nets.vae import Gaussian
from sfumato.nets.video_unet import UNet3D, UNetSpatioTemporal
from sfumato.nets.vision import CLIPVision


class PartConfig(dict[str, Any]):
    """A network's `config.json` with the defaults that it leaves out, read as items or attributes."""

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(f"this part has no setting {name!r}; {nearest(name, self)}")


@dataclass
class ModelOutput(Output):
    """`sample`: the network's answer, or pixels."""

    sample: Tensor


@dataclass
class LatentOutput(Output):
    """`latents` (B, C, h, w) of a tiny autoencoder."""

    latents: Tensor


@dataclass
class AutoencoderKLOutput(Output):
    """`latent_dist`: the distribution of the latents."""

    latent_dist: "LatentDistribution"


@dataclass
class TextOutput(Output):
    """States of a text encoder.

    `last_hidden_state` (B, T, D), normalised; `pooler_output` (B, D) or `text_embeds` (B, P);
    `hidden_states`: those before the first layer and after each, not normalised, where they are asked for.
    """

    last_hidden_state: Tensor | None
    pooler_output: Tensor | None
    hidden_states: tuple[Tensor, ...] | None = None
    text_embeds: Tensor | None = None

    def to_tuple(self) -> tuple[Any, ...]:
        first = () if self.text_embeds is None else (self.text_embeds,)
        others = (self.last_hidden_state, self.pooler_output, self.hidden_states)
        return (*first, *(each for each in others if each is not None))


class LatentDistribution:
    """What an autoencoder's encoder answers: `mean`, `logvar`, `std`, `var` (B, C, h, w)."""

    def __init__(self, gaussian: Gaussian) -> None:
        self.mean, self.logvar = gaussian.mean, gaussian.logvar
        self.std, self.var = torch.exp(0.5 * self.logvar), torch.exp(self.logvar)

    def sample(self, generator: Generators = None) -> Tensor:
        """Latents drawn from it, by noise that the generator gives in diffusers' order."""
        like = self.mean
        noise = BatchNoise(generator, tuple(like.shape), like.device, like.dtype).block()
        return self.mean + self.std * noise.to(like.dtype)

    def mode(self) -> Tensor:
        """The most likely latents."""
        return self.mean


class ModelPart(nn.Module, ABC):
    """A network with the methods that programs for diffusers call on it. `network` is Sfumato's own."""

    PLACE: ClassVar[str]
    """The folder of a model that it is in."""
    OTHERS: ClassVar[frozenset[str]] = frozenset({"vae", "text_encoder", "text_encoder_2"})
    """The parts that a single file may lack that it is taken from."""

    def __init__(self, network: ModelNetwork | None = None, **settings: Any) -> None:
        """Around a `network`, or a new one of these `settings`, its weights random.

        Raises `CheckpointError`.
        """
        super().__init__()
        self.network = network or new_network(_config(type(self), settings))
        self.compiled = False
        self.loaded: Any = None
        """The model that it is a part of, which the pipelines that it is in share."""

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
        """Load the part in a folder, or in `subfolder` of a model, or on the hub; in float32 unless told.

        Raises `CheckpointError` and `UsageError`.
        """
        where, source, hub = (
            f"{cls.__name__}.from_pretrained",
            pretrained_model_name_or_path,
            hub_options(others),
        )
        no_others(where, others)
        precision = wanted_dtype(where, dtype, torch_dtype)
        folder = part_folder(
            source,
            subfolder,
            weights=True,
            variant=variant,
            **hub,
        )
        part = layout.read_network(folder, cls.PLACE, {}, variant=variant)
        made = part_of(build(part, precision))
        if not isinstance(made, cls):
            raise UsageError(f"{folder} holds an {type(made).__name__}, not an {cls.__name__}")
        return made.to(mapped_device(device_map))

    @classmethod
    def from_single_file(
        cls,
        pretrained_model_link_or_path_or_dict: str | Path,
        *,
        torch_dtype: Dtype = None,
        dtype: Dtype = None,
        scaling_factor: float | None = None,
        config: str | Path | None = None,
        subfolder: str | None = None,
        **others: Any,
    ) -> Self:
        """Load the part in a `.safetensors` file, an autoencoder's own or a whole model's.

        `config`: the folder or hub id whose `config.json`, or that in its `subfolder`, has the settings.
        Raises `CheckpointError` and `UsageError`.
        """
        where, path = f"{cls.__name__}.from_single_file", pretrained_model_link_or_path_or_dict
        hub = hub_options(others)
        no_others(where, others, ignored=("original_config",))
        file = single_file(path, **hub)
        head = weights.header(file)
        if config is not None:
            settings = read_json(part_folder(config, subfolder, **hub) / "config.json")
            _, stated = layout.config_of(cls.PLACE, settings, f"{config}: config.json")
            found = grouping.vae_group(head.tensors)
            group = (
                found if cls.PLACE == "vae" else grouping.grouped(file, head, Report(str(file)))[cls.PLACE]
            )
            if group is None:
                raise CheckpointError(f"{file} holds no {cls.PLACE}")
            part = single.part(file, head, group, stated)
        elif cls.PLACE == "vae" and header_config.ENTRY not in head.metadata:
            part = replacement_parts.vae_part(file, scaling_factor or FAMILIES["sd1"].scaling_factor)
        else:
            content = single.scan(file, head, Report(str(file)), {}, cls.OTHERS)
            part = content.parts[cls.PLACE]
        made = part_of(build(part, wanted_dtype(where, dtype, torch_dtype)))
        if not isinstance(made, cls):
            raise UsageError(f"{path} holds an {type(made).__name__}, not an {cls.__name__}")
        return made

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any] | str | Path, subfolder: str | None = None, **others: Any
    ) -> Self:
        """A part with random weights, for `load_state_dict`: from settings, or from a folder's `config.json`.

        Raises `CheckpointError`.
        """
        hub = hub_options(others)
        no_others(f"{cls.__name__}.from_config", others)
        if not isinstance(config, Mapping):
            config = read_json(part_folder(config, subfolder, **hub) / "config.json")
        return cls(**config)

    @classmethod
    def load_config(cls, source: str | Path, subfolder: str | None = None, **others: Any) -> dict[str, Any]:
        """The content of the part's `config.json`."""
        return read_json(part_folder(source, subfolder, **hub_options(others)) / "config.json")

    def save_pretrained(
        self,
        save_directory: str | Path,
        variant: str | None = None,
        max_shard_size: int | None = None,
        **others: Any,
    ) -> None:
        """Write `config.json` and the weights into a folder. Raises `OutputError`."""
        no_others("save_pretrained", others, ignored=("safe_serialization", "is_main_process"))
        make_folder(Path(save_directory))
        save_network(
            Path(save_directory), self.PLACE, self.network, variant=variant, shard_bytes=max_shard_size
        )

    @property
    def config(self) -> PartConfig:
        """The settings under the library's names."""
        own: Config = self.network.config
        return PartConfig({name: values[0] for name, values in own.FIXED.items()} | own.to_dict())

    @property
    def dtype(self) -> torch.dtype:
        return next(self.network.parameters()).dtype

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    def to(self, *places: Any, **named: Any) -> Self:
        """To a device or a dtype; a memory format changes nothing, since the device has its own."""
        named.pop("memory_format", None)
        return super().to(*places, **named) if places or named else self

    def state_dict(self, **options: Any) -> dict[str, Any]:  # type: ignore[override]
        """The parameters under their published names."""
        state = self.network.state_dict(**options)
        return {theirs: state[ours] for ours, theirs in keys.published(self.PLACE, state).items()}

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load parameters under their published names. Raises `CheckpointError` unless they fit."""
        own = self.network.state_dict()
        names = keys.translate(self.PLACE, state_dict, own)
        state = {ours: state_dict[theirs] for theirs, ours in names.items()}
        if strict:
            weights.check(state, self.network, f"the state dict for the {type(self).__name__}")
        return self.network.load_state_dict(state, strict=strict, assign=assign)

    def compile(self, *arguments: Any, **named: Any) -> None:
        """Have the pipelines that it is in compile their networks."""
        self.compiled = True

    def num_parameters(self, only_trainable: bool = False, **others: Any) -> int:
        """How many numbers its weights are."""
        return sum(each.numel() for each in self.parameters() if each.requires_grad or not only_trainable)

    def __getattr__(self, name: str) -> Any:
        if name in _NO_EFFECT:
            return _nothing
        try:
            return super().__getattr__(name)
        except AttributeError:
            pass
        network = self.__dict__["_modules"].get("network")
        if network is not None and hasattr(network, name):
            return getattr(network, name)
        raise AttributeError(f"{type(self).__name__} of sfumato.compat has no {name}: it is not supported")


_NO_EFFECT = (
    *("set_attn_processor", "set_default_attn_processor", "set_attention_slice", "set_attention_backend"),
    *("enable_xformers_memory_efficient_attention", "disable_xformers_memory_efficient_attention"),
    *("enable_gradient_checkpointing", "disable_gradient_checkpointing", "enable_forward_chunking"),
    *("disable_forward_chunking", "set_use_memory_efficient_attention_xformers", "compile_repeated_blocks"),
    *("fuse_qkv_projections", "unfuse_qkv_projections", "enable_slicing", "disable_slicing"),
)
"""Methods of parts that leave the numbers as they are: the networks here are arranged in their own way."""


def _nothing(*arguments: Any, **named: Any) -> None:
    """Nothing to do."""


class UNet2DConditionModel(ModelPart):
    """The denoising UNet."""

    PLACE = "unet"
    network: UNet

    @torch.no_grad()
    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float,
        encoder_hidden_states: Tensor,
        *,
        added_cond_kwargs: Mapping[str, Tensor] | None = None,
        return_dict: bool = True,
        **others: Any,
    ) -> Any:
        """The network's answer (B, C, H, W) to noisy latents `sample` at `timestep`.

        `encoder_hidden_states` (B, T, D). `added_cond_kwargs`: SDXL's `text_embeds` (B, P) and `time_ids`
        (B, 6). `down_block_additional_residuals`, `mid_block_additional_residual`: what ControlNets add;
        `down_intrablock_additional_residuals`: what T2I-Adapters do. Raises `UsageError` for what is not
        supported.
        """
        skips = others.pop("down_block_additional_residuals", None)
        middle = others.pop("mid_block_additional_residual", None)
        features = others.pop("down_intrablock_additional_residuals", None)
        no_others("UNet2DConditionModel", others)
        residuals = None
        if any(each is not None for each in (skips, middle, features)):
            residuals = Residuals(tuple(skips or ()), middle, tuple(features or ()))
        times = torch.as_tensor(timestep, device=sample.device).float().expand(len(sample))
        size = None
        if added_cond_kwargs:
            size = SizeConditioning(added_cond_kwargs["text_embeds"], added_cond_kwargs["time_ids"])
        try:
            time = self.network.embed_time(times, size)
        except ValueError as error:
            raise UsageError(f"UNet2DConditionModel: {error}") from None
        context = self.network.context(encoder_hidden_states.to(self.dtype))
        answer = self.network.denoise(sample.to(self.dtype), time, context, residuals=residuals)
        return ModelOutput(answer) if return_dict else (answer,)

    def load_attn_procs(self, pretrained_model_name_or_path_or_dict: Any, **settings: Any) -> None:
        """The older name of a pipeline's `load_lora_weights`. Raises `UsageError` without a pipeline."""
        self._pipeline().load_lora_weights(pretrained_model_name_or_path_or_dict, **settings)

    def load_lora_adapter(
        self, pretrained_model_name_or_path_or_dict: Any, prefix: str | None = None, **settings: Any
    ) -> None:
        """Load the layers of a LoRA whose names begin with `prefix`, or all; see `load_lora_weights`.

        Raises `UsageError` without a pipeline, and where there are no such layers.
        """
        use = {name: settings.pop(name) for name in ("adapter_name", "hotswap") if name in settings}
        state, _ = self._pipeline().lora_state_dict(pretrained_model_name_or_path_or_dict, **settings)
        layers = {name: each for name, each in state.items() if not prefix or name.startswith(f"{prefix}.")}
        if not layers:
            first = next(iter(state), "")
            raise UsageError(f"load_lora_adapter: no layer begins with '{prefix}.', as {first!r} does not")
        self._pipeline().load_lora_weights(layers, **use)

    def _pipeline(self) -> Any:
        """The model that it is a part of, with its loaders."""
        if self.loaded is None:
            raise UsageError("put the unet into a pipeline first, then load_lora_weights")
        return self.loaded


class UNet3DConditionModel(UNet2DConditionModel):
    """ModelScope's UNet of clips; its answers (B, C, F, H, W) are to clips of that shape."""

    network: UNet3D


class UNetSpatioTemporalConditionModel(ModelPart):
    """Stable Video Diffusion's UNet."""

    PLACE = "unet"
    network: UNetSpatioTemporal

    @torch.no_grad()
    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float,
        encoder_hidden_states: Tensor,
        added_time_ids: Tensor,
        return_dict: bool = True,
    ) -> Any:
        """The network's answer (B, F, C, H, W) to noisy clips `sample` (B, F, C', H, W) at `timestep`.

        `encoder_hidden_states` (B, T, D). `added_time_ids` (B, 3): frames per second less 1, motion bucket
        and the noise in the picture.
        """
        times = torch.as_tensor(timestep, device=sample.device).float().expand(len(sample))
        size = SizeConditioning(torch.empty(len(sample), 0, device=sample.device), added_time_ids)
        time = self.network.embed_time(times, size)
        context = self.network.context(encoder_hidden_states.to(self.dtype))
        answer = self.network.denoise(sample.to(self.dtype).transpose(1, 2), time, context).transpose(1, 2)
        return ModelOutput(answer) if return_dict else (answer,)


class _Autoencoder(ModelPart):
    """What both autoencoders share."""

    PLACE = "vae"
    network: KLNetwork | TinyNetwork
    use_tiling: bool = False

    def enable_tiling(self, use_tiling: bool = True) -> None:
        """Have the pipelines that it is in decode large pictures in tiles."""
        self.use_tiling = use_tiling

    def disable_tiling(self) -> None:
        self.use_tiling = False

    @torch.no_grad()
    def _pixels(self, z: Tensor, return_dict: bool) -> Any:
        pixels = self.network.decode(z.to(self.dtype))
        return ModelOutput(pixels) if return_dict else (pixels,)


class AutoencoderKL(_Autoencoder):
    """The autoencoder of Stable Diffusion."""

    network: KLNetwork

    @torch.no_grad()
    def encode(self, x: Tensor, return_dict: bool = True) -> Any:
        """Pixels (B, 3, H, W) in [−1, 1] to the distribution of raw latents."""
        found = LatentDistribution(self.network.encode(x.to(self.dtype)))
        return AutoencoderKLOutput(found) if return_dict else (found,)

    def decode(self, z: Tensor, return_dict: bool = True, generator: Generators = None) -> Any:
        """Raw latents (B, C, h, w), divided by `config.scaling_factor`, to pixels (B, 3, H, W) in [−1, 1]."""
        return self._pixels(z, return_dict)

    def forward(
        self,
        sample: Tensor,
        sample_posterior: bool = False,
        return_dict: bool = True,
        generator: Generators = None,
    ) -> Any:
        """Pixels to latents and back."""
        found = self.encode(sample).latent_dist
        return self.decode(found.sample(generator) if sample_posterior else found.mode(), return_dict)


class AutoencoderKLTemporalDecoder(AutoencoderKL):
    """The autoencoder of Stable Video Diffusion."""

    network: TemporalAutoencoderKL

    @torch.no_grad()
    def decode(self, z: Tensor, num_frames: int = 1, return_dict: bool = True) -> Any:  # type: ignore[override]
        """Raw latents of clips, their frames in turn (B·F, C, h, w), to pixels (B·F, 3, H, W) in [−1, 1]."""
        clips = z.to(self.dtype).unflatten(0, (-1, num_frames)).transpose(1, 2)
        pixels = self.network.decode(clips).transpose(1, 2).flatten(0, 1)
        return ModelOutput(pixels) if return_dict else (pixels,)


class AutoencoderTiny(_Autoencoder):
    """TAESD: quick, and slightly soft."""

    @torch.no_grad()
    def encode(self, x: Tensor, return_dict: bool = True) -> Any:
        """Pixels (B, 3, H, W) in [−1, 1] to latents."""
        latents = self.network.encode(x.to(self.dtype)).mean
        return LatentOutput(latents) if return_dict else (latents,)

    def decode(self, x: Tensor, generator: Generators = None, return_dict: bool = True) -> Any:
        """Latents (B, C, h, w) to pixels (B, 3, H, W) in [−1, 1]."""
        return self._pixels(x, return_dict)

    def forward(self, sample: Tensor, return_dict: bool = True) -> Any:
        """Pixels to latents and back."""
        return self.decode(self.encode(sample).latents, return_dict=return_dict)


class CLIPTextModel(ModelPart):
    """A CLIP text encoder."""

    PLACE = "text_encoder"
    network: CLIPText

    @property
    def text_model(self) -> CLIPText:
        """The encoder without the projection, as transformers 4 has it."""
        return self.network

    def get_input_embeddings(self) -> nn.Embedding:
        """The table of token embeddings (V, D); learned words of pipelines are not in it."""
        return self.network.embeddings.token_embedding

    @torch.no_grad()
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: None = None,
        position_ids: None = None,
        output_hidden_states: bool = False,
        return_dict: bool = True,
        **others: Any,
    ) -> Any:
        """Token ids (B, T) to states; an attention mask is not supported."""
        no_others(
            type(self).__name__, {**others, "position_ids": position_ids, "attention_mask": attention_mask}
        )
        layers = self.network.config.num_hidden_layers
        out = self.network(input_ids)
        hidden = None
        if output_hidden_states:
            depths = range(layers, -1, -1)
            hidden = tuple(self.network(input_ids, skip, final_norm=False).states for skip in depths)
        if self.network.config.with_projection:
            found = TextOutput(out.states, None, hidden, out.pooled)
        else:
            found = TextOutput(out.states, out.pooled, hidden)
        return found if return_dict else found.to_tuple()


class CLIPTextModelWithProjection(CLIPTextModel):
    """SDXL's second text encoder."""


@dataclass
class VisionOutput(Output):
    """`image_embeds` (B, P)."""

    image_embeds: Tensor


class CLIPVisionModelWithProjection(ModelPart):
    """CLIP's vision encoder, through which IP-Adapters see pictures."""

    PLACE = "image_encoder"
    network: CLIPVision

    @torch.no_grad()
    def forward(self, pixel_values: Tensor, return_dict: bool = True, **others: Any) -> Any:
        """Pictures (B, 3, S, S), normalised as CLIP's are, to vectors."""
        no_others(type(self).__name__, others)
        found = VisionOutput(self.network(pixel_values.to(self.device, self.dtype)).pooled)
        return found if return_dict else found.to_tuple()


PARTS: dict[str, type[ModelPart]] = {
    each.__name__: each
    for each in (
        UNet2DConditionModel,
        UNet3DConditionModel,
        UNetSpatioTemporalConditionModel,
        AutoencoderKL,
        AutoencoderKLTemporalDecoder,
        AutoencoderTiny,
        CLIPTextModel,
        CLIPTextModelWithProjection,
        CLIPVisionModelWithProjection,
    )
}
"""By the class that a folder's `config.json` names."""


def _config(kind: type[ModelPart], settings: Mapping[str, Any]) -> Config:
    name = kind.__name__
    return layout.config_of(kind.PLACE, dict(settings), f"the config of {name}", name)[1]


def part_of(network: ModelNetwork) -> ModelPart:
    """A network of Sfumato's under its name in diffusers or transformers."""
    config = network.config.to_dict()
    return PARTS[config.get("_class_name") or config["architectures"][0]](network)


class AutoModel:
    """Loads a part of the class that its `config.json` names."""

    @staticmethod
    def from_pretrained(source: str | Path, *, subfolder: str | None = None, **settings: Any) -> ModelPart:
        """See `ModelPart.from_pretrained`. Raises `CheckpointError` for a class that is not supported."""
        folder = part_folder(source, subfolder, **hub_options(dict(settings)))
        kind = _class_in(read_json(folder / "config.json"), str(folder))
        return kind.from_pretrained(source, subfolder=subfolder, **settings)

    @staticmethod
    def from_config(
        config: Mapping[str, Any] | str | Path, subfolder: str | None = None, **others: Any
    ) -> ModelPart:
        """See `ModelPart.from_config`."""
        if not isinstance(config, Mapping):
            hub = hub_options(dict(others))
            config = read_json(part_folder(config, subfolder, **hub) / "config.json")
        return _class_in(config, "the config").from_config(config, **others)


def _class_in(config: Mapping[str, Any], where: str) -> type[ModelPart]:
    named = config.get("_class_name") or next(iter(config.get("architectures") or ()), None)
    if named not in PARTS:
        raise CheckpointError(
            f"{where}: a part of class {named!r} is not supported; {nearest(str(named), PARTS)}"
        )
    return PARTS[str(named)]


def as_part(name: str, value: Any) -> ModelPart:
    """The part in the place `name` of a model: one of these, or a network of diffusers or transformers.

    The parameters of the latter are copied. Raises `UsageError` for anything else, `CheckpointError` for a
    network that is not supported there.
    """
    if isinstance(value, nn.Module) and isinstance(getattr(value, "_orig_mod", None), nn.Module):
        value = value._orig_mod
    if isinstance(value, ModelPart):
        kind = type(value).__name__
        if kind not in layout.classes_of(name):
            raise UsageError(f"{name} cannot be of class {kind}; {nearest(kind, layout.classes_of(name))}")
        return value
    config = getattr(value, "config", None)
    if not isinstance(value, nn.Module) or config is None:
        known = " or ".join(layout.classes_of(name))
        raise UsageError(f"{name} must be of class {known}, not {type(value).__name__}")
    content = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    class_name = type(value).__name__
    content = {key: each for key, each in content.items() if key != "_class_name"}
    _, known_config = layout.config_of(name, content, f"the {name} that was given", class_name)
    part = PARTS[class_name](empty_network(known_config).eval())
    part.load_state_dict(
        {key: each.detach().clone() for key, each in value.state_dict().items()}, assign=True
    )
    part.requires_grad_(False)
    return part
