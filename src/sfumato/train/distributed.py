"""Distributed training: one process for each device, as `torchrun` and `accelerate launch` start them.

For a process that was started alone, a group of one, all of this does nothing. Tensors on GPUs are reduced by
NCCL. Decisions go by Gloo, which need not wait for the device and notices at once when a process has died.
"""

import importlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from sfumato.devices import pick_device
from sfumato.errors import SfumatoError, UsageError

T = TypeVar("T")
TIMEOUT = timedelta(hours=2)
"""As long as preparing data may take."""
BUCKET = 1 << 25
"""Bytes of gradients that are reduced at once."""


def world_size() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_main() -> bool:
    """Whether this is the process that writes, samples and reports."""
    return rank() == 0


@contextmanager
def process_group(device: str | None = None) -> Iterator[torch.device]:
    """Join the group of the processes that were started together for the block; this process's device.

    `device` as for `pick_device`, the same for all; of several CUDA devices each process takes one. Raises
    `UsageError` for an incomplete environment.
    """
    env = {name: os.environ.get(name, "") for name in ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT")}
    if env["WORLD_SIZE"] in ("", "1"):
        yield pick_device(device)
        return
    if missing := [name for name, value in env.items() if not value]:
        raise UsageError(
            f"WORLD_SIZE is {env['WORLD_SIZE']}, but {', '.join(missing)} is not set: start the command by "
            "torchrun -m -- sfumato train …"
        )
    own = pick_device(device)
    if own.type == "cuda":
        own = pick_device(f"cuda:{_local_rank()}")
        torch.cuda.set_device(own)
    backend = "cpu:gloo,cuda:nccl" if own.type == "cuda" else "gloo"
    # optimizers import it, and it keeps the group that there is then for good: threads would outlive Python
    importlib.import_module("torch.distributed.nn.functional")
    with _errors_named():
        dist.init_process_group(backend, timeout=TIMEOUT)
    sound = False
    try:
        yield own
        sound = True
    finally:
        # NCCL would wait for others that an error may have ended; of Gloo nothing is under way here
        if sound or own.type != "cuda":
            dist.destroy_process_group()


@contextmanager
def main_first() -> Iterator[None]:
    """Run the block in the first process of every machine, then in the others, which find its files."""
    if world_size() > 1 and _local_rank():
        barrier()
    yield
    if world_size() > 1 and not _local_rank():
        barrier()


def barrier() -> None:
    """Wait until every process is here."""
    all_reduce_max(0)


def all_reduce_max(*numbers: int) -> Sequence[int]:
    """The maximum of each number over all processes."""
    if world_size() == 1:
        return numbers
    largest = torch.tensor(numbers)
    with _errors_named():
        dist.all_reduce(largest, dist.ReduceOp.MAX)
    return cast(list[int], largest.tolist())


def broadcast_object(value: T) -> T:
    """The main process's `value`, in all."""
    if world_size() == 1:
        return value
    values = [value]
    with _errors_named():
        dist.broadcast_object_list(values)
    return values[0]


def broadcast(tensors: Iterable[Tensor]) -> None:
    """Copy all `tensors` from the main process."""
    if world_size() == 1:
        return
    with _errors_named(), torch.no_grad():
        for tensor in tensors:
            same = tensor.contiguous()
            dist.broadcast(same, 0)
            tensor.copy_(same)


def all_reduce_sum(tensors: Sequence[Tensor]) -> None:
    """Replace each of `tensors`, all of one dtype, by its sum over all processes."""
    if world_size() == 1:
        return
    bucket: list[Tensor] = []
    held = 0
    for tensor in tensors:
        bucket.append(tensor)
        held += tensor.nbytes
        if held >= BUCKET or tensor is tensors[-1]:
            _add(bucket)
            bucket, held = [], 0


def _add(bucket: list[Tensor]) -> None:
    flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
    with _errors_named():
        dist.all_reduce(flat)
    parts = flat.split([tensor.numel() for tensor in bucket])
    for tensor, part in zip(bucket, parts, strict=True):
        tensor.copy_(part.view(tensor.shape))


def _local_rank() -> int:
    """The number of this process on its machine."""
    return int(os.environ.get("LOCAL_RANK") or rank())


@contextmanager
def _errors_named() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise SfumatoError(
            f"process {rank()} of this run cannot reach the others any more: one has ended with an "
            "error of its own, or the network has failed"
        ) from error
