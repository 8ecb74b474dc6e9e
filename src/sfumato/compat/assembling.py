"""From single parts to a model, and from a model to one with other parts."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sfumato import weights
from sfumato.checkpoint.infer import model_info
from sfumato.checkpoint.layout import ENCODER, Content, Part
from sfumato.checkpoint.model import Model, ModelNetwork
from sfumato.checkpoint.report import Report
from sfumato.compat.scheduler import Scheduler
from sfumato.compat.schedulers import SCHEDULERS
from sfumato.config import ScheduleConfig
from sfumato.errors import UsageError
from sfumato.nets.text import CLIPText
from sfumato.prompt.tokenizer import Tokenizer

_NAME = "parts"
"""What a model is called that was put together."""
_SAMPLE = 64
"""Numbers of each tensor by which networks are told apart."""


def assembled(
    networks: Mapping[str, ModelNetwork],
    tokenizers: Sequence[Tokenizer],
    scheduler: Mapping[str, Any],
    like: Model | None = None,
) -> Model:
    """The model of these `networks` by their places, with the settings of a scheduler.

    `like`: the model that others of its parts are from, whose name and own settings it keeps. Raises
    `CheckpointError` where the parts do not go together.
    """
    content = Content(
        parts={
            name: Part(name, net.config.CLASS, net.config, name, {}, {}) for name, net in networks.items()
        },
        scheduler=dict(scheduler),
        index=dict(like.index) if like else {},
        own=dict(like.own) if like else {},
    )
    schedule = schedule_of(scheduler)
    report = Report(like.name if like else _NAME)
    info = model_info(content, schedule, report)
    made: dict[str, Any] = {
        "unet": networks["unet"],
        "vae": networks["vae"],
        "text_encoders": [network for network in networks.values() if isinstance(network, CLIPText)],
        "tokenizers": list(tokenizers),
        "vision": networks.get(ENCODER),
        "info": info,
        "report": report,
        "fingerprint": _fingerprint(networks),
    }
    if like is not None:
        return replace(like, **made)
    return Model(name=_NAME, schedule=schedule, scheduler=content.scheduler, index={}, own={}, **made)


def schedule_of(scheduler: Mapping[str, Any]) -> ScheduleConfig:
    """The noise schedule in a scheduler's settings. Raises `CheckpointError`."""
    return ScheduleConfig.from_dict(scheduler, str(scheduler.get("_class_name")))


def _fingerprint(networks: Mapping[str, ModelNetwork]) -> str:
    """16 hexadecimal digits that identify the networks, from the first numbers of each tensor."""
    return weights.digest(
        {
            f"{place}.{name}": tensor.flatten()[:_SAMPLE].cpu()
            for place, network in networks.items()
            for name, tensor in network.state_dict().items()
        }
    )


def as_scheduler(value: Any) -> Scheduler:
    """A scheduler of these, or one of diffusers, by its settings. Raises `UsageError` for anything else."""
    if isinstance(value, Scheduler):
        return value
    kind = type(value).__name__
    if kind not in SCHEDULERS or not isinstance(getattr(value, "config", None), Mapping):
        raise UsageError(f"pipe.scheduler must be one of sfumato.compat, not {kind}")
    return SCHEDULERS[kind].from_config(value.config)
