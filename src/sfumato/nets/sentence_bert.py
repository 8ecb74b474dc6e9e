"""Sentence-BERT (Reimers & Gurevych 2019, §3): the mean over a BERT's last hidden states, as a unit vector.

The frozen teacher of the text encoder and of the caption scorer. It is never trained, so its weights stay a
table by their published names.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from sfumato import weights
from sfumato.errors import CheckpointError
from sfumato.files import read_json
from sfumato.nets.attention import attend

MAX_TOKENS = 32
"""Tokens of a text that are read; the rest is cut off."""


@dataclass(frozen=True, eq=False)
class SentenceBert:
    """A BERT with its tokenizer."""

    tensors: dict[str, Tensor]
    tokenizer: Any
    layers: int
    heads: int
    eps: float

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> "SentenceBert":
        """The model in `folder`: `config.json`, `model.safetensors`, `tokenizer.json`.

        Raises `CheckpointError` where they are missing, damaged or no BERT.
        """
        config = read_json(folder / "config.json")
        if config.get("model_type") != "bert" or config.get("hidden_act") != "gelu":
            raise CheckpointError(f"{folder} is no BERT with GELU, the only one that can be read")
        try:
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # the Rust library raises no narrower class
            raise CheckpointError(f"cannot read {folder / 'tokenizer.json'}: {error}") from error
        tokenizer.enable_truncation(MAX_TOKENS)
        tokenizer.enable_padding()
        tensors = {
            name: tensor.to(device, torch.float32)
            for name, tensor in weights.read(folder / "model.safetensors").items()
            if tensor.is_floating_point()
        }
        try:
            sizes = config["num_hidden_layers"], config["num_attention_heads"], config["layer_norm_eps"]
            return cls(tensors, tokenizer, *sizes)
        except KeyError as error:
            raise CheckpointError(f"{folder / 'config.json'} does not say {error}") from None

    @property
    def width(self) -> int:
        """P, the length of its vectors."""
        return self.tensors["embeddings.word_embeddings.weight"].shape[1]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of its weights: a cache of its vectors names the model that made them."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.tensors.items()):
            digest.update(name.encode())
            digest.update(tensor.cpu().contiguous().numpy().data)
        return digest.hexdigest()

    @torch.no_grad()
    def embed(self, texts: list[str]) -> Tensor:
        """Unit vectors (N, P) of `texts`."""
        encoded = self.tokenizer.encode_batch(texts)
        device = self.tensors["embeddings.word_embeddings.weight"].device
        ids = torch.tensor([one.ids for one in encoded], device=device)
        attended = torch.tensor([one.attention_mask for one in encoded], device=device)
        h = self._states(ids, attended) * attended[..., None]
        return F.normalize(h.sum(1), dim=-1)

    def _states(self, ids: Tensor, attended: Tensor) -> Tensor:
        """Last hidden states (B, T, P) of tokens (B, T) under the attention mask `attended` (B, T)."""
        table = self.tensors
        h = F.embedding(ids, table["embeddings.word_embeddings.weight"])
        h = h + table["embeddings.position_embeddings.weight"][: ids.shape[1]]
        h = self._norm(h + table["embeddings.token_type_embeddings.weight"][0], "embeddings")
        mask = torch.where(attended[:, None, None, :] > 0, 0.0, -torch.inf)
        for number in range(self.layers):
            layer = f"encoder.layer.{number}"
            q, k, v = (
                self._linear(h, f"{layer}.attention.self.{part}") for part in ("query", "key", "value")
            )
            mixed = self._linear(attend(q, k, v, self.heads, mask=mask), f"{layer}.attention.output.dense")
            h = self._norm(h + mixed, f"{layer}.attention.output")
            wide = F.gelu(self._linear(h, f"{layer}.intermediate.dense"))
            h = self._norm(h + self._linear(wide, f"{layer}.output.dense"), f"{layer}.output")
        return h

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"])

    def _norm(self, x: Tensor, name: str) -> Tensor:
        weight, bias = (self.tensors[f"{name}.LayerNorm.{part}"] for part in ("weight", "bias"))
        return F.layer_norm(x, weight.shape, weight, bias, self.eps)
