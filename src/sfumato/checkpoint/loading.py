"""From files to a model: strictly, running nothing that they name, in about their own size of memory."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from sfumato import weights
from sfumato.checkpoint import keys, ldm_keys
from sfumato.checkpoint.instruct_adapter import InstructAdapter
from sfumato.checkpoint.layout import ENCODER, TINY, Part
from sfumato.checkpoint.ldm_keys import SourceKey, Table
from sfumato.checkpoint.model import Model, ModelNetwork
from sfumato.checkpoint.report import Report
from sfumato.checkpoint.scan import scan
from sfumato.checkpoint.source import bundled_name
from sfumato.config import (
    Config,
    ControlNetConfig,
    IPAdapterConfig,
    MotionAdapterConfig,
    PriorConfig,
    ShapERendererConfig,
    T2IAdapterConfig,
    TemporalVAEConfig,
    TextConfig,
    TinyVAEConfig,
    UNet3DConfig,
    UNetConfig,
    UNetSpatioTemporalConfig,
    VAEConfig,
    VisionConfig,
)
from sfumato.errors import CheckpointError
from sfumato.nets.controlnet import ControlNet
from sfumato.nets.ip_adapter import IPAdapter
from sfumato.nets.motion import MotionAdapter
from sfumato.nets.prior import PriorTransformer
from sfumato.nets.shap_e import ShapERenderer
from sfumato.nets.t2i_adapter import T2IAdapter
from sfumato.nets.temporal_vae import TemporalAutoencoderKL
from sfumato.nets.text import CLIPText
from sfumato.nets.tiny_vae import AutoencoderTiny
from sfumato.nets.unet import UNet
from sfumato.nets.vae import AutoencoderKL
from sfumato.nets.video_unet import UNet3D, UNetSpatioTemporal
from sfumato.nets.vision import CLIPVision
from sfumato.options import ModelOptions
from sfumato.weights import TensorInfo


def load(
    source: str | Path | ModelOptions,
    *,
    dtype: torch.dtype | None = None,
    given: Mapping[str, ModelNetwork] | None = None,
    configs_of: Path | None = None,
    **others: Any,
) -> Model:
    """Load "embedded", a diffusers folder, a `.safetensors` file, or a hub id such as "org/name", on the CPU.

    `dtype`: what to convert the weights to as they are read; as stored if `None`, except that numbers of 8
    bits become those of 16. `others`: those of `ModelOptions`; without a `variant` plain files are preferred,
    or "fp16" where only that exists or `dtype` is half precision. `given`: networks to use in the places of
    the model's own, whose files are not read. `configs_of`: a model's folder that has the configurations and
    tokenizers for a single file. Raises `CheckpointError` for anything missing, damaged, unsafe, or not
    supported.
    """
    options = ModelOptions.of(source, **others)
    half = dtype in (torch.float16, torch.bfloat16)
    given = given or {}
    configs = {name: network.config for name, network in given.items()}
    found = scan(options, prefer_half=half, given=configs, configs_of=configs_of)
    if found.makes_shapes:
        raise CheckpointError(
            f"{options.source} is Shap-E, which makes shapes and no pictures: "
            f"sfumato shape --model {options.source}"
        )
    info = found.model_info()
    assert found.schedule is not None
    needed = sum(weights.bytes_of(part.tensors.values(), dtype) for part in found.parts.values())
    weights.check_memory(needed, options.source)
    built = {name: given[name] if name in given else build(part, dtype) for name, part in found.parts.items()}
    unet, autoencoder, small = built.pop("unet"), built.pop("vae"), built.pop(TINY, None)
    encoders = [network for network in built.values() if isinstance(network, CLIPText)]
    vision = built.get(ENCODER)
    assert isinstance(unet, UNet)
    assert isinstance(autoencoder, AutoencoderKL | AutoencoderTiny)
    assert isinstance(small, AutoencoderTiny | None)
    assert isinstance(vision, CLIPVision | None)
    for adapter in () if "unet" in given else found.adapters:
        unet = _extended(unet, adapter)
    return Model(
        name=model_name(options.source, found.adapters[-1].path if found.adapters else found.place),
        unet=unet,
        vae=autoencoder,
        text_encoders=encoders,
        tokenizers=list(found.tokenizers.values()),
        schedule=found.schedule,
        info=info,
        report=found.report,
        fingerprint=found.identify(),
        index=found.index,
        scheduler=found.scheduler,
        own=found.own,
        tiny=small,
        fast=found.fast,
        controls=found.controls,
        motion=found.motion,
        image_encoder=found.image_encoder,
        vision=vision,
    )


def inspect(source: str | Path | ModelOptions, **others: Any) -> Report:
    """Describe a checkpoint from its configurations and headers, without reading the weights themselves.

    `others`: those of `ModelOptions`. What `load` would refuse is listed under `problems`. Raises
    `CheckpointError` only where there is no model to speak of.
    """
    found = scan(ModelOptions.of(source, **others), collect_errors=True)
    for part in found.parts.values():
        found.attempt(table_of_part, part, expected_shapes(empty_network(part.config).state_dict()))
    if found.parts:
        found.attempt(found.shape_info if found.makes_shapes else found.model_info)
        found.identify()
    return found.report


_NETWORKS: dict[type[Config], Callable[[Any], ModelNetwork]] = {
    UNetConfig: UNet,
    UNetSpatioTemporalConfig: UNetSpatioTemporal,
    UNet3DConfig: UNet3D,
    ControlNetConfig: ControlNet,
    VAEConfig: AutoencoderKL,
    TemporalVAEConfig: TemporalAutoencoderKL,
    TinyVAEConfig: AutoencoderTiny,
    TextConfig: CLIPText,
    MotionAdapterConfig: MotionAdapter,
    T2IAdapterConfig: T2IAdapter,
    IPAdapterConfig: IPAdapter,
    VisionConfig: CLIPVision,
    PriorConfig: PriorTransformer,
    ShapERendererConfig: ShapERenderer,
}


def new_network(config: Config) -> ModelNetwork:
    """The network that `config` describes, with random weights."""
    return _NETWORKS[type(config)](config)


def empty_network(config: Config) -> ModelNetwork:
    """The network that `config` describes, with shapes but no memory: parameters are on the meta device."""
    with torch.device("meta"), _Uninitialised():
        return new_network(config)


class _Uninitialised(TorchFunctionMode):
    """Skip the random start of new layers: on the meta device it does nothing but import torch's compiler."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def build(part: Part, dtype: torch.dtype | None) -> ModelNetwork:
    """One network around the tensors of its files, which are used as they are, not copied."""
    network = empty_network(part.config)
    table = table_of_part(part, expected_shapes(network.state_dict()))
    wanted = {origin.key for origin in table.values()}
    state: dict[str, Tensor] = {}
    for path, header in part.headers.items():
        label = part.labels.get(path, "")
        names = {name for name in header.tensors if label + name in wanted}
        read = weights.read(path, dtype=dtype or _storage(part), names=names)
        state.update((label + name, tensor) for name, tensor in read.items())
    network.load_state_dict(ldm_keys.from_file(table, state), strict=True, assign=True)
    return network.requires_grad_(False).eval()


