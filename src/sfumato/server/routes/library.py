"""What can be drawn with: models, samplers, styles, adapters, wildcards."""

from pathlib import Path

from fastapi import APIRouter
from pydantic import BaseModel, Field

from sfumato import folders
from sfumato.errors import SfumatoError
from sfumato.names import DIALECTS, SAMPLERS, SPACINGS, UPSCALERS
from sfumato.prompt import wildcards
from sfumato.prompt.styles import load_styles
from sfumato.server.context import Shared

router = APIRouter(prefix="/api/v1", tags=["library"])


class Named(BaseModel):
    """Something with a name."""

    name: str


class DefaultsView(BaseModel):
    """What a request that does not say it is drawn with."""

    steps: int
    guidance: float
    sampler: str
    spacing: str
    width: int
    height: int
    upscaler: str = Field(description="What enlarges its pictures.")


class ModelView(Named):
    """A model that is served. What needs its files is null where they cannot be read; `problem` says why."""

    family: str | None = None
    task: str | None = Field(default=None, description="text, inpaint or instruct.")
    prediction: str | None = None
    factor: int | None = Field(default=None, description="Width and height are multiples of it, in pixels.")
    few_steps: bool | None = Field(default=None, description="Whether `fast` can be asked for.")
    decoders: tuple[str, ...] | None = Field(default=None, description="full, and tiny if it has one.")
    defaults: DefaultsView | None = None
    problem: str | None = None


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
    return [_model(name) for name in server.settings.models]


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


@router.get("/wildcards")
def list_wildcards() -> list[Named]:
    """Lists of words in the server's folder; a prompt names one as `__name__`."""
    found, _ = wildcards.sources()
    return [Named(name=name) for name in sorted(found)]


def _model(name: str) -> ModelView:
    from sfumato.server.model_facts import model_facts

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
        ),
    )


def _bytes(path: Path) -> int:
    files = path.rglob("*.safetensors") if path.is_dir() else (path,)
    return sum(each.stat().st_size for each in files)
