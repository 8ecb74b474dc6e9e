"""What PEFT keeps beside the tensors: alpha and rank of each layer."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfumato.errors import CheckpointError
from sfumato.files import parse_json, read_json

HEADER = "lora_adapter_metadata"
BESIDE = "adapter_config.json"


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

    def _field(self, part: str, name: str) -> Any:
        return self.content.get(f"{part}.{name}", self.content.get(name))

    def _pattern(self, part: str, name: str, layer: str) -> Any:
        """What a table of layers says of this one; PEFT matches the ends of paths."""
        table = self._field(part, name)
        if not isinstance(table, dict):
            return None
        for pattern, value in table.items():
            end = pattern.removeprefix("^").removesuffix("$").replace("\\.", ".").removeprefix("text_model.")
            if layer == end or (not pattern.startswith("^") and layer.endswith(f".{end}")):
                return value
        return None

    def _number(self, value: object, what: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise CheckpointError(f"{self.where}: {what} = {value!r} must be a number")
        return float(value)
