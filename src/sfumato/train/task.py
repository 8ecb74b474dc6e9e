"""What the loop carries out: a network, the batches it learns from, the loss, and the result."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from sfumato.train.context import StepContext

B = TypeVar("B")
B_in = TypeVar("B_in", contravariant=True)


class Loss(Protocol[B_in]):
    """What is minimised."""

    def __call__(self, batch: B_in, generator: torch.Generator, /) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of every example (B,), and averages worth logging, by name."""
        ...


@dataclass(frozen=True, eq=False)
class Task(Generic[B]):
    """A network, its data and its loss, and what to do with the result.

    The loss reaches the network by itself; `net` is there for its parameters.
    """

    net: nn.Module
    batches: Callable[[StepContext, int], B]
    """`(context, count)` to a batch of `count` examples, a function of the context alone."""
    loss: Loss[B]
    show: Callable[[dict[str, Tensor], Path], None]
    """Given the averaged weights, write a sample grid."""
    finish: Callable[[dict[str, Tensor], Path], Mapping[str, float]]
    """Given the averaged weights and the run's folder, write the model; metrics of its quality."""
    ema_networks: Mapping[float, nn.Module] = field(default_factory=dict)
    """By their decay, copies of `net` that the loss evaluates: their weights are the average with that decay,
    whether the recipe names it or not."""
