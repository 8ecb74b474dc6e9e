"""The transformer that draws Shap-E's latents (Jun & Nichol 2023, §4.2): a condition, a time, and tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sfumato.config import PriorConfig
from sfumato.errors import UsageError
from sfumato.nets.attention import SelfAttention
from sfumato.nets.inference import LayerNorm, Linear
from sfumato.nets.inputs import SizeConditioning
from sfumato.nets.layers import TimeMLP, sinusoids


@dataclass(frozen=True, eq=False)
class TokenContext:
    """What R rows are told of texts or pictures: `tokens` (R, T, W), which stand before the latent's."""

    tokens: Tensor

    @property
    def group(self) -> Any:
        return self.tokens.shape[1]

    @classmethod
    def cat(cls, parts: Sequence[Self]) -> Self:
        return cls(torch.cat([part.tokens for part in parts]))

    def mixed(self, shares: Tensor) -> Self:
        return type(self)(torch.einsum("fr,rtw->ftw", shares.to(self.tokens), self.tokens))

    def with_images(self, images: Sequence[Any]) -> Self:
        raise UsageError("image prompts are not supported by this model")


class GELULayer(nn.Module):
    """A layer and a GELU, under the published name."""

    def __init__(self, width: int, out_width: int) -> None:
        super().__init__()
        self.proj = Linear(width, out_width)

    def forward(self, h: Tensor) -> Tensor:
        """(B, N, C) to (B, N, out_width)."""
        return F.gelu(self.proj(h))


class PlainFeedForward(nn.Module):
    """Two layers, four times as wide between, under the published numbers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.ModuleList([GELULayer(width, 4 * width), nn.Identity(), Linear(4 * width, width)])

    def forward(self, h: Tensor, add: Tensor) -> Tensor:
        """(B, N, C), and what to add to the answer, to the same shape."""
        inner, _, out = self.net
        return out(inner(h), add=add)


class PriorBlock(nn.Module):
    """Attention and feed-forward; each adds to what came in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = LayerNorm(width)
        self.attn1 = SelfAttention(width, heads, width, bias=True)
        self.norm3 = LayerNorm(width)
        self.ff = PlainFeedForward(width)

    def forward(self, h: Tensor, slices: int | None) -> Tensor:
        """(R, N, C) to the same shape."""
        h = self.attn1(self.norm1(h), slices, add=h)
        return self.ff(self.norm3(h), add=h)


class PriorTransformer(nn.Module):
    """A denoising network of latents (B, 1, N, D): N vectors of D numbers, all seen at once.

    Its input is a row of tokens: the condition's, the time's, and the latent's N. It answers with a clean
    latent, and a variance that is not used.
    """

    reads_guidance = False

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.time_embedding = TimeMLP(
            width, width, hidden=config.time_embed_dim, gelu=config.time_embed_act_fn == "gelu"
        )
        self.proj_in = Linear(config.embedding_dim, width)
        self.embedding_proj_norm = (
            LayerNorm(config.condition_width) if config.embedding_proj_norm_type else None
        )
        self.embedding_proj = Linear(config.condition_width, width)
        self.positional_embedding = nn.Parameter(torch.zeros(1, config.num_embeddings, width))
        self.transformer_blocks = nn.ModuleList(
            PriorBlock(width, config.num_attention_heads) for _ in range(config.num_layers)
        )
        self.norm_in = LayerNorm(width) if config.norm_in_type else None
        self.norm_out = LayerNorm(width)
        self.proj_to_clip_embeddings = Linear(width, 2 * config.embedding_dim)
        # of the latents' distribution; published files hold them and Shap-E's are not scaled
        self.clip_mean = nn.Parameter(torch.zeros(1, 2 * config.embedding_dim))
        self.clip_std = nn.Parameter(torch.zeros(1, 2 * config.embedding_dim))

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in."""
        return self.positional_embedding.dtype

    def context(self, states: Tensor) -> TokenContext:
        """The tokens of `states` (R, T, C): of a text one vector, of a picture one for each patch."""
        if self.embedding_proj_norm is not None:
            states = self.embedding_proj_norm(states)
        return TokenContext(self.embedding_proj(states))

    def embed_time(
        self, t: Tensor, size: SizeConditioning | None = None, guidance: Tensor | None = None
    ) -> Tensor:
        """The time's token (R, W) of times `t` (R,)."""
        waves = sinusoids(t, self.config.width, cosine_first=True, shift=0)
        token: Tensor = self.time_embedding(waves.to(self.dtype))
        return token

    def denoise(
        self,
        x: Tensor,
        time: Tensor,
        context: TokenContext,
        rows: Tensor | None = None,
        *,
        slices: int | None = None,
        **others: Any,
    ) -> Tensor:
        """The clean latents (R, 1, N, D) of `x` (P, 1, N, D), row by row under `context`.

        `others` are what networks of pictures are given, and none of it is given here.
        """
        h = self.proj_in(x[:, 0]) + self.positional_embedding
        if rows is not None:
            h, time = h[rows], time[rows]
        h = torch.cat([context.tokens, time[:, None], h], dim=1)
        if self.norm_in is not None:
            h = self.norm_in(h)
        for block in self.transformer_blocks:
            h = block(h, slices)
        h = self.norm_out(h[:, -self.config.num_embeddings :])
        clean, _ = self.proj_to_clip_embeddings(h).chunk(2, dim=2)
        return clean[:, None]
