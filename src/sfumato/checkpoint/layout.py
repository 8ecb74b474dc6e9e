"""The diffusers folder: which files there are, which of them to read, and what their headers say."""

import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sfumato import weights
from sfumato.checkpoint.ldm_keys import Table
from sfumato.checkpoint.report import Component, Report
from sfumato.checkpoint.unsupported import SUPPORTED, belonging, family_of_classes
from sfumato.config import (
    Config,
    PriorConfig,
    ScheduleConfig,
    ShapERendererConfig,
    TemporalVAEConfig,
    TextConfig,
    TinyVAEConfig,
    UNet3DConfig,
    UNetConfig,
    UNetSpatioTemporalConfig,
    VAEConfig,
    VisionConfig,
)
from sfumato.config.model_settings import SETTINGS_FILE, checked_settings
from sfumato.errors import CheckpointError
from sfumato.files import open_file, read_json
from sfumato.prompt.tokenizer import Tokenizer
from sfumato.validation import shown
from sfumato.weights import Header, TensorInfo

INDEX = "model_index.json"
SCHEDULER = "scheduler_config.json"
ENCODER = "image_encoder"
TINY = "tiny_vae"
"""The folder of a smaller decoder, which may be there and which no index names."""
FAST = "fast.safetensors"
"""A LoRA beside `model_index.json` with which the model draws in few steps."""
MOTION = "motion"
"""The folder of a motion adapter, which may be there and which no index names."""

NETWORKS: dict[str, dict[str, type[Config]]] = {
    "unet": {kind.CLASS: kind for kind in (UNetConfig, UNetSpatioTemporalConfig, UNet3DConfig)},
    "vae": {kind.CLASS: kind for kind in (VAEConfig, TinyVAEConfig, TemporalVAEConfig)},
    "text_encoder": {"CLIPTextModel": TextConfig, "CLIPTextModelWithProjection": TextConfig},
    "text_encoder_2": {"CLIPTextModel": TextConfig, "CLIPTextModelWithProjection": TextConfig},
    TINY: {"AutoencoderTiny": TinyVAEConfig},
}
"""What can be built, by its place in the folder and the class its config names. Classes are only compared."""
BESIDE: dict[str, dict[str, type[Config]]] = {
    ENCODER: {"CLIPVisionModelWithProjection": VisionConfig},
}
"""The same of what IP-Adapters need, and Stable Video Diffusion; others draw without."""
RENDERER = "shap_e_renderer"
SHAPES: dict[str, dict[str, type[Config]]] = {
    "prior": {PriorConfig.CLASS: PriorConfig},
    RENDERER: {ShapERendererConfig.CLASS: ShapERendererConfig},
}
"""The same of what Shap-E draws shapes with, beside an encoder of texts or of pictures."""
SEEN: dict[str, dict[str, type[Config]]] = {ENCODER: {"CLIPVisionModel": VisionConfig}}
"""The encoder of pictures that Shap-E has."""
PICTURES = "image_processor"
"""The folder that says how a picture is made ready for it."""

TOKENIZERS = {"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2"}
UNUSED = ("safety_checker", "feature_extractor", "image_encoder", "watermarker")
"""Components that drawing does without: they may be absent, and are not read when present."""

_WHOLE = re.compile(r"(?:diffusion_pytorch_model|model)(?:\.(?P<variant>\w+))?\.safetensors")
_SHARD_INDEX = re.compile(
    r"(?:diffusion_pytorch_model|model)(?:\.(?P<before>\w+))?\.safetensors\.index(?:\.(?P<variant>\w+))?\.json"
)
_PICKLE = re.compile(r"(?:diffusion_)?(?:pytorch_)?model.*\.(?:bin|pt|pth|ckpt)")


@dataclass(frozen=True)
class Part:
    """One network of a model: its configuration, and its weights as their headers describe them.

    `where` names it in errors. `tensors` are those of its files that are its own, and all their names begin
    with `prefix`. `table` makes, from the names of the parameters, the table of where a file in the original
    layout keeps them; without one the names are the libraries' own (`keys`). `labels` are put before the
    names in a file, where two files use the same.
    """

    name: str
    class_name: str
    config: Config
    where: str
    headers: dict[Path, Header]
    tensors: dict[str, TensorInfo]
    variant: str | None = None
    prefix: str = ""
    table: Callable[[Iterable[str]], Table] | None = None
    labels: Mapping[Path, str] = field(default_factory=dict)

    @property
    def files(self) -> list[Path]:
        """The files the weights are in."""
        return list(self.headers)

    def component(self) -> Component:
        """This network's line in the report."""
        alone = len(self.tensors) == sum(len(header.tensors) for header in self.headers.values())
        files = sum(header.file_bytes for header in self.headers.values())
        return Component(
            name=self.name,
            class_name=self.class_name,
            parameters=sum(info.count for info in self.tensors.values()),
            dtypes=tuple(sorted({info.dtype for info in self.tensors.values()})),
            bytes=files if alone else sum(info.end - info.begin for info in self.tensors.values()),
            files=tuple(path.name for path in self.files),
            variant=self.variant,
        )


