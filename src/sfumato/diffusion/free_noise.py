"""FreeNoise (Qiu et al. 2023): noise for clips longer than a network knows, which their windows share."""

import torch
from torch import Tensor


def free_noise(eps: Tensor, context: int, stride: int, seed: int) -> Tensor:
    """Noise `eps` (1, C, F, H, W) whose frames behind the first `context` repeat those, shuffled (§3.2).

    Every `stride` frames hold the noise of as many frames of the first window, in an order of their own that
    follows from `seed`. A clip of up to `context` frames keeps its noise.
    """
    frames = eps.shape[2]
    generator = torch.Generator().manual_seed(seed)
    order = list(range(min(context, frames)))
    while len(order) < frames:
        begin = len(order) % context
        own = torch.arange(begin, min(begin + stride, context))
        order += own[torch.randperm(len(own), generator=generator)].tolist()
    return eps[:, :, order[:frames]]
