"""From a pickled checkpoint to safetensors, on explicit demand only: unpickling can run code.

What reads is `torch.load(weights_only=True)`. Beyond that, it runs in a process of its own, which is given
the pickle and an empty file, both open, and no secret, and gives up opening files, sockets and processes and
all but a bounded amount of memory and time (`confine`); archives that claim more than the file holds are
refused; and what was written is judged as any file from a stranger is.
"""

import codecs
import io
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from sfumato import weights
from sfumato.checkpoint import confine
from sfumato.errors import CheckpointError, OutputError
from sfumato.files import open_file, parse_json, replace_atomically

_HEADROOM = 512 << 20
_SECONDS, _BYTES_A_SECOND = 30, 8 << 20
_MOST_TOLD = 20
_REPORT_BYTES = 1 << 16
_KEPT_ENVIRONMENT = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")
_START = "import sys; sys.path.append(sys.argv[1]); from sfumato.checkpoint import unpickle; unpickle.child()"

_ZIP = b"PK\x03\x04"
_GLOBAL = re.compile(r"GLOBAL (\S+)")

# What training programs left in published checkpoints beside the weights. In its place is put an object that
# does nothing and holds nothing.
_LEFT_BEHIND = (
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "pytorch_lightning.callbacks.early_stopping.EarlyStopping",
    "lightning.pytorch.callbacks.model_checkpoint.ModelCheckpoint",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
)
# In which the first textual inversions keep their vectors; only those are taken out of it.
_PARAMETERS = "torch.nn.modules.container.ParameterDict"
_IP_ADAPTER = ("image_proj", "ip_adapter")
"""The two tables of an IP-Adapter's pickle."""


@dataclass(frozen=True)
class Summary:
    """What a conversion did.

    `dropped`: what was in the pickle and is no tensor that safetensors knows. `guards`: what held the process
    that read it: "limits" on its memory and time, and "seccomp" or "audit hook" (`confine.seal`).
    """

    source: Path
    target: Path
    tensors: int
    bytes: int
    dropped: tuple[str, ...]
    guards: tuple[str, ...]

    def lines(self) -> list[str]:
        """The summary as text, a fact a line."""
        held = {
            "limits": "bounded memory and time",
            "seccomp": "no network, files or programs (the kernel's seccomp filter)",
            "audit hook": "no network, files or programs (Python's audit hook, which binds no native code)",
        }
        return [
            f"{self.target}: {self.tensors:,} tensors, {self.bytes / 1e6:,.1f} MB",
            "trusted: torch's weights-only unpickler, in a process of its own with "
            + ", ".join(held[guard] for guard in self.guards),
            *(f"left out: {what}" for what in self.dropped),
        ]


def convert(
    source: str | os.PathLike[str], target: str | os.PathLike[str], *, overwrite: bool = False
) -> Summary:
    """Write the tensors of the pickle `source` (.ckpt, .pt, .bin, .pth) as the safetensors file `target`.

    A nested `state_dict` is unwrapped, a textual inversion's `string_to_param` becomes `emb_params`, and the
    two tables of an IP-Adapter become one. It takes as much memory as the pickle is large. Raises
    `CheckpointError` for a pickle that asks for anything but tensors, is damaged, or is not what it claims to
    be; `OutputError` where `target` cannot be written.
    """
    source, target = Path(source), Path(target)
    if target.suffix.lower() != ".safetensors":
        raise OutputError(f"cannot write {target}: what a pickle is converted to is named .safetensors")
    if target.exists() and not overwrite:
        raise OutputError(f"will not replace {target}: it is there already (overwrite=True replaces it)")
    try:
        with open_file(source) as pickled:
            if _is_safetensors(pickled, source):
                raise CheckpointError(f"{source} is safetensors already")
            with replace_atomically(target) as file:
                told = _converted(pickled, file, source)
                file.seek(0)
                checked = weights.header_of(file, target)
    except FileNotFoundError:
        raise CheckpointError(f"{source} is missing") from None
    except OSError as error:
        raise CheckpointError(f"cannot read {source}: {error.strerror}") from error
    return Summary(
        source,
        target,
        len(checked.tensors),
        checked.file_bytes,
        _texts(told, "dropped"),
        _texts(told, "guards"),
    )


