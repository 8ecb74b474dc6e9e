"""OpenAI's Images API: generations, edits, variations, models."""

import base64
import json
import re
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, Literal

from fastapi import APIRouter, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.responses import JSONResponse, Response

from sfumato.errors import UsageError
from sfumato.names import ELSEWHERE
from sfumato.request import Request as DrawRequest
from sfumato.server.context import Owner, Server, Shared
from sfumato.server.encoding import encoded, recoded
from sfumato.server.errors import error_body
from sfumato.server.jobs import ENDED, JobState, JobView, PictureView
from sfumato.server.openai_answers import (
    STREAM,
    ImageDatum,
    ImagesAnswer,
    ModelCard,
    ModelCards,
    Usage,
    form_of,
)
from sfumato.server.submitting import events_of, finished, submit

router = APIRouter(prefix="/v1", tags=["OpenAI"])

MODELS_OF_OPENAI = re.compile(r"(dall-e|gpt-image|chatgpt-image)-?")
"""Names that programs send unchanged; they mean the default model here."""
QUALITIES = {"low": 10, "high": 40, "hd": 40, "xhigh": 60, "max": 80}
"""Steps by `quality`; other qualities take the model's own."""
VARIATION_STRENGTH = 0.7
STYLES_OF_OPENAI = ("vivid", "natural")
"""Values of `style` that change nothing here; others are style presets."""


class ImageParameters(BaseModel):
    """Parameters of OpenAI's, and any field of a request to draw besides, such as seed and steps."""

    model_config = ConfigDict(extra="allow")

    prompt: str = Field("", max_length=32000)
    model: str | None = None
    n: int = Field(1, ge=1, le=10)
    size: str | None = None
    quality: Literal["auto", "standard", "hd", "low", "medium", "high", "xhigh", "max"] = "auto"
    background: Literal["auto", "opaque", "transparent"] = "auto"
    output_format: Literal["png", "jpeg", "webp"] = "png"
    output_compression: int = Field(95, ge=1, le=100)
    response_format: Literal["url", "b64_json"] = "b64_json"
    stream: bool = False
    partial_images: int = Field(0, ge=0, le=3)
    style: str | None = None
    user: str | None = None
    moderation: str | None = None
    input_fidelity: str | None = None


PARAMETERS = ImageParameters.model_json_schema()


@router.get("/models")
def list_models(server: Shared) -> ModelCards:
    """The models that are served."""
    return ModelCards(data=tuple(ModelCard(id=name) for name in server.settings.models))


@router.get("/models/{model:path}")
def get_model(model: str, server: Shared) -> ModelCard:
    """One model."""
    if model not in server.settings.models:
        raise HTTPException(404, f"model {model!r} is not served")
    return ModelCard(id=model)


@router.post("/images/generations", response_model=ImagesAnswer, responses=STREAM)
async def generate(parameters: ImageParameters, request: Request, server: Shared, owner: Owner) -> Response:
    """Draw a prompt."""
    if not parameters.prompt.strip():
        raise UsageError("prompt is empty; say what to draw")
    return await _answer(request, server, owner, parameters, {}, "image_generation")


@router.post(
    "/images/edits",
    response_model=ImagesAnswer,
    responses=STREAM,
    openapi_extra=form_of(PARAMETERS, mask=True),
)
async def edit(request: Request, server: Shared, owner: Owner) -> Response:
    """Draw into a picture: where the mask is transparent, or all of it."""
    form = await request.form(max_files=20)
    parameters, files = _of_form(form)
    if "image" not in files:
        raise UsageError("image is missing: the picture to edit")
    fields = _mask_of_alpha(files["image"], files.get("mask"))
    return await _answer(request, server, owner, parameters, fields, "image_edit")


@router.post(
    "/images/variations",
    response_model=ImagesAnswer,
    responses=STREAM,
    openapi_extra=form_of(PARAMETERS, mask=False),
)
async def vary(request: Request, server: Shared, owner: Owner) -> Response:
    """Draw pictures like one."""
    parameters, files = _of_form(await request.form(max_files=2))
    if "image" not in files:
        raise UsageError("image is missing: the picture to vary")
    fields = {"image": files["image"], "strength": VARIATION_STRENGTH}
    return await _answer(request, server, owner, parameters, fields, "image_variation")


def _of_form(form: FormData) -> tuple[ImageParameters, dict[str, Any]]:
    """Parameters and files of a multipart body. Raises `UsageError` for several pictures."""
    texts: dict[str, Any] = {}
    files: dict[str, Any] = {}
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            name = name.removesuffix("[]")
            if name in files:
                raise UsageError(f"{name} is given several times: one picture is edited at a time")
            files[name] = value.file.read()
        else:
            texts[name] = value
    try:
        return ImageParameters.model_validate(texts), files
    except ValidationError as error:
        raise RequestValidationError(
            [{**each, "loc": ("body", *each["loc"])} for each in error.errors()]
        ) from None


