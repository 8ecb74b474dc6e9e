"""What the networks and schedules of a checkpoint are, read strictly from the `config.json` beside it.

The names are those of diffusers and transformers, so that a folder needs no translation, and so are the
defaults, because a published file leaves out what its library's class already says. Every key is a field, or
listed here as one that changes nothing, or an error: a key nobody reads could change the picture unnoticed.
"""

import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from reprlib import Repr
from typing import Any, ClassVar, Self, TypeVar, Union, get_args, get_origin, get_type_hints

from sfumato.errors import CheckpointError, nearest

T = TypeVar("T")
PerLevel = int | tuple[int, ...]
"""One number for every level of a network, or one for each, widest picture first."""

MOST_LEVELS = 8
MOST_LAYERS = 64
MOST_BLOCKS = 1024
MOST_CHANNELS = 1 << 16
MOST_TOKENS = 1 << 20
MOST_FLOAT = 1e300


@dataclass(frozen=True)
class Config:
    """Reading and writing, the same for all."""

    CLASS: ClassVar[str] = ""
    """The library's class that the file names."""
    FIXED: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    """Keys that this package knows only at the values at which they change nothing."""
    IGNORED: ClassVar[frozenset[str]] = frozenset()
    """Keys that change nothing here, whatever they hold."""
    DERIVED: ClassVar[frozenset[str]] = frozenset()
    """Fields that no key of their own sets."""

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any], where: str) -> Self:
        """The configuration in `mapping`, the content of the file called `where` in errors.

        Raises `CheckpointError` for an unknown key, a value of the wrong type or out of range, and for a
        network that this package does not build.
        """
        if cls.CLASS and mapping.get("_class_name", cls.CLASS) != cls.CLASS:
            raise CheckpointError(
                f"{where}: _class_name = {_shown(mapping['_class_name'])} must be {cls.CLASS!r}"
            )
        hints = get_type_hints(cls)
        names = {field.name for field in fields(cls)} - cls.DERIVED
        values = cls.defaults(mapping, where)
        for key, value in mapping.items():
            if key in names:
                values[key] = _typed(value, hints[key], f"{where}: {key}")
            elif key in cls.FIXED:
                if value not in cls.FIXED[key]:
                    right = " or ".join(repr(right) for right in cls.FIXED[key])
                    raise CheckpointError(f"{where}: {key} = {_shown(value)} is not supported, only {right}")
            elif not key.startswith("_") and key not in cls.IGNORED:
                known = {*names, *cls.FIXED, *cls.IGNORED}
                raise CheckpointError(f"{where}: unknown key {_shown(key)}; {nearest(key[:80], known)}")
        config = cls(**values)
        try:
            config.check()
        except ValueError as error:
            raise CheckpointError(f"{where}: {error}") from None
        return config

    @classmethod
    def defaults(cls, mapping: Mapping[str, Any], where: str) -> dict[str, Any]:
        """What the file says other than by a field's own key."""
        return {}

    def check(self) -> None:
        """Raise `ValueError` where the values do not make a network."""

    def to_dict(self) -> dict[str, Any]:
        """The configuration as its library's `config.json`; keys left out hold the class's default."""
        values = {"_class_name": self.CLASS} if self.CLASS else {}
        return values | {
            field.name: _listed(getattr(self, field.name))
            for field in fields(self)
            if field.name not in self.DERIVED
        }


