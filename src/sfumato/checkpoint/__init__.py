"""Checkpoints: finding, loading, describing, saving and converting models, in folders and in single files."""

from sfumato.checkpoint.converting import Conversion, convert
from sfumato.checkpoint.families import Defaults
from sfumato.checkpoint.infer import ModelInfo
from sfumato.checkpoint.loading import inspect, load
from sfumato.checkpoint.model import Model
from sfumato.checkpoint.report import Component, Inference, Report
from sfumato.checkpoint.saving import save
from sfumato.checkpoint.source import embedded

__all__ = [
    "Component",
    "Conversion",
    "Defaults",
    "Inference",
    "Model",
    "ModelInfo",
    "Report",
    "convert",
    "embedded",
    "inspect",
    "load",
    "save",
]
