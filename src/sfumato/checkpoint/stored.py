"""A model whose weights stay in its files: read one parameter at a time, and written anew with some changed.

Neither takes more memory than the largest tensor, whatever the layout is.
"""

import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from torch import Tensor

from sfumato import weights
from sfumato.checkpoint import ldm_keys
from sfumato.checkpoint.layout import FAST, INDEX
from sfumato.checkpoint.ldm_keys import SourceKey, Table
from sfumato.checkpoint.loading import empty_network, expected_shapes, table_of_part
from sfumato.checkpoint.scan import scan
from sfumato.errors import CheckpointError, warn
from sfumato.files import check_room, replace_atomically, replace_folder
from sfumato.options import ModelOptions
from sfumato.weights import DTYPES, OpenFile

Change = Callable[[str, str, Tensor], Tensor]
"""From a network's place, a parameter's path there, and its numbers, to its new ones, of the same dtype."""
_EMA = "model_ema."
_WEIGHTS = (".safetensors", ".bin", ".ckpt", ".pt", ".pth", ".msgpack", ".h5", ".onnx", ".gguf")
_HASH = "modelspec.hash_sha256"


class StoredModel:
    """The model `source`, open in the block that it is entered for.

    `parameters`: the shape of each by its path, by the network's place. Raises `CheckpointError` as
    `checkpoint.load` does, short of what the numbers are.
    """

    def __init__(self, source: str) -> None:
        self.found = scan(ModelOptions.of(source))
        self.place = self.found.place
        self.name = source if not Path(source).exists() else self.place.stem
        if self.found.adapters:
            raise CheckpointError(f"{source} is an adapter for another model; name that one")
        self.info = self.found.model_info()
        self.fingerprint = self.found.identify()
        self.parameters: dict[str, dict[str, tuple[int, ...]]] = {}
        self._tables: dict[str, Table] = {}
        for name, part in self.found.parts.items():
            self.parameters[name] = expected_shapes(empty_network(part.config).state_dict())
            self._tables[name] = table_of_part(part, self.parameters[name])
        self._files: dict[Path, OpenFile] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        self._files.clear()

    def read(self, part: str, parameter: str) -> Tensor:
        """One parameter as it is stored."""
        origin = self._tables[part][parameter]
        headers = self.found.parts[part].headers
        path = next(path for path, header in headers.items() if origin.key in header.tensors)
        tensor = ldm_keys.taken(self._open(path).read(origin.key), origin)
        return tensor.reshape(self.parameters[part][parameter])

    def write(
        self,
        target: Path,
        change: Change,
        metadata: Mapping[str, str] | None = None,
        *,
        overwrite: bool = False,
    ) -> None:
        """Write the model in its own layout, with every parameter of its networks as `change` makes it.

        `metadata` goes into the header of a single file besides what was there. Of a folder, only weights
        that `checkpoint.load` would read are written. Raises `OutputError` where that cannot be.
        """
        if self.place.is_file():
            size = self.place.stat().st_size
            check_room(target, size)
            self._write_file(self.place, target, change, metadata)
            return
        used = {path for part in self.found.parts.values() for path in part.files}
        with replace_folder(target, marker=INDEX, overwrite=overwrite) as beside:
            check_room(target, sum(path.stat().st_size for path in used))
            for path in sorted(self.place.rglob("*")):
                inside = path.relative_to(self.place)
                if not path.is_file() or any(name.startswith(".") for name in inside.parts):
                    continue
                in_part = inside.parts[0] in self.found.parts
                at_top = len(inside.parts) == 1 and inside.name != FAST
                if path not in used and (in_part or at_top) and _holds_weights(path, used):
                    continue
                (beside / inside.parent).mkdir(parents=True, exist_ok=True)
                if path in used:
                    self._write_file(path, beside / inside, change, None)
                else:
                    shutil.copyfile(path, beside / inside)

    def _write_file(
        self, path: Path, target: Path, change: Change, metadata: Mapping[str, str] | None
    ) -> None:
        file = self._open(path)
        origins: dict[str, list[tuple[str, str, SourceKey]]] = {}
        for part, table in self._tables.items():
            if path in self.found.parts[part].headers:
                for parameter, origin in table.items():
                    origins.setdefault(origin.key, []).append((part, parameter, origin))
        infos = {
            key: (DTYPES[info.dtype], info.shape)
            for key, info in file.header.tensors.items()
            if not key.startswith(_EMA)
        }
        if left := len(file.header.tensors) - len(infos):
            warn(f"{target} is without the {left} tensors of {_EMA}, a moving average that nothing reads")

        def tensor(key: str) -> Tensor:
            found = file.read(key)
            for part, parameter, origin in origins.get(key, ()):
                own = ldm_keys.taken(found, origin).reshape(self.parameters[part][parameter])
                changed = change(part, parameter, own)
                if changed is not own:
                    found = ldm_keys.put_back(found, origin, changed)
            return found

        kept = {key: text for key, text in file.header.metadata.items() if key != _HASH}
        with replace_atomically(target) as opened:
            weights.write_each(opened, infos, tensor, {**kept, **(metadata or {})})

    def _open(self, path: Path) -> OpenFile:
        if path not in self._files:
            self._files[path] = self._stack.enter_context(weights.opened(path))
        return self._files[path]


def _holds_weights(path: Path, used: set[Path]) -> bool:
    """Whether a file that is not used holds weights, or is the index of shards that are not."""
    if path.name.endswith(".json") and ".index." in path.name:
        return not any(each.parent == path.parent and "-of-" in each.name for each in used)
    return path.suffix.lower() in _WEIGHTS
