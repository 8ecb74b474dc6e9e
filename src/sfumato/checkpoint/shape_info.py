"""What a folder of Shap-E's is, and whether its parts go together."""

from collections.abc import Mapping

from sfumato.checkpoint.layout import ENCODER, RENDERER, Part
from sfumato.checkpoint.report import Report
from sfumato.checkpoint.schedules import path_of, prediction_of
from sfumato.config import PriorConfig, ScheduleConfig, ShapERendererConfig, TextConfig, VisionConfig
from sfumato.diffusion.level import VariancePreserving
from sfumato.errors import CheckpointError

SHAP_E = "shap-e"
"""What reports call the family."""


def shape_info(
    parts: Mapping[str, Part], schedule: ScheduleConfig, report: Report
) -> tuple[VariancePreserving, str]:
    """The path of its noise and what its network predicts; what was concluded goes into `report`.

    Raises `CheckpointError` where its parts do not go together.
    """
    prior, renderer = parts["prior"].config, parts[RENDERER].config
    assert isinstance(prior, PriorConfig)
    assert isinstance(renderer, ShapERendererConfig)
    task = "image" if ENCODER in parts else "text"
    encoder = parts[ENCODER if task == "image" else "text_encoder"].config
    assert isinstance(encoder, TextConfig | VisionConfig)
    report.infer("kind", SHAP_E, f"there is {RENDERER}")
    report.infer("task", task, f"it has the encoder of {'pictures' if task == 'image' else 'texts'}")
    if isinstance(encoder, TextConfig):
        width = encoder.projection_dim if encoder.with_projection else encoder.hidden_size
    else:
        width = encoder.hidden_size
    if width != prior.condition_width:
        raise CheckpointError(
            f"the prior reads vectors of {prior.condition_width} numbers (embedding_proj_dim), and the "
            f"encoder makes ones of {width}"
        )
    latent = f"{prior.num_embeddings} × {prior.embedding_dim}"
    if renderer.d_latent != prior.embedding_dim or renderer.vectors > prior.num_embeddings:
        raise CheckpointError(
            f"the prior makes latents of {latent}, and {RENDERER} reads ones of {renderer.vectors} × "
            f"{renderer.d_latent}"
        )
    prediction = prediction_of(schedule)
    path, named, reason = path_of(schedule)
    if not isinstance(path, VariancePreserving):
        raise CheckpointError(f"a prior needs a path that preserves variance, and {reason}")
    report.infer("prediction", prediction, f"prediction_type = {schedule.prediction_type!r}")
    report.infer("path", named, reason)
    if schedule.clips:
        report.infer("clipping", f"±{schedule.clip_sample_range:g}", "clip_sample = True")
    report.infer("latent", latent, "prior/config.json")
    return path, prediction
