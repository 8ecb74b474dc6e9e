"""Reading and writing safetensors, strictly: every claim of a file is checked before anything acts on it.

A safetensors file is eight bytes that hold the length of a JSON header, the header (name → dtype, shape,
place), and the tensors' bytes without gaps. Pickles are never opened, because unpickling runs code.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor, nn

from sfumato import machine
from sfumato.errors import CheckpointError, nearest
from sfumato.files import check_room, open_file, parse_json, read_json, replace_atomically

MAX_HEADER_BYTES = 16 << 20
MAX_TENSORS = 20_000
MAX_DIMENSIONS = 8

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}

# Of each floating point format, the first pattern of bits, sign aside, that is no finite number.
_NOT_FINITE = {
    "F64": 0x7FF << 52,
    "F32": 0xFF << 23,
    "F16": 0x1F << 10,
    "BF16": 0xFF << 7,
    "F8_E4M3": 0x7F,
    "F8_E5M2": 0x1F << 2,
}
_CHUNK = 1 << 19

# What else people have under a model's name, by its first bytes.
_MAGICS = (
    (b"PK\x03\x04", "a zip archive, as PyTorch writes for a pickled checkpoint"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"version https://git-lfs", "a git-lfs pointer: the weights themselves were not downloaded"),
    (b"\x89HDF", "an HDF5 file"),
    (b"GGUF", "a GGUF file"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"<", "a web page: the download went wrong"),
    (b"{", "a JSON file"),
)
_PICKLE_MAGIC = re.compile(rb"\x80[\x02-\x05]")
_PICKLE_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin", ".pkl", ".pickle")
_NO_PICKLES = (
    "pickles can run code when they are loaded; convert it to safetensors by `sfumato convert --from-pickle`"
)

_PLAIN_FILE = re.compile(r"[\w\-][\w\-. ]*\.safetensors", re.ASCII)


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a header: dtype as safetensors spells it, shape, and its bytes `[begin, end)`."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def count(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """A checked header: tensors by name in the file's order, free-form text, and sizes in bytes."""

    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]
    header_bytes: int
    file_bytes: int

    @property
    def parameters(self) -> int:
        """How many numbers all tensors have together."""
        return sum(info.count for info in self.tensors.values())


def header(path: str | os.PathLike[str]) -> Header:
    """Read and check the header of a safetensors file; no tensor is read.

    Raises `CheckpointError` where it is missing, something else, truncated, or contradicts itself.
    """
    with _opened(Path(path)) as file:
        return header_of(file, Path(path))


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with open_file(path) as file:
            yield file
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing") from None
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error


def header_of(file: BinaryIO, path: Path) -> Header:
    """As `header`, of a file that is open, and called `path` in errors."""
    size = os.fstat(file.fileno()).st_size
    start = file.read(64)
    length = int.from_bytes(start[:8], "little")
    _refuse_foreign(path, start, size, length)
    file.seek(8)
    raw = file.read(length)
    if len(raw) < length:
        raise CheckpointError(
            f"{path} is truncated: its header alone takes {8 + length:,} bytes, and the file has {size:,}"
        )
    content = parse_json(raw, f"the header of {path}")
    metadata = _metadata(path, content.pop("__metadata__", {}))
    if len(content) > MAX_TENSORS:
        raise CheckpointError(f"{path} lists {len(content):,} tensors; at most {MAX_TENSORS:,} are read")
    tensors = {name: _tensor_info(path, name, entry) for name, entry in content.items()}
    _check_places(path, tensors, 8 + length, size)
    return Header(tensors, metadata, 8 + length, size)


def metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The free-form text of a file's header. Raises `CheckpointError` as `header` does."""
    return dict(header(path).metadata)


def read(
    path: str | os.PathLike[str],
    *,
    dtype: torch.dtype | None = None,
    names: Collection[str] | None = None,
) -> dict[str, Tensor]:
    """Every tensor of a safetensors file, or those among `names`, by name, on the CPU.

    Each is read by itself into memory of its own, which is given back as soon as it is dropped: a memory map
    would be held until the last one is. With `dtype`, floating point tensors are converted as they are read.
    Raises `CheckpointError` as `header` does,
    and for NaN or infinite numbers, naming the tensor.
    """
    found = {}
    with opened(path) as file:
        wanted = [info for name, info in file.header.tensors.items() if names is None or name in names]
        check_memory(bytes_of(wanted, dtype), str(path))
        for name in file.header.tensors:
            if names is None or name in names:
                tensor = file.read(name)
                found[name] = tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor
    return found