@dataclass(frozen=True)
class UNetConfig(Config):
    """diffusers' `UNet2DConditionModel`: SD 1.x, SD 2.x, SDXL, inpainting, instruction editing, LCM."""

    CLASS = "UNet2DConditionModel"
    FIXED: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "act_fn": ("silu", "swish"),
        "attention_type": ("default",),
        "center_input_sample": (False,),
        "class_embed_type": (None,),
        "class_embeddings_concat": (False,),
        "conv_in_kernel": (3,),
        "conv_out_kernel": (3,),
        "cross_attention_norm": (None,),
        "downsample_padding": (1,),
        "dropout": (0.0,),
        "dual_cross_attention": (False,),
        "encoder_hid_dim": (None,),
        "encoder_hid_dim_type": (None,),
        "mid_block_only_cross_attention": (None, False),
        "mid_block_scale_factor": (1,),
        "num_attention_heads": (None,),
        "num_class_embeds": (None,),
        "only_cross_attention": (False,),
        "resnet_out_scale_factor": (1.0,),
        "resnet_skip_time_act": (False,),
        "resnet_time_scale_shift": ("default",),
        "time_embedding_act_fn": (None,),
        "time_embedding_type": ("positional",),
        "timestep_post_act": (None,),
    }
    # All but the first describe the moving average of the training that the weights are from.
    IGNORED = frozenset(
        {
            "addition_embed_type_num_heads",
            "decay",
            "inv_gamma",
            "min_decay",
            "optimization_step",
            "power",
            "update_after_step",
            "use_ema_warmup",
        }
    )

    sample_size: PerLevel | None = None
    in_channels: int = 4
    out_channels: int = 4
    flip_sin_to_cos: bool = True
    freq_shift: float = 0
    down_block_types: tuple[str, ...] = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
    mid_block_type: str | None = "UNetMidBlock2DCrossAttn"
    up_block_types: tuple[str, ...] = ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3)
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers_per_block: PerLevel = 2
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    cross_attention_dim: PerLevel = 1280
    transformer_layers_per_block: int | tuple[int | tuple[int, ...], ...] = 1
    reverse_transformer_layers_per_block: tuple[int | tuple[int, ...], ...] | None = None
    attention_head_dim: PerLevel = 8
    use_linear_projection: bool = False
    upcast_attention: bool | None = False
    """SDXL's own files say null, which means no."""
    addition_embed_type: str | None = None
    addition_time_embed_dim: int | None = None
    projection_class_embeddings_input_dim: int | None = None
    time_embedding_dim: int | None = None
    time_cond_proj_dim: int | None = None

    @property
    def heads(self) -> tuple[int, ...]:
        """Attention heads of each level: the published name `attention_head_dim` is a misnomer."""
        return self._each(self.attention_head_dim)

    @property
    def layers(self) -> tuple[int, ...]:
        """Residual blocks of each level on the way down; the way up has one more."""
        return self._each(self.layers_per_block)

    @property
    def context(self) -> tuple[int, ...]:
        """Width of the text states that each level attends to."""
        return self._each(self.cross_attention_dim)

    @property
    def down_depths(self) -> tuple[tuple[int, ...], ...]:
        """Transformer blocks after each residual block, on the way down."""
        depths = self._each(self.transformer_layers_per_block)
        return tuple(
            (depth,) * count if isinstance(depth, int) else depth
            for depth, count in zip(depths, self.layers, strict=True)
        )

    @property
    def up_depths(self) -> tuple[tuple[int, ...], ...]:
        """Transformer blocks after each residual block, on the way up, deepest level first."""
        depths = self.reverse_transformer_layers_per_block
        if depths is None:
            depths = self._each(self.transformer_layers_per_block)[::-1]
        return tuple(
            (depth,) * (count + 1) if isinstance(depth, int) else depth
            for depth, count in zip(depths, self.layers[::-1], strict=True)
        )

    @property
    def time_width(self) -> int:
        """Width of the time embedding."""
        return self.time_embedding_dim or 4 * self.block_out_channels[0]

    def _each(self, value: int | tuple[T, ...]) -> tuple[int | T, ...]:
        return value if isinstance(value, tuple) else (value,) * len(self.block_out_channels)

    def check(self) -> None:
        levels = len(self.block_out_channels)
        _levels("block_out_channels", levels)
        for key in ("down_block_types", "up_block_types"):
            _same_length(key, getattr(self, key), levels)
        for key in ("layers_per_block", "cross_attention_dim", "attention_head_dim"):
            _same_length(key, self._each(getattr(self, key)), levels)
        _same_length("transformer_layers_per_block", self._each(self.transformer_layers_per_block), levels)
        if self.reverse_transformer_layers_per_block is not None:
            _same_length(
                "reverse_transformer_layers_per_block", self.reverse_transformer_layers_per_block, levels
            )
        elif not all(isinstance(depth, int) for depth in self._each(self.transformer_layers_per_block)):
            raise ValueError("nested transformer_layers_per_block need reverse_transformer_layers_per_block")
        _known("down_block_types", self.down_block_types, {"DownBlock2D", "CrossAttnDownBlock2D"})
        _known("up_block_types", self.up_block_types, {"UpBlock2D", "CrossAttnUpBlock2D"})
        if self.mid_block_type is not None:
            _known("mid_block_type", [self.mid_block_type], {"UNetMidBlock2DCrossAttn", "UNetMidBlock2D"})
        widths = ("in_channels", "out_channels", "block_out_channels", "cross_attention_dim")
        _within(self, MOST_CHANNELS, *widths, "norm_num_groups", "attention_head_dim", "time_embedding_dim")
        _within(self, MOST_LAYERS, "layers_per_block")
        depths = ("transformer_layers_per_block", "reverse_transformer_layers_per_block")
        _within(self, MOST_LAYERS, *depths, least=0)
        more = tuple(count + 1 for count in self.layers[::-1])
        ways = ((self.layers, self.down_depths), (more, self.up_depths))
        for key, (counts, blocks) in zip(depths, ways, strict=True):
            for count, block in zip(counts, blocks, strict=True):
                _same_length(key, block, count)
        for channels in self.block_out_channels:
            _divides("norm_num_groups", self.norm_num_groups, "block_out_channels", channels)
        total = 0
        for level in range(levels):
            own: list[int] = []
            if self.down_block_types[level] == "CrossAttnDownBlock2D":
                own += self.down_depths[level]
            if self.up_block_types[levels - 1 - level] == "CrossAttnUpBlock2D":
                own += self.up_depths[levels - 1 - level]
            if level == levels - 1 and self.mid_block_type == "UNetMidBlock2DCrossAttn":
                own += self.down_depths[level][:1]
            if own:
                channels = self.block_out_channels[level]
                _divides("attention_head_dim", self.heads[level], "block_out_channels", channels)
            if 0 in own:
                raise ValueError(
                    "transformer_layers_per_block must be at least 1 where there is cross-attention"
                )
            total += sum(own)
        if total > MOST_BLOCKS:
            raise ValueError(f"{total:,} transformer blocks are too many to build, at most {MOST_BLOCKS:,}")
        if self.addition_embed_type not in (None, "text_time"):
            raise ValueError(f"addition_embed_type = {self.addition_embed_type!r} is not supported")
        told = ("addition_time_embed_dim", "projection_class_embeddings_input_dim")
        _within(self, MOST_CHANNELS, *told)
        if self.addition_embed_type == "text_time" and None in (getattr(self, key) for key in told):
            raise ValueError(f"addition_embed_type 'text_time' needs {' and '.join(told)}")
        _within(self, MOST_CHANNELS, "time_cond_proj_dim", least=4)


