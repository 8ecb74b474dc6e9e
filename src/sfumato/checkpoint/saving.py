"""From a model to a folder that the libraries of its layout read as well."""

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sfumato import weights
from sfumato.checkpoint import keys
from sfumato.checkpoint.layout import ENCODER, FAST, INDEX, TINY
from sfumato.checkpoint.loading import empty_network
from sfumato.checkpoint.model import Model, ModelNetwork
from sfumato.config import ScheduleConfig
from sfumato.config.model_settings import SETTINGS_FILE
from sfumato.errors import UsageError
from sfumato.files import check_room, replace_folder, write_json
from sfumato.nets.vision import CLIP_PICTURES, CLIPVision
from sfumato.version import __version__

# diffusers asks a folder which of its versions wrote it.
_LAYOUT = "0.42.1"
FORMAT = {"format": "pt"}
"""What the header of a file of weights says, which the libraries ask for."""
# What else `model_index.json` may say that another program would miss.
_KEPT = ("force_zeros_for_empty_prompt", "requires_aesthetics_score", "add_watermarker", "is_cosxl_edit")


def save(
    model: Model,
    folder: str | Path,
    *,
    dtype: torch.dtype | None = None,
    variant: str | None = None,
    shard_bytes: int | None = None,
    overwrite: bool = False,
) -> None:
    """Write `model` as a diffusers folder: all of it, or nothing.

    `dtype`: what to convert the weights to; as they are if `None`. `variant` goes into the file names, as in
    `model.fp16.safetensors`. With `shard_bytes` no file of weights holds more than that, save for a single
    tensor that is larger. A model already there is replaced only with `overwrite`, any other filled folder
    never. Raises `OutputError` where it cannot be written, `UsageError` for a variant that is no plain word,
    and `CheckpointError` for networks that hold other parameters than their configurations say (take adapters
    out first).
    """
    if variant is not None and not (variant.isascii() and variant.isidentifier()):
        raise UsageError(f"a variant such as 'fp16' is one word, not {variant!r}")
    with replace_folder(folder, marker=INDEX, overwrite=overwrite) as place:
        check_room(Path(folder), sum(_bytes(network, dtype) for network in model.networks.values()))
        write_json(place / INDEX, index_content(model))
        if model.own:
            write_json(place / SETTINGS_FILE, model.own)
        if model.fast:
            shutil.copyfile(model.fast, place / FAST)
        for name, folder_of_control in model.controls.items():
            shutil.copytree(folder_of_control, place / name)
        (place / "scheduler").mkdir()
        write_json(place / "scheduler" / "scheduler_config.json", scheduler_content(model))
        for name, tokenizer in zip(tokenizer_names(model), model.tokenizers, strict=True):
            (place / name).mkdir()
            tokenizer.save(place / name)
        if model.vision is not None:
            (place / "feature_extractor").mkdir()
            write_json(
                place / "feature_extractor" / "preprocessor_config.json", feature_extractor(model.vision)
            )
        for name, network in {**model.networks, **({TINY: model.tiny} if model.tiny else {})}.items():
            (place / name).mkdir()
            save_network(place / name, name, network, dtype, variant, shard_bytes)


def _bytes(network: ModelNetwork, dtype: torch.dtype | None) -> int:
    return sum(each.numel() * (dtype or each.dtype).itemsize for each in network.parameters())


