"""Motion adapters: diffusers' folders, and files of AnimateDiff by the names of its first program."""

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from sfumato import weights
from sfumato.checkpoint import beside, layout
from sfumato.checkpoint.families import FAMILIES
from sfumato.checkpoint.layout import Part
from sfumato.checkpoint.ldm_keys import SourceKey, Table
from sfumato.checkpoint.loading import build, empty_network, expected_shapes, table_of_part
from sfumato.checkpoint.report import Report
from sfumato.checkpoint.unsupported import described
from sfumato.config import MotionAdapterConfig, ScheduleConfig
from sfumato.errors import CheckpointError, UsageError
from sfumato.files import read_json
from sfumato.nets.motion import MotionAdapter

OWN_SCHEDULE = "sfumato.own_schedule"
"""Of a file's metadata: it was trained on the noise of its base, not on AnimateDiff's."""
_MODULE = re.compile(
    r"(?:module\.)?(?:(?:down|up)_blocks\.\d+|mid_block)\.motion_modules\.\d+\."
    r"(?:temporal_transformer\.)?(?:norm|proj_in|proj_out)\.weight"
)
_PREFIX = "module."
# The names of the first program, in the order in which the rules apply to diffusers'.
_ORIGINAL = (
    (".attn1.", ".attention_blocks.0."),
    (".attn2.", ".attention_blocks.1."),
    (".pos_embed.", ".attention_blocks.0.pos_encoder."),
    (".norm1.", ".norms.0."),
    (".norm2.", ".norms.1."),
    (".norm3.", ".ff_norm."),
)
_REPEATED = ".attention_blocks.1.pos_encoder.pe"
"""The positions once more, as every attention of the first program has them."""
MODULES = ".motion_modules."
"""In the name of everything that a motion adapter has, in every layout."""
_PUBLISHED = {(320, 640, 1280, 1280): "sd1", (320, 640, 1280): "sdxl"}
"""The families that motion adapters were published for, by the widths of their blocks."""
_VERSIONS = {(24, False): "AnimateDiff v1", (32, True): "AnimateDiff v2", (32, False): "AnimateDiff v3"}
"""Those for Stable Diffusion 1.x, by the frames that they know and whether the middle block has a module."""
_TRANSFORMER = re.compile(r"(\.motion_modules\.\d+)\.")


@dataclass(frozen=True, eq=False)
class LoadedMotion:
    """A motion adapter's network, on the CPU; `fingerprint` identifies its files.

    `linear`: whether it was trained on noise with linear betas, as AnimateDiff's were, whatever its base has.
    """

    name: str
    network: MotionAdapter
    fingerprint: str
    linear: bool

    @property
    def metadata(self) -> dict[str, str]:
        """What a file's header says of it."""
        return {} if self.linear else {OWN_SCHEDULE: "true"}

    def schedule(self, base: ScheduleConfig) -> ScheduleConfig:
        """The noise that it is drawn on with a model that has the schedule `base`."""
        if not self.linear or base.is_edm or base.is_flow:
            return base
        return replace(base, beta_schedule="linear", beta_start=0.00085, beta_end=0.012, trained_betas=None)


def is_motion_adapter(names: Collection[str]) -> bool:
    """Whether these are the names of a motion adapter's tensors, without a UNet around them."""
    return any(_MODULE.fullmatch(name) for name in names) and not any(
        ".attentions." in name or ".resnets." in name for name in names
    )


def load_motion(
    name: str,
    *,
    own: Mapping[str, Path] | None = None,
    dtype: torch.dtype | None = None,
    local_files_only: bool = False,
    names_only: bool = False,
) -> LoadedMotion:
    """Load a motion adapter: a diffusers folder, a `.safetensors` file, a hub id, or a name.

    A file may be one on the hub, "org/name/file.safetensors". A name is one in the user's folder `motion`, or
    of `own`, what the drawing's model brings with it. `dtype`: what to convert the weights to; as stored if
    `None`. `names_only`: paths and hub ids mean nothing. Raises `CheckpointError`.
    """
    half = dtype in (torch.float16, torch.bfloat16)
    path = beside.locate(
        "motion",
        name,
        own or {},
        prefer_half=half,
        local_files_only=local_files_only,
        names_only=names_only,
    )
    part = motion_part(path, prefer_half=half)
    network = build(part, dtype)
    assert isinstance(network, MotionAdapter)
    return LoadedMotion(name, network, _fingerprint(path, part), _is_linear(part))


