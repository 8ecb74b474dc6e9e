"""The API of Stable Diffusion WebUI (A1111), for tools that were made for it. ComfyUI's `/prompt` is none of
these: a graph of nodes is not read.
"""

import base64
import io
import json
import os
import time
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from sfumato import folders
from sfumato.names import SAMPLERS, SPACINGS
from sfumato.prompt.styles import load_styles
from sfumato.server import webui
from sfumato.server.admission import served_model
from sfumato.server.context import Owner, Server, Shared
from sfumato.server.encoding import encoded
from sfumato.server.jobs import JobState, JobView
from sfumato.server.submitting import decoded, finished, submit
from sfumato.server.webui import Enlargement, Img2Img, Txt2Img

router = APIRouter(prefix="/sdapi/v1", tags=["A1111"])
controlnet = APIRouter(prefix="/controlnet", tags=["A1111"])

Payload = Annotated[dict[str, Any], Body()]
SETTINGS = ("sd_model_checkpoint", "CLIP_stop_at_last_layers")
"""Those of the web UI's settings that change what is drawn here."""
SCRIPT = "controlnet m2m"
"""By this script's name clients tell that ControlNet is there."""


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
async def txt2img(payload: Txt2Img, request: Request, server: Shared, owner: Owner) -> dict[str, Any]:
    """Draw a prompt; with `enable_hr` in two passes."""
    return await _drawn(payload, webui.second_pass(payload), request, server, owner)


@router.post("/img2img")
async def img2img(payload: Img2Img, request: Request, server: Shared, owner: Owner) -> dict[str, Any]:
    """Draw from a picture, or into one."""
    pictures = await run_in_threadpool(webui.first_picture, payload)
    return await _drawn(payload, pictures, request, server, owner)


@router.post("/extra-single-image")
def enlarge(payload: ExtraSingle) -> dict[str, Any]:
    """Enlarge a picture."""
    image = payload.enlarged(decoded(payload.image, "image"), "image")
    return {"image": base64.b64encode(image).decode(), "html_info": payload.upscaler_1}


@router.post("/extra-batch-images")
def enlarge_several(payload: ExtraBatch) -> dict[str, Any]:
    """Enlarge pictures."""
    names = [each.name or f"imageList[{index}]" for index, each in enumerate(payload.imageList)]
    images = [
        payload.enlarged(decoded(each.data, name), name)
        for each, name in zip(payload.imageList, names, strict=True)
    ]
    return {
        "images": [base64.b64encode(image).decode() for image in images],
        "html_info": payload.upscaler_1,
    }


@router.post("/png-info")
def png_info(payload: Payload) -> dict[str, Any]:
    """How a picture was drawn, as its file says."""
    from sfumato import pictures

    content = decoded(str(payload.get("image", "")), "image")
    with pictures.opened_content(io.BytesIO(content), "image") as opened:
        texts = pictures.texts(opened)
    return {"info": texts.get("parameters", ""), "items": texts, "parameters": {}}


@router.get("/progress")
def progress(server: Shared, owner: Owner, skip_current_image: bool = False) -> dict[str, Any]:
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
    return {
        "progress": share,
        "eta_relative": _seconds_left(current, share) if current else 0.0,
        "state": {
            "skipped": False,
            "interrupted": False,
            "stopping_generation": False,
            "job": current.id if current else "",
            "job_timestamp": _timestamp(current.started) if current else "0",
            "job_count": len(running),
            "job_no": len(current.pictures) if current else 0,
            "sampling_step": done,
            "sampling_steps": total,
        },
        "current_image": base64.b64encode(image).decode() if image else None,
        "textinfo": None,
    }


@router.post("/interrupt")
@router.post("/skip")
def interrupt(server: Shared, owner: Owner) -> dict[str, Any]:
    """Cancel what is being drawn."""
    for job in server.store.list_jobs(owner=owner, states=[JobState.RUNNING], limit=200):
        server.dispatcher.cancel(job.id)
    return {}


@router.get("/samplers")
def list_samplers() -> list[dict[str, Any]]:
    """Samplers by the web UI's names where they have one."""
    return [
        {"name": others[0] if others else name, "aliases": [name], "options": {}}
        for name, others in SAMPLERS.items()
    ]


@router.get("/schedulers")
def list_schedulers() -> list[dict[str, Any]]:
    """Spacings of the noise levels."""
    return [
        {"name": name, "label": others[0] if others else name, "aliases": list(others)}
        for name, others in SPACINGS.items()
    ]


@router.get("/sd-models")
def list_models(server: Shared) -> list[dict[str, Any]]:
    """The models that are served."""
    return [
        {"title": name, "model_name": name, "hash": None, "sha256": None, "filename": name, "config": None}
        for name in server.settings.models
    ]


