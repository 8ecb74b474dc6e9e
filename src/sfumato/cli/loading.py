"""Stands in for `studio.open_studio` until that is there."""

from dataclasses import asdict
from typing import Any

from sfumato.options import DeviceOptions, ModelOptions


def open_studio(model: ModelOptions, device: DeviceOptions) -> Any:
    from sfumato import studio

    options = {name: value for name, value in asdict(device).items() if name != "trainable"}
    parts = asdict(model)
    return studio.load(parts.pop("source"), **parts, **options)
