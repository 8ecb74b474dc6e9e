"""IP-Adapter (Ye et al. 2023): a picture as tokens, and their keys and values for each cross-attention."""

import torch
from torch import Tensor, nn

from sfumato.config import IPAdapterConfig
from sfumato.config.ip_adapter import BASE, FULL
from sfumato.nets.attention import attend
from sfumato.nets.inputs import KV

HEAD = 64
"""Width of the resampler's heads, which is the same in all that were published."""


class LinearProjection(nn.Module):
    """One vector to several tokens (Ye et al. 2023, §3.2.1)."""

    def __init__(self, config: IPAdapterConfig) -> None:
        super().__init__()
        self.proj = nn.Linear(config.width, config.tokens * config.context)
        self.norm = nn.LayerNorm(config.context)

    def forward(self, vector: Tensor) -> Tensor:
        """(N, P) to (N, tokens, context)."""
        return self.norm(self.proj(vector).unflatten(1, (-1, self.norm.normalized_shape[0])))


class FullProjection(nn.Module):
    """Each state to a token."""

    def __init__(self, config: IPAdapterConfig) -> None:
        super().__init__()
        width, context = config.width, config.context
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

    def __init__(self, config: IPAdapterConfig) -> None:
        hidden, wide = config.hidden, config.feed_forward
        feed_forward = nn.Sequential(
            nn.LayerNorm(hidden),
            nn.Linear(hidden, wide, bias=False),
            nn.GELU(),
            nn.Linear(wide, hidden, bias=False),
        )
        super().__init__([PerceiverAttention(hidden, config.heads), feed_forward])

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """`x` (N, L, D) and `tokens` (N, T, D) to (N, T, D)."""
        attention, feed_forward = self
        tokens = tokens + attention(x, tokens)
        return tokens + feed_forward(tokens)


class Resampler(nn.Module):
    """Any number of states to a fixed number of tokens (the perceiver resampler of Alayrac et al. 2022)."""

    def __init__(self, config: IPAdapterConfig) -> None:
        super().__init__()
        hidden = config.hidden
        self.latents = nn.Parameter(torch.randn(1, config.tokens, hidden) / hidden**0.5)
        self.proj_in = nn.Linear(config.width, hidden)
        self.layers = nn.ModuleList(ResamplerLayer(config) for _ in range(config.depth))
        self.proj_out = nn.Linear(hidden, config.context)
        self.norm_out = nn.LayerNorm(config.context)

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
    """What an IP-Adapter's file holds."""

    def __init__(self, config: IPAdapterConfig) -> None:
        super().__init__()
        self.config = config
        self.image_proj = _PROJECTIONS.get(config.kind, Resampler)(config)
        self.ip_adapter = nn.ModuleList(KeysValues(config.context, width) for width in config.attentions)

    @property
    def dtype(self) -> torch.dtype:
        """The weights' own."""
        return next(self.parameters()).dtype

    def forward(self, pictures: Tensor) -> list[KV]:
        """Keys and values (1, N·T, C) for each attention, in the order of the file, of N pictures.

        `pictures` is what CLIP sees of them: vectors (N, P) for the kind "base", else states (N, L, D).
        """
        tokens = self.image_proj(pictures).flatten(0, 1)[None]
        return [attention(tokens) for attention in self.ip_adapter]


_PROJECTIONS: dict[str, type[nn.Module]] = {BASE: LinearProjection, FULL: FullProjection}
