"""Adapters and embeddings that people have or train: LoRA and its kin in every published form, new words."""

from sfumato.adapt.adapters import Adapters
from sfumato.adapt.checkpoints import WrittenModel, extract, fold
from sfumato.adapt.delta import Delta
from sfumato.adapt.description import Description
from sfumato.adapt.embedding import Embedding
from sfumato.adapt.information import InstalledAdapter, info, installed
from sfumato.adapt.live import attach_new
from sfumato.adapt.reading import Adapter, Coverage
from sfumato.adapt.saving import save_embedding, save_lora
from sfumato.adapt.transforming import WrittenAdapter, convert, merge, resize
from sfumato.prompt.meaning import AdapterWeight

__all__ = [
    "Adapter",
    "AdapterWeight",
    "Adapters",
    "Coverage",
    "Delta",
    "Description",
    "Embedding",
    "InstalledAdapter",
    "WrittenAdapter",
    "WrittenModel",
    "attach_new",
    "convert",
    "extract",
    "fold",
    "info",
    "installed",
    "merge",
    "resize",
    "save_embedding",
    "save_lora",
]
