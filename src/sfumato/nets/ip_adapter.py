"""IP-Adapter (Ye et al. 2023): a picture as tokens, and their keys and values for each cross-attention."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sfumato.nets.attention import attend
from sfumato.nets.inputs import KV

HEAD = 64
"""Width of the resampler's heads, which is the same in all that were published."""


@dataclass(frozen=True)
class LinearShape:
    """The first kind: `tokens` made of CLIP's pooled vector of a picture, `width` numbers."""

    width: int
    tokens: int


@dataclass(frozen=True)
class FullShape:
    """The "full" kind: a token of each of CLIP's states of a picture, `width` wide."""

    width: int


@dataclass(frozen=True)
class ResamplerShape:
    """The "plus" kind: `tokens` that attend to CLIP's states, `width` wide, in `depth` layers.

    `hidden` is the resampler's own width, in which its feed-forward layers are `feed_forward` wide.
    """

    width: int
    tokens: int
    hidden: int
    heads: int
    depth: int
    feed_forward: int


@dataclass(frozen=True)
class IPAdapterShape:
    """An IP-Adapter's sizes, which its tensors tell: no configuration was published with it."""

    projection: LinearShape | FullShape | ResamplerShape
    context: int
    """Width of the tokens, which is that of the model's text states."""
    attentions: tuple[int, ...]
    """Width of each cross-attention of the UNet, in the order of the file: way down, way up, middle."""

    @property
    def pooled(self) -> bool:
        """Whether it reads CLIP's pooled vector, not the states."""
        return isinstance(self.projection, LinearShape)


class LinearProjection(nn.Module):
    """One vector to several tokens (Ye et al. 2023, §3.2.1)."""

    def __init__(self, shape: LinearShape, context: int) -> None:
        super().__init__()
        self.proj = nn.Linear(shape.width, shape.tokens * context)
        self.norm = nn.LayerNorm(context)

    def forward(self, vector: Tensor) -> Tensor:
        """(N, P) to (N, tokens, context)."""
        return self.norm(self.proj(vector).unflatten(1, (-1, self.norm.normalized_shape[0])))


class FullProjection(nn.Module):
    """Each state to a token."""

    def __init__(self, shape: FullShape, context: int) -> None:
        super().__init__()
        width = shape.width
        self.proj = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.Linear(width, context), nn.LayerNorm(context)
        )

    def forward(self, states: Tensor) -> Tensor:
        """(N, L, D) to (N, L, context)."""
        return self.proj(states)


class PerceiverAttention(nn.Module):
    """The tokens look at the picture and at themselves (Alayrac et al. 2022, §2.1)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_q = nn.Linear(width, heads * HEAD, bias=False)
        self.to_kv = nn.Linear(width, 2 * heads * HEAD, bias=False)
        self.to_out = nn.Linear(heads * HEAD, width, bias=False)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """`x` (N, L, D) and `tokens` (N, T, D) to (N, T, D)."""
        tokens = self.norm2(tokens)
        k, v = self.to_kv(torch.cat([self.norm1(x), tokens], dim=1)).chunk(2, dim=2)
        return self.to_out(attend(self.to_q(tokens), k, v, self.heads))


class ResamplerLayer(nn.ModuleList):
    """Attention and a feed-forward part, under the published numbers."""

    def __init__(self, shape: ResamplerShape) -> None:
        hidden, wide = shape.hidden, shape.feed_forward
        feed_forward = nn.Sequential(
            nn.LayerNorm(hidden),
            nn.Linear(hidden, wide, bias=False),
            nn.GELU(),
            nn.Linear(wide, hidden, bias=False),
        )
        super().__init__([PerceiverAttention(hidden, shape.heads), feed_forward])

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """`x` (N, L, D) and `tokens` (N, T, D) to (N, T, D)."""
        attention, feed_forward = self
        tokens = tokens + attention(x, tokens)
        return tokens + feed_forward(tokens)


class Resampler(nn.Module):
    """Any number of states to a fixed number of tokens (the perceiver resampler of Alayrac et al. 2022)."""

    def __init__(self, shape: ResamplerShape, context: int) -> None:
        super().__init__()
        hidden = shape.hidden
        self.latents = nn.Parameter(torch.randn(1, shape.tokens, hidden) / hidden**0.5)
        self.proj_in = nn.Linear(shape.width, hidden)
        self.layers = nn.ModuleList(ResamplerLayer(shape) for _ in range(shape.depth))
        self.proj_out = nn.Linear(hidden, context)
        self.norm_out = nn.LayerNorm(context)

    def forward(self, states: Tensor) -> Tensor:
        """(N, L, D) to (N, tokens, context)."""
        x = self.proj_in(states)
        tokens = self.latents.expand(len(x), -1, -1)
        for layer in self.layers:
            tokens = layer(x, tokens)
        return self.norm_out(self.proj_out(tokens))


class KeysValues(nn.Module):
    """The two matrices of one cross-attention, under the published names."""

    def __init__(self, context: int, width: int) -> None:
        super().__init__()
        self.to_k_ip = nn.Linear(context, width, bias=False)
        self.to_v_ip = nn.Linear(context, width, bias=False)

    def forward(self, tokens: Tensor) -> KV:
        """(R, T, context) to keys and values (R, T, C)."""
        return self.to_k_ip(tokens), self.to_v_ip(tokens)


class IPAdapter(nn.Module):
    """What an IP-Adapter's file holds. Its attentions are in the order of the file, see `IPAdapterShape`."""

    def __init__(self, shape: IPAdapterShape) -> None:
        super().__init__()
        self.shape = shape
        match shape.projection:
            case LinearShape():
                self.image_proj: nn.Module = LinearProjection(shape.projection, shape.context)
            case FullShape():
                self.image_proj = FullProjection(shape.projection, shape.context)
            case ResamplerShape():
                self.image_proj = Resampler(shape.projection, shape.context)
        self.ip_adapter = nn.ModuleList(KeysValues(shape.context, width) for width in shape.attentions)

    def forward(self, pictures: Tensor) -> Sequence[KV]:
        """Keys and values (1, N·T, C) for each attention, of what CLIP sees of N pictures.

        `pictures` are vectors (N, P) where the shape is `pooled`, else states (N, L, D).
        """
        tokens = self.image_proj(pictures).flatten(0, 1)[None]
        return [attention(tokens) for attention in self.ip_adapter]
