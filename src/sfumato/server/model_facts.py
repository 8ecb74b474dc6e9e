"""What the server knows of the models it serves without their weights: tokenizers and defaults."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sfumato.checkpoint.infer import ModelInfo
    from sfumato.prompt.tokenizer import Tokenizer


@dataclass(frozen=True, eq=False)
class ModelFacts:
    """A model's `tokenizer`, that of its first text encoder; `widths` of its text encoders; and what drawing
    needs to know.
    """

    info: "ModelInfo"
    tokenizer: "Tokenizer"
    widths: tuple[int, ...]
    fast: bool
    decoders: tuple[str, ...]
    upscaler: str
    controls: tuple[str, ...]
    """The networks for controls that it brings with it."""

    def embedding_counts(self, text: str) -> Mapping[str, int]:
        """The learned embeddings in the server's folder that `text` names, and their numbers of vectors."""
        from sfumato.adapt.embedding import embeddings_in

        return {name: each.count for name, each in embeddings_in(text, (), self.widths).items()}


@lru_cache(maxsize=64)
def model_facts(model: str) -> ModelFacts:
    """What is known of a model. Raises `CheckpointError`."""
    # torch comes with it: only here, as the server itself draws nothing
    from sfumato.checkpoint.layout import TINY
    from sfumato.checkpoint.scan import scan
    from sfumato.config.model_settings import DEFAULT_UPSCALER
    from sfumato.config.text import TextConfig
    from sfumato.options import ModelOptions

    found = scan(ModelOptions.of(model))
    configs = [part.config for part in found.parts.values()]
    return ModelFacts(
        info=found.model_info(),
        tokenizer=next(iter(found.tokenizers.values())),
        widths=tuple(config.hidden_size for config in configs if isinstance(config, TextConfig)),
        fast=found.fast is not None,
        decoders=("full", "tiny") if TINY in found.parts else ("full",),
        upscaler=found.own.get("upscaler", DEFAULT_UPSCALER),
        controls=tuple(found.controls),
    )
