"""The API of Stable Diffusion WebUI (A1111), for tools that were made for it. ComfyUI's `/prompt` is none of
these: a graph of nodes is not read.
"""

import base64
import io
import json
import time
from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from sfumato.server import webui
from sfumato.server import webui_answers as answers
from sfumato.server.context import Owner, Server, Shared
from sfumato.server.encoding import encoded
from sfumato.server.jobs import JobState, JobView
from sfumato.server.submitting import decoded, finished, submit
from sfumato.server.webui import Enlargement, Img2Img, Txt2Img

router = APIRouter(prefix="/sdapi/v1", tags=["A1111"])


class PictureOfInfo(webui.WebUIPayload):
    """A picture whose settings are asked for."""

    image: str


class ExtraSingle(Enlargement):
    """A picture to enlarge."""

    image: str


class NamedPicture(webui.WebUIPayload):
    """One of several pictures to enlarge."""

    data: str
    name: str = ""


class ExtraBatch(Enlargement):
    """Pictures to enlarge."""

    imageList: list[NamedPicture] = Field(max_length=100)  # noqa: N815


@router.post("/txt2img")
async def txt2img(payload: Txt2Img, request: Request, server: Shared, owner: Owner) -> answers.DrawnImages:
    """Draw a prompt; with `enable_hr` in two passes."""
    return await _drawn(payload, webui.second_pass(payload), request, server, owner)


@router.post("/img2img")
async def img2img(payload: Img2Img, request: Request, server: Shared, owner: Owner) -> answers.DrawnImages:
    """Draw from a picture, or into one."""
    pictures = await run_in_threadpool(webui.first_picture, payload)
    return await _drawn(payload, pictures, request, server, owner)


@router.post("/extra-single-image")
def enlarge(payload: ExtraSingle) -> answers.EnlargedImage:
    """Enlarge a picture."""
    image = payload.enlarged(decoded(payload.image, "image"), "image")
    return answers.EnlargedImage(image=base64.b64encode(image).decode(), html_info=payload.upscaler_1)


@router.post("/extra-batch-images")
def enlarge_several(payload: ExtraBatch) -> answers.EnlargedImages:
    """Enlarge pictures."""
    names = [each.name or f"imageList[{index}]" for index, each in enumerate(payload.imageList)]
    images = [
        payload.enlarged(decoded(each.data, name), name)
        for each, name in zip(payload.imageList, names, strict=True)
    ]
    files = tuple(base64.b64encode(image).decode() for image in images)
    return answers.EnlargedImages(images=files, html_info=payload.upscaler_1)


@router.post("/png-info")
def png_info(payload: PictureOfInfo) -> answers.PngInfo:
    """How a picture was drawn, as its file says."""
    from sfumato import pictures

    content = decoded(payload.image, "image")
    with pictures.opened_content(io.BytesIO(content), "image") as opened:
        texts = pictures.texts(opened)
    return answers.PngInfo(info=texts.get("parameters", ""), items=texts)


@router.get("/progress")
def progress(server: Shared, owner: Owner, skip_current_image: bool = False) -> answers.WebUIProgress:
    """How far the oldest running job is."""
    running = server.store.list_jobs(owner=owner, states=[JobState.RUNNING], limit=200)
    current = running[-1] if running else None
    found = server.dispatcher.progress(current.id) if current else None
    done, total = (found.done, found.total) if found else (0, 0)
    share = 0.0
    if current and total:
        share = min((len(current.pictures) + done / total) / max(current.count, 1), 0.99)
    image = None
    if current and not skip_current_image:
        image = server.dispatcher.preview(current.id)
    state = answers.ProgressState(
        job=current.id if current else "",
        job_timestamp=_timestamp(current.started) if current else "0",
        job_count=len(running),
        job_no=len(current.pictures) if current else 0,
        sampling_step=done,
        sampling_steps=total,
    )
    return answers.WebUIProgress(
        progress=share,
        eta_relative=_seconds_left(current, share) if current else 0.0,
        state=state,
        current_image=base64.b64encode(image).decode() if image else None,
    )


