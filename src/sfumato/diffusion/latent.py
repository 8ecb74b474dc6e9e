"""What a model's latents are like, described in one place."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LatentSpec:
    """Latents of `channels` channels, one cell for `factor` × `factor` pixels.

    `frames`: of a video, (B, C, F, H, W); `None` for pictures, (B, C, H, W).
    """

    channels: int
    factor: int
    frames: int | None = None

    def shape(self, size: tuple[int, int], count: int = 1) -> tuple[int, ...]:
        """The shape of `count` latents of pictures or frames of `size` (width, height) in pixels."""
        width, height = size
        frames = () if self.frames is None else (self.frames,)
        return (count, self.channels, *frames, height // self.factor, width // self.factor)
