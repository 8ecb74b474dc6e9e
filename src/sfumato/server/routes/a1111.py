"""The API of Stable Diffusion WebUI (A1111), for tools that were made for it. ComfyUI's `/prompt` is none of
these: a graph of nodes is not read.
"""

import base64
import io
import json
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request
from starlette.concurrency import run_in_threadpool

from sfumato import folders
from sfumato.errors import PictureError, UsageError
from sfumato.foreign.settings import Translation
from sfumato.names import SAMPLERS, SPACINGS
from sfumato.prompt.styles import load_styles
from sfumato.server.context import Owner, Server, Shared
from sfumato.server.encoding import encoded
from sfumato.server.jobs import JobState
from sfumato.server.submitting import decoded, finished, submit

router = APIRouter(prefix="/sdapi/v1", tags=["A1111"])

Payload = Annotated[dict[str, Any], Body()]
DEFAULT_STRENGTH = 0.75
"""Of img2img, as in the web UI."""
FILLS = ("blur", "keep", "noise", "noise")
"""By `inpainting_fill`: fill, original, latent noise, latent nothing."""


@router.post("/txt2img")
async def txt2img(payload: Payload, request: Request, server: Shared, owner: Owner) -> dict[str, Any]:
    """Draw a prompt."""
    return await _drawn(payload, {}, request, server, owner)


@router.post("/img2img")
async def img2img(payload: Payload, request: Request, server: Shared, owner: Owner) -> dict[str, Any]:
    """Draw from a picture, or into one."""
    given = payload.get("init_images")
    if not isinstance(given, list) or not given or not isinstance(given[0], str):
        raise UsageError("init_images is missing: a list with a picture in base64")
    fields: dict[str, Any] = {"image": decoded(given[0], "init_images[0]")}
    strength = payload.get("denoising_strength")
    fields["strength"] = DEFAULT_STRENGTH if strength is None else strength
    if mask := payload.get("mask"):
        fields["mask"] = _mask(decoded(str(mask), "mask"), bool(payload.get("inpainting_mask_invert")))
        number = payload.get("inpainting_fill", 0)
        fields["fill"] = FILLS[number] if number in range(len(FILLS)) else "keep"
        fields["feather"] = payload.get("mask_blur", 4)
        if payload.get("inpaint_full_res", True):
            fields["crop"] = payload.get("inpaint_full_res_padding", 32)
    return await _drawn(payload, fields, request, server, owner)


