"""What can be drawn with: models, samplers, styles, adapters, word lists."""

from importlib.util import find_spec
from pathlib import Path

from fastapi import APIRouter
from pydantic import BaseModel, Field

from sfumato import folders
from sfumato.names import DIALECTS, PREPROCESSORS, SAMPLERS, SPACINGS, UPSCALERS
from sfumato.prompt import wildcards
from sfumato.prompt.styles import load_styles
from sfumato.server.context import Shared
from sfumato.server.model_facts import ModelView

router = APIRouter(prefix="/api/v1", tags=["library"])


class Named(BaseModel):
    """Something with a name."""

    name: str


class NamedByOthers(Named):
    """Something with a name here, and others in other programs."""

    aliases: tuple[str, ...]


class StyleView(Named):
    """A style preset; `{prompt}` in its texts is where the text goes."""

    prompt: str
    negative: str
    description: str
    models: tuple[str, ...] = Field(description="The kinds of model that it was made for; none means any.")


class AdapterView(Named):
    """An adapter; a prompt calls it by `<lora:name:weight>`."""

    bytes: int


@router.get("/models")
def list_models(server: Shared) -> list[ModelView]:
    """The models that are served; the first is the default."""
    return [server.model(name) for name in server.settings.models]


@router.get("/samplers")
def list_samplers() -> list[NamedByOthers]:
    """Samplers by name."""
    return [NamedByOthers(name=name, aliases=others) for name, others in SAMPLERS.items()]


@router.get("/spacings")
def list_spacings() -> list[NamedByOthers]:
    """Spacings of the noise levels by name."""
    return [NamedByOthers(name=name, aliases=others) for name, others in SPACINGS.items()]


@router.get("/upscalers")
def list_upscalers() -> list[Named]:
    """What enlarges a picture, by name; each model has a default."""
    return [Named(name=name) for name in UPSCALERS]


@router.get("/dialects")
def list_dialects() -> list[Named]:
    """Syntaxes of prompts by name."""
    return [Named(name=name) for name in DIALECTS]


@router.get("/styles")
def list_styles() -> list[StyleView]:
    """Style presets by name."""
    return [
        StyleView(
            name=name,
            prompt=style.prompt,
            negative=style.negative,
            description=style.description,
            models=style.models,
        )
        for name, style in load_styles().items()
    ]


@router.get("/adapters")
def list_adapters() -> list[AdapterView]:
    """LoRAs and other adapters in the server's folder."""
    found = folders.found("adapters")
    return [AdapterView(name=name, bytes=_bytes(path)) for name, path in found.items()]


@router.get("/embeddings")
def list_embeddings() -> list[Named]:
    """Learned embeddings in the server's folder."""
    return [Named(name=name) for name in folders.found("embeddings")]


@router.get("/controls")
def list_controls() -> list[Named]:
    """ControlNets and other networks that follow a picture, in the server's folder."""
    return [Named(name=name) for name in folders.found("controls")]


@router.get("/preprocessors")
def list_preprocessors() -> list[Named]:
    """What can be made of a control's picture first, by name; without opencv there are no edges."""
    missing = () if find_spec("cv2") else ("canny",)
    return [Named(name=name) for name in PREPROCESSORS if name not in missing]


@router.get("/motion")
def list_motion() -> list[Named]:
    """Motion adapters, which make clips of a model's pictures, in the server's folder."""
    return [Named(name=name) for name in folders.found("motion")]


@router.get("/wildcards")
def list_wildcards() -> list[Named]:
    """Lists of words in the server's folder; a prompt names one as `__name__`."""
    found, _ = wildcards.sources()
    return [Named(name=name) for name in sorted(found)]


def _bytes(path: Path) -> int:
    files = path.rglob("*.safetensors") if path.is_dir() else (path,)
    return sum(each.stat().st_size for each in files)
