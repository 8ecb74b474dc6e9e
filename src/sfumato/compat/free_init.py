"""FreeInit (Wu et al. 2023): a clip is drawn several times, each time from the low frequencies of what was
drawn and the high ones of fresh noise.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, fft

from sfumato.errors import UsageError, nearest

METHODS = ("butterworth", "gaussian", "ideal")
_AXES = (-3, -2, -1)


@dataclass(frozen=True)
class FreeInit:
    """How often a clip is drawn, and which frequencies are kept: the arguments of `enable_free_init`.

    Raises `UsageError`.
    """

    num_iters: int = 3
    use_fast_sampling: bool = False
    method: str = "butterworth"
    order: int = 4
    spatial_stop_frequency: float = 0.25
    temporal_stop_frequency: float = 0.25

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UsageError(f"method = {self.method!r} is not supported; {nearest(self.method, METHODS)}")
        if self.num_iters < 1:
            raise UsageError(f"num_iters is {self.num_iters}: must be at least 1")

    def steps(self, iteration: int, steps: int) -> int:
        """Steps of one drawing, counted from 0, of those that were asked for."""
        if not self.use_fast_sampling:
            return steps
        return max(1, int(steps / self.num_iters * (iteration + 1)))

    def mixed(self, noisy: Tensor, fresh: Tensor) -> Tensor:
        """The low frequencies of `noisy` (B, C, F, H, W), and the high ones of `fresh` (eq. 5)."""
        low = self.low_pass((noisy.shape[2], noisy.shape[3], noisy.shape[4])).to(noisy.device)
        old, new = (fft.fftshift(fft.fftn(x, dim=_AXES), dim=_AXES) for x in (noisy, fresh))
        mixed = fft.ifftshift(old * low + new * (1 - low), dim=_AXES)
        found: Tensor = fft.ifftn(mixed, dim=_AXES).real
        return found

    def low_pass(self, shape: tuple[int, int, int]) -> Tensor:
        """(F, H, W): what is kept of each frequency, the lowest in the middle."""
        space, time = self.spatial_stop_frequency, self.temporal_stop_frequency
        if not space or not time:
            return torch.zeros(shape)
        frames, rows, columns = (2 * torch.arange(side, dtype=torch.float64) / side - 1 for side in shape)
        square = (space / time * frames).square()[:, None, None]
        square = square + rows.square()[:, None] + columns.square()
        if self.method == "butterworth":
            kept = 1 / (1 + (square / space**2) ** self.order)
        elif self.method == "gaussian":
            kept = torch.exp(-square / (2 * space**2))
        else:
            kept = (square <= 2 * space).double()
        return kept.float()