def _extended(unet: UNet, adapter: InstructAdapter) -> UNet:
    """`unet` with an adapter folded into its weights."""
    network = empty_network(adapter.widened(unet.config))
    assert isinstance(network, UNet)
    network.load_state_dict(adapter.weights(unet), strict=True, assign=True)
    return network.requires_grad_(False).eval()


def _storage(part: Part) -> torch.dtype | None:
    """What numbers of 8 bits, in which nothing can be computed, are to become; nothing where there are none.

    That is the widest type of the part's others, or the one that holds all of theirs exactly.
    """
    dtypes = {weights.DTYPES[info.dtype] for info in part.tensors.values()}
    floats = {dtype for dtype in dtypes if dtype.is_floating_point}
    wide = [dtype for dtype in floats if dtype.itemsize > 1]
    if len(wide) == len(floats):
        return None
    return max(wide, key=lambda dtype: dtype.itemsize, default=torch.float16)


def table_of_part(part: Part, expected: dict[str, tuple[int, ...]]) -> Table:
    """Where each parameter is. Raises `CheckpointError` where a header and `expected` disagree."""
    if part.table is not None:
        table = part.table(expected)
        due = ldm_keys.shapes(table, expected)
        matrices = {origin.key for origin in table.values() if origin.convolution}
        held = {name: _flat(info) if name in matrices else info for name, info in part.tensors.items()}
        weights.check(held, due, part.where)
        return table
    names = [name.removeprefix(part.prefix) for name in part.tensors]
    table, found = {}, {}
    for name, known in keys.translate(part.name, names, expected).items():
        info = part.tensors[part.prefix + name]
        shape = keys.matrix_shape(part.name, known, info.shape)
        found[known] = weights.TensorInfo(info.dtype, shape, info.begin, info.end)
        table[known] = SourceKey(part.prefix + name, convolution=shape != info.shape)
    weights.check(found, expected, f"{part.where} ({part.prefix}…)" if part.prefix else part.where)
    return table


def _flat(info: TensorInfo) -> TensorInfo:
    """A convolution of 1 × 1 as the matrix that it is."""
    shape = info.shape[:2] if info.shape[2:] == (1, 1) else info.shape
    return TensorInfo(info.dtype, shape, info.begin, info.end)


def expected_shapes(state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of a state."""
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def model_name(source: str, place: Path) -> str:
    """What to call a model: "embedded", a hub id as it is, else the folder's or the file's own name."""
    if (name := bundled_name(place)) is not None:
        return name
    if place.is_file():
        return place.stem
    return place.resolve().name if Path(source).exists() else source
