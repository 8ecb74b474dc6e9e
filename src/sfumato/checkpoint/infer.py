"""What a checkpoint is, worked out from its configurations, each conclusion with its reason."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sfumato.checkpoint.families import FAMILIES, Defaults, Family
from sfumato.checkpoint.layout import ENCODER, TINY, Content, Part
from sfumato.checkpoint.report import Report
from sfumato.checkpoint.schedules import path_of, prediction_of
from sfumato.config import (
    ScheduleConfig,
    TextConfig,
    TinyVAEConfig,
    UNet3DConfig,
    UNetConfig,
    UNetSpatioTemporalConfig,
    VAEConfig,
    VisionConfig,
)
from sfumato.config.model_settings import SETTINGS_FILE
from sfumato.diffusion import level
from sfumato.errors import CheckpointError
from sfumato.prompt.tokenizer import Tokenizer

MODELSCOPE_FRAMES = 16


@dataclass(frozen=True)
class TrainedRange:
    """What a distilled model has learned, beyond which it draws worse: lowest and highest, both included."""

    steps: tuple[int, int]
    guidance: tuple[float, float]


def span(low: float, high: float) -> str:
    """Both ends in words, or the one."""
    return f"{low:g} to {high:g}" if low < high else f"{low:g}"


_LCM = Defaults(sampler="lcm", steps=4, guidance=1.0, spacing="lcm")
_LCM_RANGE = TrainedRange(steps=(1, 8), guidance=(1.0, 2.0))
"""Of models that do not say, as of LCM-LoRAs: guidance is in what they have learned (Luo et al. 2023b)."""
_LCM_TOLD_GUIDANCE = replace(_LCM, guidance=8.5)
_LCM_TOLD_RANGE = replace(_LCM_RANGE, guidance=(1.0, 14.0))
"""Of those that are told it: published ones were told scales of 3 to 13 and more (Luo et al. 2023, §5)."""


@dataclass(frozen=True)
class ModelInfo:
    """What drawing needs to know about a checkpoint beyond its weights.

    `task`: "text", "inpaint", "instruct" or "animate"; `distilled`: "lcm" or `None`; `native_size`: (width,
    height) in pixels; `factor`: pixels to a latent.
    """

    family: Family
    task: str
    distilled: str | None
    prediction: str
    path: level.Path | level.DynamicFlow
    native_size: tuple[int, int]
    factor: int
    defaults: Defaults
    trained_range: TrainedRange | None = None
    """Of a distilled model."""
    frames: int | None = None
    """How many frames it draws at once, of a model of clips."""


def model_info(content: Content, schedule: ScheduleConfig, report: Report) -> ModelInfo:
    """Conclude everything, record it in `report`, and hold the components against each other.

    Raises `CheckpointError` where they contradict one another.
    """
    parts, own, reasons = content.parts, content.own, content.reasons
    unet, vae = parts["unet"].config, parts["vae"].config
    assert isinstance(unet, UNetConfig)
    assert isinstance(vae, VAEConfig | TinyVAEConfig)
    encoders = [part.config for name, part in parts.items() if name.startswith("text_encoder")]
    text = [config for config in encoders if isinstance(config, TextConfig)]
    family = _family(unet, text, report)
    seen = parts[ENCODER].config if ENCODER in parts else None
    _check_context(unet, seen if isinstance(seen, VisionConfig) else text)
    task = _task(unet, vae, report)
    _check_windows(content.tokenizers)
    for name in {"vae", TINY} & parts.keys():
        _check_pictures(parts[name])
    if TINY in parts:
        _check_tiny(parts[TINY], vae)
    if schedule.clips:
        report.infer("clipping", "left out", "clip_sample keeps pixels within ±1; latents reach further")
    if schedule.thresholds:
        ratio, most = schedule.dynamic_thresholding_ratio, schedule.sample_max_value
        report.infer("thresholding", f"of {ratio:g} of the numbers, at most {most:g}", "thresholding = True")
    distilled, told = _distilled(unet, schedule, report), unet.time_cond_proj_dim is not None
    if schedule.use_flow_sigmas and not schedule.is_flow:
        stated = f"use_flow_sigmas and prediction_type = {schedule.prediction_type!r}"
        raise CheckpointError(f"scheduler: {stated} exclude each other: say --prediction flow")
    prediction = prediction_of(schedule)
    stated = f"prediction_type = {schedule.prediction_type!r}"
    if schedule.is_edm:
        data = "" if schedule.is_continuous else f", sigma_data = {schedule.sigma_data:g}"
        stated += f" of {schedule.class_name}{data}"
    report.infer("prediction", prediction, reasons.get("prediction", stated))
    path, named, reason = path_of(schedule)
    report.infer("path", named, reason)
    native = _native_size(unet, vae.factor, family.published_size, own, report, reasons)
    latent = f"{vae.latent_channels} × {native[1] // vae.factor} × {native[0] // vae.factor}"
    report.infer("latent", latent, f"the autoencoder makes one latent of {vae.factor} × {vae.factor} pixels")
    report.infer("latent scale", _scale(vae), reasons.get("latent scale", "vae/config.json"))
    return ModelInfo(
        family=family,
        task=task,
        distilled=distilled,
        prediction=prediction,
        path=path,
        native_size=native,
        factor=vae.factor,
        defaults=_defaults(family, schedule, distilled, told, own, report),
        trained_range=_trained_range(distilled, told, own, report),
        frames=_frames(unet, reasons, report),
    )


def _family(unet: UNetConfig, text: list[TextConfig], report: Report) -> Family:
    for family in FAMILIES.values():
        if family.unet is type(unet) and family.unet is not UNetConfig:
            report.infer("kind", family.name, f"the UNet is a {unet.CLASS}")
            return family
    last = text[-1]
    if unet.addition_embed_type == "text_time":
        told, each = unet.projection_class_embeddings_input_dim or 0, unet.addition_time_embed_dim or 1
        pooled = last.projection_dim or 0
        for family in FAMILIES.values():
            count = family.size_numbers
            if count and told == pooled + count * each and last.with_projection:
                what = f"the UNet is told pooled text and {count} numbers of {each} channels about the size"
                report.infer("kind", family.name, what)
                return family
        raise CheckpointError(
            f"unet: projection_class_embeddings_input_dim = {told} must be the pooled text's width {pooled} "
            f"plus 6 × {each} (SDXL) or 5 × {each} (its refiner)"
        )
    width, layers = unet.context[-1], last.num_hidden_layers
    for family in FAMILIES.values():
        if width == family.context and not family.size_numbers and family.unet is UNetConfig:
            reason = f"cross attention is {width} wide, the text encoder has {layers} layers"
            if layers != family.text_layers:
                reason += f" ({family.text_layers} in the published ones)"
            report.infer("kind", family.name, reason)
            return family
    family = FAMILIES["latent-diffusion"]
    report.infer("kind", family.name, f"cross attention is {width} wide: none of the published families")
    return family


def _task(unet: UNetConfig, vae: VAEConfig | TinyVAEConfig, report: Report) -> str:
    channels = vae.latent_channels
    if unet.out_channels != channels:
        raise CheckpointError(
            f"unet: out_channels = {unet.out_channels} must be the autoencoder's latent_channels = {channels}"
        )
    if isinstance(unet, UNetSpatioTemporalConfig):
        if unet.in_channels != 2 * channels:
            raise CheckpointError(
                f"unet: in_channels = {unet.in_channels} must be {2 * channels}: the latent and the picture's"
            )
        report.infer(
            "task", "animate", f"the UNet takes {2 * channels} channels: the latent and the picture's"
        )
        return "animate"
    for task, count, why in (
        ("text", channels, "the latent"),
        ("inpaint", 2 * channels + 1, "the latent, the mask and the masked picture's latent"),
        ("instruct", 2 * channels, "the latent and the given picture's latent"),
    ):
        if unet.in_channels == count:
            report.infer("task", task, f"the UNet takes {count} channels: {why}")
            return task
    raise CheckpointError(
        f"unet: in_channels = {unet.in_channels} is not supported; with {channels} latent channels it is "
        f"{channels} (text to image), {2 * channels} (instructions) or {2 * channels + 1} (inpainting)"
    )


def _frames(unet: UNetConfig, reasons: Mapping[str, str], report: Report) -> int | None:
    if isinstance(unet, UNetSpatioTemporalConfig):
        frames, reason = unet.num_frames, f"unet num_frames = {unet.num_frames}"
    elif isinstance(unet, UNet3DConfig):
        frames, reason = MODELSCOPE_FRAMES, "as the published models of this kind were trained"
    else:
        return None
    report.infer("frames", frames, reasons.get("frames", reason))
    return frames


def _check_pictures(part: Part) -> None:
    assert isinstance(part.config, VAEConfig | TinyVAEConfig)
    for key in ("in_channels", "out_channels"):
        if (count := getattr(part.config, key)) != 3:
            raise CheckpointError(
                f"{part.where}: an autoencoder of pictures with {count} channels ({key}); a picture has 3"
            )


def _check_windows(tokenizers: Mapping[str, Tokenizer]) -> None:
    limits = {name: tokenizer.limit for name, tokenizer in tokenizers.items()}
    if len(set(limits.values())) > 1:
        told = " and ".join(f"{name} makes windows of {limit} tokens" for name, limit in limits.items())
        raise CheckpointError(f"{told} (model_max_length): the text encoders are read side by side")


def _check_tiny(part: Part, vae: VAEConfig | TinyVAEConfig) -> None:
    tiny = part.config
    assert isinstance(tiny, TinyVAEConfig)
    for what, own, due in (
        ("channels", tiny.latent_channels, vae.latent_channels),
        ("pixels to a side", tiny.factor, vae.factor),
    ):
        if own != due:
            raise CheckpointError(
                f"{part.where}: a decoder of latents with {own} {what}; the model's have {due}"
            )


def _distilled(unet: UNetConfig, schedule: ScheduleConfig, report: Report) -> str | None:
    if unet.time_cond_proj_dim is not None:
        reason = f"the UNet is told the guidance scale (time_cond_proj_dim = {unet.time_cond_proj_dim})"
    elif schedule.class_name == "LCMScheduler":
        reason = "the scheduler is LCMScheduler"
    else:
        return None
    report.infer("distilled", "lcm", reason)
    return "lcm"


def _check_context(unet: UNetConfig, given: VisionConfig | list[TextConfig]) -> None:
    if isinstance(given, VisionConfig):
        width, what = given.projection_dim, "an image encoder's vector"
    else:
        width, what = sum(config.hidden_size for config in given), "text states"
    if any(context != width for context in unet.context):
        raise CheckpointError(
            f"unet: cross_attention_dim = {unet.cross_attention_dim} does not fit {what} {width} wide"
        )


def _native_size(
    unet: UNetConfig,
    factor: int,
    published: Mapping[int, tuple[int, int]],
    own: Mapping[str, Any],
    report: Report,
    reasons: Mapping[str, str],
) -> tuple[int, int]:
    if "native_size" in own:
        width, height = own["native_size"]
        reason = f"{SETTINGS_FILE} says so"
    elif isinstance(unet.sample_size, int) and unet.sample_size in published:
        width, height = published[unet.sample_size]
        reason = f"sample_size {unet.sample_size} is the published models', trained at that"
    else:
        side = unet.sample_size if unet.sample_size is not None else 64
        rows, columns = (side, side) if isinstance(side, int) else (side[0], side[-1])
        width, height = columns * factor, rows * factor
        reason = reasons.get("native size", f"unet sample_size {rows} × {columns}, {factor} pixels each")
        if unet.sample_size is None:
            reason = f"no sample_size is stated; Stable Diffusion's is 64, {factor} pixels each"
    if width % factor or height % factor or not (8 <= width <= 8192 and 8 <= height <= 8192):
        raise CheckpointError(f"a native size of {width} × {height} is not 8 to 8192 in steps of {factor}")
    report.infer("native size", f"{width} × {height}", reason)
    return width, height


def _defaults(
    family: Family,
    schedule: ScheduleConfig,
    distilled: str | None,
    told: bool,
    own: Mapping[str, Any],
    report: Report,
) -> Defaults:
    chosen = family.defaults if distilled is None else _LCM_TOLD_GUIDANCE if told else _LCM
    if schedule.is_edm and distilled is None:
        chosen = replace(chosen, spacing=schedule.sigma_schedule)
    stated = {key: value for key, value in own.items() if key in Defaults.__dataclass_fields__}
    defaults = Defaults(**{**vars(chosen), **stated})
    report.infer(
        "defaults",
        f"{defaults.sampler} with {defaults.spacing} spacing, {defaults.steps} steps, "
        f"guidance {defaults.guidance:g}",
        f"{SETTINGS_FILE} says so" if stated else f"what suits {distilled or family.name} models",
    )
    return defaults


def _trained_range(
    distilled: str | None, told: bool, own: Mapping[str, Any], report: Report
) -> TrainedRange | None:
    stated = own.keys() & {"steps_range", "guidance_range"}
    if distilled is None and len(stated) < 2:
        return None
    usual = _LCM_TOLD_RANGE if told else _LCM_RANGE
    steps = own.get("steps_range", usual.steps)
    guidance = own.get("guidance_range", usual.guidance)
    report.infer(
        "learned",
        f"{span(*steps)} steps, guidance {span(*guidance)}",
        f"{SETTINGS_FILE} says so" if stated else "as of published models of few steps",
    )
    return TrainedRange((steps[0], steps[1]), (guidance[0], guidance[1]))


def _scale(vae: VAEConfig | TinyVAEConfig) -> str:
    told = f"× {vae.scaling_factor:g}"
    if vae.shift_factor:
        told += f", shifted by {vae.shift_factor:g}"
    if isinstance(vae, VAEConfig) and vae.latents_mean is not None:
        told += ", normalised by latents_mean and latents_std"
    return told