def _fingerprint(path: Path, part: Part) -> str:
    return layout.fingerprint(path, [part], json.dumps(part.config.to_dict(), sort_keys=True))


def _is_linear(part: Part) -> bool:
    """Whether it was trained on AnimateDiff's noise, not on that of its base."""
    return not any(OWN_SCHEDULE in header.metadata for header in part.headers.values())


def inspect_motion(path: Path) -> Report | None:
    """What the motion adapter in `path` is, by its configuration and headers; nothing if it is none.

    Raises `CheckpointError` for one that would not load.
    """
    try:
        if path.is_dir():
            is_one = read_json(path / "config.json").get("_class_name") == MotionAdapterConfig.CLASS
        else:
            is_one = is_motion_adapter(weights.header(path).tensors)
    except CheckpointError:
        return None
    if not is_one:
        return None
    part = motion_part(path)
    config = part.config
    assert isinstance(config, MotionAdapterConfig)
    table_of_part(part, expected_shapes(empty_network(config).state_dict()))
    frames, mid = config.motion_max_seq_length, config.use_motion_mid_block
    widths = "-".join(map(str, config.block_out_channels))
    modules = sum(2 * count + 1 for count in config.layers) + mid
    original = any(".temporal_transformer." in name for name in part.tensors)
    report = Report(str(path), [part.component()], fingerprint=_fingerprint(path, part))
    report.infer("kind", "motion adapter", f"{modules} motion modules, and no UNet around them")
    family = _PUBLISHED.get(config.block_out_channels)
    told = f"its blocks are {widths} channels wide"
    report.infer("base", FAMILIES[family].title if family else "a UNet of that shape", told)
    if family == "sd1" and (version := _VERSIONS.get((frames, mid))):
        place = "with" if mid else "without"
        report.infer("version", version, f"{frames} frames, {place} a module in the middle block")
    report.infer("frames", frames, "the positions that it numbers frames with")
    report.infer("names", "AnimateDiff's" if original else "diffusers'", "the names of its tensors")
    report.infer(
        "betas",
        "linear" if _is_linear(part) else "its base's",
        f"its header {'does not name' if _is_linear(part) else 'names'} {OWN_SCHEDULE}",
    )
    if config.conv_in_channels:
        report.infer(
            "reads", "a picture (PIA)", f"its first convolution has {config.conv_in_channels} channels"
        )
    return report


def motion_part(path: Path, *, prefer_half: bool = False) -> Part:
    """The network in `path`, a folder with its `config.json` or a file. Raises `CheckpointError`."""
    classes = {MotionAdapterConfig.CLASS: MotionAdapterConfig}
    return beside.part_in(path, "motion", "motion adapter", classes, _file_part, prefer_half=prefer_half)


def _file_part(path: Path) -> Part:
    """The motion adapter in the file `path`, by its tensors. Raises `CheckpointError`."""
    header = weights.header(path)
    if not is_motion_adapter(header.tensors):
        what = described(header.tensors) or "no motion adapter"
        raise CheckpointError(f"{path} is {what}; a motion adapter is AnimateDiff's, or in that form")
    prefix = _PREFIX if all(name.startswith(_PREFIX) for name in header.tensors) else ""
    shapes = {name.removeprefix(prefix): info.shape for name, info in header.tensors.items()}
    original = any(".temporal_transformer." in name for name in shapes)
    config = _config(shapes, original, path)
    tensors = {name: info for name, info in header.tensors.items() if not name.endswith(_REPEATED)}
    table = motion_table(prefix, original)
    return Part("motion", config.CLASS, config, str(path), {path: header}, tensors, table=table)


