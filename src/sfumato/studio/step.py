"""What a drawing shows of itself on its way, and the function that samplers ask."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from sfumato.diffusion.level import Level
from sfumato.expansion import Prepared
from sfumato.image import Image
from sfumato.video import Video

if TYPE_CHECKING:
    from sfumato.studio.drawing import Studio


class GuidedDenoiser(Protocol):
    """The clean estimate x0 (B, C, H, W) of latents `x` of the same shape at `level`."""

    def __call__(self, x: Tensor, level: Level, step: int | None = None) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class Step:
    """One network evaluation on the way to a picture.

    `index` of `total` evaluations are done for picture `image_index` of `image_count`; `image` is the
    finished picture on its last step, else `None`; of a clip it is `video`.
    """

    image_index: int
    image_count: int
    index: int
    total: int
    sigma: float
    image: Image | None
    _estimate: Tensor
    _studio: "Studio"
    _picture: Prepared
    video: Video | None = None

    def __repr__(self) -> str:
        which = f" of picture {self.image_index + 1} of {self.image_count}" if self.image_count > 1 else ""
        return f"<Step {self.index} of {self.total}{which}, σ = {self.sigma:.4g}>"

    def preview(self, quick: bool = False, *, decoder: str | None = None, frame: int = 0) -> Image:
        """What the network believes the picture, or one `frame` of the clip, to be by now.

        `quick`: colours straight from the latent, a hundredth of the work and an eighth of the size; else
        decoded by the `decoder` "full" or "tiny", the tiny one unless given, where the model has it.
        """
        estimate = self._estimate if self._estimate.ndim == 4 else self._estimate[:, :, frame]
        return self._studio.preview(estimate, self._picture, quick, decoder=decoder)

    def preview_video(self, quick: bool = True) -> Video:
        """What the network believes the clip to be by now, `quick` as in `preview`."""
        return self._studio.preview_video(self._estimate, self._picture, quick)
