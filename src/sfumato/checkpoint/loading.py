"""From a folder to a model: strictly, running nothing that it names, in about its own size of memory."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from sfumato import weights
from sfumato.checkpoint import keys
from sfumato.checkpoint.infer import Facts, facts, own_settings
from sfumato.checkpoint.layout import (
    TOKENIZERS,
    Part,
    components,
    fingerprint,
    read_index,
    read_part,
    read_schedule,
    tokenizer_folder,
)
from sfumato.checkpoint.model import Model
from sfumato.checkpoint.report import Report
from sfumato.checkpoint.source import locate
from sfumato.config import Config, ScheduleConfig, TextConfig, TinyVAEConfig, UNetConfig, VAEConfig
from sfumato.errors import CheckpointError
from sfumato.nets.text import CLIPText
from sfumato.nets.tiny_vae import AutoencoderTiny
from sfumato.nets.unet import UNet
from sfumato.nets.vae import AutoencoderKL
from sfumato.prompt.tokenizer import Tokenizer

T = TypeVar("T")
Network = UNet | AutoencoderKL | AutoencoderTiny | CLIPText


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


@dataclass
class Survey:
    """A folder's content short of its weights. A `patient` survey notes problems where another one raises."""

    folder: Path
    report: Report
    patient: bool = False
    index: dict[str, Any] = field(default_factory=dict)
    parts: dict[str, Part] = field(default_factory=dict)
    tokenizers: dict[str, Tokenizer] = field(default_factory=dict)
    schedule: ScheduleConfig | None = None

    def attempt(self, step: Callable[..., T], *arguments: Any, **options: Any) -> T | None:
        """Do one step; a `CheckpointError` becomes a noted problem if the survey is patient."""
        try:
            return step(*arguments, **options)
        except CheckpointError as error:
            if not self.patient:
                raise
            self.report.problems.append(str(error))
            return None

    def take(self, *, variant: str | None, prefer_half: bool) -> None:
        """Read every configuration, header and tokenizer that the index names."""
        self.index = read_index(self.folder)
        named = components(self.index)
        encoders = [name for name in TOKENIZERS if name in named]
        for name in ("unet", "vae", *(encoders or ["text_encoder"])):
            options = {"variant": variant, "prefer_half": prefer_half}
            if part := self.attempt(read_part, self.folder, name, self.index, **options):
                self.parts[name] = part
                self.report.components.append(part.component())
                if part.choice.variant:
                    asked = "asked for" if part.choice.variant == variant else "found"
                    self.report.infer(
                        f"{name} variant", part.choice.variant, f"{part.choice.file} was {asked}"
                    )
        if variant and all(part.choice.variant != variant for part in self.parts.values()):
            self.attempt(_no_variant, self.folder, variant)
        for name in encoders or ["text_encoder"]:
            self.attempt(self._take_tokenizer, name)
        self.schedule = self.attempt(read_schedule, self.folder)

    def conclude(self) -> Facts:
        """Work out what the checkpoint is. Raises `CheckpointError` where something needed was not found."""
        if self.schedule is None or not {"unet", "vae"} < self.parts.keys():
            raise CheckpointError(
                f"{self.folder}: what the model is cannot be told without the missing parts"
            )
        return facts(self.folder, self.parts, self.schedule, self.index, self.report)

    def _take_tokenizer(self, encoder: str) -> None:
        name = TOKENIZERS[encoder]
        place = tokenizer_folder(self.folder, name)
        tokenizer = Tokenizer.load(place)
        self.tokenizers[name] = tokenizer
        self.report.tokenizers.append(
            f"{name}: {len(tokenizer.vocab):,} pieces, windows of {tokenizer.limit}, padding {tokenizer.pad}"
        )
        if encoder in self.parts:
            config = self.parts[encoder].config
            assert isinstance(config, TextConfig)
            if max(tokenizer.vocab.values()) >= config.vocab_size:
                raise CheckpointError(
                    f"{place} knows ids up to {max(tokenizer.vocab.values())}, and {encoder} only "
                    f"{config.vocab_size} (vocab_size)"
                )
            if tokenizer.limit > config.max_position_embeddings:
                raise CheckpointError(
                    f"{place} makes windows of {tokenizer.limit} tokens, and {encoder} reads "
                    f"{config.max_position_embeddings} (max_position_embeddings)"
                )


def empty_network(config: Config) -> Network:
    """The network that `config` describes, with shapes but no memory: parameters are on the meta device."""
    with torch.device("meta"):
        if isinstance(config, UNetConfig):
            return UNet(config)
        if isinstance(config, VAEConfig):
            return AutoencoderKL(config)
        if isinstance(config, TinyVAEConfig):
            return AutoencoderTiny(config)
        assert isinstance(config, TextConfig)
        return CLIPText(config)


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


def _no_variant(folder: Path, variant: str) -> None:
    raise CheckpointError(
        f"{folder} has no weights of variant {variant!r} (as in model.{variant}.safetensors)"
    )


def _name(source: str | Path, folder: Path) -> str:
    """What to call a model: a hub id as it is, else the folder's own name."""
    return (
        str(source)
        if isinstance(source, str) and not Path(source).exists() and "/" in source
        else folder.resolve().name
    )
