"""Stable Video Diffusion in one file: its parts, under the names of the programs that it came from."""

from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path

from sfumato.checkpoint import header_config, ldm_keys, shapes_to_config
from sfumato.checkpoint.families import FAMILIES
from sfumato.checkpoint.layout import ENCODER, Content, Part
from sfumato.checkpoint.ldm_keys import PICTURE_ENCODER, UNET, VAE, VISION
from sfumato.checkpoint.report import Report
from sfumato.config import Config
from sfumato.errors import CheckpointError
from sfumato.weights import Header, TensorInfo

_MARK = ".time_stack."
"""What the names of layers that look across frames hold, and no others."""
_UNREAD = (
    f"{VAE}encoder.",  # which PICTURE_ENCODER repeats
    f"{PICTURE_ENCODER}decoder.",
    f"{PICTURE_ENCODER}post_quant_conv.",
    VISION.removesuffix("visual."),
    *("model_ema.", "denoiser.", "sigmas"),
)
_PLACES = {"unet": (UNET,), "vae": (f"{VAE}decoder.", PICTURE_ENCODER), ENCODER: (VISION,)}
_CALLED = {"unet": "UNet", "vae": "autoencoder", ENCODER: "image encoder"}
FRAMES, XT_FRAMES = 14, 25
"""Of the two published models."""


def is_video_file(names: Collection[str]) -> bool:
    """Whether these are the names of the tensors of Stable Video Diffusion's file."""
    return any(name.startswith(UNET) and _MARK in name for name in names)


def scan(
    path: Path,
    header: Header,
    report: Report,
    lent: Mapping[str, Part],
    given: Collection[str],
    configs_of: Path | None = None,
) -> Content:
    """Everything about the file `path`, as `single.scan` has it of models that draw pictures.

    Raises `CheckpointError`.
    """
    groups = _grouped(path, header, report)
    taken = {name: part for name, part in lent.items() if name in _PLACES and name not in {*groups, *given}}
    if missing := [_CALLED[name] for name in _PLACES if name not in {*groups, *taken, *given}]:
        raise CheckpointError(
            f"{path} is Stable Video Diffusion without its {' and its '.join(missing)}; "
            "--base MODEL takes what is missing from another"
        )
    if stated := header_config.stated(path, header, groups, report, configs_of):
        configs, content = stated
    else:
        frames, reason = _frames(path)
        configs = _concluded(path, groups, frames, report)
        content = Content(scheduler=_scheduler(), reasons={"frames": reason} if "unet" in groups else {})
    content.parts = {name: _part(name, path, header, configs[name], own) for name, own in groups.items()}
    content.parts |= taken
    return content


def _grouped(path: Path, header: Header, report: Report) -> dict[str, dict[str, TensorInfo]]:
    """The tensors of each part. Raises `CheckpointError` for those of none."""
    groups: dict[str, dict[str, TensorInfo]] = {}
    unread, unknown = [], []
    for name, info in header.tensors.items():
        owner = next((part for part, prefixes in _PLACES.items() if name.startswith(prefixes)), None)
        if owner is not None and not name.startswith(_UNREAD[1:3]):
            groups.setdefault(owner, {})[name] = info
        elif name.startswith(_UNREAD):
            unread.append(name)
        else:
            unknown.append(name)
    if unknown:
        more = f" and {len(unknown) - 1} more" if unknown[1:] else ""
        raise CheckpointError(
            f"{path} holds {unknown[0]!r}{more}, which belong to no part of Stable Video Diffusion"
        )
    report.infer("layout", "one file, original keys", f"prefixes: {UNET}, {VAE}, {PICTURE_ENCODER}, {VISION}")
    if unread:
        report.infer("not read", ", ".join(unread[:4]), "drawing does without, or they repeat what is read")
    return groups


def _frames(path: Path) -> tuple[int, str]:
    """How many frames it draws at once, which no tensor tells, and how that is known."""
    if "xt" in path.stem.lower():
        return XT_FRAMES, "the file's name has 'xt', as that of the published model which draws so many"
    return FRAMES, f"as the published model; the one of {XT_FRAMES} has 'xt' in its name"


def _concluded(
    path: Path, groups: Mapping[str, Mapping[str, TensorInfo]], frames: int, report: Report
) -> dict[str, Config]:
    """The configurations by names and shapes, and by what is the same in the published models."""
    where, family = str(path), FAMILIES["svd"]
    side, factor = family.latent_sides[0], 8
    configs: dict[str, Config] = {}
    if "unet" in groups:
        tensors = _inside(groups["unet"], UNET)
        configs["unet"] = shapes_to_config.spatio_temporal_unet(tensors, frames, side, where, report.infer)
    if "vae" in groups:
        tensors = _inside(groups["vae"], VAE) | _inside(groups["vae"], PICTURE_ENCODER)
        configs["vae"] = shapes_to_config.temporal_vae(tensors, family.scaling_factor, factor * side, where)
    if ENCODER in groups:
        configs[ENCODER] = shapes_to_config.open_clip_vision(_inside(groups[ENCODER], VISION), where)
    return configs


def _inside(tensors: Mapping[str, TensorInfo], prefix: str) -> dict[str, TensorInfo]:
    return {name[len(prefix) :]: info for name, info in tensors.items() if name.startswith(prefix)}


def _part(name: str, path: Path, header: Header, config: Config, tensors: dict[str, TensorInfo]) -> Part:
    prefix = {"unet": UNET, "vae": VAE, ENCODER: VISION}[name]
    table = partial(ldm_keys.table_of, config, prefix, False)
    class_name = config.CLASS or "CLIPVisionModelWithProjection"
    return Part(name, class_name, config, str(path), {path: header}, tensors, table=table)


def _scheduler() -> dict[str, object]:
    """The noise that the published models were trained on."""
    return {**FAMILIES["svd"].scheduler, "prediction_type": "v_prediction"}
