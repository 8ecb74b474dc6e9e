"""A whole model in one file: which parts it holds, under which names, and what it leaves to be concluded."""

import re
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from sfumato import weights
from sfumato.checkpoint import header_config, keys, ldm_keys, shapes_to_config, video_file
from sfumato.checkpoint.families import FAMILIES, Family
from sfumato.checkpoint.grouping import FIRST, SIZE_EMBEDDING, Group, borrowed, grouped
from sfumato.checkpoint.layout import NETWORKS, TOKENIZERS, Content, Part
from sfumato.checkpoint.report import Report
from sfumato.checkpoint.video_file import is_video_file
from sfumato.checkpoint.vocabulary import PIECES, clip_tokenizer
from sfumato.config import Config, TextConfig, TinyVAEConfig, UNetConfig, VAEConfig
from sfumato.errors import CheckpointError, warn
from sfumato.prompt.tokenizer import Tokenizer
from sfumato.weights import Header

_UNREAD_INSIDE = re.compile(
    r"logit_scale|attn_mask|loss\..*|model_ema\..*|vae_scale|vae_shift|(?:.*\.)?position_ids"
)

WHOLE_LAYERS = 24
"""Layers of the OpenCLIP encoder whose states before the last one Stable Diffusion 2 reads."""
BASE_STEPS = 875_000
"""Training steps of Stable Diffusion 2's base model, the only one of its kind that predicts noise."""
SPREAD = 0.09
"""What the standard deviation of one bias lies above in v-predicting models, and below in the others."""
_SPREAD_OF = (
    "output_blocks.11.1.transformer_blocks.0.norm1.bias",
    "up_blocks.3.attentions.2.transformer_blocks.0.norm1.bias",
)
_EDM_MARKS = frozenset({"edm_mean", "edm_std"})
"""Tensors of Playground v2.5: the mean and standard deviation of the latents, by channel."""
_ZERO_SNR = "the file is marked by a tensor 'ztsnr'"
_SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "timestep_spacing": "leading",
}


def scan(
    path: Path,
    header: Header,
    report: Report,
    lent: Mapping[str, Part],
    given: Collection[str],
    prediction: str | None = None,
    configs_of: Path | None = None,
) -> Content:
    """Work out everything about the checkpoint `path`; conclusions go into `report`.

    `lent`: another model's parts, of which those are taken that the file lacks; `given`: parts that will come
    from elsewhere; `prediction`: what the UNet predicts, as schedulers call it, whatever the file says;
    `configs_of`: a model's folder whose configurations and tokenizers are taken as they are.
    Tokenizers are those of its own text encoders only. Raises `CheckpointError`.
    """
    if is_video_file(header.tensors):
        return video_file.scan(path, header, report, lent, given, configs_of)
    groups = grouped(path, header, report)
    lent = borrowed(path, groups, lent, given)
    if stated := header_config.stated(path, header, groups, report, configs_of):
        configs, content = stated
        content.parts = {name: part(path, header, own, configs[name]) for name, own in groups.items()} | lent
        return content
    family = _family(groups, lent, report)
    edm = _edm(path, header)
    reason = "asked for"
    if prediction is None and edm:
        mark = next(name for name in header.tensors if name.startswith("edm_"))
        prediction, reason = edm["prediction_type"], f"the file is marked by a tensor {mark!r}"
    elif prediction is None:
        prediction, reason = _prediction(path, header, groups["unet"], family)
    side = family.latent_sides[prediction == "v_prediction"]
    configs = {name: part.config for name, part in lent.items()}
    for name in TOKENIZERS:
        if name in groups:
            configs[name] = _text(path, groups[name], family, report)
    configs["unet"] = unet = _unet(path, groups["unet"], configs, family, side, report)
    if "vae" in groups:
        configs["vae"] = vae_config(groups["vae"], family.scaling_factor, 8 * side, str(path))
        if header.tensors.keys() >= _EDM_MARKS and isinstance(configs["vae"], VAEConfig):
            configs["vae"] = _normalised(configs["vae"], path)
    parts = {name: part(path, header, own, configs[name]) for name, own in groups.items()}
    return Content(
        parts=parts | lent,
        tokenizers={
            TOKENIZERS[name]: _tokenizer(parts[name], family) for name in TOKENIZERS if name in parts
        },
        scheduler=_scheduler(unet, family, prediction, "ztsnr" in header.tensors, edm),
        reasons={
            **({"zero terminal SNR": _ZERO_SNR} if "ztsnr" in header.tensors else {}),
            "prediction": reason,
            "native size": f"{family.name} models that predict {prediction} are trained at {8 * side} pixels",
            "latent scale": f"{family.name} models have it",
        },
    )


