"""How a LoRA that makes a model draw in few steps wants to be drawn with: by its header, or by its name."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sfumato.config.model_settings import SETTINGS_FILE, checked_settings
from sfumato.errors import CheckpointError
from sfumato.files import parse_json

HINTS = ("sampler", "steps_range", "guidance_range")
"""Those keys of `sfumato.json` that a header may hold, in JSON, under that file's name."""
_LCM: dict[str, Any] = {"sampler": "lcm", "steps_range": [1, 8], "guidance_range": [1.0, 2.0]}
"""Of published LCM-LoRAs, whose headers do not say."""
_NAMELESS = "pytorch_lora_weights"
"""What diffusers calls every file."""


def header(settings: Mapping[str, Any]) -> dict[str, str]:
    """What goes into a file's header for `sampling_hints` to read, of a model's own `settings`."""
    return {SETTINGS_FILE: json.dumps({key: settings[key] for key in HINTS if key in settings})}


def sampling_hints(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """`HINTS` of the file `path` with this header; empty where it is a LoRA like any other.

    Raises `CheckpointError` for a header that is out of range.
    """
    if SETTINGS_FILE in metadata:
        where = f"the {SETTINGS_FILE} of {path}"
        said = checked_settings(parse_json(metadata[SETTINGS_FILE].encode("utf-8", "replace"), where), where)
        if missing := [key for key in HINTS if key not in said]:
            raise CheckpointError(f"{where} says nothing of {missing[0]}")
        return said
    name = path.parent.name if path.stem == _NAMELESS else path.stem
    return _LCM if "lcm" in re.split(r"[^a-z0-9]+", name.lower()) else {}
