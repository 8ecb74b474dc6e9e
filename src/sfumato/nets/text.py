"""CLIP's text encoders (Radford et al. 2021), as Stable Diffusion 1, 2 and XL read prompts with them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sfumato.config import TextConfig
from sfumato.nets.clip import START, CLIPEncoder
from sfumato.nets.layers import Checkpointed

LEGACY_EOS = 2
"""What early configurations say instead of the true end-of-text id, which is then the largest of a row."""

Placed = tuple[int, int, Tensor]
"""Row, place, and the vector (D,) to put there."""


@dataclass(frozen=True, eq=False)
class TextStates:
    """A prompt as the networks read it."""

    states: Tensor
    """(B, T, D): one for each token."""
    pooled: Tensor
    """(B, P): one for the whole, from the end-of-text token; P = D without projection."""


class Embeddings(nn.Module):
    """What a token is, plus where it stands."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        for table in (self.token_embedding, self.position_embedding):
            nn.init.normal_(table.weight, std=START)

    def forward(self, ids: Tensor, vectors: Sequence[Placed] = ()) -> Tensor:
        """(B, T) to (B, T, D), with `vectors` instead of the embeddings of the tokens in their places."""
        places = torch.arange(ids.shape[1], device=ids.device)
        tokens = self.token_embedding(ids)
        for row, place, vector in vectors:
            tokens[row, place] = vector.to(tokens)
        return tokens + self.position_embedding(places)


class CLIPText(Checkpointed):
    """Token ids to states and one pooled vector."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.encoder = CLIPEncoder(config, causal=True)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.text_projection = (
            nn.Linear(config.hidden_size, config.projection_dim or 0, bias=False)
            if config.with_projection
            else None
        )

    def forward(
        self,
        ids: Tensor,
        skip: int = 0,
        final_norm: bool = True,
        *,
        vectors: Sequence[Placed] = (),
        hidden: Tensor | None = None,
    ) -> TextStates:
        """`ids` (B, T), beginning and end of text included.

        `vectors`: learned embeddings (D,) to stand at a row and place instead of the token there. `hidden`
        (B, T): which tokens no other may look at.
        The states are those before the last `skip` layers, then normalised unless `final_norm` is false:
        SDXL reads them with skip 1 and without. The pooled vector is always the last layer's, normalised.
        Raises `ValueError` for more ids than there are positions and for skipping more layers than there are.
        """
        layers, most = self.encoder.layers, self.config.max_position_embeddings
        if ids.shape[1] > most:
            raise ValueError(
                f"{ids.shape[1]} token ids are more than the {most} that this encoder has places for"
            )
        if not 0 <= skip <= len(layers):
            raise ValueError(f"skip = {skip} must be in 0 to {len(layers)}")
        h = states = self.embeddings(ids, vectors)
        mask = None if hidden is None else _mask(hidden, h.dtype)
        for left, layer in zip(reversed(range(len(layers))), layers, strict=True):
            h = self.checkpoint(layer, h, mask)
            if left == skip:
                states = h
        last = self.final_layer_norm(h)
        pooled = last[torch.arange(len(ids), device=ids.device), self._ends(ids)]
        if self.text_projection is not None:
            pooled = self.text_projection(pooled)
        return TextStates(self.final_layer_norm(states) if final_norm else states, pooled)

    def _ends(self, ids: Tensor) -> Tensor:
        """Where each row's text ends (B,): at its first end-of-text."""
        if self.config.eos_token_id == LEGACY_EOS:
            return ids.argmax(dim=1)
        return (ids == self.config.eos_token_id).int().argmax(dim=1)


def _mask(hidden: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, T) of hidden places as (B, 1, T, T) to add to scores: −∞ where a place may not look."""
    length = hidden.shape[1]
    later = torch.ones(length, length, dtype=torch.bool, device=hidden.device).triu(1)
    seen = ~(later | hidden[:, None, None, :])
    return torch.zeros(seen.shape, dtype=dtype, device=hidden.device).masked_fill(~seen, -torch.inf)