@dataclass(kw_only=True)
class Content:
    """All of a model but its weights: networks, tokenizers, and what its other files say, by their names.

    `scheduler`, `index` and `own` are the contents of `scheduler_config.json`, `model_index.json` and
    `sfumato.json`. `reasons`: why something is so that none of them says, by what it is about.
    """

    parts: dict[str, Part] = field(default_factory=dict)
    tokenizers: dict[str, Tokenizer] = field(default_factory=dict)
    scheduler: dict[str, Any] = field(default_factory=dict)
    index: dict[str, Any] = field(default_factory=dict)
    own: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)


def read_index(folder: Path) -> dict[str, Any]:
    """The content of `model_index.json`, its components checked to be ones that are known here.

    Raises `CheckpointError`: without it, a folder is no model.
    """
    path = folder / INDEX
    if not path.exists():
        raise CheckpointError(f"{folder} is not a model folder: {_instead(folder)}")
    index = read_json(path)
    named = components(index)
    if family := family_of_classes([index.get("_class_name"), *(index[name][1] for name in named)]):
        raise CheckpointError(f"{path}: {family} is not supported; {SUPPORTED}")
    known = {*NETWORKS, *TOKENIZERS.values(), *UNUSED, "scheduler"}
    if makes_shapes(index):
        known |= {*SHAPES, PICTURES}
    if unknown := [name for name in named if name not in known]:
        kinds = ", ".join(f"{name} ({shown(index[name][1])})" for name in unknown[:3])
        raise CheckpointError(f"{path}: a model with {kinds} is not supported; {SUPPORTED}")
    return index


def _instead(folder: Path) -> str:
    """What a folder without an index is, as far as its other files tell."""
    if (folder / "snapshots").is_dir():
        return "it is the hub cache's folder of a repository; give the hub's name, or a folder in snapshots/"
    if any((folder / name).is_file() for name in ("adapter_config.json", "pytorch_lora_weights.safetensors")):
        return "it is a LoRA's folder: use it with --lora"
    if (folder / "config.json").is_file():
        content = read_json(folder / "config.json")
        classes = [content.get("_class_name"), *_listed(content.get("architectures"))]
        if family := family_of_classes(classes):
            return f"it is {belonging(family)}"
        if not {"AutoencoderKL", "AutoencoderTiny"}.isdisjoint(map(str, classes)):
            return "it is a VAE alone: give it beside a model, with --vae"
        return "of a UNet's folder, load the .safetensors file, with a base model for the rest"
    inside = sorted(path.name for path in folder.glob("*.safetensors"))
    single = f"; of its single files, load one by its name: {inside[0]}" if inside else ""
    return f"it has no {INDEX}{single}"


def makes_shapes(index: dict[str, Any]) -> bool:
    """Whether an index is Shap-E's, a model of shapes and not of pictures."""
    return RENDERER in components(index)


def components(index: dict[str, Any]) -> list[str]:
    """The names of the components that an index says are there: entries `[library, class]` without nulls."""
    return [
        name
        for name, entry in index.items()
        if not name.startswith("_") and isinstance(entry, list) and len(entry) == 2 and None not in entry
    ]


def networks_of(folder: Path, index: dict[str, Any]) -> tuple[list[str], list[str]]:
    """The networks that a folder is to hold, and those among them that encode text, by their places."""
    named = components(index)
    if makes_shapes(index):
        texts = [name for name in ("text_encoder",) if name in named]
        return [*SHAPES, *(texts or [ENCODER])], texts
    if "unet" in named and index["unet"][1] == UNetSpatioTemporalConfig.CLASS:
        return ["unet", "vae", ENCODER], []
    encoders = [name for name in TOKENIZERS if name in named] or ["text_encoder"]
    return ["unet", "vae", *encoders, *([TINY] if (folder / TINY).is_dir() else [])], encoders


def lacking(folder: Path, variant: str | None, prefer_half: bool) -> str | None:
    """What a model's folder lacks of the files that loading reads, in words; `None` where it is whole."""
    if not (folder / INDEX).is_file():
        return f"it is not a model folder: {_instead(folder)}"
    try:
        networks, encoders = networks_of(folder, read_index(folder))
    except CheckpointError:
        return None  # which loading says
    try:
        chosen: dict[str, str | None] = {}
        for name in networks:
            file, chosen[name] = choose_in(place_of(folder, name), variant, prefer_half)
            shards = weights.shards(folder / name / file) if file.endswith(".json") else ()
            for path in (folder / name / "config.json", *shards):
                if not path.is_file():
                    return f"{name}/{path.name} is missing"
        require_variant(variant, chosen, folder)
        for name in (TOKENIZERS[encoder] for encoder in encoders):
            there = {entry.name for entry in place_of(folder, name).iterdir() if entry.is_file()}
            if not ("tokenizer.json" in there or {"vocab.json", "merges.txt"} <= there):
                return f"{name}/ has no vocabulary"
        if not (place_of(folder, "scheduler") / "scheduler_config.json").is_file():
            return "scheduler/scheduler_config.json is missing"
    except CheckpointError as error:
        return str(error).removeprefix(f"{folder} ").replace(f"{folder}/", "")
    return None