@router.get("/loras")
def list_loras() -> list[dict[str, Any]]:
    """Adapters in the server's folder."""
    return [{"name": name, "alias": name, "path": "", "metadata": {}} for name in folders.found("adapters")]


@router.get("/embeddings")
def list_embeddings() -> dict[str, Any]:
    """Learned embeddings in the server's folder."""
    return {"loaded": {name: {} for name in folders.found("embeddings")}, "skipped": {}}


@router.get("/prompt-styles")
def list_styles() -> list[dict[str, Any]]:
    """Style presets."""
    return [
        {"name": name, "prompt": style.prompt, "negative_prompt": style.negative}
        for name, style in load_styles().items()
    ]


@router.get("/upscalers")
def list_upscalers() -> list[dict[str, Any]]:
    """What `extra-single-image` enlarges with."""
    nothing = dict.fromkeys(("model_name", "model_path", "model_url"))
    return [{"name": name, **nothing, "scale": 4} for name in ("None", *webui.FILTERS)]


@router.get("/scripts")
def list_scripts() -> dict[str, list[str]]:
    """No scripts are run but ControlNet's units, as a request's controls."""
    return {"txt2img": [SCRIPT], "img2img": [SCRIPT]}


@router.get("/sd-vae")
@router.get("/hypernetworks")
@router.get("/face-restorers")
@router.get("/realesrgan-models")
@router.get("/artist-categories")
@router.get("/artists")
def list_nothing() -> list[Any]:
    """What the web UI has and this server has not."""
    return []


@router.get("/latent-upscale-modes")
def list_latent_modes() -> list[dict[str, str]]:
    """What a second pass enlarges latents with."""
    return [{"name": "Latent"}]


@router.get("/options")
def get_options(server: Shared, owner: Owner) -> dict[str, Any]:
    """The settings that tools look at."""
    usual = {
        "sd_model_checkpoint": server.settings.models[0],
        "CLIP_stop_at_last_layers": 1,
        "samples_format": "png",
    }
    return {**usual, **server.webui_settings.get(owner, {})}


@router.post("/options")
def set_options(payload: Payload, server: Shared, owner: Owner) -> None:
    """Choose the model, and the last layer of the text encoder, for this key's requests from now on.

    Other settings change nothing here. A model that is not served is an error.
    """
    given = {name: payload[name] for name in SETTINGS if payload.get(name) is not None}
    served_model(webui.settings_fields(given).get("model"), server.settings)
    server.webui_settings[owner] = {**server.webui_settings.get(owner, {}), **given}


@router.get("/cmd-flags")
def flags() -> dict[str, Any]:
    """None that matter here."""
    return {}


@router.get("/memory")
def memory() -> dict[str, Any]:
    """Main memory of the machine, in bytes; that of its GPUs is not counted."""
    page = os.sysconf("SC_PAGE_SIZE")
    total, free = (os.sysconf(name) * page for name in ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES"))
    return {"ram": {"free": free, "used": total - free, "total": total}, "cuda": {"error": "not counted"}}


@router.post("/refresh-checkpoints")
def refresh() -> None:
    """The models are those that the server was started with."""


@router.post("/refresh-loras")
@router.post("/refresh-embeddings")
@router.post("/refresh-vae")
def refresh_folders() -> None:
    """The server's folders are looked through each time."""


@controlnet.get("/version")
def controlnet_version() -> dict[str, int]:
    """The version of the extension whose units are read."""
    return {"version": 3}


@controlnet.get("/model_list")
def list_control_models(server: Shared) -> dict[str, list[str]]:
    """The networks that a unit may name."""
    from sfumato.server.model_facts import model_facts

    return {"model_list": webui.control_models(model_facts(server.settings.models[0]).controls)}


@controlnet.get("/module_list")
def list_control_modules() -> dict[str, list[str]]:
    """What may be made of a unit's picture first."""
    return {"module_list": list(webui.MODULES)}


async def _drawn(
    payload: Txt2Img, more: dict[str, Any], request: Request, server: Server, owner: str
) -> dict[str, Any]:
    chosen = {**server.webui_settings.get(owner, {}), **payload.override_settings}
    fields = {**webui.fields_of(payload), **webui.settings_fields(chosen), **more}
    job = await run_in_threadpool(submit, server, fields, owner)
    done = await finished(server, job.id, request)
    contents = [await run_in_threadpool(encoded, server, each) for each in done.pictures]
    texts = [_parameters(content) for content in contents]
    files = [base64.b64encode(content).decode() for content in contents] if payload.send_images else []
    return {
        "images": files,
        "parameters": payload.model_dump(exclude={"init_images", "mask", "alwayson_scripts"}),
        "info": json.dumps(_info(payload, done, texts)),
    }


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
