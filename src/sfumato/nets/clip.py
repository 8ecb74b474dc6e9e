"""What CLIP's text and vision encoders are both made of (Radford et al. 2021)."""

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sfumato.nets.attention import attend

START = 0.02
"""Standard deviation of embeddings that have learned nothing yet (Radford et al. 2021, §2.4)."""


class CLIPConfig(Protocol):
    """What a configuration says of the layers, of text or of pictures."""

    @property
    def hidden_size(self) -> int: ...
    @property
    def intermediate_size(self) -> int: ...
    @property
    def num_hidden_layers(self) -> int: ...
    @property
    def num_attention_heads(self) -> int: ...
    @property
    def hidden_act(self) -> str: ...
    @property
    def layer_norm_eps(self) -> float: ...


class CLIPAttention(nn.Module):
    """Each token looks at all; with `causal` at itself and those before it."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, h: Tensor, mask: Tensor | None) -> Tensor:
        """(B, T, D) to the same shape; `mask` (B, 1, T, T), causal itself, where some tokens are hidden."""
        q, k, v = self.q_proj(h), self.k_proj(h), self.v_proj(h)
        causal = self.causal and mask is None
        return self.out_proj(attend(q, k, v, self.heads, causal=causal, mask=mask))


class MLP(nn.Module):
    """Two layers; OpenAI's encoders approximate GELU by x·sigmoid(1.702 x) (Hendrycks & Gimpel 2016, §2)."""

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        self.quick = config.hidden_act == "quick_gelu"
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, h: Tensor) -> Tensor:
        """(B, T, D) to the same shape."""
        h = self.fc1(h)
        return self.fc2(h * torch.sigmoid(1.702 * h) if self.quick else F.gelu(h))


class Layer(nn.Module):
    """Attention and MLP, each normalised before and added after."""

    def __init__(self, config: CLIPConfig, causal: bool) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.self_attn = CLIPAttention(config.hidden_size, config.num_attention_heads, causal)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.mlp = MLP(config)

    def forward(self, h: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, T, D) to the same shape."""
        h = h + self.self_attn(self.layer_norm1(h), mask)
        return h + self.mlp(self.layer_norm2(h))


class CLIPEncoder(nn.Module):
    """The layers, under the published name."""

    def __init__(self, config: CLIPConfig, causal: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(config, causal) for _ in range(config.num_hidden_layers))
