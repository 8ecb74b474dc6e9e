"""What a model's latents are like, described in one place."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LatentSpec:
    """Latents of `channels` channels, one cell for `factor` × `factor` pixels."""

    channels: int
    factor: int

    def shape(self, size: tuple[int, int], count: int = 1, frames: int | None = None) -> tuple[int, ...]:
        """The shape of `count` latents, of pictures (B, C, H, W) or clips of `frames` (B, C, F, H, W).

        `size`: (width, height) in pixels.
        """
        width, height = size
        clip = () if frames is None else (frames,)
        return (count, self.channels, *clip, height // self.factor, width // self.factor)
