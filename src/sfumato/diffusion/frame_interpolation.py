"""Frames between the frames of a clip's latent, found along its motion and drawn on.

The motion from one frame to the next is an optical flow over the cells of the latent and all its channels
(Lucas & Kanade 1981), found from coarse to fine (Bouguet 2001). A middle frame is the mean of both, each
warped half the way.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from sfumato.diffusion.inpainting import keep_known
from sfumato.diffusion.level import Level
from sfumato.diffusion.sampling import Noise, Sampler, Sampling, Start, resumed

REACH = 2
"""How far around a place, in cells, what is seen helps to tell how it moves: the deviation of a Gaussian."""
STILLNESS = 0.01
"""How much a step of the flow counts against it, so that a place where nothing is seen keeps its own."""
LEAST_SIDE = 4
"""Of the coarsest latents that a flow is looked for in, in cells."""
WARPS = 6
"""How often a flow is refined at each resolution."""
REDRAWN_SIGMA = 0.4
"""The noise level s/a, below which frames in between are drawn on."""


def optical_flow(a: Tensor, b: Tensor) -> Tensor:
    """(B, 2, H, W): how far, in cells to the right and down, each place of `a` (B, C, H, W) has moved in `b`.

    Each step d of it solves Σ w (∇b ∇bᵀ + λ) d = Σ w ∇b (a − b), over the places around and all channels, b
    being warped by the flow so far, w a Gaussian, and λ `STILLNESS`.
    """
    scales = [(a, b)]
    while min(scales[-1][0].shape[2:]) >= 2 * LEAST_SIDE:
        scales.append((F.avg_pool2d(scales[-1][0], 2), F.avg_pool2d(scales[-1][1], 2)))
    flow = a.new_zeros(len(a), 2, *scales[-1][0].shape[2:])
    for here, there in reversed(scales):
        if flow.shape[2:] != here.shape[2:]:
            flow = 2 * F.interpolate(flow, size=here.shape[2:], mode="bilinear", align_corners=False)
        for _ in range(WARPS):
            flow = _refined(here, there, flow)
    return flow


def warped(x: Tensor, flow: Tensor) -> Tensor:
    """`x` (B, C, H, W) read at each place p at p + `flow`(p), in cells; beyond its edges they go on."""
    height, width = x.shape[2:]
    still = torch.eye(2, 3, device=x.device).expand(len(x), 2, 3)
    places = F.affine_grid(still, list(x.shape), align_corners=False)
    moved = places + 2 * flow.permute(0, 2, 3, 1) / torch.tensor([width, height], device=x.device)
    return F.grid_sample(x, moved, mode="bilinear", padding_mode="border", align_corners=False)


def _refined(here: Tensor, there: Tensor, begun: Tensor) -> Tensor:
    """`begun` nearer to the minimum, what is lacking linear in the picture's gradient."""
    moved = warped(there, begun)
    right, down = _gradient(moved)
    pairs = ((right, right), (down, down), (right, down), (right, here - moved), (down, here - moved))
    sums = _around(torch.stack([(one * two).sum(1) for one, two in pairs], dim=1))
    xx, yy, xy, x, y = sums.unbind(1)
    xx, yy = xx + STILLNESS, yy + STILLNESS
    step = torch.stack([yy * x - xy * y, xx * y - xy * x], dim=1) / (xx * yy - xy * xy)[:, None]
    return begun + step


def _gradient(x: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences to the right and down."""
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    right = (padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]) / 2
    return right, (padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]) / 2


def _around(x: Tensor) -> Tensor:
    """Weighted means of the cells around each, with a Gaussian of `REACH` cells along both sides."""
    places = torch.arange(-2 * REACH, 2 * REACH + 1, device=x.device)
    weights = torch.softmax(-(places**2) / (2 * REACH**2), 0)
    for shape in ((1, 1, 1, -1), (1, 1, -1, 1)):
        x = F.conv2d(x.flatten(0, 1)[:, None], weights.view(shape), padding="same").view_as(x)
    return x


def middle(a: Tensor, b: Tensor) -> Tensor:
    """What lies between `a` and `b` (B, C, H, W): their mean half the way along their motion.

    Where they differ less as they are, as on a plain ground or where something changes without moving, their
    mean as they are.
    """
    there, back = warped(a, -optical_flow(a, b) / 2), warped(b, -optical_flow(b, a) / 2)
    moved, still = (
        _around((one - two).square().sum(1, keepdim=True)).square() for one, two in ((there, back), (a, b))
    )
    share = still / (moved + still).clamp(min=1e-12)
    return ((a + b) / 2).lerp((there + back) / 2, share)


def with_frames_between(clip: Tensor, factor: int, *, loop: bool) -> Tensor:
    """A clip's latent (1, C, F, H, W) with `factor` − 1 frames between every two, `factor` a power of two."""
    while factor > 1:
        frames = clip[0].transpose(0, 1).float()
        first, second = frames, frames.roll(-1, 0)
        if not loop:
            first, second = first[:-1], second[:-1]
        both = torch.stack([first, middle(first, second)], dim=1).flatten(0, 1)
        both = both if loop else torch.cat([both, frames[-1:]])
        clip, factor = both.transpose(0, 1)[None].to(clip), factor // 2
    return clip


def first_redrawn(levels: Sequence[Level]) -> int:
    """The number of the level from which frames in between are drawn on; the last one's for none."""
    low = (number for number, level in enumerate(levels) if level.sigma <= REDRAWN_SIGMA)
    return next(low, len(levels) - 1)


def interpolated(
    first: Sampling, factor: int, sampler: Sampler, levels: Sequence[Level], noise: Noise, *, loop: bool
) -> Sampling:
    """`first`, and frames between those of its clip, which stay, drawn on over the last `levels`."""
    clip = with_frames_between((yield from first), factor, loop=loop)
    step = first_redrawn(levels)
    mask = torch.ones_like(clip[:1, :1, :, :1, :1])
    mask[:, :, ::factor] = 0
    eps = noise(clip)
    x = Start(clip, step).noisy(levels, eps)
    sampling = resumed(sampler(x, levels[step:], noise), step)
    return (yield from keep_known(sampling, clip, eps, mask))
