"""Checkpoints: finding, loading, describing and saving models in the diffusers layout."""

from sfumato.checkpoint.infer import Defaults, Facts
from sfumato.checkpoint.loading import inspect, load
from sfumato.checkpoint.model import Model
from sfumato.checkpoint.report import Component, Inference, Report
from sfumato.checkpoint.saving import save
from sfumato.checkpoint.source import embedded

__all__ = [
    "Component",
    "Defaults",
    "Facts",
    "Inference",
    "Model",
    "Report",
    "embedded",
    "inspect",
    "load",
    "save",
]