@router.post("/extra-single-image")
async def enlarge(payload: Payload) -> dict[str, Any]:
    """Enlarge a picture."""
    import PIL.Image

    from sfumato import pictures

    content = decoded(str(payload.get("image", "")), "image")
    factor = float(payload.get("upscaling_resize", 2))
    if not 1 <= factor <= 8:
        raise UsageError(f"upscaling_resize is {factor:g}: must be 1 to 8")

    def done() -> bytes:
        with pictures.opened_content(io.BytesIO(content), "image") as opened:
            picture = pictures.srgb(opened)
        size = round(picture.width * factor), round(picture.height * factor)
        if size[0] * size[1] > pictures.MAX_PIXELS:
            raise UsageError(f"{size[0]} × {size[1]} are too many pixels")
        buffer = io.BytesIO()
        picture.resize(size, PIL.Image.Resampling.LANCZOS).save(buffer, "PNG")
        return buffer.getvalue()

    image = await run_in_threadpool(done)
    return {"image": base64.b64encode(image).decode(), "html_info": f"Lanczos, {factor:g} times"}


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
        share = (len(current.pictures) + done / total) / max(current.count, 1)
    image = None
    if current and not skip_current_image:
        image = server.dispatcher.preview(current.id)
    return {
        "progress": min(share, 0.99) if current else 0.0,
        "eta_relative": 0.0,
        "state": {
            "skipped": False,
            "interrupted": False,
            "job": current.id if current else "",
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
    return [{"name": "Lanczos", "model_name": None, "model_path": None, "model_url": None, "scale": 4}]


@router.get("/scripts")
def list_scripts() -> dict[str, list[str]]:
    """No scripts are run."""
    return {"txt2img": [], "img2img": []}


@router.get("/sd-vae")
@router.get("/hypernetworks")
@router.get("/face-restorers")
@router.get("/realesrgan-models")
@router.get("/latent-upscale-modes")
def list_nothing() -> list[Any]:
    """What the web UI has and this server has not."""
    return []


@router.get("/options")
def get_options(server: Shared) -> dict[str, Any]:
    """The settings that tools look at."""
    return {"sd_model_checkpoint": server.settings.models[0], "samples_format": "png"}


@router.post("/options")
def set_options(payload: Payload, server: Shared) -> None:
    """Accepted where it changes nothing: each request says itself what it draws with.

    A model that is not served is an error.
    """
    model = payload.get("sd_model_checkpoint")
    if model is not None and model not in server.settings.models:
        raise UsageError(f"model {model!r} is not served; served: {', '.join(server.settings.models)}")


@router.get("/cmd-flags")
def flags() -> dict[str, Any]:
    """None that matter here."""
    return {}


@router.get("/memory")
def memory() -> dict[str, Any]:
    """Not counted."""
    return {"ram": {}, "cuda": {}}


@router.post("/refresh-checkpoints")
def refresh() -> None:
    """The models are those that the server was started with."""


async def _drawn(
    payload: dict[str, Any], pictures: dict[str, Any], request: Request, server: Server, owner: str
) -> dict[str, Any]:
    fields = {**_fields(payload, server), **pictures}
    job = await run_in_threadpool(submit, server, fields, owner)
    done = await finished(server, job.id, request)
    contents = [await run_in_threadpool(encoded, server, each) for each in done.pictures]
    texts = [await run_in_threadpool(_parameters, content) for content in contents]
    seeds = [each.seed for each in done.pictures]
    info = {
        "prompt": fields.get("prompt", ""),
        "negative_prompt": fields.get("negative", ""),
        "seed": seeds[0] if seeds else -1,
        "all_seeds": seeds,
        "all_prompts": [each.prompt for each in done.pictures],
        "infotexts": texts,
        "width": done.pictures[0].width if done.pictures else 0,
        "height": done.pictures[0].height if done.pictures else 0,
        "job": done.id,
    }
    return {
        "images": [base64.b64encode(content).decode() for content in contents],
        "parameters": {name: value for name, value in payload.items() if name not in ("init_images", "mask")},
        "info": json.dumps(info),
    }


def _fields(payload: dict[str, Any], server: Server) -> dict[str, Any]:
    """The fields of a request that the web UI's parameters mean; what has no meaning here is passed over."""
    translation = Translation("A1111")
    for name, meaning in (
        ("prompt", "prompt"),
        ("negative_prompt", "negative"),
        ("steps", "steps"),
        ("cfg_scale", "guidance"),
        ("width", "width"),
        ("height", "height"),
        ("seed", "seed"),
        ("sampler_name", "sampler"),
    ):
        translation.take(meaning, payload.get(name))
    if str(payload.get("scheduler") or "automatic").lower() != "automatic":
        translation.take("spacing", payload["scheduler"])
    fields = {"prompt": "", **translation.fields, "dialect": "a1111", "templates": "off"}
    fields["count"] = int(payload.get("batch_size") or 1) * int(payload.get("n_iter") or 1)
    settings = payload.get("override_settings") or {}
    if model := settings.get("sd_model_checkpoint"):
        fields["model"] = model
    if skip := settings.get("CLIP_stop_at_last_layers"):
        fields["clip_skip"] = int(skip) - 1
    if styles := payload.get("styles"):
        fields["style"] = styles
    return fields


def _mask(content: bytes, inverted: bool) -> Any:
    if not inverted:
        return content
    import PIL.ImageOps

    from sfumato import pictures

    with pictures.opened_content(io.BytesIO(content), "mask") as opened:
        return PIL.ImageOps.invert(pictures.srgb(opened).convert("L"))


def _parameters(content: bytes) -> str:
    from sfumato import pictures

    with pictures.opened_content(io.BytesIO(content), "picture") as opened:
        found = pictures.texts(opened).get("parameters")
    if found is None:
        raise PictureError("the picture has no parameters")
    return found