def _family(groups: Mapping[str, Group], lent: Mapping[str, Part], report: Report) -> Family:
    """Which of the published families it belongs to, for what no shape can tell."""
    unet = groups["unet"].tensors
    encoders = {*groups, *lent} & TOKENIZERS.keys()
    if not SIZE_EMBEDDING.isdisjoint(unet):
        two = len(encoders) == 2
        name = "sdxl" if two else "sdxl-refiner"
        reason = f"the UNet is told the size, and the text encoders are {'two' if two else 'one'}"
    elif any(name.endswith(".proj_in.weight") and len(info.shape) == 2 for name, info in unet.items()):
        name, reason = "sd2", "the UNet's attention has linear projections, as Stable Diffusion 2"
    else:
        name, reason = "sd1", "the UNet's attention has projections by convolution, as Stable Diffusion 1"
    report.infer("family", name, reason)
    return FAMILIES[name]


def _edm(path: Path, header: Header) -> dict[str, Any]:
    """The EDM schedule that a file is marked with, empty without a mark."""
    if header.tensors.keys() >= _EDM_MARKS:
        return {"_class_name": "EDMDPMSolverMultistepScheduler", "prediction_type": "epsilon"}
    if "edm_vpred.sigma_max" not in header.tensors:
        return {}
    ends = weights.read(path, names=["edm_vpred.sigma_min", "edm_vpred.sigma_max"])
    sigmas = {name.removeprefix("edm_vpred."): float(sigma.float().sum()) for name, sigma in ends.items()}
    content = {"_class_name": "EDMEulerScheduler", "prediction_type": "v_prediction", "sigma_data": 1.0}
    return content | sigmas


def _normalised(config: VAEConfig, path: Path) -> VAEConfig:
    """The autoencoder of a file that carries its latents' mean and standard deviation by channel."""
    statistics = weights.read(path, names=_EDM_MARKS)
    mean, std = (tuple(statistics[f"edm_{name}"].float().flatten().tolist()) for name in ("mean", "std"))
    content = {**config.to_dict(), "scaling_factor": 0.5, "latents_mean": [*mean], "latents_std": [*std]}
    return VAEConfig.from_dict(content, f"{path}: edm_mean, edm_std")


def _prediction(path: Path, header: Header, unet: Group, family: Family) -> tuple[str, str]:
    """What the UNet predicts, as schedulers call it, and how that is known."""
    # ComfyUI calls the standard's entry by a name of its own
    marks = (header.metadata.get(f"modelspec.{name}") for name in ("prediction_type", "predict_key"))
    said = next((mark for mark in marks if mark in ("v", "epsilon")), None)
    if "v_pred" in header.tensors:
        if said == "epsilon":
            warn(
                f"{path} is marked by a tensor 'v_pred', and its header says epsilon (modelspec): taken for "
                "v; --prediction decides"
            )
        return "v_prediction", "the file is marked by a tensor 'v_pred'"
    if said:
        return "v_prediction" if said == "v" else "epsilon", f"the header says so (modelspec: {said})"
    if not family.predicts_v:
        return "epsilon", f"{family.name} models do, where no mark says otherwise"
    first = next(unet.tensors[name].shape for name in FIRST if name in unet.tensors)
    if len(first) == 4 and first[1] != 4:
        return "epsilon", "Stable Diffusion 2's models that are given a picture do"
    step = None
    if "global_step" in header.tensors:
        step = int(weights.read(path, names=["global_step"])["global_step"].float().sum())
        if step == BASE_STEPS:
            return "epsilon", f"global_step is {step:,}, as in Stable Diffusion 2's base model"
    for name in _SPREAD_OF:
        key = unet.place.prefix + name
        if name in unet.tensors:
            spread = float(weights.read(path, names=[key])[key].float().std(correction=0))
            if spread > SPREAD:
                return "v_prediction", f"{name} spreads by {spread:.3f}, over {SPREAD}"
            if spread > 0:
                return "epsilon", f"{name} spreads by {spread:.3f}; models that predict v, over {SPREAD}"
    if step is not None:
        return "v_prediction", f"global_step is {step:,}; the base model's is {BASE_STEPS:,}"
    return "v_prediction", "Stable Diffusion 2 does, but its base model: --prediction epsilon is for that"