class OpenFile:
    """A safetensors file that stays open, from which tensors are read one at a time."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.path = path
        self.header = header_of(file, path)
        self._file = file

    def read(self, name: str) -> Tensor:
        """One tensor, in memory of its own, on the CPU.

        Raises `CheckpointError` for NaN or infinite numbers, and where the file was cut short meanwhile.
        """
        info = self.header.tensors[name]
        self._file.seek(self.header.header_bytes + info.begin)
        tensor, fault = _read_tensor(self._file, info)
        if fault:
            raise CheckpointError(f"{self.path} is damaged: tensor {name!r} {fault}")
        return tensor


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[OpenFile]:
    """The file, open in the block. Raises `CheckpointError` as `header` does."""
    with _opened(Path(path)) as file:
        yield OpenFile(file, Path(path))


def checked(tensors: Mapping[str, Any], where: str) -> dict[str, Tensor]:
    """A state dict in memory, detached and on the CPU.

    Raises `CheckpointError`, which begins with `where`, for what is no tensor and for numbers not finite.
    """
    found = {}
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise CheckpointError(f"{where}: {name!r} is a {type(tensor).__name__}, not a tensor")
        if not bool(tensor.isfinite().all()):
            raise CheckpointError(f"{where}: tensor {name!r} holds NaN or infinite numbers")
        found[str(name)] = tensor.detach().cpu()
    return found


def digest(tensors: Mapping[str, Tensor]) -> str:
    """16 hexadecimal digits that identify `tensors`: of SHA-256 over names and numbers in float32."""
    total = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        total.update(f"{name} {list(tensor.shape)}\n".encode())
        total.update(tensor.float().contiguous().numpy().tobytes())
    return total.hexdigest()[:16]


def body_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256, in hexadecimal digits, of the bytes that `write` puts after the header."""
    total = hashlib.sha256()
    for _, tensor in _ordered(tensors):
        total.update(_bytes(tensor))
    return total.hexdigest()


def check_memory(needed: int, where: str) -> None:
    """Raise `CheckpointError` where `needed` bytes are more than this machine has in all."""
    total = machine.memory().get("memory")
    if total is not None and needed > total:
        raise CheckpointError(
            f"{where} takes {needed / 1e9:,.1f} GB of memory, and this machine has {total / 1e9:,.1f} GB"
        )


def bytes_of(tensors: Iterable[TensorInfo], dtype: torch.dtype | None) -> int:
    """Bytes that they take once they are read; floating point numbers become `dtype`, if given."""
    kinds = ((info, dtype if dtype and _is_float(info) else DTYPES[info.dtype]) for info in tensors)
    return sum(info.count * kind.itemsize for info, kind in kinds)


def _read_tensor(file: BinaryIO, info: TensorInfo) -> tuple[Tensor, str]:
    """The tensor that begins where `file` stands, and what is wrong with it, if anything.

    Numbers are looked at while they are still in the processor's cache, which takes half as long as later.
    """
    tensor = torch.empty(info.shape, dtype=DTYPES[info.dtype])
    into = tensor.view(-1).view(torch.uint8).numpy()
    for start in range(0, into.nbytes, _CHUNK):
        chunk = into[start : start + _CHUNK]
        if file.readinto(chunk) != chunk.nbytes:  # type: ignore[attr-defined]
            return tensor, "was cut short while it was read"
        if info.dtype in _NOT_FINITE and not _is_finite(chunk, info.dtype):
            numbers = torch.from_numpy(chunk).view(tensor.dtype).float()
            return tensor, "holds NaN" if bool(numbers.isnan().any()) else "holds infinite numbers"
    return tensor, ""


def _is_finite(numbers: "np.ndarray[Any, np.dtype[np.uint8]]", dtype: str) -> bool:
    """Whether none of `numbers`, bytes of that dtype, is NaN or infinite.

    The bits of positive floats are ordered as signed whole numbers are, those of negative ones as unsigned:
    in both orders the infinities come after every finite number, and NaN after them.
    """
    size = DTYPES[dtype].itemsize
    sign = 1 << (8 * size - 1)
    first = _NOT_FINITE[dtype]
    return int(numbers.view(f"i{size}").max()) < first and int(numbers.view(f"u{size}").max()) < sign + first


def shards(index_path: str | os.PathLike[str]) -> dict[Path, list[str]]:
    """The files that an index names, each with the tensors it promises there.

    Raises `CheckpointError` for an index that is malformed or names files outside its own folder.
    """
    index_path = Path(index_path)
    weight_map = read_json(index_path, limit=MAX_HEADER_BYTES).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index_path} has no weight_map, which says what is in which file")
    if len(weight_map) > MAX_TENSORS:
        raise CheckpointError(
            f"{index_path} lists {len(weight_map):,} tensors; at most {MAX_TENSORS:,} are read"
        )
    found: dict[Path, list[str]] = {}
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or not _PLAIN_FILE.fullmatch(shard):
            raise CheckpointError(
                f"{index_path} puts {name!r} into {shard!r}; a shard is a .safetensors file beside it"
            )
        found.setdefault(index_path.parent / shard, []).append(name)
    return found


