"""From one layout to the other: a folder into the single file that every program reads, and back."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sfumato import weights
from sfumato.checkpoint import header_config, ldm_keys
from sfumato.checkpoint.layout import ENCODER, FAST, INDEX, TINY
from sfumato.checkpoint.ldm_keys import Table
from sfumato.checkpoint.loading import load
from sfumato.checkpoint.model import Model, ModelNetwork
from sfumato.checkpoint.motion import inspect_motion, load_motion, original_motion
from sfumato.checkpoint.report import Report
from sfumato.checkpoint.saving import (
    checked_state,
    index_content,
    save,
    save_network,
    scheduler_content,
    tokenizer_names,
)
from sfumato.config import TextConfig, VAEConfig
from sfumato.errors import OutputError, UsageError, warn
from sfumato.files import check_file, check_folder, replace_folder
from sfumato.options import ModelOptions

SUFFIX = ".safetensors"
CONFIG = "config.json"
_NOT_WRITTEN = (".ckpt", ".pt", ".pth", ".bin", ".gguf", ".onnx", ".sft")
"""Suffixes of files of weights, which no folder is meant by."""

_IMPLEMENTATION = "https://github.com/Stability-AI/generative-models"


@dataclass(frozen=True)
class Conversion:
    """What was written: where, of which kind, and what the source was concluded to be."""

    target: Path
    layout: str
    parameters: int
    bytes: int
    report: Report


def convert(
    source: str | Path | ModelOptions,
    target: str | Path,
    *,
    dtype: torch.dtype | None = None,
    variant: str | None = None,
    overwrite: bool = False,
    **others: Any,
) -> Conversion:
    """Write the model or motion adapter `source` as `target`: a single file where that ends in .safetensors,
    else a folder.

    All of it is written or nothing. `dtype`: what to convert the weights to; as they are if `None`. `variant`
    goes into the names of a folder's weights, as in `model.fp16.safetensors`. What is there already is
    replaced only with `overwrite`. `others`: those of `ModelOptions`. A file is in the original layout
    and carries the configurations in its header, so that the way back gives the same folder, save
    for what `save_file` leaves out. That of a motion adapter has the names of AnimateDiff's own program.
    Raises `CheckpointError`, `OutputError` and `UsageError` as `load` and `save` do.
    """
    target = Path(os.path.expanduser(target))
    single = target.suffix.lower() == SUFFIX
    if target.suffix.lower() in _NOT_WRITTEN:
        raise UsageError(f"cannot write {target}: a single file is named {SUFFIX}, anything else is a folder")
    if single and variant is not None:
        raise UsageError("a variant names the weights of a folder; the target is a single file")
    if single and target.exists() and not overwrite:
        raise OutputError(f"will not replace {target}: it is there already (overwrite=True replaces it)")
    place = Path(os.path.expanduser(str(source)))
    motion = inspect_motion(place) if place.exists() else None
    if single:
        check_file(target)
    else:
        check_folder(target, marker=CONFIG if motion else INDEX, overwrite=overwrite)
    if motion is not None:
        if given := [name for name, value in others.items() if value is not None]:
            raise UsageError(f"{given[0]} is given: {place} is a motion adapter, and has no such part")
        return _convert_motion(place, target, motion, dtype, variant, overwrite)
    model = load(source, dtype=dtype, **others)
    if single:
        save_file(model, target)
    else:
        save(model, target, variant=variant, overwrite=overwrite)
    return _written(target, model.networks.values(), model.report)


def _written(target: Path, networks: Iterable[ModelNetwork], report: Report) -> Conversion:
    single = target.is_file()
    written = [target] if single else sorted(target.rglob(f"*{SUFFIX}"))
    return Conversion(
        target=target,
        layout="single file" if single else "diffusers folder",
        parameters=sum(tensor.numel() for network in networks for tensor in network.parameters()),
        bytes=sum(path.stat().st_size for path in written),
        report=report,
    )


def _convert_motion(
    source: Path,
    target: Path,
    report: Report,
    dtype: torch.dtype | None,
    variant: str | None,
    overwrite: bool,
) -> Conversion:
    loaded = load_motion(str(source), dtype=dtype)
    if target.suffix.lower() == SUFFIX:
        weights.write(target, original_motion(loaded), loaded.metadata)
    else:
        with replace_folder(target, marker=CONFIG, overwrite=overwrite) as folder:
            save_network(folder, "motion", loaded.network, variant=variant, metadata=loaded.metadata)
    return _written(target, [loaded.network], report)


def save_file(model: Model, path: str | Path) -> None:
    """Write `model` as one file in the original layout, replacing what is there.

    That has no place for a tiny decoder besides the full one, for a LoRA for few steps and for controls:
    `SfumatoWarning` where they are left out. Raises `OutputError` where it cannot be written, and
    `CheckpointError` for networks that hold other parameters than their configurations say.
    """
    if model.kind == "modelscope":
        raise UsageError(f"{model.name} is {model.info.family.title}, which is a folder in every program")
    tensors: dict[str, Tensor] = {}
    for name, network in model.networks.items():
        state = checked_state(name, network)
        tensors |= ldm_keys.to_file(_table(model, name, network, state), state)
    if model.prediction == "v" and not model.info.family.predicts_v:  # of whose models a bias tells it
        tensors["v_pred"] = torch.empty(0)
    if model.schedule.rescale_betas_zero_snr:
        tensors["ztsnr"] = torch.empty(0)
    tensors |= _edm_marks(model)
    weights.write(path, tensors, _metadata(model))
    beside = (
        (f"the tiny decoder ({TINY})", model.tiny),
        (f"the LoRA of --fast ({FAST})", model.fast),
        *((f"the control {name}", place) for name, place in model.controls.items()),
    )
    if lacking := [what for what, there in beside if there]:
        told = f"{path} is without {' and '.join(lacking)}: only a folder holds such"
        warn(told)


def _edm_marks(model: Model) -> dict[str, Tensor]:
    """What other programs know a model with an EDM schedule by: Playground v2.5's tensors, or CosXL's."""
    vae, schedule = model.vae.config, model.schedule
    if not schedule.is_edm or schedule.is_continuous:
        return {}
    if model.prediction == "edm" and isinstance(vae, VAEConfig) and vae.latents_mean and vae.latents_std:
        statistics = {"edm_mean": vae.latents_mean, "edm_std": vae.latents_std}
        return {name: torch.tensor(values).view(1, -1, 1, 1) for name, values in statistics.items()}
    if model.prediction == "edm-v:1":
        return {
            f"edm_vpred.{name}": torch.tensor(getattr(schedule, name)) for name in ("sigma_min", "sigma_max")
        }
    return {}


def _table(model: Model, name: str, network: ModelNetwork, state: dict[str, Tensor]) -> Table:
    """Where one network's parameters go."""
    config, two = network.config, len(model.text_encoders) == 2
    if not isinstance(config, TextConfig):
        prefix = {"unet": ldm_keys.UNET, "vae": ldm_keys.VAE, ENCODER: ldm_keys.VISION}[name]
        return ldm_keys.table_of(config, prefix, False, state)
    if two or name == "text_encoder_2":
        place = f"{ldm_keys.CONDITIONER}{int(two and name == 'text_encoder_2')}."
    else:
        place = ldm_keys.TEXT
    alone = not two and config.hidden_act == "gelu" and not config.with_projection
    open_clip = name == "text_encoder_2" or alone
    inside = ldm_keys.OPEN_CLIP if open_clip else ldm_keys.OPENAI
    return ldm_keys.table_of(config, place + inside, open_clip, state)


def _metadata(model: Model) -> dict[str, str]:
    """The header: Stability AI's modelspec 1.0.0 for other programs, and all configurations for this one."""
    tokenizers = dict(zip(tokenizer_names(model), model.tokenizers, strict=True))
    configs = {name: network.config for name, network in model.networks.items()}
    entry = header_config.written(
        configs, tokenizers, scheduler_content(model), index_content(model), model.own
    )
    told = {"format": "pt", header_config.ENTRY: entry}
    architecture = model.info.family.architectures.get(model.prediction)
    if architecture and model.task == "text":
        told |= {
            "modelspec.sai_model_spec": "1.0.0",
            "modelspec.architecture": architecture,
            "modelspec.implementation": _IMPLEMENTATION,
            "modelspec.title": model.name,
            "modelspec.resolution": "{}x{}".format(*model.native_size),
            "modelspec.prediction_type": model.prediction,
        }
    return told