@dataclass(frozen=True)
class VAEConfig(Config):
    """diffusers' `AutoencoderKL`."""

    CLASS = "AutoencoderKL"
    FIXED: ClassVar[Mapping[str, tuple[Any, ...]]] = {"act_fn": ("silu", "swish")}

    in_channels: int = 3
    out_channels: int = 3
    down_block_types: tuple[str, ...] = ("DownEncoderBlock2D",)
    up_block_types: tuple[str, ...] = ("UpDecoderBlock2D",)
    block_out_channels: tuple[int, ...] = (64,)
    layers_per_block: int = 1
    latent_channels: int = 4
    norm_num_groups: int = 32
    sample_size: PerLevel = 32
    scaling_factor: float = 0.18215
    shift_factor: float | None = None
    latents_mean: tuple[float, ...] | None = None
    latents_std: tuple[float, ...] | None = None
    force_upcast: bool = True
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    mid_block_add_attention: bool = True

    @property
    def factor(self) -> int:
        """Pixels to one latent, along each side."""
        return 1 << (len(self.block_out_channels) - 1)

    def check(self) -> None:
        levels = len(self.block_out_channels)
        _levels("block_out_channels", levels)
        for key, name in (("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")):
            _same_length(key, getattr(self, key), levels)
            _known(key, getattr(self, key), {name})
        widths = ("in_channels", "out_channels", "latent_channels", "block_out_channels", "norm_num_groups")
        _within(self, MOST_CHANNELS, *widths)
        _within(self, MOST_LAYERS, "layers_per_block")
        for channels in self.block_out_channels:
            _divides("norm_num_groups", self.norm_num_groups, "block_out_channels", channels)
        if self.scaling_factor <= 0:
            raise ValueError(f"scaling_factor = {self.scaling_factor} must be positive")
        if (self.latents_mean is None) != (self.latents_std is None):
            raise ValueError("latents_mean and latents_std must be given together")
        for statistics in (self.latents_mean, self.latents_std):
            if statistics is not None:
                _same_length("latents_mean and latents_std", statistics, self.latent_channels)


