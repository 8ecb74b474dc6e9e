"""Attention in one place, and the transformers of the UNet and the autoencoder that are made of it."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sfumato.nets.given import Given


def attend(
    q: Tensor, k: Tensor, v: Tensor, heads: int, slices: int | None = None, *, causal: bool = False
) -> Tensor:
    """softmax(q kᵀ / √d) v (Vaswani et al. 2017, eq. 1), `heads` of width d side by side.

    `q` (B, N, C), `k` and `v` (B, M, C), to (B, N, C). With `slices` the queries take turns in so many
    parts: the same numbers in less memory. `causal`: no place looks at a later one.
    """
    q, k, v = (x.unflatten(2, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    if slices is None:
        out = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    else:
        parts = [F.scaled_dot_product_attention(part, k, v) for part in q.chunk(slices, dim=2)]
        out = torch.cat(parts, dim=2)
    return out.transpose(1, 2).flatten(2)


class Attention(nn.Module):
    """The four projections of an attention; keys and values are made of something `context` wide.

    With `upcast`, scores are taken in float32: those of SD 2.1 leave the range of half precision.
    """

    def __init__(
        self, width: int, heads: int, context: int, *, bias: bool = False, upcast: bool = False
    ) -> None:
        super().__init__()
        self.heads, self.upcast = heads, upcast
        self.to_q = nn.Linear(width, width, bias)
        self.to_k = nn.Linear(context, width, bias)
        self.to_v = nn.Linear(context, width, bias)
        self.to_out = nn.Sequential(nn.Linear(width, width))

    def mix(self, q: Tensor, k: Tensor, v: Tensor, slices: int | None) -> Tensor:
        """`attend` and the projection of its result: `q` (B, N, C), `k` and `v` (B, M, C), to (B, N, C)."""
        dtype = q.dtype
        if self.upcast:
            q, k, v = (x.to(torch.promote_types(dtype, torch.float32)) for x in (q, k, v))
        return self.to_out(attend(q, k, v, self.heads, slices).to(dtype))


class SelfAttention(Attention):
    """Every place of the picture asks every other."""

    def forward(self, h: Tensor, slices: int | None = None) -> Tensor:
        """(B, N, C) to the same shape."""
        return self.mix(self.to_q(h), self.to_k(h), self.to_v(h), slices)


class CrossAttention(Attention):
    """The picture asks, the text answers."""

    index = 0
    """Which pair of a `TextKV` is this one's; the UNet counts."""

    def project(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (R, T, C) of the text states (R, T, context)."""
        return self.to_k(states), self.to_v(states)

    def forward(self, h: Tensor, given: Given) -> Tensor:
        """(P or R, N, C) to (R, N, C)."""
        k, v = given.text.pairs[self.index]
        return self.mix(given.spread(self.to_q(h)), k, v, given.slices)


class GEGLU(nn.Module):
    """(x W) · GELU(x V) (Shazeer 2020, eq. 6), W and V in one matrix."""

    def __init__(self, width: int, out_width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * out_width)

    def forward(self, h: Tensor) -> Tensor:
        """(B, N, C) to (B, N, out_width)."""
        h, gate = self.proj(h).chunk(2, dim=-1)
        return h * F.gelu(gate)


class FeedForward(nn.Module):
    """Two layers, four times as wide between."""

    def __init__(self, width: int) -> None:
        super().__init__()
        # the published numbering leaves room for dropout
        self.net = nn.Sequential(GEGLU(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width))

    def forward(self, h: Tensor) -> Tensor:
        """(B, N, C) to the same shape."""
        return self.net(h)


class TransformerBlock(nn.Module):
    """Attention within the picture, attention to the text, feed-forward; each adds to what came in."""

    def __init__(self, width: int, heads: int, context: int, upcast: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn1 = SelfAttention(width, heads, width, upcast=upcast)
        self.norm2 = nn.LayerNorm(width)
        self.attn2 = CrossAttention(width, heads, context, upcast=upcast)
        self.norm3 = nn.LayerNorm(width)
        self.ff = FeedForward(width)

    def forward(self, h: Tensor, given: Given) -> Tensor:
        """(P or R, N, C) to (R, N, C)."""
        h = h + self.attn1(self.norm1(h), given.slices)
        h = given.spread(h) + self.attn2(self.norm2(h), given)
        return h + self.ff(self.norm3(h))


class SpatialTransformer(nn.Module):
    """`depth` transformer blocks over the places of a picture (Rombach et al. 2022, appendix E.2.1)."""

    def __init__(
        self, channels: int, groups: int, heads: int, context: int, depth: int, linear: bool, upcast: bool
    ) -> None:
        super().__init__()
        self.linear = linear
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels) if linear else nn.Conv2d(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(channels, heads, context, upcast) for _ in range(depth)
        )
        self.proj_out = nn.Linear(channels, channels) if linear else nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, given: Given) -> Tensor:
        """(P or R, C, H, W) to (R, C, H, W)."""
        h = self.norm(x)
        h = self.proj_in(places(h)) if self.linear else places(self.proj_in(h))
        for block in self.transformer_blocks:
            h = block(h, given)
        h = picture(self.proj_out(h), x) if self.linear else self.proj_out(picture(h, x))
        return given.spread(x) + given.spread(h)


class ImageAttention(Attention):
    """The autoencoder's attention, of one head, over the places of its smallest picture."""

    def __init__(self, channels: int, groups: int, eps: float) -> None:
        super().__init__(channels, heads=1, context=channels, bias=True)
        self.group_norm = nn.GroupNorm(groups, channels, eps)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        h = places(self.group_norm(x))
        return x + picture(self.mix(self.to_q(h), self.to_k(h), self.to_v(h), slices=None), x)


def places(x: Tensor) -> Tensor:
    """(B, C, H, W) as a row of places (B, H·W, C)."""
    return x.flatten(2).transpose(1, 2)


def picture(h: Tensor, like: Tensor) -> Tensor:
    """A row of places (B, H·W, C) as (B, C, H, W), with the height and width of `like`."""
    return h.transpose(1, 2).unflatten(2, like.shape[2:])
