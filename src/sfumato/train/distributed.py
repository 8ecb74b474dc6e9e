"""The processes that train together, one for each device, as `torchrun` and `accelerate launch` start them.

A process that was started alone is a group of one, for which all of this does nothing. Tensors travel between
devices by NCCL; what processes agree on travels by Gloo, which no device has to be waited for, and which
knows at once when another process has died.
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
PATIENCE = timedelta(hours=2)
"""How long the others are waited for: as long as preparing data may take."""
BUCKET = 1 << 25
"""Bytes of gradients that travel at once."""


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_main() -> bool:
    """Whether this is the process that writes, draws and talks."""
    return rank() == 0


@contextmanager
def process_group(device: str | None = None) -> Iterator[torch.device]:
    """In the block this process is one of those it was started with; the device that is its own.

    `device` as for `pick_device`, the same for all; of several CUDA devices each process takes one. Raises
    `UsageError` where the environment does not say who the others are.
    """
    said = {name: os.environ.get(name, "") for name in ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT")}
    if said["WORLD_SIZE"] in ("", "1"):
        yield pick_device(device)
        return
    if missing := [name for name, value in said.items() if not value]:
        raise UsageError(
            f"WORLD_SIZE is {said['WORLD_SIZE']}, but {', '.join(missing)} is not set: start the command by "
            "torchrun -m -- sfumato train …"
        )
    own = pick_device(device)
    if own.type == "cuda":
        own = pick_device(f"cuda:{_place()}")
        torch.cuda.set_device(own)
    backend = "cpu:gloo,cuda:nccl" if own.type == "cuda" else "gloo"
    # optimizers import it, and it keeps the group that there is then for good: threads would outlive Python
    importlib.import_module("torch.distributed.nn.functional")
    with _heard():
        dist.init_process_group(backend, timeout=PATIENCE)
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
    """The block is carried out by the first process of every machine, and then by the others.

    What the first one keeps in files is there when the others look for it.
    """
    if world_size() > 1 and _place():
        barrier()
    yield
    if world_size() > 1 and not _place():
        barrier()


def barrier() -> None:
    """Until every process is here."""
    all_reduce_max(0)


def all_reduce_max(*numbers: int) -> Sequence[int]:
    """Of each number the largest that any process names."""
    if world_size() == 1:
        return numbers
    largest = torch.tensor(numbers)
    with _heard():
        dist.all_reduce(largest, dist.ReduceOp.MAX)
    return cast(list[int], largest.tolist())


def broadcast_object(value: T) -> T:
    """What the first process says, to all."""
    if world_size() == 1:
        return value
    said = [value]
    with _heard():
        dist.broadcast_object_list(said)
    return said[0]


def broadcast(tensors: Iterable[Tensor]) -> None:
    """Make all `tensors` what they are for the first process."""
    if world_size() == 1:
        return
    with _heard(), torch.no_grad():
        for tensor in tensors:
            same = tensor.contiguous()
            dist.broadcast(same, 0)
            tensor.copy_(same)


def all_reduce_sum(tensors: Sequence[Tensor]) -> None:
    """Make each of `tensors`, all of one dtype, its sum over all processes."""
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
    with _heard():
        dist.all_reduce(flat)
    parts = flat.split([tensor.numel() for tensor in bucket])
    for tensor, part in zip(bucket, parts, strict=True):
        tensor.copy_(part.view(tensor.shape))


def _place() -> int:
    """Which of the processes of this machine this one is."""
    return int(os.environ.get("LOCAL_RANK") or rank())


@contextmanager
def _heard() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise SfumatoError(
            f"process {rank()} of this run cannot reach the others any more: one has ended, and says why, "
            "or the network has failed"
        ) from error