@dataclass(frozen=True)
class TinyVAEConfig(Config):
    """diffusers' `AutoencoderTiny` (TAESD)."""

    CLASS = "AutoencoderTiny"
    FIXED: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "act_fn": ("relu",),
        "upsample_fn": ("nearest",),
        "upsampling_scaling_factor": (2,),
    }
    IGNORED = frozenset({"block_out_channels", "force_upcast", "latent_magnitude", "latent_shift"})

    in_channels: int = 3
    out_channels: int = 3
    encoder_block_out_channels: tuple[int, ...] = (64, 64, 64, 64)
    decoder_block_out_channels: tuple[int, ...] = (64, 64, 64, 64)
    latent_channels: int = 4
    num_encoder_blocks: tuple[int, ...] = (1, 3, 3, 3)
    num_decoder_blocks: tuple[int, ...] = (3, 3, 3, 1)
    scaling_factor: float = 1.0
    shift_factor: float = 0.0

    @property
    def factor(self) -> int:
        """Pixels to one latent, along each side."""
        return 1 << (len(self.decoder_block_out_channels) - 1)

    def check(self) -> None:
        levels = len(self.encoder_block_out_channels)
        _levels("encoder_block_out_channels", levels)
        for key in ("decoder_block_out_channels", "num_encoder_blocks", "num_decoder_blocks"):
            _same_length(key, getattr(self, key), levels)
        if len(set(self.encoder_block_out_channels)) > 1 or len(set(self.decoder_block_out_channels)) > 1:
            raise ValueError("the levels of a tiny autoencoder must be equally wide")
        widths = ("encoder_block_out_channels", "decoder_block_out_channels", "latent_channels")
        _within(self, MOST_CHANNELS, "in_channels", "out_channels", *widths)
        _within(self, MOST_LAYERS, "num_encoder_blocks", "num_decoder_blocks", least=0)
        if self.scaling_factor <= 0:
            raise ValueError(f"scaling_factor = {self.scaling_factor} must be positive")


@dataclass(frozen=True)
class TextConfig(Config):
    """transformers' `CLIPTextModel`, or `CLIPTextModelWithProjection` where `with_projection`."""

    FIXED: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "attention_dropout": (0.0,),
        "dropout": (0.0,),
        "model_type": ("clip_text_model",),
    }
    IGNORED = frozenset(
        {
            "architectures",
            "chunk_size_feed_forward",
            "dtype",
            "gradient_checkpointing",
            "id2label",
            "initializer_factor",
            "initializer_range",
            "is_encoder_decoder",
            "label2id",
            "output_attentions",
            "output_hidden_states",
            "problem_type",
            "return_dict",
            "tie_word_embeddings",
            "torch_dtype",
            "torchscript",
            "transformers_version",
            "use_bfloat16",
            "use_cache",
        }
    )
    DERIVED = frozenset({"with_projection"})

    vocab_size: int = 49408
    hidden_size: int = 512
    intermediate_size: int = 2048
    projection_dim: int | None = 512
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    max_position_embeddings: int = 77
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    pad_token_id: int | None = 1
    bos_token_id: int | None = 49406
    eos_token_id: int = 49407
    with_projection: bool = False

    @classmethod
    def defaults(cls, mapping: Mapping[str, Any], where: str) -> dict[str, Any]:
        return {"with_projection": mapping.get("architectures") == ["CLIPTextModelWithProjection"]}

    def check(self) -> None:
        _within(self, MOST_TOKENS, "vocab_size", "max_position_embeddings")
        widths = ("hidden_size", "intermediate_size", "num_attention_heads", "projection_dim")
        _within(self, MOST_CHANNELS, *widths)
        _within(self, MOST_LAYERS, "num_hidden_layers")
        _divides("num_attention_heads", self.num_attention_heads, "hidden_size", self.hidden_size)
        _known("hidden_act", [self.hidden_act], {"quick_gelu", "gelu"})
        if self.with_projection and self.projection_dim is None:
            raise ValueError("CLIPTextModelWithProjection needs projection_dim")

    def to_dict(self) -> dict[str, Any]:
        name = "CLIPTextModelWithProjection" if self.with_projection else "CLIPTextModel"
        return {"architectures": [name], "model_type": "clip_text_model"} | super().to_dict()


