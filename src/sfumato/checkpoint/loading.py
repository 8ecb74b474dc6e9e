"""From a folder to a model: strictly, running nothing that it names, in about its own size of memory."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from sfumato import weights
from sfumato.checkpoint import keys
from sfumato.checkpoint.infer import own_settings
from sfumato.checkpoint.layout import Part, fingerprint
from sfumato.checkpoint.model import Model, Network
from sfumato.checkpoint.report import Report
from sfumato.checkpoint.source import EMBEDDED, embedded, locate
from sfumato.checkpoint.survey import Survey
from sfumato.config import Config, TextConfig, TinyVAEConfig, UNetConfig, VAEConfig
from sfumato.nets.text import CLIPText
from sfumato.nets.tiny_vae import AutoencoderTiny
from sfumato.nets.unet import UNet
from sfumato.nets.vae import AutoencoderKL


def load(
    source: str | Path,
    *,
    dtype: torch.dtype | None = None,
    variant: str | None = None,
    local_files_only: bool = False,
) -> Model:
    """Load "embedded", a diffusers folder, or a hub id such as "org/name", on the CPU.

    `dtype`: what to convert the weights to as they are read; as stored if `None`. `variant`: the files to
    prefer, such as "fp16"; else plain ones, or "fp16" where only that exists or `dtype` is half precision.
    Raises `CheckpointError` for anything missing, damaged, unsafe, or not supported.
    """
    half = dtype in (torch.float16, torch.bfloat16)
    folder = locate(source, variant=variant, prefer_half=half, local_files_only=local_files_only)
    survey = Survey(folder, Report(str(source)))
    survey.take(variant=variant, prefer_half=half)
    found = survey.conclude()
    assert survey.schedule is not None
    built = {name: _with_weights(part, dtype) for name, part in survey.parts.items()}
    unet, vae = built.pop("unet"), built.pop("vae")
    encoders = [network for network in built.values() if isinstance(network, CLIPText)]
    assert isinstance(unet, UNet)
    assert isinstance(vae, AutoencoderKL | AutoencoderTiny)
    survey.report.fingerprint = fingerprint(folder, survey.parts.values())
    return Model(
        name=_name(source, folder),
        unet=unet,
        vae=vae,
        text_encoders=encoders,
        tokenizers=list(survey.tokenizers.values()),
        schedule=survey.schedule,
        facts=found,
        report=survey.report,
        fingerprint=survey.report.fingerprint,
        index=survey.index,
        scheduler=survey.scheduler,
        own=own_settings(folder),
    )


def inspect(source: str | Path, *, variant: str | None = None, local_files_only: bool = False) -> Report:
    """Describe a checkpoint from its configurations and headers, without reading the weights themselves.

    What `load` would refuse is listed under `problems`. Raises `CheckpointError` only where there is no
    model folder to speak of.
    """
    folder = locate(source, variant=variant, local_files_only=local_files_only)
    survey = Survey(folder, Report(str(source)), patient=True)
    survey.take(variant=variant, prefer_half=False)
    for part in survey.parts.values():
        survey.attempt(_check_header, part)
    survey.attempt(survey.conclude)
    survey.report.fingerprint = fingerprint(folder, survey.parts.values())
    return survey.report


def empty_network(config: Config) -> Network:
    """The network that `config` describes, with shapes but no memory: parameters are on the meta device."""
    with torch.device("meta"), _Uninitialised():
        if isinstance(config, UNetConfig):
            return UNet(config)
        if isinstance(config, VAEConfig):
            return AutoencoderKL(config)
        if isinstance(config, TinyVAEConfig):
            return AutoencoderTiny(config)
        assert isinstance(config, TextConfig)
        return CLIPText(config)


class _Uninitialised(TorchFunctionMode):
    """Skip the random start of new layers: on the meta device it does nothing but import torch's compiler."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def _with_weights(part: Part, dtype: torch.dtype | None) -> Network:
    """Build one network around the tensors of its files, which are used as they are, not copied."""
    network = empty_network(part.config)
    expected = network.state_dict()
    state: dict[str, Tensor] = {}
    for path in part.files:
        state.update(weights.read(path, dtype=dtype))
    renamed = {}
    for name, known in keys.translate(part.name, state, expected).items():
        tensor = state.pop(name)
        renamed[known] = tensor.reshape(keys.matrix_shape(part.name, known, tuple(tensor.shape)))
    weights.check(renamed, expected_shapes(expected), str(part.folder))
    network.load_state_dict(renamed, strict=True, assign=True)
    return network.requires_grad_(False).eval()


def _check_header(part: Part) -> None:
    """What `_with_weights` would find wrong, as far as headers can tell."""
    expected = empty_network(part.config).state_dict()
    found = {}
    for name, known in keys.translate(part.name, part.tensors, expected).items():
        info = part.tensors[name]
        shape = keys.matrix_shape(part.name, known, info.shape)
        found[known] = weights.TensorInfo(info.dtype, shape, info.begin, info.end)
    weights.check(found, expected_shapes(expected), str(part.folder))


def expected_shapes(state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of a state."""
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _name(source: str | Path, folder: Path) -> str:
    """What to call a model: "embedded", a hub id as it is, else the folder's own name."""
    if folder == embedded():
        return EMBEDDED
    local = isinstance(source, Path) or Path(source).exists()
    return folder.resolve().name if local else str(source)
