"""Noise from a caller's own generators, in the order and the shapes in which diffusers draws it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sfumato.errors import UsageError

Generators = torch.Generator | Sequence[torch.Generator] | None


class Source:
    """Standard normal blocks (B, C, H, W), drawn when first asked for.

    One generator, or none, which is torch's own, draws a block at once; a list has one for each row.
    """

    def __init__(
        self, generator: Generators, shape: tuple[int, ...], device: torch.device, dtype: torch.dtype
    ):
        """`dtype`: what the numbers are drawn in, which decides their values. Raises `UsageError`."""
        if isinstance(generator, Sequence):
            if len(generator) not in (1, shape[0]):
                raise UsageError(f"{len(generator)} generators were given for {shape[0]} pictures")
            generator = generator[0] if len(generator) == 1 else generator
        self.generator, self.shape, self.device, self.dtype = generator, shape, device, dtype
        self.drawn = 0
        self._blocks: dict[int, Tensor] = {}

    def block(self) -> Tensor:
        """The next block, in float32."""
        self.drawn += 1
        if isinstance(self.generator, Sequence):
            rows = [self._draw(each, (1, *self.shape[1:])) for each in self.generator]
            return torch.cat(rows).float()
        return self._draw(self.generator, self.shape).float()

    def _draw(self, generator: torch.Generator | None, shape: tuple[int, ...]) -> Tensor:
        where = self.device if generator is None else generator.device
        return torch.randn(shape, generator=generator, device=where, dtype=self.dtype).to(self.device)

    def row(self, index: int) -> "Row":
        """The noise of one picture."""
        return Row(self, index)

    def taken(self, number: int, index: int) -> Tensor:
        """Row `index` of the block `number`; blocks go when their last row is taken."""
        if number == self.drawn:
            self._blocks[number] = self.block()
        block = self._blocks[number]
        if index == self.shape[0] - 1:
            del self._blocks[number]
        return block[index : index + 1]

    def finish(self, draws: int) -> None:
        """Draw what is missing to `draws` blocks: diffusers also asks for noise that it has no use for."""
        while self.drawn < draws:
            self.block()


class Row:
    """What a sampler asks for its noise: row after row of one picture."""

    def __init__(self, source: Source, index: int) -> None:
        self.source, self.index, self.count = source, index, 0

    def __call__(self, like: Tensor, /) -> Tensor:
        block = self.source.taken(self.count, self.index)
        self.count += 1
        return block.to(like.device, like.dtype)