_LINSPACE = {"timestep_spacing": "linspace"}
_LCM = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "set_alpha_to_one": True}
_FLOW = {"prediction_type": "flow_prediction", **_LINSPACE}

SCHEDULERS: dict[str, dict[str, Any]] = {
    "DDIMScheduler": {"clip_sample": True, "set_alpha_to_one": True},
    "DDPMScheduler": {"clip_sample": True, "set_alpha_to_one": True},
    "DEISMultistepScheduler": _LINSPACE,
    "DPMSolverMultistepScheduler": _LINSPACE,
    "DPMSolverSDEScheduler": {"beta_start": 0.00085, "beta_end": 0.012, **_LINSPACE},
    "DPMSolverSinglestepScheduler": _LINSPACE,
    "EulerAncestralDiscreteScheduler": _LINSPACE,
    "EulerDiscreteScheduler": _LINSPACE,
    "FlowMatchEulerDiscreteScheduler": _FLOW,
    "FlowMatchHeunDiscreteScheduler": _FLOW,
    "HeunDiscreteScheduler": {"beta_start": 0.00085, "beta_end": 0.012, **_LINSPACE},
    "KDPM2AncestralDiscreteScheduler": {"beta_start": 0.00085, "beta_end": 0.012, **_LINSPACE},
    "KDPM2DiscreteScheduler": {"beta_start": 0.00085, "beta_end": 0.012, **_LINSPACE},
    "LCMScheduler": _LCM,
    "LMSDiscreteScheduler": _LINSPACE,
    "PNDMScheduler": {},
    "TCDScheduler": _LCM,
    "UniPCMultistepScheduler": _LINSPACE,
}
"""diffusers' schedulers, with the defaults of each that are not the field's here."""

_CLIPPING = {"DDIMScheduler", "DDPMScheduler", "HeunDiscreteScheduler", "LCMScheduler", "TCDScheduler"}


@dataclass(frozen=True)
class ScheduleConfig(Config):
    """`scheduler_config.json`: the noise that a network was trained on, and what its makers suggest.

    How to sample is the request's choice, so the keys of a single sampler are read past.
    """

    FIXED: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "invert_sigmas": (False,),
        "predict_epsilon": (True,),
        "shift_terminal": (None,),
        "thresholding": (False,),
        "use_dynamic_shifting": (False,),
    }
    IGNORED = frozenset(
        {
            "algorithm_type",
            "base_image_seq_len",
            "base_shift",
            "disable_corrector",
            "dynamic_thresholding_ratio",
            "euler_at_final",
            "interpolation_type",
            "lambda_min_clipped",
            "lower_order_final",
            "max_image_seq_len",
            "max_shift",
            "noise_sampler_seed",
            "predict_x0",
            "sample_max_value",
            "skip_prk_steps",
            "solver_order",
            "solver_p",
            "solver_type",
            "stochastic_sampling",
            "time_shift_type",
            "timestep_type",
            "use_lu_lambdas",
            "variance_type",
        }
    )
    DERIVED = frozenset({"class_name"})

    class_name: str = "DDIMScheduler"
    num_train_timesteps: int = 1000
    beta_start: float = 0.0001
    beta_end: float = 0.02
    beta_schedule: str = "linear"
    trained_betas: tuple[float, ...] | None = None
    prediction_type: str = "epsilon"
    timestep_spacing: str = "leading"
    steps_offset: int = 0
    set_alpha_to_one: bool = False
    clip_sample: bool = False
    clip_sample_range: float = 1.0
    rescale_betas_zero_snr: bool = False
    use_karras_sigmas: bool | None = False
    use_exponential_sigmas: bool | None = False
    use_beta_sigmas: bool | None = False
    final_sigmas_type: str | None = "zero"
    sigma_min: float | None = None
    sigma_max: float | None = None
    shift: float = 1.0
    use_flow_sigmas: bool | None = False
    flow_shift: float | None = 1.0
    original_inference_steps: int = 50
    timestep_scaling: float = 10.0

    @classmethod
    def defaults(cls, mapping: Mapping[str, Any], where: str) -> dict[str, Any]:
        name = mapping.get("_class_name", cls.class_name)
        if not isinstance(name, str) or name not in SCHEDULERS:
            name = _shown(name)
            raise CheckpointError(f"{where}: {name} is not supported; {nearest(name[1:-1], SCHEDULERS)}")
        return {"class_name": name, **SCHEDULERS[name]}

    @property
    def clips(self) -> bool:
        """Whether clean estimates were clipped; other schedulers carry the key along without reading it."""
        return self.clip_sample and self.class_name in _CLIPPING

    def check(self) -> None:
        _within(self, MOST_TOKENS, "num_train_timesteps", least=2)
        _within(self, MOST_TOKENS, "original_inference_steps")
        if self.timestep_scaling <= 0:
            raise ValueError(f"timestep_scaling = {self.timestep_scaling} must be positive")
        _known("beta_schedule", [self.beta_schedule], {"linear", "scaled_linear", "squaredcos_cap_v2"})
        predictions = {"epsilon", "v_prediction", "sample", "flow_prediction"}
        _known("prediction_type", [self.prediction_type], predictions)
        _known("timestep_spacing", [self.timestep_spacing], {"leading", "linspace", "trailing"})
        if self.trained_betas is not None:
            _same_length("trained_betas", self.trained_betas, self.num_train_timesteps)
        for beta in self.trained_betas or (self.beta_start, self.beta_end):
            if not 0 < beta < 1:
                raise ValueError(f"a beta of {beta} must be between 0 and 1")

    def to_dict(self) -> dict[str, Any]:
        return {"_class_name": self.class_name} | super().to_dict()


