"""What can be drawn with: models, samplers, styles, adapters; and how a prompt is read."""

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from sfumato import folders
from sfumato.names import DIALECTS, SAMPLERS, SPACINGS
from sfumato.prompt.meaning import MAX_CHARACTERS
from sfumato.prompt.styles import load_styles
from sfumato.server.context import Shared

router = APIRouter(prefix="/api/v1", tags=["library"])


class Named(BaseModel):
    """Something with a name."""

    name: str


class PromptText(BaseModel):
    """A prompt to be parsed."""

    model_config = ConfigDict(extra="forbid")

    prompt: str = Field(max_length=MAX_CHARACTERS)
    dialect: str = "sfumato"


@router.get("/models")
def list_models(server: Shared) -> list[Named]:
    """The models that are served; the first is the default."""
    return [Named(name=name) for name in server.settings.models]


@router.get("/samplers")
def list_samplers() -> list[Named]:
    """Samplers by name."""
    return [Named(name=name) for name in SAMPLERS]


@router.get("/spacings")
def list_spacings() -> list[Named]:
    """Spacings of the noise levels by name."""
    return [Named(name=name) for name in SPACINGS]


@router.get("/dialects")
def list_dialects() -> list[Named]:
    """Syntaxes of prompts by name."""
    return [Named(name=name) for name in DIALECTS]


@router.get("/styles")
def list_styles() -> list[Named]:
    """Style presets by name."""
    return [Named(name=name) for name in load_styles()]


@router.get("/adapters")
def list_adapters() -> list[Named]:
    """LoRAs and other adapters in the server's folder."""
    return [Named(name=name) for name in folders.found("adapters")]


@router.get("/embeddings")
def list_embeddings() -> list[Named]:
    """Learned embeddings in the server's folder."""
    return [Named(name=name) for name in folders.found("embeddings")]


@router.post("/prompt")
def parse_prompt(text: PromptText) -> dict[str, Any]:
    """How a prompt is read: its text, and the adapters that it calls."""
    from sfumato.prompt.language import parse

    found = parse(text.prompt, text.dialect)
    return {"text": found.text, "adapters": [each.name for each in found.adapters]}
