"""Noise from the caller's generators, drawn in the order and the shapes of diffusers."""

from collections.abc import Sequence
from itertools import count

import torch
from torch import Tensor

from sfumato.diffusion.sampling import Noise
from sfumato.errors import UsageError

Generators = torch.Generator | Sequence[torch.Generator] | None


class BatchNoise:
    """Standard normal noise for a batch, a block (B, C, H, W) at a time, drawn when it is first needed.

    One generator, or torch's default one if `None`, draws whole blocks; a list has a generator for each row.
    """

    def __init__(
        self, generator: Generators, shape: tuple[int, ...], device: torch.device, dtype: torch.dtype
    ) -> None:
        """`dtype`: what the numbers are drawn in, which decides their values. Raises `UsageError`."""
        self.generators = list(generator) if isinstance(generator, Sequence) else [generator]
        if len(self.generators) not in (1, shape[0]):
            raise UsageError(f"{len(self.generators)} generators were given for {shape[0]} pictures")
        self.shape, self.device, self.dtype = shape, device, dtype
        self._blocks: dict[int, Tensor] = {}
        self._drawn = 0

    def block(self) -> Tensor:
        """The next block, in float32."""
        self._drawn += 1
        rows = self.shape[0] // len(self.generators)
        return torch.cat([self._draw(each, (rows, *self.shape[1:])) for each in self.generators]).float()

    def _draw(self, generator: torch.Generator | None, shape: tuple[int, ...]) -> Tensor:
        where = self.device if generator is None else generator.device
        return torch.randn(shape, generator=generator, device=where, dtype=self.dtype).to(self.device)

    def row(self, index: int) -> Noise:
        """The noise of picture `index`: its row of one block after another."""
        numbers = count()

        def noise(like: Tensor, /) -> Tensor:
            number = next(numbers)
            if number == self._drawn:
                self._blocks[number] = self.block()
            last = index == self.shape[0] - 1
            block = self._blocks.pop(number) if last else self._blocks[number]
            return block[index : index + 1].to(like.device, like.dtype)

        return noise

    def skip(self, draws: int) -> None:
        """Draw blocks that no picture sees, before the first that one does."""
        for _ in range(draws):
            self.block()
        self._drawn = 0

    def finish(self, draws: int) -> None:
        """Draw up to `draws` blocks: diffusers also draws noise that it does not use."""
        while self._drawn < draws:
            self.block()