def motion_table(prefix: str, original: bool) -> Callable[[Iterable[str]], Table]:
    """Makes the table of where a file keeps each parameter, in the `original` names or diffusers'."""

    def source_name(name: str) -> str:
        if not original or MODULES not in name:
            return prefix + name
        for ours, theirs in _ORIGINAL:
            name = name.replace(ours, theirs)
        return prefix + _TRANSFORMER.sub(r"\1.temporal_transformer.", name)

    def table(expected: Iterable[str]) -> Table:
        return {name: SourceKey(source_name(name)) for name in expected}

    return table


def original_motion(motion: LoadedMotion) -> dict[str, Tensor]:
    """Its tensors by the names of AnimateDiff's first program, every attention with its positions.

    Raises `UsageError` for one with other heads or groups than AnimateDiff's, which those cannot say.
    """
    config, usual = motion.network.config, MotionAdapterConfig()
    if config.heads != (usual.motion_num_attention_heads,) * len(config.heads):
        told = "-".join(map(str, config.heads))
        raise UsageError(f"{motion.name} has {told} heads, and files of AnimateDiff 8: write it as a folder")
    if config.motion_norm_num_groups != usual.motion_norm_num_groups:
        raise UsageError(
            f"{motion.name} normalises in {config.motion_norm_num_groups} groups, and files of AnimateDiff "
            f"in {usual.motion_norm_num_groups}: write it as a folder"
        )
    state = motion.network.state_dict()
    found = {origin.key: state[name] for name, origin in motion_table("", original=True)(state).items()}
    positions = [name for name in found if name.endswith(_REPEATED.replace(".1.", ".0."))]
    again = {name.replace(".attention_blocks.0.", ".attention_blocks.1."): found[name] for name in positions}
    return found | again


def original_layer(name: str) -> str:
    """What AnimateDiff's first program calls a layer of motion modules."""
    (origin,) = motion_table("", original=True)([name]).values()
    return origin.key


def library_name(name: str) -> str:
    """What diffusers calls a layer of motion modules that has this name in the first program, or its own."""
    for ours, theirs in reversed(_ORIGINAL):
        name = name.replace(theirs, ours)
    return name.removeprefix(_PREFIX).replace(".temporal_transformer.", ".")


def _config(shapes: Mapping[str, tuple[int, ...]], original: bool, path: Path) -> MotionAdapterConfig:
    """What it is built of, by the shapes of its tensors."""
    inner = "temporal_transformer." if original else ""

    def shape(name: str) -> tuple[int, ...]:
        if name not in shapes:
            raise CheckpointError(f"{path} is no whole motion adapter: {name} is missing")
        return shapes[name]

    levels = 1 + max(
        (int(name.split(".")[1]) for name in shapes if name.startswith("down_blocks.")), default=0
    )
    widths, counts = [], []
    for level in range(levels):
        begin = f"down_blocks.{level}.motion_modules."
        widths.append(shape(f"{begin}0.{inner}norm.weight")[0])
        counts.append(len({name.split(".")[3] for name in shapes if name.startswith(begin)}))
    blocks = f"down_blocks.0.motion_modules.0.{inner}transformer_blocks."
    positions = "attention_blocks.0.pos_encoder.pe" if original else "pos_embed.pe"
    frames = shape(f"{blocks}0.{positions}")[1]
    depth = len({name.removeprefix(blocks).split(".")[0] for name in shapes if name.startswith(blocks)})
    conv = shapes.get("conv_in.weight")
    return MotionAdapterConfig.from_dict(
        {
            "block_out_channels": widths,
            "motion_layers_per_block": counts,
            "motion_transformer_layers_per_block": depth,
            "motion_max_seq_length": frames,
            "use_motion_mid_block": any(name.startswith("mid_block.") for name in shapes),
            "conv_in_channels": conv and conv[1],
        },
        str(path),
    )
