"""A word that is being learned: vectors in the place of a token's embedding (Gal et al. 2023, §3.2)."""

import torch
from torch import Tensor, nn

from sfumato.adapt.embedding import Embedding
from sfumato.checkpoint import Model
from sfumato.errors import UsageError
from sfumato.nets.text import CLIPText
from sfumato.prompt.tokenizer import Tokenizer


class NewWord(nn.Module):
    """The vectors of one word, (n, D) for each text encoder; they are all that is trained."""

    def __init__(self, token: str, count: int, base: Model, begins_as: str, keep_norm: bool) -> None:
        """`begins_as`: words whose embeddings the vectors begin with, from the first again if too few.

        `keep_norm`: only their directions change. Raises `UsageError` for a text without a token.
        """
        super().__init__()
        self.token, self.keep_norm = token, keep_norm
        self.rows = nn.ParameterList()
        for index, (tokenizer, encoder) in enumerate(zip(base.tokenizers, base.text_encoders, strict=True)):
            rows = _first(tokenizer, encoder, begins_as, count)
            self.rows.append(nn.Parameter(rows))
            self.register_buffer(f"norms_{index}", rows.norm(dim=1, keepdim=True), persistent=False)

    def for_width(self, index: int, width: int) -> Tensor:
        """The vectors (n, `width`) for text encoder `index`, from 0."""
        rows: Tensor = self.rows[index]
        if not self.keep_norm:
            return rows
        norms: Tensor = self.get_buffer(f"norms_{index}")
        directions: Tensor = rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-12)
        return directions * norms

    def embedding(self, state: dict[str, Tensor]) -> Embedding:
        """The word with the weights `state` in the place of its own."""
        with torch.no_grad():
            before = {name: tensor.clone() for name, tensor in self.state_dict().items()}
            self.load_state_dict(state)
            vectors = tuple(
                self.for_width(index, rows.shape[1]).detach().cpu().clone()
                for index, rows in enumerate(self.rows)
            )
            self.load_state_dict(before)
        return Embedding(self.token, vectors, self.token)


def _first(tokenizer: Tokenizer, encoder: CLIPText, text: str, count: int) -> Tensor:
    ids = tokenizer.encode(text)
    if not ids:
        raise UsageError(f"initializer = {text!r} holds no word to begin with")
    table = encoder.embeddings.token_embedding.weight.detach()
    return torch.stack([table[ids[place % len(ids)]] for place in range(count)]).float().clone()