def save_network(
    folder: Path,
    name: str,
    network: ModelNetwork,
    dtype: torch.dtype | None = None,
    variant: str | None = None,
    shard_bytes: int | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write one network, a model's part `name`, into its folder: `config.json` and weights. See `save`.

    `metadata`: what the headers say besides.
    """
    write_json(folder / "config.json", network.config.to_dict())
    stem = "model" if name.startswith(("text_encoder", ENCODER)) else "diffusion_pytorch_model"
    state = checked_state(name, network)
    published = {theirs: state[ours] for ours, theirs in keys.published(name, state).items()}
    header = {**FORMAT, **(metadata or {})}
    _write(folder, stem, variant, converted(published, dtype), shard_bytes, header)


def _write(
    folder: Path,
    stem: str,
    variant: str | None,
    state: dict[str, Tensor],
    shard_bytes: int | None,
    header: dict[str, str],
) -> None:
    """One file of weights, or several and the index of what is in which, as the libraries name them."""
    named = f"{stem}.{variant}" if variant else stem
    shards = weights.split(state, shard_bytes or math.inf)
    if len(shards) == 1:
        weights.write(folder / f"{named}.safetensors", state, header)
        return
    home: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"{named}-{number:05}-of-{len(shards):05}.safetensors"
        weights.write(folder / file, shard, header)
        home |= dict.fromkeys(shard, file)
    index = f"{stem}.safetensors.index.{variant}.json" if variant else f"{stem}.safetensors.index.json"
    total = sum(tensor.nbytes for tensor in state.values())
    write_json(folder / index, {"metadata": {"total_size": total}, "weight_map": dict(sorted(home.items()))})


def checked_state(name: str, network: ModelNetwork) -> dict[str, Tensor]:
    """A network's parameters, held against what its configuration says they are. Raises `CheckpointError`."""
    state = network.state_dict()
    weights.check(state, empty_network(network.config), name)
    return state


def converted(state: dict[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    """All tensors as `dtype`, or as they are."""
    return state if dtype is None else {name: tensor.to(dtype) for name, tensor in state.items()}


def scheduler_content(model: Model) -> dict[str, Any]:
    """The schedule as it was read, with what has changed since: keys of one sampler stay as they were."""
    read = model.scheduler
    if read.get("_class_name") != model.schedule.class_name:
        read = {"_class_name": model.schedule.class_name}
    known = ScheduleConfig.from_dict(read, "scheduler").to_dict()
    changed = {key: value for key, value in model.schedule.to_dict().items() if known[key] != value}
    return read | changed


def feature_extractor(vision: CLIPVision) -> dict[str, Any]:
    """`preprocessor_config.json`: how CLIP has pictures scaled."""
    side = vision.config.image_size
    return {
        "image_processor_type": "CLIPImageProcessor",
        "crop_size": {"height": side, "width": side},
        "do_convert_rgb": True,
        **CLIP_PICTURES,
        "rescale_factor": 1 / 255,
        "size": {"shortest_edge": side},
    }


def tokenizer_names(model: Model) -> list[str]:
    """The folders of a model's tokenizers, in their order."""
    return [name.replace("text_encoder", "tokenizer") for name in model.networks if name.startswith("text_")]


def index_content(model: Model) -> dict[str, Any]:
    """`model_index.json`: which class of which library each component is."""
    pipelines = model.info.family.pipelines
    pipeline = pipelines[model.task]
    if model.unet.reads_guidance and model.schedule.class_name == "LCMScheduler":
        # it tells the network the guidance, so that one which is not told needs the usual pipeline
        pipeline = pipelines.get("lcm", pipeline)
    index: dict[str, Any] = {
        "_class_name": pipeline,
        "_diffusers_version": _LAYOUT,
        "_sfumato_version": __version__,
    }
    index |= {key: model.index[key] for key in _KEPT if key in model.index}
    index["scheduler"] = ["diffusers", model.schedule.class_name]
    for name in tokenizer_names(model):
        index[name] = ["transformers", "CLIPTokenizer"]
    for name, network in model.networks.items():
        if name.startswith(("text_encoder", ENCODER)):
            index[name] = ["transformers", network.config.to_dict()["architectures"][0]]
        else:
            index[name] = ["diffusers", network.config.CLASS]
    if model.vision is not None:
        return index | {"feature_extractor": ["transformers", "CLIPImageProcessor"]}
    absent = [] if model.kind == "modelscope" else ["image_encoder", "feature_extractor"]
    if "text_encoder" not in model.networks:
        absent += ["text_encoder", "tokenizer"]
    if "lcm" in pipelines:  # those of Stable Diffusion 1 and 2 look for a safety checker
        index["requires_safety_checker"] = False
        absent.append("safety_checker")
    return index | {name: [None, None] for name in absent}
