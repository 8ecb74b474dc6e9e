"""Recipes from TOML: keys of the run itself at the top, then a table for each section.

An unknown key is an error that names the nearest, and a key of an earlier version one that names today's.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from sfumato.config.base import Config
from sfumato.errors import UsageError, nearest, warn
from sfumato.files import read_file
from sfumato.train.objectives import OBJECTIVES
from sfumato.train.recipe import AdapterSection, Optimizer, Recipe, Samples, Validation

MAX_FILE_BYTES = 1 << 20

RENAMED = {
    "accumulate": "gradient_accumulation",
    "batch": "batch_size",
    "cache_texts": "data.cache_text_embeddings",
    "captions": "data.captions_per_picture",
    "clip": "optimizer.max_grad_norm",
    "composed": "data.composed_texts",
    "crop": "data.crop (of the objective 'tiny': data.crop_size)",
    "data": "data.folder",
    "decay": "optimizer.decay_steps",
    "drop": "objective.feature_dropout",
    "drop_tags": "data.tag_dropout",
    "drop_text": "data.caption_dropout",
    "ema": "ema_decays",
    "first_intervals": "objective.initial_discretization_steps",
    "guidance": "samples.guidance_scale",
    "guided": "objective.guidance_range",
    "halves": "objective.student_steps",
    "huber": "objective.huber_c",
    "intervals": "objective.discretization_steps",
    "keep_every": "checkpoint_every",
    "kl": "objective.kl_weight",
    "last_intervals": "objective.final_discretization_steps",
    "layers": "adapter.target_modules",
    "length": "objective.max_tokens",
    "mirror": "data.horizontal_flip",
    "objective": "objective.name",
    "only_decoder": "objective.decoder_only",
    "others": "data.dictionary_texts",
    "pictures": "data.max_pictures",
    "rank": "adapter.rank",
    "rate": "optimizer.learning_rate",
    "ratio": "data.max_aspect_ratio",
    "result": "result_ema",
    "samples": "samples.prompts",
    "samples_every": "samples.every",
    "schedule": "optimizer.lr_schedule",
    "size": "data.resolution",
    "slow": "objective.target_ema",
    "tints": "data.tints_per_icon",
    "told": "objective.guidance_embedding",
    "walks": "objective.trajectories",
    "warmup": "optimizer.warmup_steps",
}
"""What keys of recipes without sections, as earlier versions read them, are called today."""


def read(path: Path, changes: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe in the TOML file `path`, with `changes` to its keys, dotted inside a section.

    Raises `UsageError`.
    """
    return parse(toml(path), str(path), changes)


def parse(mapping: Mapping[str, Any], where: str, changes: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe in `mapping`, the content of the file called `where` in errors. Raises `UsageError`.

    With fewer `steps` among the `changes` than the recipe has, warmup and decay are as much shorter.
    """
    _refuse_old_names(mapping, where)
    values: dict[str, Any] = {"objective": {}, "data": {}, **mapping}
    for dotted, value in (changes or {}).items():
        section, _, key = dotted.rpartition(".")
        values |= {section: {**values.get(section, {}), key: value}} if section else {key: value}
    if "steps" in (changes or {}):
        values["optimizer"] = _shortened(mapping, values["steps"], where)
    name = values["objective"].get("name")
    unknown = [key for key, value in mapping.items() if isinstance(value, dict) and key not in _keys(Recipe)]
    if unknown:
        raise UsageError(f"{where}: unknown section {unknown[0]!r}; {nearest(unknown[0], _keys(Recipe))}")
    if name not in OBJECTIVES:
        raise UsageError(
            f"{where}: [objective] name is {name!r}: not known; {nearest(str(name), OBJECTIVES)}"
        )
    objective = OBJECTIVES[name]
    values["objective"] = {key: value for key, value in values["objective"].items() if key != "name"}
    values.setdefault("start", objective.STARTS[0])
    kinds: dict[str, type[Config]] = {
        "objective": objective,
        "data": objective.DATA,
        "optimizer": Optimizer,
        "adapter": AdapterSection,
        "samples": Samples,
        "validation": Validation,
    }
    for key, value in values.items():
        if key in kinds:
            if not isinstance(value, dict):
                raise UsageError(f"{where}: {key} is {value!r}: must be a table, [{key}]")
            values[key] = kinds[key].from_dict(value, f"{where}: [{key}]")
        for section, kind in kinds.items():
            if key not in _keys(Recipe) and key in _keys(kind):
                raise UsageError(f"{where}: unknown key {key!r}; it belongs to [{section}]")
    recipe = Recipe.from_dict(values, where)
    optimizer = recipe.optimizer
    keys = ["warmup_steps"] + ["decay_steps"] * (optimizer.lr_schedule == "warmup-stable-decay")
    lengths = {key: length for key in keys if (length := getattr(optimizer, key))}
    if sum(lengths.values()) > recipe.steps:
        said = " and ".join(f"{key} = {length}" for key, length in lengths.items())
        warn(f"{where}: {said} are more than steps = {recipe.steps}: it never reaches learning_rate")
    return recipe


def _shortened(mapping: Mapping[str, Any], steps: Any, where: str) -> Any:
    """The recipe's [optimizer], its warmup and decay shortened as `steps` are; says so."""
    optimizer, before = mapping.get("optimizer", {}), mapping.get("steps", Recipe.steps)
    whole = all(isinstance(value, int) for value in (steps, before)) and isinstance(optimizer, dict)
    if not whole or not 0 < steps < before:
        return optimizer
    shorter = {}
    for key in ("warmup_steps", "decay_steps"):
        given = optimizer.get(key, getattr(Optimizer, key))
        if isinstance(given, int) and given * steps // before != given:
            shorter[key] = given * steps // before
    if shorter:
        said = " and ".join(f"{key} to {value}" for key, value in shorter.items())
        warn(f"{where}: {steps} steps in place of {before:,} shorten {said}")
    return optimizer | shorter


def _refuse_old_names(mapping: Mapping[str, Any], where: str) -> None:
    """Raise `UsageError` that names today's names for those of an earlier version."""
    kinds = (
        *OBJECTIVES.values(),
        *(each.DATA for each in OBJECTIVES.values()),
        Optimizer,
        AdapterSection,
        Samples,
        Validation,
    )
    current = {key for kind in kinds for key in _keys(kind)}
    old = [key for key, value in mapping.items() if key in RENAMED and not isinstance(value, dict)]
    for table in mapping.values():
        if isinstance(table, dict):
            old += [key for key in table if key in RENAMED and key not in current]
    if old:
        renamed = ", ".join(f"{key} is now {RENAMED[key]}" for key in old)
        raise UsageError(f"{where}: keys of an earlier version: {renamed}")
    if mapping.get("start") == "nothing":
        raise UsageError(f"{where}: start = 'nothing' is now 'scratch'")


def _keys(kind: type[Config]) -> set[str]:
    return {each.name for each in fields(kind)}


def toml(path: Path) -> dict[str, Any]:
    """What the TOML file `path` says. Raises `UsageError`."""
    try:
        return tomllib.loads(read_file(path, MAX_FILE_BYTES).decode("utf-8-sig"))
    except OSError as error:
        raise UsageError(f"cannot read the recipe {path}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from error
