"""Kohya's dataset config: a TOML file that lists folders of pictures, each with settings of its own.

    [general]
    shuffle_caption = true

    [[datasets]]
    resolution = 512

      [[datasets.subsets]]
      image_dir = "mug"
      class_tokens = "sks mug"
      num_repeats = 10

What a subset does not say its dataset does, and then `general`.
"""

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfumato.errors import DataError
from sfumato.files import read_file

SUFFIX = ".toml"
MOST_BYTES = 1 << 20
_SUBSETS = {
    "image_dir", "class_tokens", "num_repeats", "caption_extension", "caption_prefix", "caption_suffix",
    "conditioning_data_dir", "is_reg", "metadata_file",
}  # fmt: skip
_SAME = {
    "shuffle_caption": "shuffle_tags",
    "keep_tokens": "keep_tags",
    "caption_dropout_rate": "caption_dropout",
    "caption_tag_dropout_rate": "tag_dropout",
    "flip_aug": "horizontal_flip",
    "resolution": "resolution",
    "bucket_reso_steps": "bucket_step",
}
"""Settings that a recipe's [data] has under another name."""
_OURS = {"alpha_mask": ("loss_mask", "alpha"), "random_crop": ("crop", "random")}
"""Switches, and what they are in a recipe's [data]."""
_FREE = {
    "batch_size", "enable_bucket", "min_bucket_reso", "max_bucket_reso", "bucket_no_upscale", "cache_info",
    "keep_tokens_separator", "secondary_separator", "custom_attributes", "validation_seed",
    "validation_split",
}  # fmt: skip
"""Settings that are the run's own here, or change nothing."""


@dataclass(frozen=True)
class Subset:
    """A folder of pictures, and what is said of them."""

    folder: Path
    repeats: float | None = None
    """How often each is shown in an epoch, if that is said."""
    class_tokens: str = ""
    """The caption of pictures without one."""
    prefix: str = ""
    suffix: str = ""
    """What stands before and after each caption."""
    masks: Path | None = None
    """The folder of their masks, each of its picture's name."""
    metadata: Path | None = None
    """The file of kohya's that names the pictures of the folder that are learned, with their captions."""
    regularisation: bool = False
    """Whether they are of the class, and not to be learned."""

    def captions(self, own: Sequence[str]) -> tuple[str, ...]:
        """The captions of a picture that has `own`."""
        found = own or ([self.class_tokens] if self.class_tokens else [])
        joined = (" ".join(part for part in (self.prefix, one, self.suffix) if part) for one in found)
        return tuple(joined)


@dataclass(frozen=True)
class KohyaConfig:
    """The subsets of a file, and the keys of [data] that say the same as its other settings."""

    subsets: tuple[Subset, ...]
    data: Mapping[str, Any]


def is_config(path: Path) -> bool:
    """Whether `path` names a dataset config, by its suffix."""
    return path.suffix.lower() == SUFFIX and path.is_file()


def read(path: Path) -> KohyaConfig:
    """The dataset config in the TOML file `path`.

    Raises `DataError` for one that is damaged, lists no folder, or has settings that are not known here or
    that differ from one folder to another.
    """
    try:
        content = tomllib.loads(read_file(path, MOST_BYTES).decode("utf-8-sig"))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{path} is not valid TOML: {error}") from error
    datasets = content.get("datasets")
    if not _are_tables(datasets):
        raise DataError(f"{path} is no dataset config of kohya's: it must have [[datasets]]")
    assert datasets is not None
    subsets, settings = [], []
    for dataset in datasets:
        if not _are_tables(dataset.get("subsets")):
            raise DataError(f"{path}: each of [[datasets]] must have [[datasets.subsets]] with an image_dir")
        for own in dataset["subsets"]:
            shared = {key: value for key, value in dataset.items() if key != "subsets"}
            told = {**content.get("general", {}), **shared, **own}
            subsets.append(_subset(told, path))
            settings.append(_data(told, path))
    for key in {key for each in settings for key in each}:
        if any(each.get(key) != settings[0].get(key) for each in settings):
            raise DataError(f"{path}: {key} is not the same for all subsets, and a run has one alone")
    return KohyaConfig(tuple(subsets), settings[0])


def _are_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def _subset(told: Mapping[str, Any], path: Path) -> Subset:
    folder = told.get("image_dir")
    if not isinstance(folder, str):
        raise DataError(f"{path}: a subset has no image_dir, the folder of its pictures")
    extension = told.get("caption_extension", ".txt")
    if extension not in (".txt", ".caption"):
        raise DataError(f"{path}: caption_extension is {extension!r}: must be .txt or .caption")
    masks, metadata = told.get("conditioning_data_dir"), told.get("metadata_file")
    repeats = told.get("num_repeats")
    if repeats is not None and (not isinstance(repeats, int) or repeats < 1):
        raise DataError(f"{path}: num_repeats is {repeats!r}: must be 1 or more")
    return Subset(
        path.parent / folder,
        repeats,
        class_tokens=str(told.get("class_tokens") or "").strip(),
        prefix=str(told.get("caption_prefix") or "").strip(),
        suffix=str(told.get("caption_suffix") or "").strip(),
        masks=None if masks is None else path.parent / str(masks),
        metadata=None if metadata is None else path.parent / str(metadata),
        regularisation=bool(told.get("is_reg", False)),
    )


def _data(told: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The keys of [data] for the settings of a subset. Raises `DataError` for unknown ones."""
    found: dict[str, Any] = {}
    for key, value in told.items():
        if key in _SAME:
            found[_SAME[key]] = _side(value) if key == "resolution" else value
        elif key in _OURS:
            name, ours = _OURS[key]
            found |= {name: ours} if value else {}
        elif key not in _SUBSETS | _FREE and value not in (False, 0, 0.0, "", None):
            raise DataError(f"{path}: {key} = {value!r} is not supported: leave it out")
    if told.get("enable_bucket") is False:
        found["max_aspect_ratio"] = 1.0
    if told.get("conditioning_data_dir"):
        found["loss_mask"] = "files"
    return found


def _side(value: Any) -> int:
    """The side of a square of as many pixels as a resolution has, a number or two."""
    sides = value if isinstance(value, list) else [value, value]
    return round(math.sqrt(math.prod(sides)))
