"""What the loop carries out: a network, the batches it learns from, the loss, and the result."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
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
    frozen_base: str = ""
    """The fingerprint of the model that all weights of `net` that are not trained come from, if they do: they
    are no part of a run's state."""
    validate: Callable[[dict[str, Tensor]], float] | None = None
    """Given the averaged weights, the loss of what is held out, always in the same way."""


@contextmanager
def holding(net: nn.Module, state: Mapping[str, Tensor]) -> Iterator[None]:
    """For the block, evaluate `net` with the weights `state` in the place of those that are trained."""
    trained = {name: weight for name, weight in net.named_parameters() if weight.requires_grad}
    own = {name: weight.detach().clone() for name, weight in trained.items()}
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        with torch.no_grad():
            for name, weight in trained.items():
                weight.copy_(state[name])
        yield
    finally:
        with torch.no_grad():
            for name, weight in trained.items():
                weight.copy_(own[name])
        for module, training in modes:
            module.training = training
