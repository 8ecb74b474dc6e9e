"""Shap-E's implicit functions (Jun & Nichol 2023, §3): a latent holds the weights of a network, which says of
each point its density, its signed distance from the surface, and its colours.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sfumato.config import ShapERendererConfig
from sfumato.config.shap_e import POSITION_WAVES

OCTAVES = 15
"""Of the waves that a place is told by."""
CHUNK = 1 << 16
"""Points that are evaluated at once."""


def position_waves(points: Tensor) -> Tensor:
    """(N, 3) to (N, 93): x, sin(2^k·x) and cos(2^k·x), k < 15 (Mildenhall et al. 2020, eq. 4, without π)."""
    scales = 2.0 ** torch.arange(OCTAVES, dtype=points.dtype, device=points.device)
    angles = (points[:, None] * scales[:, None]).flatten(1)
    return torch.cat([points, torch.cat([angles, angles + math.pi / 2], dim=1).sin()], dim=1)


@dataclass(frozen=True, eq=False)
class ImplicitField:
    """The functions of one latent, over [−1, 1]³ with z upwards; `layers`: weights and biases of its network.

    Points (N, 3) and what is said of them are on the device of the weights.
    """

    layers: tuple[tuple[Tensor, Tensor], ...]

    def coarse(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Densities (N,) and colours (N, 3) in [0, 1], by which it is found out where to look closer."""
        out = self(points)
        return F.relu(out[:, 1]), out[:, 6:9].sigmoid()

    def fine(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Densities (N,) and colours (N, 3) in [0, 1] of the radiance field."""
        out = self(points)
        return F.relu(out[:, 2]), out[:, 9:12].sigmoid()

    def surface(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Signed distances (N,), positive inside, within ±1, and the surface's colours (N, 3) in [0, 1]."""
        out = self(points)
        return out[:, 0].tanh(), out[:, 3:6].sigmoid()

    def __call__(self, points: Tensor) -> Tensor:
        """What the network answers of `points` (N, 3), (N, 12)."""
        first = self.layers[0][0]
        rows = points.to(first.device, first.dtype)
        return torch.cat([self._answer(part) for part in rows.split(CHUNK)]).float()

    def _answer(self, points: Tensor) -> Tensor:
        h = position_waves(points)
        for number, (weight, bias) in enumerate(self.layers):
            h = F.linear(h if number == 0 else F.silu(h), weight, bias)
        return h


class LatentVectors(nn.Module):
    """The rows of one weight of the field's network, from a latent's vectors, each by its own matrix."""

    def __init__(self, rows: int, columns: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, rows * columns)
        self.norm = nn.LayerNorm(columns)
        self.rows, self.columns = rows, columns

    def forward(self, vectors: Tensor) -> Tensor:
        """(rows, width) to (rows, columns)."""
        matrices = self.proj.weight.view(self.rows, self.columns, -1)
        h = torch.einsum("rcw,rw->rc", matrices, vectors)
        return self.norm(h) + self.proj.bias.view(self.rows, self.columns)


class LatentProjections(nn.Module):
    """One for each weight that a latent holds, under the published names."""

    def __init__(self, config: ShapERendererConfig) -> None:
        super().__init__()
        self.projections = nn.ModuleDict(
            {
                name.replace(".", "__"): LatentVectors(rows, columns, config.d_latent)
                for name, (rows, columns) in zip(config.param_names, config.param_shapes, strict=True)
            }
        )


class FieldNetwork(nn.Module):
    """The network's biases, and the weights that all latents share, under the published names."""

    def __init__(self, config: ShapERendererConfig) -> None:
        super().__init__()
        self.mlp = nn.ModuleList(nn.Linear(read, made) for made, read in config.shapes)


class Surroundings(nn.Module):
    """The colour of what is behind everything."""

    background: Tensor

    def __init__(self, config: ShapERendererConfig) -> None:
        super().__init__()
        self.register_buffer("background", torch.tensor(config.background) / 255)


class ShapERenderer(nn.Module):
    """From latents to the implicit functions that they stand for."""

    def __init__(self, config: ShapERendererConfig) -> None:
        super().__init__()
        self.config = config
        self.params_proj = LatentProjections(config)
        self.mlp = FieldNetwork(config)
        self.void = Surroundings(config)

    def forward(self, latent: Tensor) -> ImplicitField:
        """The functions of a latent (N, D). Raises `ValueError` for another size."""
        config = self.config
        if latent.shape[1:] != (config.d_latent,) or len(latent) < config.vectors:
            due = config.vectors, config.d_latent
            raise ValueError(f"a latent of shape {tuple(latent.shape)} was given; {due} is due")
        first = self.void.background
        used = latent[: config.vectors].to(first)
        parts = used.split([rows for rows, _ in config.param_shapes])
        projections = self.params_proj.projections.values()
        made: dict[int, Tensor] = {
            number: project(vectors)
            for number, project, vectors in zip(config.layers, projections, parts, strict=True)
        }
        layers = []
        for number, layer in enumerate(self.mlp.mlp):
            assert isinstance(layer, nn.Linear)
            weight = made.get(number, layer.weight)
            if number == config.insert_direction_at:  # where directions are read, and none is told
                weight = weight[:, : POSITION_WAVES if number == 0 else config.d_hidden]
            layers.append((weight, layer.bias))
        return ImplicitField(tuple(layers))