def require_variant(variant: str | None, found: Mapping[str, str | None], where: object) -> None:
    """Raise `CheckpointError` where a variant is asked for that none of the networks has.

    `found`: which one was chosen of each, by its name.
    """
    if variant is not None and variant not in found.values():
        others = ", ".join(f"{name} {other or 'plain'}" for name, other in found.items())
        raise CheckpointError(
            f"{where} has no weights of variant {variant!r} (as in model.{variant}.safetensors); "
            f"there are {others}"
        )


def choose(
    names: Collection[str], where: str, *, variant: str | None = None, prefer_half: bool = False
) -> tuple[str, str | None]:
    """Which weights to read among the file `names` of a component's folder `where`: the file, its variant.

    The file is a whole one or an index of shards. A `variant` asked for comes first, then the plain files, or
    with `prefer_half` those of variant `fp16`. Raises `CheckpointError` where there are none, saying so if
    there are only pickled ones.
    """
    found: dict[str | None, str] = {}
    for pattern in (_SHARD_INDEX, _WHOLE):
        for name in sorted(names):
            if match := pattern.fullmatch(name):
                groups = match.groupdict()
                found[groups["variant"] or groups.get("before")] = name
    if not found:
        if pickles := [name for name in names if _PICKLE.fullmatch(name)]:
            raise CheckpointError(
                f"{where} holds only a pickled checkpoint ({pickles[0]}); pickles can run code when they are "
                "loaded: convert it to safetensors by `sfumato convert --from-pickle`"
            )
        raise CheckpointError(f"{where} holds no weights (no diffusion_pytorch_model or model .safetensors)")
    order = [
        variant,
        *(["fp16", None] if prefer_half else [None, "fp16"]),
        *sorted(name for name in found if name),
    ]
    chosen = next(name for name in order[variant is None :] if name in found)
    return found[chosen], chosen


def choose_in(place: Path, variant: str | None, prefer_half: bool) -> tuple[str, str | None]:
    """As `choose`, of the files in a component's folder; a link that leads nowhere is none of them."""
    names = [entry.name for entry in place.iterdir() if entry.exists()] if place.is_dir() else []
    return choose(names, str(place), variant=variant, prefer_half=prefer_half)


def read_network(
    place: Path,
    name: str,
    index: dict[str, Any],
    *,
    variant: str | None = None,
    prefer_half: bool = False,
) -> Part:
    """Read the network in the folder `place`, which is to be a model's `name`. Raises `CheckpointError`."""
    path = place / "config.json"
    content = read_json(path)
    if "auto_map" in content:
        raise CheckpointError(f"{path} names code to run (auto_map), which is never done")
    listed = index[name][1] if name in components(index) else None
    class_name, config = config_of(name, content, str(path), listed, classes_of(name, index))
    headers, chosen = read_headers(place, variant=variant, prefer_half=prefer_half)
    tensors = {name: info for header in headers.values() for name, info in header.tensors.items()}
    return Part(name, class_name, config, str(place), headers, tensors, chosen)


def read_headers(
    place: Path, *, variant: str | None = None, prefer_half: bool = False
) -> tuple[dict[Path, Header], str | None]:
    """The header of each file of weights of a component's folder, and their variant. See `choose`."""
    chosen, found = choose_in(place, variant, prefer_half)
    file = place / chosen
    return weights.sharded_header(file) if file.suffix == ".json" else {file: weights.header(file)}, found


def _listed(entry: object) -> list[object]:
    return entry if isinstance(entry, list) else []


def classes_of(name: str, index: dict[str, Any] | None = None) -> dict[str, type[Config]]:
    """What can be built in this place of a folder, by the class that its config names.

    `index`: the folder's, if it is a model's.
    """
    shapes = SHAPES | SEEN if index and makes_shapes(index) else {}
    return shapes.get(name) or NETWORKS.get(name) or BESIDE[name]


