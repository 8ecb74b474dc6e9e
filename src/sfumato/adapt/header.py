"""The text in an adapter's header: what it is for and how it was made, under the names that readers look for.

`ss_*` are the names of kohya's scripts, which A1111 shows; `modelspec.*` those of Stability AI's ModelSpec.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sfumato.adapt import sampling_hints
from sfumato.adapt.reading import Adapter
from sfumato.adapt.settings import HEADER
from sfumato.checkpoint.families import FAMILIES
from sfumato.checkpoint.model import Model
from sfumato.checkpoint.stored import StoredModel
from sfumato.config.model_settings import SETTINGS_FILE
from sfumato.errors import CheckpointError
from sfumato.files import open_file
from sfumato.prompt.meaning import AdapterWeight

TRIGGER = "modelspec.trigger_phrase"
TRAINING = "sfumato.training"
"""Of one that was trained here: base model, recipe and figures, in JSON."""
SOURCES = "sfumato.sources"
"""Of one made of others: their names, fingerprints and weights, in JSON."""

_BASE_VERSIONS = {"sd1": "sd_v1", "sd2": "sd_v2", "sdxl": "sdxl_base_v1-0"}
"""What kohya's scripts call the families."""
_OUTDATED = ("ss_network_", "sshs_", "modelspec.hash_sha256", HEADER, "format", SETTINGS_FILE)
"""Entries that are about a file's own tensors or layout, or are written anew."""
_LEGACY_START, _LEGACY_BYTES = 0x100000, 0x10000
"""The bytes of a checkpoint that A1111's first hash is of."""


def of_training(
    base: Model,
    *,
    title: str,
    triggers: Sequence[str] = (),
    recipe: Mapping[str, Any] | None = None,
    figures: Mapping[str, Any] | None = None,
    base_path: Path | None = None,
    kind: str = "lora",
) -> dict[str, str]:
    """The header's text for an adapter that was trained on `base`.

    `triggers`: the words to prompt with. `recipe` and `figures` are what was asked for and measured, as JSON
    would hold them. `base_path`: the base model's file or folder; other programs know a single file by its
    hash, for which it is read whole. `kind`: "lora" or "textual-inversion".
    """
    base_file = base_path if base_path is not None and base_path.is_file() else None
    named = {"name": base.name, "family": base.kind, "fingerprint": base.fingerprint}
    told = {"base": named, "recipe": recipe or {}, "figures": figures or {}}
    width, height = base.native_size
    entries = {
        **of_base(base.kind, base.prediction, kind),
        "ss_sd_model_name": base_file.name if base_file else base.name,
        "ss_output_name": title,
        "modelspec.title": title,
        "modelspec.resolution": f"{width}x{height}",
        "modelspec.prediction_type": base.prediction,
        TRAINING: json.dumps(told, ensure_ascii=False),
    }
    if triggers:
        entries[TRIGGER] = ", ".join(triggers)
    if base_file:
        entries["ss_sd_model_hash"], entries["ss_new_sd_model_hash"] = file_hashes(base_file)
    return entries


def of_base(family: str, prediction: str | None = None, kind: str = "lora") -> dict[str, str]:
    """What says which family of models an adapter is for; nothing of families that others do not know."""
    if family not in _BASE_VERSIONS:
        return {}
    entries = {"ss_base_model_version": _BASE_VERSIONS[family], "ss_v2": str(family == "sd2")}
    names = FAMILIES[family].architectures
    architecture = names.get(prediction or "") or next(iter(names.values()))
    if prediction in names or len(set(names.values())) == 1:
        entries |= {
            "modelspec.sai_model_spec": "1.0.0",
            "modelspec.architecture": f"{architecture}/{kind}",
            "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
        }
    return entries


def file_hashes(path: Path) -> tuple[str, str]:
    """A checkpoint file's hashes by A1111: its first kind (8 hexadecimal digits), and SHA-256 (64).

    Raises `CheckpointError` where it cannot be read.
    """
    try:
        with open_file(path) as file:
            file.seek(_LEGACY_START)
            legacy = hashlib.sha256(file.read(_LEGACY_BYTES)).hexdigest()[:8]
            file.seek(0)
            return legacy, hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error


def carried_over(sources: Sequence[tuple[Adapter, Mapping[str, Any]]], family: str) -> dict[str, str]:
    """The text for a file made of other files, each with what else is to be said of it, such as its weight.

    What all of them say is kept, and all their trigger words.
    """
    first, *others = (adapter.metadata for adapter, _ in sources)
    entries = of_base(family) | {
        key: text
        for key, text in first.items()
        if not key.startswith(_OUTDATED) and all(other.get(key) == text for other in others)
    }
    words = dict.fromkeys(word for adapter, _ in sources for word in adapter.triggers)
    if words and (others or TRIGGER in first):
        entries[TRIGGER] = ", ".join(words)
    if others:
        entries["modelspec.merged_from"] = ", ".join(adapter.name for adapter, _ in sources)
    if hints := next((each.sampling_hints for each, _ in sources if each.sampling_hints), None):
        entries |= sampling_hints.header(hints)
    if not others and not sources[0][1]:
        return entries
    told = [{"name": each.name, "fingerprint": each.fingerprint, **facts} for each, facts in sources]
    entries[SOURCES] = json.dumps(told, ensure_ascii=False)
    return entries


def of_folding(fingerprints: Sequence[tuple[str, str]], weights: Sequence[AdapterWeight]) -> dict[str, str]:
    """The text for a model's file that adapters with these names and fingerprints went into."""
    told = [
        {"name": name, "fingerprint": digits, "weight": each.weight, "text_weight": each.text_weight}
        for (name, digits), each in zip(fingerprints, weights, strict=True)
    ]
    return {SOURCES: json.dumps(told, ensure_ascii=False)}


def of_extraction(base: StoredModel, tuned: StoredModel, title: str) -> dict[str, str]:
    """The text for the difference of two models."""
    told = [
        {"name": model.name, "fingerprint": model.fingerprint, "weight": weight}
        for model, weight in ((base, -1), (tuned, 1))
    ]
    family, prediction = tuned.info.family.name, tuned.info.prediction
    named = {"modelspec.title": title, "ss_sd_model_name": base.name}
    return {**of_base(family, prediction), **named, SOURCES: json.dumps(told, ensure_ascii=False)}