def _is_safetensors(file: BinaryIO, path: Path) -> bool:
    try:
        weights.header_of(file, path)
    except CheckpointError:
        return False
    finally:
        file.seek(0)
    return True


def _converted(pickled: BinaryIO, file: BinaryIO, source: Path) -> dict[str, Any]:
    """Have the child read `pickled` and write `file`; what it tells, which is not to be trusted either."""
    size = os.fstat(pickled.fileno()).st_size
    environment = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
    environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    package = str(Path(__file__).parents[2])
    child = subprocess.Popen(
        [sys.executable, "-I", "-c", _START, package],
        stdin=pickled,
        stdout=file,
        stderr=subprocess.PIPE,
        env=environment,
        cwd=Path(sys.executable).anchor,
    )
    try:
        _, said = child.communicate(timeout=4 * _seconds(size) + 60)
    except subprocess.TimeoutExpired:
        raise CheckpointError(f"{source} was given up: it took too long to read") from None
    finally:
        child.kill()
        child.wait()
    last = said[-_REPORT_BYTES:].rstrip(b"\n").rpartition(b"\n")[2]
    try:
        told = parse_json(last, "the report")
    except CheckpointError:
        told = {}
    if child.returncode == 0 and "error" not in told:
        return told
    raise CheckpointError(f"{source} was not converted: {_why(child.returncode, told.get('error'))}")


def _why(status: int, error: object) -> str:
    if isinstance(error, str):
        return _plain(error)
    if status < 0:
        how = signal.strsignal(-status)
        return f"the process that read it was ended, by its limits or by a fault ({how})"
    return f"the process that read it failed with exit status {status}"


def _texts(told: Mapping[str, Any], key: str) -> tuple[str, ...]:
    found = told.get(key)
    return tuple(_plain(text) for text in found if isinstance(text, str)) if isinstance(found, list) else ()


def _plain(text: str) -> str:
    """One printable line of bounded length."""
    flat = " ".join(text[:2000].split())
    return "".join(letter if letter.isprintable() else "?" for letter in flat)[:300]


def _seconds(size: int) -> int:
    return _SECONDS + size // _BYTES_A_SECOND


def child() -> None:
    """The process that reads: stdin is the pickle, stdout the safetensors file, stderr the report."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    pickled, file, size = os.fdopen(0, "rb"), os.fdopen(1, "wb"), os.fstat(0).st_size
    _warm_up()
    limited = confine.limit(size + size // 4 + _HEADROOM, _seconds(size), 2 * size + _HEADROOM)
    guards = [*(["limits"] if limited else []), confine.seal()]
    try:
        state, dropped = _state(_loaded(pickled, size), 2 * size + _HEADROOM // 2)
        weights.write_to(file, state, {"format": "pt"})
        file.flush()
        told: dict[str, Any] = {"dropped": dropped, "guards": guards}
    except MemoryError:
        told = {"error": "it claims more memory than a file of its size can fill"}
    except Exception as error:  # whatever a hostile file makes the unpickler raise
        told = {"error": _reason(error)}
    os.write(2, b"\n" + json.dumps(told).encode() + b"\n")
    os._exit(1 if "error" in told else 0)


def _warm_up() -> None:
    """Do all of it once on a harmless tensor, so that nothing has to be imported later."""
    codecs.lookup("latin1")
    for zipped in (True, False):
        memory = io.BytesIO()
        held = {"state_dict": OrderedDict(a=torch.ones(2, 3).T.half())}
        torch.save(held, memory, _use_new_zipfile_serialization=zipped)
        memory.seek(0)
        state, _ = _state(_loaded(memory, len(memory.getvalue())), 1 << 20)
        weights.write_to(io.BytesIO(), state, {"format": "pt"})


class _Nothing:
    """What stands in for something that was left behind: takes anything and keeps nothing."""

    __slots__ = ()

    def __new__(cls, *arguments: object) -> "_Nothing":
        return super().__new__(cls)

    def __init__(self, *arguments: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


class _Parameters(dict[str, object]):
    """What stands in for torch's table of parameters: a plain table of what it holds."""

    def __setstate__(self, state: object) -> None:
        held = state.get("_parameters") if isinstance(state, Mapping) else None
        if isinstance(held, Mapping):
            self.update(held)


