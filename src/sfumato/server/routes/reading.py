"""How prompts and pictures are read, before anything is drawn."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from sfumato.errors import UsageError
from sfumato.prompt.language.tree import position_in
from sfumato.prompt.meaning import MAX_CHARACTERS
from sfumato.request import MAX_COUNT, MAX_SEED, MAX_STEPS
from sfumato.server.admission import served_model
from sfumato.server.context import Shared
from sfumato.server.errors import error_body
from sfumato.server.inspecting import InspectionView, inspected
from sfumato.server.model_facts import control_models
from sfumato.server.prompts import PromptView, read_prompt
from sfumato.server.submitting import decoded

router = APIRouter(prefix="/api/v1", tags=["reading"])


class PromptText(BaseModel):
    """A prompt to be read, and what of a request changes how it is."""

    model_config = ConfigDict(extra="forbid")

    prompt: str = Field(max_length=MAX_CHARACTERS)
    negative: bool = Field(False, description="Whether it is a negative prompt.")
    dialect: str = "sfumato"
    model: str | None = None
    steps: Annotated[int | None, Field(ge=1, le=MAX_STEPS)] = None
    style: list[str] = Field([], max_length=16)
    templates: Literal["random", "combinatorial", "off"] = "random"
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = 0
    count: Annotated[int, Field(ge=1, le=MAX_COUNT)] = 1


class PictureFile(BaseModel):
    """A picture, its bytes in base64 or a data URL."""

    model_config = ConfigDict(extra="forbid")

    image: str


@router.post("/prompt", response_model=PromptView)
def read_text(text: PromptText, server: Shared) -> Any:
    """How a prompt is read: what it expands to, its adapters, and its tokens with weights and places.

    What cannot be read is a 400 whose error has the `position` of the character, from 0, where it is known.
    """
    given = text.model_dump(exclude={"prompt", "negative", "model"})
    try:
        model = served_model(text.model, server.settings)
        ask = server.dispatcher.questions.ask
        return ask(read_prompt, text.prompt, model, negative=text.negative, **given)
    except UsageError as error:
        body = error_body(400, str(error), "prompt")
        body["error"]["position"] = position_in(str(error))
        return JSONResponse(body, 400)


@router.post("/inspect")
def inspect_picture(file: PictureFile, server: Shared) -> InspectionView:
    """How a picture was drawn, by Sfumato or another program: the fields of a request to draw its like."""

    def controls(model: str) -> tuple[str, ...]:
        return control_models(server.model(model))

    return inspected(decoded(file.image, "image"), server.settings.models, controls)