def _shown(value: Any) -> str:
    """`repr(value)` at a bounded length: a hostile file must not fill the screen."""
    short = Repr()
    short.maxstring = short.maxother = 80
    return short.repr(value)


def _typed(value: Any, hint: Any, where: str) -> Any:
    """`value` from JSON as the type `hint`: lists become tuples and whole numbers may stand for floats."""
    if get_origin(hint) in (Union, types.UnionType):
        for choice in get_args(hint):
            try:
                return _typed(value, choice, where)
            except CheckpointError:
                continue
    elif get_origin(hint) is tuple:
        if isinstance(value, list | tuple):
            return tuple(_typed(item, get_args(hint)[0], where) for item in value)
    elif hint is float:
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MOST_FLOAT:
            return float(value)
    elif isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise CheckpointError(f"{where} = {_shown(value)} must be {_called(hint)}")


def _called(hint: Any) -> str:
    """A type as whoever writes JSON or TOML knows it."""
    if get_origin(hint) is tuple:
        return f"a list of {_called(get_args(hint)[0])}"
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(_called(one) for one in get_args(hint) if one is not type(None))
    return str(hint.__name__)


def _listed(value: Any) -> Any:
    return [_listed(item) for item in value] if isinstance(value, tuple) else value


def _levels(key: str, count: int) -> None:
    if not 1 <= count <= MOST_LEVELS:
        raise ValueError(f"{key} has {count} levels, must have 1 to {MOST_LEVELS}")


def _same_length(key: str, values: Sequence[Any], count: int) -> None:
    if len(values) != count:
        raise ValueError(f"{key} has {len(values)} entries, must have {count}")


def _within(config: Config, most: int, *keys: str, least: int = 1) -> None:
    for key in keys:
        for value in _numbers(getattr(config, key)):
            if not least <= value <= most:
                raise ValueError(f"{key} = {value} must be in {least} to {most}")


def _numbers(value: Any) -> Iterator[int]:
    if isinstance(value, tuple):
        for item in value:
            yield from _numbers(item)
    elif value is not None:
        yield value


def _divides(key: str, divisor: int, other: str, number: int) -> None:
    if number % divisor:
        raise ValueError(f"{other} = {number} must be a multiple of {key} = {divisor}")


def _known(key: str, names: Sequence[str], known: set[str]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"{key} {name!r} is not supported; {nearest(name, known)}")
