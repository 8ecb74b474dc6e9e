"""Attention in one place, and the transformers of the UNet and the autoencoder that are made of it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sfumato.nets.cross_frame import attends_across_frames
from sfumato.nets.flash_attention import flash_attention, suits
from sfumato.nets.inference import Conv, GEGLULinear, LayerNorm, Linear, Norm, input_of
from sfumato.nets.inputs import BlockInputs
from sfumato.nets.recomputed_attention import RecomputedAttention
from sfumato.nets.token_merging import Merging


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    heads: int,
    slices: int | None = None,
    *,
    causal: bool = False,
    mask: Tensor | None = None,
) -> Tensor:
    """softmax(q kᵀ / √d + mask) v (Vaswani et al. 2017, eq. 1), `heads` of width d side by side.

    `q` (B, N, C), `k` and `v` (B, M, C), `mask` (1, M), (B, M) or (B, 1, N, M), to (B, N, C). With `slices`
    the queries take turns in so many parts: the same numbers in less memory. `causal`, without a mask: no
    place looks at a later one.
    """
    if not causal and suits(q, k, v, heads, mask):
        return flash_attention(q, k, v, heads, mask)
    if mask is not None:
        mask = (mask[:, None, None] if mask.ndim == 2 and len(mask) > 1 else mask).to(q.dtype)
    q, k, v = (x.unflatten(2, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    # torch's own attention takes long on its way back on a CPU, where it is fused and where it is not
    product = _learned if q.requires_grad and q.device.type == "cpu" else F.scaled_dot_product_attention
    if slices is None:
        out = product(q, k, v, mask, is_causal=causal)
    else:
        out = torch.cat([product(part, k, v, mask) for part in q.chunk(slices, dim=2)], dim=2)
    return out.transpose(1, 2).flatten(2)


def _learned(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, is_causal: bool = False) -> Tensor:
    """The same of heads (B, H, N, d), for gradients on a CPU."""
    if is_causal:
        mask = torch.full((1, q.shape[2], k.shape[2]), -torch.inf, dtype=q.dtype, device=q.device).triu(1)
    elif mask is not None:
        mask = mask[None] if mask.ndim == 2 else mask.expand(-1, q.shape[1], -1, -1).flatten(0, 1)
    apply: Callable[..., Tensor] = RecomputedAttention.apply
    out = apply(*(x.flatten(0, 1) for x in (q, k, v)), mask)
    return out.unflatten(0, q.shape[:2])


class Attention(nn.Module):
    """The four projections of an attention; keys and values are made of something `context` wide.

    With `upcast`, scores are taken in float32: those of SD 2.1 leave the range of half precision.
    """

    def __init__(
        self, width: int, heads: int, context: int, *, bias: bool = False, upcast: bool = False
    ) -> None:
        super().__init__()
        self.heads, self.upcast = heads, upcast
        self.to_q = Linear(width, width, bias)
        self.to_k = Linear(context, width, bias)
        self.to_v = Linear(context, width, bias)
        self.to_out = nn.ModuleList([Linear(width, width)])

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, slices: int | None, mask: Tensor | None = None
    ) -> Tensor:
        """`q` (B, N, C), `k` and `v` (B, M, C), to (B, N, C), in the precision that this attention needs."""
        dtype = q.dtype
        if self.upcast:
            q, k, v = (x.to(torch.promote_types(dtype, torch.float32)) for x in (q, k, v))
        return attend(q, k, v, self.heads, slices, mask=mask).to(dtype)

    def mix(self, q: Tensor, k: Tensor, v: Tensor, slices: int | None, add: Tensor | None) -> Tensor:
        """`attend` and the projection of its result, plus `add` (B, N, C) if there is one."""
        return self.to_out[0](self.attend(q, k, v, slices), add=add)


class SelfAttention(Attention):
    """Every place of the picture asks every other."""

    def forward(self, h: Tensor, slices: int | None, add: Tensor | None = None) -> Tensor:
        """(B, N, C), and what to add to the answer, to the same shape."""
        x = input_of(h, self.to_q, self.to_k, self.to_v)
        return self.mix(self.to_q(x), self.to_k(x), self.to_v(x), slices, add)

    def across_frames(self, h: Tensor, frames: int, slices: int | None, add: Tensor) -> Tensor:
        """The same of clips (B·F, N, C), each of whose F frames asks the first (see `cross_frame`)."""
        first = h[::frames]
        q = self.to_q(h).unflatten(0, (-1, frames)).flatten(1, 2)
        answer = self.attend(q, self.to_k(first), self.to_v(first), slices)
        return self.to_out[0](answer.view_as(h), add=add)


class CrossAttention(Attention):
    """The picture asks, the text answers."""

    index = 0
    """Which pair of a `TextKV` is this one's; the UNet counts."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # computed once a text, and asked in every step
        self.to_k.may_be_quantized = self.to_v.may_be_quantized = False

    def project(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (R, T, C) of the text states (R, T, context)."""
        return self.to_k(states), self.to_v(states)

    def forward(self, h: Tensor, inputs: BlockInputs, add: Tensor) -> Tensor:
        """(P or R, N, C), and what to add to the answer (R, N, C), to (R, N, C)."""
        text = inputs.text
        asked, (k, v) = inputs.expand_rows(self.to_q(h)), text.pairs[self.index]
        # the frames of a clip ask the same text
        q = asked.unflatten(0, (len(k), -1)).flatten(1, 2)
        answer = self.attend(q, k, v, inputs.slices, text.mask)
        for image in text.images:
            weight = image.weights[:, self.index, None, None]
            answer = answer + weight * self.attend(q, *image.pairs[self.index], inputs.slices)
        return self.to_out[0](answer.view_as(asked), add=add)


class GEGLU(nn.Module):
    """The gated layer, under the published name."""

    def __init__(self, width: int, out_width: int) -> None:
        super().__init__()
        self.proj = GEGLULinear(width, 2 * out_width)

    def forward(self, h: Tensor) -> Tensor:
        """(B, N, C) to (B, N, out_width)."""
        return self.proj(h)


class FeedForward(nn.Module):
    """Two layers, four times as wide between."""

    def __init__(self, width: int) -> None:
        super().__init__()
        # the published numbering leaves room for dropout
        self.net = nn.ModuleList([GEGLU(width, 4 * width), nn.Identity(), Linear(4 * width, width)])

    def forward(self, h: Tensor, add: Tensor) -> Tensor:
        """(B, N, C), and what to add to the answer, to the same shape."""
        gated, _, out = self.net
        return out(gated(h), add=add)


class TransformerBlock(nn.Module):
    """Attention within the picture, attention to the text, feed-forward; each adds to what came in."""

    def __init__(self, width: int, heads: int, context: int, upcast: bool) -> None:
        super().__init__()
        self.norm1 = LayerNorm(width)
        self.attn1 = SelfAttention(width, heads, width, upcast=upcast)
        self.norm2 = LayerNorm(width)
        self.attn2 = CrossAttention(width, heads, context, upcast=upcast)
        self.norm3 = LayerNorm(width)
        self.ff = FeedForward(width)

    def forward(self, h: Tensor, inputs: BlockInputs, merging: Merging | None = None) -> Tensor:
        """(P or R, N, C) to (R, N, C); with `merging` the places attend to each other merged."""
        asked = self.norm1(h)
        if inputs.frames is not None and attends_across_frames():
            h = self.attn1.across_frames(asked, inputs.frames, inputs.slices, add=h)
        elif merging is not None:
            h = h + merging.unmerge(self.attn1(merging.merge(asked), inputs.slices))
        else:
            h = self.attn1(asked, inputs.slices, add=h)
        h = self.attn2(self.norm2(h), inputs, add=inputs.expand_rows(h))
        return self.ff(self.norm3(h), add=h)


class SpatialTransformer(nn.Module):
    """`depth` transformer blocks over the places of a picture (Rombach et al. 2022, appendix E.2.1)."""

    def __init__(
        self, channels: int, groups: int, heads: int, context: int, depth: int, linear: bool, upcast: bool
    ) -> None:
        super().__init__()
        self.linear = linear
        self.norm = Norm(groups, channels, eps=1e-6)
        self.proj_in = Linear(channels, channels) if linear else Conv(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(channels, heads, context, upcast) for _ in range(depth)
        )
        self.proj_out = Linear(channels, channels) if linear else Conv(channels, channels, 1)
        self.finest = False
        """Whether it is one of those with the most places, which can be merged."""

    def forward(self, x: Tensor, inputs: BlockInputs) -> Tensor:
        """(P or R, C, H, W) to (R, C, H, W)."""
        h = self.norm(x)
        h = self.proj_in(to_tokens(h)) if self.linear else to_tokens(self.proj_in(h))
        for block in self.transformer_blocks:
            merging = None
            if self.finest and inputs.token_merging:
                merging = Merging.of(h, (x.shape[2], x.shape[3]), inputs.token_merging)
            h = block(h, inputs, merging)
        x = inputs.expand_rows(x)
        if self.linear:
            return to_image(self.proj_out(h, add=to_tokens(x)), x)
        return self.proj_out(to_image(h, x), add=x)


class ImageAttention(Attention):
    """The autoencoder's attention, of one head, over the places of its smallest picture."""

    def __init__(self, channels: int, groups: int, eps: float) -> None:
        super().__init__(channels, heads=1, context=channels, bias=True)
        self.group_norm = Norm(groups, channels, eps)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        h = to_tokens(self.group_norm(x))
        return to_image(self.mix(self.to_q(h), self.to_k(h), self.to_v(h), None, add=to_tokens(x)), x)


def to_tokens(x: Tensor) -> Tensor:
    """(B, C, H, W) as a row of places (B, H·W, C)."""
    return x.flatten(2).transpose(1, 2)


def to_image(h: Tensor, like: Tensor) -> Tensor:
    """A row of places (B, H·W, C) as (B, C, H, W), with the height and width of `like`."""
    return h.transpose(1, 2).unflatten(2, like.shape[2:])
