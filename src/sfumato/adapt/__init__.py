"""Adapters and embeddings that people have or train: LoRA and its kin in every published form, new words."""

from sfumato.adapt.adapters import Adapters
from sfumato.adapt.delta import Delta
from sfumato.adapt.embedding import Embedding
from sfumato.adapt.live import attach_new
from sfumato.adapt.reading import Adapter, Coverage
from sfumato.adapt.saving import save_lora
from sfumato.prompt.meaning import AdapterWeight

__all__ = [
    "Adapter",
    "AdapterWeight",
    "Adapters",
    "Coverage",
    "Delta",
    "Embedding",
    "attach_new",
    "save_lora",
]