def _loaded(file: Any, size: int) -> object:
    """What the pickle holds. Raises whatever torch raises."""
    if file.read(len(_ZIP)) == _ZIP:
        _check_archive(file, size)
    file.seek(0)
    known: list[Any] = [(_Parameters, _PARAMETERS), *((_Nothing, name) for name in _LEFT_BEHIND)]
    with torch.serialization.safe_globals(known):
        return torch.load(file, weights_only=True, map_location="cpu")


def _check_archive(file: BinaryIO, size: int) -> None:
    """torch stores the entries of its archives as they are: one that is packed could be a zip bomb."""
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise CheckpointError("its archive is compressed, which torch does not write")
    if sum(entry.file_size for entry in entries) > size:
        raise CheckpointError("its archive claims more than the file holds")


def _state(loaded: object, most: int) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors to write, at most `most` bytes, and a line on each thing that is not written."""
    dropped: list[str] = []
    if isinstance(loaded, Mapping) and isinstance(inner := loaded.get("state_dict"), Mapping):
        dropped += [_described(name, value) for name, value in loaded.items() if name != "state_dict"]
        loaded = inner
    if isinstance(loaded, Mapping) and isinstance(inner := loaded.get("string_to_param"), Mapping):
        dropped += [_described(name, value) for name, value in loaded.items() if name != "string_to_param"]
        if len(inner) != 1:
            raise CheckpointError(f"it is a textual inversion of {len(inner)} words, where one is due")
        loaded = {"emb_params": next(iter(inner.values()))}
    if isinstance(loaded, Mapping) and all(isinstance(loaded.get(part), Mapping) for part in _IP_ADAPTER):
        inside = {f"{part}.{name}": value for part in _IP_ADAPTER for name, value in loaded[part].items()}
        loaded = inside | {name: value for name, value in loaded.items() if name not in _IP_ADAPTER}
    if not isinstance(loaded, Mapping):
        raise CheckpointError(f"it holds {type(loaded).__name__}, not a table of tensors")
    state: dict[str, Tensor] = {}
    for name, value in loaded.items():
        if _is_plain(value) and isinstance(name, str):
            state[name] = value
        else:
            dropped.append(_described(name, value))
    if not state:
        raise CheckpointError("it holds no tensors")
    if sum(tensor.numel() * tensor.element_size() for tensor in state.values()) > most:
        raise CheckpointError("its tensors claim more numbers than the file holds")
    if len(dropped) > _MOST_TOLD:
        dropped = [*dropped[:_MOST_TOLD], f"and {len(dropped) - _MOST_TOLD} more"]
    return state, dropped


def _is_plain(value: object) -> bool:
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and value.dtype in weights.DTYPES.values()
    )


def _described(name: object, value: object) -> str:
    kind = f"{value.dtype} tensor" if isinstance(value, Tensor) else type(value).__name__
    count = f" of {len(value)}" if isinstance(value, Mapping | list | tuple) else ""
    return _plain(f"{str(name)[:100]} ({kind}{count})")


def _reason(error: Exception) -> str:
    """What was wrong, without the library's advice to trust the file."""
    text = str(error)
    if found := _GLOBAL.search(text):
        return f"it asks for {found[1]}, which is not part of any tensor and was not run"
    if isinstance(error, pickle.UnpicklingError | EOFError | LookupError | AttributeError | TypeError):
        return "it is no pickle of tensors, or a damaged one"
    if isinstance(error, CheckpointError | ValueError) or "DefaultCPUAllocator" not in text:
        return f"{type(error).__name__}: {text}" if not isinstance(error, CheckpointError) else text
    return "it claims more memory than a file of its size can fill"
