"""What PEFT keeps beside the tensors: kind, alpha and rank of each layer, what else changes the result."""

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from sfumato.errors import CheckpointError
from sfumato.files import parse_json, read_json

HEADER = "lora_adapter_metadata"
BESIDE = "adapter_config.json"

_KINDS = ("LORA", "LOHA", "LOKR")
_BASE_CHANGED = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Ways of beginning that change the base model's weights too."""
_UNSUPPORTED = (
    "use_qalora",
    "use_bdlora",
    "alora_invocation_tokens",
    "layer_replication",
    "target_parameters",
    "kasa_config",
    "monteclora_config",
)
# Patterns come with files: none may hold a repetition of a group, which can take for ever.
_SAFE_PATTERN = re.compile(r"(?:(?:\\[.dwDW-]|[\w\-.]|\[[\w\-.]+\])[*+?]?|[()|^$])*")
_MAX_REPEATS = 2
_compiled = lru_cache(10_000)(re.compile)


@dataclass(frozen=True)
class Settings:
    """PEFT's configuration of a file; `content` is empty where there is none."""

    content: dict[str, Any]
    where: str

    @classmethod
    def of(cls, path: Path, metadata: dict[str, str]) -> "Settings":
        """From the header as diffusers writes it, or from the file that PEFT writes beside.

        Raises `CheckpointError` where either is no JSON object.
        """
        if HEADER in metadata:
            where = f"the {HEADER} of {path}"
            return cls(parse_json(metadata[HEADER].encode("utf-8", "replace"), where), where)
        beside = path.parent / BESIDE
        if path.stem == "adapter_model" and beside.is_file():
            return cls(read_json(beside), str(beside))
        return cls({}, str(path))

    def check(self, part: str) -> None:
        """Raise `CheckpointError` for an adapter of a kind that is computed in another way."""
        kind = self._field(part, "peft_type") or "LORA"
        if kind not in _KINDS:
            raise CheckpointError(
                f"{self.where} is of the kind {kind}, which is not supported; {', '.join(_KINDS)} are"
            )
        begun = self._field(part, "init_lora_weights")
        if isinstance(begun, str) and begun.lower().startswith(_BASE_CHANGED):
            raise CheckpointError(
                f"{self.where} was begun by {begun}, which changes the base model too; save it in PEFT with "
                "path_initial_model_for_weight_conversion"
            )
        if used := next((name for name in _UNSUPPORTED if self._field(part, name)), None):
            raise CheckpointError(f"{self.where} has {used}, which is not supported")

    def alpha(self, part: str, layer: str) -> float | None:
        """alpha of one layer, by the network's place and the layer's path."""
        own = self._pattern(part, "alpha_pattern", layer)
        for value in (own, self._field(part, "lora_alpha"), self._field(part, "alpha")):
            if value is not None:
                return self._number(value, "alpha")
        return None

    def rank(self, part: str, layer: str) -> int | None:
        """The rank that was asked for, which tensors do not always show."""
        own = self._pattern(part, "rank_pattern", layer)
        value = own if own is not None else self._field(part, "r")
        if value is None:
            return None
        if type(value) is not int or value < 1:
            raise CheckpointError(f"{self.where}: a rank of {value!r} must be a whole number, 1 or more")
        return value

    def rank_stabilised(self, part: str) -> bool:
        """Whether alpha is divided by the root of the rank."""
        return self._field(part, "use_rslora") is True

    def has_magnitudes(self, part: str) -> bool:
        """Whether every layer is a DoRA."""
        return self._field(part, "use_dora") is True

    def _field(self, part: str, name: str) -> Any:
        return self.content.get(f"{part}.{name}", self.content.get(name))

    def _pattern(self, part: str, name: str, layer: str) -> Any:
        """What a table of layers says of this one; as in PEFT, each is a regular expression for a path's end.

        Raises `CheckpointError` for one that is beyond what paths need.
        """
        table = self._field(part, name)
        if not isinstance(table, dict):
            return None
        for pattern, value in table.items():
            repeats = sum(map(pattern.count, "*+?"))
            if repeats > _MAX_REPEATS or len(pattern) > 500 or not _SAFE_PATTERN.fullmatch(pattern):
                raise CheckpointError(f"{self.where}: the {name} {pattern[:60]!r} cannot be read")
            try:
                found = _compiled(rf"(.*\.)?({pattern})$")
            except re.error as error:
                raise CheckpointError(f"{self.where}: the {name} {pattern[:60]!r}: {error}") from None
            if found.match(layer) or found.match(f"text_model.{layer}"):
                return value
        return None

    def _number(self, value: object, what: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise CheckpointError(f"{self.where}: {what} = {value!r} must be a number")
        return float(value)