def _unet(
    path: Path, group: Group, configs: Mapping[str, Config], family: Family, side: int, report: Report
) -> UNetConfig:
    last = configs.get("text_encoder_2") or configs["text_encoder"]
    assert isinstance(last, TextConfig)
    return shapes_to_config.unet(
        group.tensors,
        group.original,
        pooled=last.projection_dim if last.with_projection else None,
        numbers=family.size_numbers,
        fixed={"sample_size": side, "upcast_attention": family.upcast_attention},
        where=str(path),
        infer=report.infer,
    )


def _text(path: Path, group: Group, family: Family, report: Report) -> TextConfig:
    name, open_clip = group.place.part, group.place.open_clip
    tensors = {key.removeprefix(keys.TEXT_PREFIX): info for key, info in group.tensors.items()}
    layers = shapes_to_config.text_layers(tensors, open_clip)
    if open_clip:
        act, reason = "gelu", "OpenCLIP's names"
        projected = group.place.prefix.startswith(ldm_keys.CONDITIONER)
        if not projected and (layers == WHOLE_LAYERS or "text_projection" in tensors):
            reason += f"; Stable Diffusion 2 reads the states before the last of its {layers} layers"
            layers -= 1
    else:
        projected = name == "text_encoder_2"
        act = "gelu" if projected or family.open_clip else "quick_gelu"
        reason = f"transformers' names, in a model of the family {family.name}"
    config = shapes_to_config.text(
        tensors, open_clip, layers=layers, act=act, projected=projected, where=str(path)
    )
    whose = "OpenCLIP" if config.hidden_act == "gelu" else "OpenAI's CLIP"
    report.infer(name, f"{whose}, {config.num_hidden_layers} layers of {config.hidden_size}", reason)
    return config


def vae_config(group: Group, scaling: float, side: int, where: str) -> VAEConfig | TinyVAEConfig:
    """The configuration of an autoencoder; a full one multiplies its latents by `scaling`."""
    for original, mark in ((True, "taesd_"), (False, "encoder.layers.")):
        if any(name.startswith(mark) for name in group.tensors):
            return shapes_to_config.tiny_vae(group.tensors, original, where)
    return shapes_to_config.vae(group.tensors, group.original, scaling, side, where)


def part(path: Path, header: Header, group: Group, config: Config) -> Part:
    """The network that `config` describes, with those of the group's tensors that it has."""
    name, prefix, open_clip = group.place.part, group.place.prefix, group.place.open_clip
    unread, own_names = _UNREAD_INSIDE, not group.original
    if isinstance(config, TextConfig):
        own_names = not open_clip
        if not config.with_projection:
            last = rf"|transformer\.resblocks\.{config.num_hidden_layers}\..*" if open_clip else ""
            unread = re.compile(rf"{unread.pattern}|text_projection(?:\.weight)?{last}")
    table = None if own_names else partial(ldm_keys.table_of, config, prefix, open_clip)
    class_name = next(known for known, kind in NETWORKS[name].items() if isinstance(config, kind))
    if isinstance(config, TextConfig):
        class_name = config.to_dict()["architectures"][0]
    owned = {f"{prefix}{key}": info for key, info in group.tensors.items() if not unread.fullmatch(key)}
    return Part(name, class_name, config, str(path), {path: header}, owned, prefix=prefix, table=table)


def _tokenizer(part: Part, family: Family) -> Tokenizer:
    assert isinstance(part.config, TextConfig)
    if part.config.vocab_size < PIECES:
        raise CheckpointError(
            f"{part.where}: the text encoder knows {part.config.vocab_size:,} pieces of text, and CLIP's "
            f"vocabulary has {PIECES:,}; another vocabulary has to come with the model, as in a folder"
        )
    return clip_tokenizer("!") if family.open_clip or part.name == "text_encoder_2" else clip_tokenizer()


def _scheduler(
    unet: UNetConfig, family: Family, prediction: str, zero_snr: bool, edm: Mapping[str, Any]
) -> dict[str, Any]:
    """The noise that it was trained on, as a scheduler's configuration."""
    if edm:
        return {**edm, "prediction_type": prediction}
    named = family.scheduler if unet.time_cond_proj_dim is None else {"_class_name": "LCMScheduler"}
    content = {**named, **_SCHEDULE, "prediction_type": prediction}
    return content | {"rescale_betas_zero_snr": True} if zero_snr else content