def sharded_header(index_path: str | os.PathLike[str]) -> dict[Path, Header]:
    """The checked header of every shard. Raises `CheckpointError` where shards and index disagree."""
    promised = shards(index_path)
    for path in promised:
        if not path.exists():
            raise CheckpointError(f"{path} is missing, which {Path(index_path).name} names")
    headers = {path: header(path) for path in promised}
    home = {name: path for path, names in promised.items() for name in names}
    for path, found in headers.items():
        for name in found.tensors:
            if home.get(name) != path:
                where = f"promised in {home[name].name}" if name in home else "not in the index"
                raise CheckpointError(f"{path} holds {name!r}, which is {where}")
    for path, names in promised.items():
        for name in names:
            if name not in headers[path].tensors:
                raise CheckpointError(f"{path} lacks {name!r}, which {Path(index_path).name} promises there")
    return headers


def write(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write `tensors` and the header text `metadata` as one safetensors file, atomically.

    Raises `OutputError`; `ValueError` for what `read` would refuse.
    """
    check_room(Path(path), sum(tensor.nbytes for tensor in tensors.values()))
    with replace_atomically(path) as file:
        write_to(file, tensors, metadata)


def write_to(
    file: BinaryIO, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """As `write`, into a file that is open.

    Tensors are written one after another, so that no second copy of them all is made.
    """
    infos = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    write_each(file, infos, tensors.__getitem__, metadata)


def write_each(
    file: BinaryIO,
    infos: Mapping[str, tuple[torch.dtype, tuple[int, ...]]],
    tensor: Callable[[str], Tensor],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """As `write_to`, with each tensor asked for when it is due, by its name; `infos`: dtypes and shapes."""
    ordered = sorted(infos, key=lambda name: (-infos[name][0].itemsize, name))
    content: dict[str, Any] = {}
    if metadata:
        content["__metadata__"] = dict(sorted(metadata.items()))
    place = 0
    for name in ordered:
        if fault := _name_fault(name):
            raise ValueError(f"a tensor cannot be named {name!r}: {fault}")
        dtype, shape = infos[name]
        size = math.prod(shape) * dtype.itemsize
        content[name] = {
            "dtype": _NAMES[dtype],
            "shape": list(shape),
            "data_offsets": [place, place + size],
        }
        place += size
    raw = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    raw += b" " * (-len(raw) % 8)
    if len(raw) > MAX_HEADER_BYTES or len(ordered) > MAX_TENSORS:
        raise ValueError(
            f"{len(ordered):,} tensors or a header of {len(raw):,} bytes are too many for one file"
        )
    file.write(len(raw).to_bytes(8, "little") + raw)
    for name in ordered:
        file.write(_bytes(tensor(name)))


def _ordered(tensors: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
    """`tensors` in the order of a file: the widest numbers first, so that each begins where it may."""
    return sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))


def _bytes(tensor: Tensor) -> memoryview:
    """The bytes of one tensor, in its own memory where that is possible."""
    if not tensor.numel():
        return memoryview(b"")
    flat = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)
    content: memoryview = flat.numpy().data
    return content


def split(tensors: Mapping[str, Tensor], most: float) -> list[dict[str, Tensor]]:
    """`tensors` in their order, in parts of at most `most` bytes; a larger tensor is a part by itself."""
    parts: list[dict[str, Tensor]] = [{}]
    held = 0
    for name, tensor in tensors.items():
        if parts[-1] and held + tensor.nbytes > most:
            parts.append({})
            held = 0
        parts[-1][name] = tensor
        held += tensor.nbytes
    return parts


def check(
    state: Mapping[str, Tensor | TensorInfo],
    expected: nn.Module | Mapping[str, Iterable[int]],
    where: str,
) -> None:
    """Hold `state` against a module or a table of shapes: same names, same shapes, float dtypes.

    `state` may be tensors or a header's entries. Raises `CheckpointError`, which begins with `where` and
    lists the first few names that are missing, unexpected or of another shape.
    """
    if isinstance(expected, nn.Module):
        shapes = {name: tuple(tensor.shape) for name, tensor in expected.state_dict().items()}
    else:
        shapes = {name: tuple(shape) for name, shape in expected.items()}
    missing = [name for name in shapes if name not in state]
    unexpected = [name for name in state if name not in shapes]
    faults = []
    if missing:
        faults.append(f"{_some(missing)} {'is' if len(missing) == 1 else 'are'} missing")
    if unexpected:
        hint = nearest(unexpected[0], missing) if 0 < len(missing) <= MAX_TENSORS // 10 else ""
        hint = f" ({hint})" if hint.startswith("did") else ""
        faults.append(f"{_some(unexpected)} {'is' if len(unexpected) == 1 else 'are'} unknown{hint}")
    misshapen = [
        f"{name!r} has shape {list(state[name].shape)} where {list(shape)} is due"
        for name, shape in shapes.items()
        if name in state and tuple(state[name].shape) != shape
    ]
    if misshapen:
        faults.append(_some(misshapen, quoted=False))
    wrong = [f"{name!r} is {_dtype_name(entry)}" for name, entry in state.items() if not _is_float(entry)]
    if wrong and not faults:
        faults.append(f"{_some(wrong, quoted=False)} where floating point numbers are due")
    if faults:
        raise CheckpointError(f"{where}: {'; '.join(faults)}")


def _refuse_foreign(path: Path, start: bytes, size: int, length: int) -> None:
    """Tell safetensors from everything else by content; a name only helps to say what the rest is."""
    if length <= MAX_HEADER_BYTES and start[8:9] == b"{":
        return
    if size < 9:
        raise CheckpointError(f"{path} is truncated: {size} bytes are too few for a safetensors header")
    for magic, what in _MAGICS:
        if start.startswith(magic):
            pickled = f"; {_NO_PICKLES}" if "pickle" in what else ""
            raise CheckpointError(f"{path} is {what}, not safetensors{pickled}")
    if path.suffix.lower() in _PICKLE_SUFFIXES or _PICKLE_MAGIC.match(start):
        raise CheckpointError(f"{path} is a pickled checkpoint, not safetensors; {_NO_PICKLES}")
    if length > MAX_HEADER_BYTES:
        raise CheckpointError(
            f"{path} is not safetensors: it claims a header of {length:,} bytes, "
            f"and at most {MAX_HEADER_BYTES:,} are read"
        )
    raise CheckpointError(f"{path} is not safetensors: there is no header where one should begin")


def _metadata(path: Path, entry: object) -> dict[str, str]:
    if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
        raise CheckpointError(f"the __metadata__ of {path} must map text to text")
    return entry


def _name_fault(name: str) -> str | None:
    if any(part.startswith("__") and part.endswith("__") for part in name.split(".")):
        return "names between double underscores are Python's own"
    if not name or len(name) > 1000 or not name.isprintable():
        return "a name is 1 to 1,000 printable characters"
    return None


def _tensor_info(path: Path, name: str, entry: object) -> TensorInfo:
    """One header entry, every field's type and range checked, its size equal to its shape's."""

    def refuse(what: str) -> CheckpointError:
        return CheckpointError(f"the header of {path} is damaged: tensor {name!r} {what}")

    if fault := _name_fault(name):
        raise CheckpointError(f"the header of {path} names a tensor {name!r}: {fault}")
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise refuse("must have dtype, shape and data_offsets, and nothing else")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise refuse(f"has the unknown dtype {str(dtype)[:40]!r}; known: {', '.join(DTYPES)}")
    if not _whole_numbers(shape) or len(shape) > MAX_DIMENSIONS:
        raise refuse(f"has no shape of at most {MAX_DIMENSIONS} whole numbers")
    if not _whole_numbers(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise refuse("has no data_offsets of two whole numbers in order")
    info = TensorInfo(dtype, tuple(shape), offsets[0], offsets[1])
    if info.end - info.begin != info.count * DTYPES[dtype].itemsize:
        raise refuse(
            f"takes {info.end - info.begin:,} bytes, which is not what {list(shape)} of {dtype} take"
        )
    return info


def _whole_numbers(entry: object) -> bool:
    return isinstance(entry, list) and all(type(number) is int and 0 <= number < 1 << 60 for number in entry)


def _check_places(path: Path, tensors: Mapping[str, TensorInfo], header_bytes: int, size: int) -> None:
    """Tensors must follow one another without gap or overlap from the header to the end of the file."""
    end = 0
    for name, info in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if info.begin != end:
            what = "overlaps the one before it" if info.begin < end else "leaves a gap before it"
            raise CheckpointError(f"the header of {path} is damaged: tensor {name!r} {what}")
        end = info.end
    if size < header_bytes + end:
        raise CheckpointError(
            f"{path} is truncated: {header_bytes + end:,} bytes are expected, {size:,} found"
        )
    if size > header_bytes + end:
        raise CheckpointError(
            f"{path} goes on after its last tensor: {header_bytes + end:,} bytes are expected, {size:,} found"
        )


def _is_float(entry: Tensor | TensorInfo) -> bool:
    dtype = DTYPES[entry.dtype] if isinstance(entry, TensorInfo) else entry.dtype
    return dtype.is_floating_point


def _dtype_name(entry: Tensor | TensorInfo) -> str:
    return entry.dtype if isinstance(entry, TensorInfo) else _NAMES.get(entry.dtype, str(entry.dtype))


def _some(names: list[str], quoted: bool = True, most: int = 3) -> str:
    """The first few of `names`, and how many more there are."""
    shown = ", ".join(repr(name) if quoted else name for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
