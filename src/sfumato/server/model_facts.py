"""What is known of the models that are served without their weights: tokenizers and defaults.

The views are for the server, and what makes them, with torch, for the processes that draw.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from pydantic import Field

from sfumato import folders
from sfumato.errors import SfumatoError
from sfumato.request import FRAMES_OF_CLIP
from sfumato.server.jobs import View

if TYPE_CHECKING:
    from sfumato.checkpoint.infer import ModelInfo
    from sfumato.prompt.tokenizer import Tokenizer


class DefaultsView(View):
    """What a request that does not say it is drawn with."""

    steps: int
    guidance: float
    sampler: str
    spacing: str
    width: int
    height: int
    upscaler: str = Field(description="What enlarges its pictures.")
    frames: int = Field(description="Of a clip; a request without `frames` is for a picture.")


class ModelView(View):
    """A model that is served. What needs its files is null where they cannot be read; `problem` says why."""

    name: str
    family: str | None = None
    task: str | None = Field(default=None, description="text, inpaint or instruct.")
    prediction: str | None = None
    factor: int | None = Field(default=None, description="Width and height are multiples of it, in pixels.")
    few_steps: bool | None = Field(default=None, description="Whether `fast` can be asked for.")
    decoders: tuple[str, ...] | None = Field(default=None, description="full, and tiny if it has one.")
    defaults: DefaultsView | None = None
    controls: tuple[str, ...] = Field(
        default=(), description="The networks for controls that it brings with it."
    )
    problem: str | None = None


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


def control_models(model: ModelView) -> tuple[str, ...]:
    """The networks that a model's controls may name: those that it brings with it and those in the server's
    folder.
    """
    return *model.controls, *folders.found("controls")


def model_view(name: str) -> ModelView:
    """What clients are told of a model."""
    try:
        facts = model_facts(name)
    except SfumatoError as error:
        return ModelView(name=name, problem=str(error))
    info = facts.info
    width, height = info.native_size
    usual = info.defaults
    return ModelView(
        name=name,
        family=info.family.name,
        task=info.task,
        prediction=info.prediction,
        factor=info.factor,
        few_steps=facts.fast,
        decoders=facts.decoders,
        defaults=DefaultsView(
            steps=usual.steps,
            guidance=usual.guidance,
            sampler=usual.sampler,
            spacing=usual.spacing,
            width=width,
            height=height,
            upscaler=facts.upscaler,
            frames=info.frames or FRAMES_OF_CLIP,
        ),
        controls=facts.controls,
    )