@router.post("/interrupt")
def interrupt(server: Shared, owner: Owner) -> dict[str, str]:
    """Cancel what is being drawn."""
    for job in server.store.list_jobs(owner=owner, states=[JobState.RUNNING], limit=200):
        server.dispatcher.cancel(job.id)
    return {}


@router.post("/skip")
def skip(server: Shared, owner: Owner) -> dict[str, str]:
    """Leave out the picture that the oldest running job draws, and go on with its next one."""
    running = server.store.list_jobs(owner=owner, states=[JobState.RUNNING], limit=200)
    if running:
        server.dispatcher.skip(running[-1].id)
    return {}


async def _drawn(
    payload: Txt2Img, more: dict[str, Any], request: Request, server: Server, owner: str
) -> answers.DrawnImages:
    chosen = {**server.webui_settings.get(owner, {}), **payload.override_settings}
    fields = {**webui.fields_of(payload), **webui.settings_fields(chosen), **more}
    job = await run_in_threadpool(submit, server, fields, owner)
    done = await finished(server, job.id, request)
    contents = [await run_in_threadpool(encoded, server, each) for each in done.pictures]
    texts = [_parameters(content) for content in contents]
    files = [base64.b64encode(content).decode() for content in contents] if payload.send_images else []
    return answers.DrawnImages(
        images=tuple(files),
        parameters=payload.model_dump(exclude={"init_images", "mask", "alwayson_scripts"}),
        info=json.dumps(_info(payload, done, texts)),
    )


def _info(payload: Txt2Img, job: JobView, texts: list[str]) -> dict[str, Any]:
    """How the pictures were drawn, by the names that the web UI's clients read."""
    request, drawn = job.request, job.pictures
    seeds = [each.seed for each in drawn]
    first = drawn[0] if drawn else None
    subseed = (request["variation_seed"] or [payload.subseed])[0]
    return {
        "prompt": payload.prompt,
        "all_prompts": [each.prompt for each in drawn],
        "negative_prompt": payload.negative_prompt,
        "all_negative_prompts": [each.negative for each in drawn],
        "seed": seeds[0] if seeds else request["seed"],
        "all_seeds": seeds,
        "subseed": subseed,
        "all_subseeds": [subseed] * len(drawn),
        "subseed_strength": payload.subseed_strength,
        "width": first.width if first else payload.width,
        "height": first.height if first else payload.height,
        "sampler_name": payload.sampler_name or payload.sampler_index,
        "cfg_scale": payload.cfg_scale,
        "steps": payload.steps,
        "batch_size": payload.batch_size,
        "restore_faces": False,
        "face_restoration_model": None,
        "sd_model_name": job.model,
        "sd_model_hash": None,
        "sd_vae_name": None,
        "sd_vae_hash": None,
        "seed_resize_from_w": -1,
        "seed_resize_from_h": -1,
        "denoising_strength": payload.denoising_strength,
        "extra_generation_params": {},
        "index_of_first_image": 0,
        "infotexts": texts,
        "styles": payload.styles,
        "job_timestamp": _timestamp(job.started),
        "clip_skip": request["clip_skip"] + 1,
        "is_using_inpainting_conditioning": False,
        "job": job.id,
    }


def _timestamp(seconds: float | None) -> str:
    return time.strftime("%Y%m%d%H%M%S", time.localtime(seconds))


def _seconds_left(job: JobView, share: float) -> float:
    """By how long its done share took."""
    if not share or job.started is None:
        return 0.0
    return max(time.time() - job.started, 0.0) * (1 - share) / share


def _parameters(content: bytes) -> str:
    """The line of settings in a picture of ours."""
    from sfumato import pictures

    with pictures.opened_content(io.BytesIO(content), "picture") as opened:
        return pictures.texts(opened).get("parameters", "")
