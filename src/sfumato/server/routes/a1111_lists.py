"""What tools that were made for Stable Diffusion WebUI ask besides drawings: what there is, and settings."""

import os
from typing import Annotated, Any

from fastapi import APIRouter, Body

from sfumato import folders
from sfumato.names import SAMPLERS, SPACINGS
from sfumato.prompt.styles import load_styles
from sfumato.server import webui
from sfumato.server import webui_answers as answers
from sfumato.server.admission import served_model
from sfumato.server.context import Owner, Shared
from sfumato.server.model_facts import control_models

router = APIRouter(prefix="/sdapi/v1", tags=["A1111"])
controlnet = APIRouter(prefix="/controlnet", tags=["A1111"])

Payload = Annotated[dict[str, Any], Body()]
SETTINGS = ("sd_model_checkpoint", "CLIP_stop_at_last_layers")
"""Those of the web UI's settings that change what is drawn here."""
SCRIPT = "controlnet m2m"
"""By this script's name clients tell that ControlNet is there."""


@router.get("/samplers")
def list_samplers() -> list[answers.SamplerItem]:
    """Samplers by the web UI's names where they have one."""
    return [
        answers.SamplerItem(name=others[0] if others else name, aliases=(name,))
        for name, others in SAMPLERS.items()
    ]


@router.get("/schedulers")
def list_schedulers() -> list[answers.SchedulerItem]:
    """Spacings of the noise levels."""
    return [
        answers.SchedulerItem(name=name, label=others[0] if others else name, aliases=others)
        for name, others in SPACINGS.items()
    ]


@router.get("/sd-models")
def list_models(server: Shared) -> list[answers.ModelItem]:
    """The models that are served."""
    return [answers.ModelItem(title=name, model_name=name, filename=name) for name in server.settings.models]


@router.get("/loras")
def list_loras() -> list[answers.LoraItem]:
    """Adapters in the server's folder."""
    return [answers.LoraItem(name=name, alias=name) for name in folders.found("adapters")]


@router.get("/embeddings")
def list_embeddings() -> answers.EmbeddingItems:
    """Learned embeddings in the server's folder."""
    return answers.EmbeddingItems(loaded={name: {} for name in folders.found("embeddings")})


@router.get("/prompt-styles")
def list_styles() -> list[answers.StyleItem]:
    """Style presets."""
    return [
        answers.StyleItem(name=name, prompt=style.prompt, negative_prompt=style.negative)
        for name, style in load_styles().items()
    ]


@router.get("/upscalers")
def list_upscalers() -> list[answers.UpscalerItem]:
    """What `extra-single-image` enlarges with."""
    return [answers.UpscalerItem(name=name) for name in ("None", *webui.FILTERS)]


@router.get("/scripts")
def list_scripts() -> answers.ScriptNames:
    """No scripts are run but ControlNet's units, as a request's controls."""
    return answers.ScriptNames(txt2img=(SCRIPT,), img2img=(SCRIPT,))


@router.get("/sd-vae")
@router.get("/hypernetworks")
@router.get("/face-restorers")
@router.get("/realesrgan-models")
@router.get("/artist-categories")
@router.get("/artists")
def list_nothing() -> list[str]:
    """What the web UI has and this server has not."""
    return []


@router.get("/latent-upscale-modes")
def list_latent_modes() -> list[answers.LatentMode]:
    """What a second pass enlarges latents with."""
    return [answers.LatentMode(name="Latent")]


@router.get("/options")
def get_options(server: Shared, owner: Owner) -> answers.WebUIOptions:
    """The settings that tools look at."""
    usual = {"sd_model_checkpoint": server.settings.models[0], "CLIP_stop_at_last_layers": 1}
    return answers.WebUIOptions(**{**usual, **server.webui_settings.get(owner, {})})


@router.post("/options")
def set_options(payload: Payload, server: Shared, owner: Owner) -> None:
    """Choose the model, and the last layer of the text encoder, for this key's requests from now on.

    Other settings change nothing here. A model that is not served is an error.
    """
    given = {name: payload[name] for name in SETTINGS if payload.get(name) is not None}
    served_model(webui.settings_fields(given).get("model"), server.settings)
    server.webui_settings[owner] = {**server.webui_settings.get(owner, {}), **given}


@router.get("/cmd-flags")
def flags() -> dict[str, str]:
    """None that matter here."""
    return {}


@router.get("/memory")
def memory() -> answers.Memory:
    """Main memory of the machine, in bytes; that of its GPUs is not counted."""
    page = os.sysconf("SC_PAGE_SIZE")
    total, free = (os.sysconf(name) * page for name in ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES"))
    ram = answers.MainMemory(free=free, used=total - free, total=total)
    return answers.Memory(ram=ram, cuda=answers.GraphicsMemory(error="not counted"))


@router.post("/refresh-checkpoints")
def refresh() -> None:
    """The models are those that the server was started with."""


@router.post("/refresh-loras")
@router.post("/refresh-embeddings")
@router.post("/refresh-vae")
def refresh_folders() -> None:
    """The server's folders are looked through each time."""


@controlnet.get("/version")
def controlnet_version() -> answers.ControlNetVersion:
    """The version of the extension whose units are read."""
    return answers.ControlNetVersion(version=3)


@controlnet.get("/model_list")
def list_control_models(server: Shared) -> answers.ControlModels:
    """The networks that a unit may name."""
    model = server.model(server.settings.models[0])
    return answers.ControlModels(model_list=control_models(model))


@controlnet.get("/module_list")
def list_control_modules() -> answers.ControlModules:
    """What may be made of a unit's picture first."""
    return answers.ControlModules(module_list=tuple(webui.MODULES))
