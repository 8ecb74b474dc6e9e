"""Fit the last convolution of the embedded decoder to pictures: their outermost pixels come out right.

    python recipes/icons/last_layer.py data/icons runs/icons/last_layer

The convolutions pad with zeros, which tints the outermost pixels, the four corners most. The change V of a
decoder's last convolution, weights and bias, minimises

    Σ share · mean |r_p − V φ_p|²

over the kinds of pixels p that `FULL` and `TINY` give shares, φ_p the features that it sees around p, and r_p
what is missing there: 64 pictures, and a white one that counts as eight. That is linear least squares, so it
is solved, not trained. All other weights stay.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from sfumato import checkpoint
from sfumato.data.icons import load
from sfumato.train.context import StepContext
from sfumato.train.pictures import IconBatches

BATCHES, SIZE = 16, 4
FULL = {"inside": 1.0, "border": 0.01, "beside": 0.01, "corners": 0.003, "around corners": 0.003}
TINY = {"inside": 1.0, "border": 0.03, "beside": 0.1, "corners": 0.001, "around corners": 0.01}
"""Shares of the pixels inside, of the outermost, of the three beside these, of the four corners, and of the
4 × 4 pixels at each, in the squares of the full and of the tiny decoder."""
WHITE = 8
EVERY = 4
"""Of the pixels inside, which are many, one in so many counts."""
RIDGE = 1e-7


class Fit:
    """The least squares of one layer, whose answer is a picture in [−1, 1] after `scale` times it."""

    def __init__(self, layer: torch.nn.Conv2d, shares: dict[str, float], scale: float = 1.0) -> None:
        self.layer, self.shares, self.scale = layer, shares, scale
        self.features = torch.empty(0)
        layer.register_forward_hook(self._see)
        self.gram = self.target = torch.zeros((), dtype=torch.float64)

    def _see(self, layer: torch.nn.Module, given: tuple[Tensor, ...], answer: Tensor) -> None:
        self.features = given[0]

    def add(self, missing: Tensor, weight: float) -> None:
        """Count the pictures of which `missing` (B, 3, S, S) is due besides what was answered last."""
        at = places(missing.shape[-1])
        for features, r in zip(self.features, missing.flatten(2) / self.scale, strict=True):
            around = F.unfold(features[None], 3, padding=1)[0]
            phi = torch.cat([around, torch.ones_like(around[:1])])
            for kind, share in self.shares.items():
                own, due = phi[:, at[kind]].double(), r[:, at[kind]].double()
                factor = weight * share / len(at[kind])
                self.gram = self.gram + factor * own @ own.T
                self.target = self.target + factor * own @ due.T

    def solve(self) -> None:
        """Change the layer."""
        ridge = RIDGE * self.gram.diagonal().mean() * torch.eye(len(self.gram), dtype=torch.float64)
        change = torch.linalg.solve(self.gram + ridge, self.target).float()
        self.layer.weight += change[:-1].T.reshape(self.layer.weight.shape)
        assert self.layer.bias is not None
        self.layer.bias += change[-1]


def places(side: int) -> dict[str, Tensor]:
    """The numbers of the pixels, row by row, of each kind."""
    grid = torch.arange(side * side).view(side, side)
    depth = torch.arange(side).minimum(torch.arange(side).flip(0))
    nearest = depth[:, None].minimum(depth)  # to any side
    both = depth[:, None].maximum(depth)  # to two sides
    return {
        "inside": grid[nearest > 3][::EVERY],
        "border": grid[nearest == 0],
        "beside": grid[(nearest > 0) & (nearest <= 3)],
        "corners": grid[both == 0],
        "around corners": grid[both <= 3],
    }


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="a folder that `sfumato data icons` made")
    parser.add_argument("out", type=Path, help="where to save the model")
    parser.add_argument("--tiny", action="store_true", help="fit the tiny decoder too")
    options = parser.parse_args()
    model = checkpoint.load("embedded", dtype=torch.float32)
    vae, tiny = model.vae, model.tiny
    full, small = Fit(vae.decoder.conv_out, FULL), Fit(tiny.decoder.layers[-1], TINY, scale=2.0)
    batches = IconBatches(load(options.data, held_out=False, device=torch.device("cpu")))
    pictures = [
        (batches(StepContext(step, 0, 1, torch.Generator().manual_seed(step)), SIZE), 1)
        for step in range(BATCHES)
    ]
    pictures.append((torch.ones_like(pictures[0][0][:1]), WHITE))
    for number, (x, weight) in enumerate(pictures, start=1):
        z = vae.encode(x).mean
        full.add(x - vae.decode(z), weight)
        small.add(x - tiny.decode(tiny.unscale(vae.scale(z))), weight)
        print(f"{number} of {len(pictures)}", flush=True)
    full.solve()
    if options.tiny:
        small.solve()
    checkpoint.save(model, options.out, dtype=torch.float16, overwrite=True)


if __name__ == "__main__":
    main()