def _mask_of_alpha(image: bytes, mask: bytes | None) -> dict[str, Any]:
    """OpenAI's masks are transparent where it is drawn; without one the picture's own alpha says it."""
    import io

    import numpy as np
    import PIL.Image

    from sfumato import pictures

    with pictures.opened_content(io.BytesIO(mask or image), "the mask" if mask else "the image") as opened:
        alpha = np.asarray(pictures.rgba(opened))[..., 3]
    if alpha.min() == 255:
        if mask is not None:
            raise UsageError(
                "mask has no transparent part: it is transparent where the picture is drawn anew"
            )
        return {"image": image}
    return {"image": image, "mask": PIL.Image.fromarray(255 - alpha)}


def _fields(parameters: ImageParameters, server: Server) -> dict[str, Any]:
    """A request's fields. Raises `UsageError` for what is no parameter and no field."""
    known = DrawRequest.model_fields
    fields: dict[str, Any] = {}
    for name, value in (parameters.model_extra or {}).items():
        own = name if name in known else next(iter(ELSEWHERE.get(name, ())), None)
        if own is None:
            raise UsageError(f"unknown parameter {name!r}")
        fields[own] = value
    if "frames" in fields:
        raise UsageError("frames is given: this API answers with pictures; POST /api/v1/jobs draws clips")
    fields |= {"prompt": parameters.prompt, "count": parameters.n}
    if parameters.model and not MODELS_OF_OPENAI.match(parameters.model):
        fields["model"] = parameters.model
    if parameters.size and parameters.size != "auto":
        match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", parameters.size)
        if match is None:
            raise UsageError(f"size is {parameters.size!r}: must be auto or WIDTHxHEIGHT, as 256x256")
        fields |= {"width": int(match[1]), "height": int(match[2])}
    if parameters.background == "transparent":
        if parameters.output_format == "jpeg":
            raise UsageError("background is transparent, which no jpeg is: output_format must be png or webp")
        fields["transparent"] = True
    if parameters.style and parameters.style not in STYLES_OF_OPENAI:
        fields["style"] = parameters.style
    if parameters.quality in QUALITIES:
        fields.setdefault("steps", QUALITIES[parameters.quality])
    return fields


async def _answer(
    request: Request,
    server: Server,
    owner: str,
    parameters: ImageParameters,
    pictures: Mapping[str, Any],
    kind: str,
) -> Response:
    fields = {**_fields(parameters, server), **pictures}
    job = await run_in_threadpool(submit, server, fields, owner)
    if parameters.stream:
        stream = _stream(request, server, job, parameters, kind)
        return StreamingResponse(
            stream, media_type="text/event-stream", headers={"cache-control": "no-store"}
        )
    done = await finished(server, job.id, request)
    if done.state is JobState.CANCELLED or not done.pictures:
        raise HTTPException(499, "the job was cancelled")
    data = [await run_in_threadpool(_datum, request, server, parameters, each) for each in done.pictures]
    answer = ImagesAnswer(
        created=int(done.ended or time.time()),
        data=tuple(data),
        output_format=parameters.output_format,
        size=f"{done.pictures[0].width}x{done.pictures[0].height}",
        background="transparent" if parameters.background == "transparent" else "opaque",
    )
    return JSONResponse(answer.model_dump(exclude_none=True))


def _datum(request: Request, server: Server, parameters: ImageParameters, picture: PictureView) -> ImageDatum:
    if parameters.response_format == "url":
        return ImageDatum(url=f"{request.base_url}api/v1/pictures/{picture.id}/file")
    content = encoded(server, picture, parameters.output_format, parameters.output_compression)
    return ImageDatum(b64_json=base64.b64encode(content).decode())


async def _stream(
    request: Request, server: Server, job: JobView, parameters: ImageParameters, kind: str
) -> AsyncIterator[str]:
    """Partial pictures on the way, then the finished ones."""
    partial, last = 0, -1
    ended = False
    try:
        async for event in events_of(server, job.id, previews=parameters.partial_images > 0):
            progress = event.progress
            if progress and progress.preview and partial < parameters.partial_images:
                share = progress.done * (parameters.partial_images + 1) // progress.total
                if share > last:
                    last = share
                    preview = await run_in_threadpool(
                        recoded, progress.preview, parameters.output_format, parameters.output_compression
                    )
                    yield _event(
                        f"{kind}.partial_image",
                        {**_described(parameters, preview), "partial_image_index": partial},
                    )
                    partial += 1
            elif event.picture is not None:
                partial, last = 0, -1
                content = await run_in_threadpool(
                    encoded, server, event.picture, parameters.output_format, parameters.output_compression
                )
                size = f"{event.picture.width}x{event.picture.height}"
                yield _event(
                    f"{kind}.completed",
                    {**_described(parameters, content), "size": size, "usage": Usage().model_dump()},
                )
            elif event.kind == "state" and event.state in ENDED:
                ended = True
                if event.state is not JobState.DONE:
                    yield _event("error", error_body(400, event.error or f"the job was {event.state}"))
    finally:
        if not ended:
            server.dispatcher.abandon(job.id)


def _described(parameters: ImageParameters, content: bytes) -> dict[str, Any]:
    return {
        "b64_json": base64.b64encode(content).decode(),
        "created_at": int(time.time()),
        "output_format": parameters.output_format,
        "quality": parameters.quality,
        "size": parameters.size or "auto",
        "background": parameters.background,
    }


def _event(kind: str, data: dict[str, Any]) -> str:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **data})}\n\n"