def config_of(
    name: str,
    content: dict[str, Any],
    where: str,
    listed: object = None,
    known: Mapping[str, type[Config]] | None = None,
) -> tuple[str, Config]:
    """The class of a network's configuration, and itself.

    That is `listed`, the one that the index names, as in diffusers; else the configuration's own, named in
    diffusers' way or in transformers'. `name`: its place in the folder, in which the classes `known` can be
    built. Raises `CheckpointError` for others.
    """
    known = known or classes_of(name)
    architectures = _listed(content.get("architectures"))
    own = content.get("_class_name", architectures[0] if len(architectures) == 1 else None)
    class_name = str(own if listed is None else listed)
    # a text encoder's configuration may be that of the CLIP that it was taken out of
    for each in (class_name, *([] if own in (None, "CLIPModel") else [own])):
        if str(each) not in known:
            only = " or ".join(known)
            raise CheckpointError(f"{where}: a {name} of class {shown(each)} is not supported, only {only}")
    kind = known[class_name]
    if kind in (TextConfig, VisionConfig):
        content = content | {"architectures": [class_name]}
    return class_name, kind.from_dict(content, where)


def read_schedule(
    folder: Path, index: dict[str, Any], report: Report
) -> tuple[dict[str, Any], ScheduleConfig]:
    """The content of `scheduler/scheduler_config.json`, and what is used of it. Raises `CheckpointError`.

    Its class is the one that the index names, as in diffusers.
    """
    path = place_of(folder, "scheduler") / SCHEDULER
    content = read_json(path, infinite=True)
    listed = index["scheduler"][1] if "scheduler" in components(index) else content.get("_class_name")
    if "_class_name" in content and listed != content["_class_name"]:
        other = f"scheduler_config.json says {shown(content['_class_name'])}"
        report.infer("scheduler", listed, f"{INDEX} names it, which counts, as in diffusers; {other}")
    content = {**content, "_class_name": listed} if listed is not None else content
    return content, ScheduleConfig.from_dict(content, str(path))


def read_configs(folder: Path, present: Collection[str], report: Report) -> tuple[dict[str, Config], Content]:
    """What the other files of a model's folder say about the networks `present`, whose weights are elsewhere.

    Raises `CheckpointError`.
    """
    index = read_index(folder)
    listed = {name: index[name][1] for name in components(index)}
    files = {name: place_of(folder, name) / "config.json" for name in present}
    configs = {
        name: config_of(name, read_json(file), str(file), listed.get(name))[1] for name, file in files.items()
    }
    return configs, Content(
        tokenizers={
            name: Tokenizer.load(place_of(folder, name))
            for encoder, name in TOKENIZERS.items()
            if encoder in present
        },
        scheduler=read_schedule(folder, index, report)[0],
        index=index,
        own=read_settings(folder),
    )


def read_settings(folder: Path) -> dict[str, Any]:
    """The content of `sfumato.json`, empty where there is none. Raises `CheckpointError`."""
    path = folder / SETTINGS_FILE
    return checked_settings(read_json(path), str(path)) if path.exists() else {}


def fingerprint(place: Path, parts: Iterable[Part], asked: str = "") -> str:
    """16 hexadecimal digits that identify a model: SHA-256 over what determines its pictures.

    That is, of a folder `place`, each JSON or text file of a component whole; of the weights, the headers,
    the sizes, and 64 evenly spaced blocks of 4 KB of each file, as of every file of more than 16 MB: cheap
    for files of any size, and different for different trainings; and what was `asked` to be otherwise than
    the files say. A copy has the same fingerprint; another dtype, layout or sharding of the same model has
    another.
    """
    digest = hashlib.sha256(asked.encode())
    parts = list(parts)
    weight_files = {path: header for part in parts for path, header in part.headers.items()}
    texts = [
        path
        for name in {"scheduler", *NETWORKS, *TOKENIZERS.values(), *(part.name for part in parts)}
        for path in (place / name).glob("*")
        if path.suffix in (".json", ".txt") and path.is_file()
    ]
    for path in sorted([*weight_files, *texts]):
        size = path.stat().st_size
        inside = path.relative_to(place).as_posix() if place in path.parents else ""
        digest.update(f"{inside} {size}\n".encode())
        with open_file(path) as file:
            if size <= (_SAMPLES * _BLOCK if path in weight_files else _MOST_WHOLE):
                digest.update(file.read(size))
                continue
            start = weight_files[path].header_bytes if path in weight_files else 0
            digest.update(file.read(start))
            for number in range(_SAMPLES):
                file.seek(start + (size - start - _BLOCK) * number // (_SAMPLES - 1))
                digest.update(file.read(_BLOCK))
    return digest.hexdigest()[:16]


_SAMPLES, _BLOCK, _MOST_WHOLE = 64, 4096, 16 << 20


def place_of(folder: Path, name: str) -> Path:
    """The folder of one component. Raises `CheckpointError` where it is missing."""
    place = folder / name
    if not place.is_dir():
        raise CheckpointError(f"{folder} is incomplete: the folder {name}/ is missing")
    return place
