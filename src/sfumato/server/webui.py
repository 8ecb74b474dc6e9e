"""The parameters of Stable Diffusion WebUI's API, and what they mean as fields of a request."""

import io
import json
from typing import Annotated, Any

import PIL.Image
import PIL.ImageOps
from pydantic import BaseModel, ConfigDict, Field, model_validator

from sfumato import pictures
from sfumato.errors import UsageError, nearest
from sfumato.foreign.settings import Translation
from sfumato.names import PREPROCESSORS
from sfumato.request import MAX_SIDE
from sfumato.server.submitting import decoded

DEFAULT_STRENGTH = 0.75
"""Of img2img, as in the web UI."""
HIRES_STRENGTH = 0.7
"""Of the second pass."""
FILLS = ("blur", "keep", "noise", "nothing")
"""By `inpainting_fill`: fill, original, latent noise, latent nothing."""
CROP, FILL = 1, 2
"""Values of `resize_mode` that keep proportions; others stretch."""
SIDE = 8
"""Sides are multiples of it, in pixels."""
FILTERS = {"Lanczos": PIL.Image.Resampling.LANCZOS, "Nearest": PIL.Image.Resampling.NEAREST}
"""What `extra-single-image` enlarges with."""
MODULES = {name: name for name in PREPROCESSORS} | {"invert (from white bg & black line)": "invert"}
"""ControlNet's names of what is made of a control's picture first."""

Pixels = Annotated[int, Field(ge=0, le=MAX_SIDE)]


class WebUIPayload(BaseModel):
    """Parameters; `null` is one that is not given, and those without a meaning here are passed over."""

    model_config = ConfigDict(extra="allow")

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        try:  # parameters are told again in the answer
            json.dumps(given, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("a text holds half of a surrogate pair") from None
        return {name: value for name, value in given.items() if value is not None}


class Txt2Img(WebUIPayload):
    """Parameters of `txt2img`. With `enable_hr` the picture is drawn once more, larger."""

    prompt: str = ""
    negative_prompt: str = ""
    styles: list[str] = []
    seed: int = -1
    subseed: int = -1
    subseed_strength: float = 0
    sampler_name: str | None = None
    sampler_index: str | None = None
    scheduler: str = "automatic"
    batch_size: int = Field(1, ge=1)
    n_iter: int = Field(1, ge=1)
    steps: int | None = None
    cfg_scale: float | None = None
    width: int | None = None
    height: int | None = None
    tiling: bool = False
    denoising_strength: float | None = None
    enable_hr: bool = False
    hr_scale: float = 2
    hr_upscaler: str = "Latent"
    hr_second_pass_steps: int = 0
    hr_resize_x: Pixels = 0
    hr_resize_y: Pixels = 0
    override_settings: dict[str, Any] = {}
    alwayson_scripts: dict[str, Any] = {}
    send_images: bool = True


class Img2Img(Txt2Img):
    """Parameters of `img2img`; a mask is white where it is drawn."""

    init_images: list[str] = Field(min_length=1)
    mask: str | None = None
    mask_blur: int = 4
    inpainting_fill: int = Field(0, ge=0, lt=len(FILLS))
    inpaint_full_res: bool = True
    inpaint_full_res_padding: int = 32
    inpainting_mask_invert: bool = False
    resize_mode: int = Field(0, ge=0, le=3)


class Enlargement(WebUIPayload):
    """Parameters of the `extra-` routes: `resize_mode` 0 by a factor, 1 to a size."""

    resize_mode: int = Field(0, ge=0, le=1)
    upscaling_resize: float = Field(2, gt=0, le=8)
    upscaling_resize_w: int = Field(512, ge=1, le=MAX_SIDE * 2)
    upscaling_resize_h: int = Field(512, ge=1, le=MAX_SIDE * 2)
    upscaling_crop: bool = True
    upscaler_1: str = "Lanczos"

    def enlarged(self, content: bytes, name: str) -> bytes:
        """The PNG file of a picture, resized. Raises `UsageError`, `PictureError`."""
        kernel = FILTERS.get("Lanczos" if self.upscaler_1 == "None" else self.upscaler_1)
        if kernel is None:
            raise UsageError(f"unknown upscaler_1 {self.upscaler_1!r}; {nearest(self.upscaler_1, FILTERS)}")
        picture = opened(content, name)
        width, height = self.upscaling_resize_w, self.upscaling_resize_h
        if self.resize_mode == 0:
            width = round(picture.width * self.upscaling_resize)
            height = round(picture.height * self.upscaling_resize)
        if not 0 < width * height <= pictures.MAX_PIXELS:
            raise UsageError(f"{width} × {height} pixels: 1 to {pictures.MAX_PIXELS:,} are drawn")
        if self.resize_mode == 1 and not self.upscaling_crop:
            factor = max(width / picture.width, height / picture.height)
            width, height = round(picture.width * factor), round(picture.height * factor)
        buffer = io.BytesIO()
        PIL.ImageOps.fit(picture, (width, height), kernel).save(buffer, "PNG")
        return buffer.getvalue()


def opened(content: bytes, name: str) -> PIL.Image.Image:
    """A picture's pixels. Raises `PictureError`."""
    with pictures.opened_content(io.BytesIO(content), name) as found:
        return pictures.srgb(found)


def fields_of(payload: Txt2Img) -> dict[str, Any]:
    """A request's fields. Raises `UsageError` for a sampler that is not known, and of its controls."""
    translation = Translation("A1111")
    for meaning, value in (
        ("prompt", payload.prompt),
        ("negative", payload.negative_prompt),
        ("steps", payload.steps),
        ("guidance", payload.cfg_scale),
        ("width", payload.width),
        ("height", payload.height),
        ("seed", payload.seed),
        ("sampler", payload.sampler_name or payload.sampler_index),
    ):
        translation.take(meaning, value)
    if payload.scheduler.lower() != "automatic":
        translation.take("spacing", payload.scheduler)
    if unknown := [note for note in translation.notes if ": drawn with" not in note]:
        raise UsageError(f"not known here: {'; '.join(unknown)}")
    fields = {"prompt": "", **translation.fields, "dialect": "a1111", "templates": "off"}
    fields |= {"count": payload.batch_size * payload.n_iter, "style": payload.styles}
    if payload.subseed_strength:
        fields["variation_amount"] = payload.subseed_strength
        if payload.subseed >= 0:
            fields["variation_seed"] = payload.subseed
    if payload.tiling:
        fields["seamless"] = "xy"
    if controls := _controls(payload.alwayson_scripts):
        fields["controls"] = controls
    return fields


def settings_fields(settings: dict[str, Any]) -> dict[str, Any]:
    """The fields that the web UI's settings mean. Raises `UsageError`."""
    fields = {}
    if model := settings.get("sd_model_checkpoint"):
        fields["model"] = model
    if skip := settings.get("CLIP_stop_at_last_layers"):
        if type(skip) is not int or not 1 <= skip <= 12:
            raise UsageError(f"CLIP_stop_at_last_layers is {skip!r}: must be 1 to 12")
        fields["clip_skip"] = skip - 1
    return fields


def second_pass(payload: Txt2Img) -> dict[str, Any]:
    """The fields of a second pass: "hires fix". Raises `UsageError`."""
    if not payload.enable_hr:
        return {}
    if not payload.width or not payload.height:
        raise UsageError("enable_hr is given without width and height, those of the first pass")
    first = payload.width, payload.height
    wanted = payload.hr_resize_x, payload.hr_resize_y
    sides = [side for side in zip(wanted, first, strict=True) if side[0]]
    scale = max(large / small for large, small in sides) if sides else payload.hr_scale
    width, height = (max(int(side * scale) // SIDE * SIDE, SIDE) for side in first)
    strength = payload.denoising_strength
    fields: dict[str, Any] = {
        "width": width,
        "height": height,
        "upscale": scale,
        "upscaler": "latent" if payload.hr_upscaler.startswith("Latent") else "lanczos",
        "upscale_strength": HIRES_STRENGTH if strength is None else strength,
    }
    if payload.hr_second_pass_steps:
        fields["upscale_steps"] = payload.hr_second_pass_steps
    return fields


def first_picture(payload: Img2Img) -> dict[str, Any]:
    """The fields of the picture that is begun from, and of its mask. Raises `UsageError`, `PictureError`."""
    size = payload.width, payload.height
    image = opened(decoded(payload.init_images[0], "init_images[0]"), "init_images[0]")
    strength = payload.denoising_strength
    fields: dict[str, Any] = {
        "image": _resized(image, size, payload.resize_mode),
        "strength": DEFAULT_STRENGTH if strength is None else strength,
    }
    if payload.mask:
        mask = opened(decoded(payload.mask, "mask"), "mask").convert("L")
        if mask.size != image.size:
            mask = mask.resize(image.size)
        if payload.inpainting_mask_invert:
            mask = PIL.ImageOps.invert(mask)
        fields["mask"] = _resized(mask, size, payload.resize_mode)
        fields["fill"] = FILLS[payload.inpainting_fill]
        fields["feather"] = payload.mask_blur
        if payload.inpaint_full_res:
            fields["crop"] = payload.inpaint_full_res_padding
    return fields


def _resized(picture: PIL.Image.Image, size: tuple[int | None, int | None], mode: int) -> PIL.Image.Image:
    """A picture in the size that is drawn: stretched, cropped, or with its own edges drawn out."""
    width, height = size
    if not width or not height or max(width, height) > MAX_SIDE or picture.size == (width, height):
        return picture
    if mode == CROP:
        return PIL.ImageOps.fit(picture, (width, height), PIL.Image.Resampling.LANCZOS)
    if mode != FILL:
        return picture.resize((width, height), PIL.Image.Resampling.LANCZOS)
    inner = PIL.ImageOps.contain(picture, (width, height), PIL.Image.Resampling.LANCZOS)
    left, top = (width - inner.width) // 2, (height - inner.height) // 2
    found = PIL.Image.new(picture.mode, (width, height))
    # as in the web UI: the first and the last row or column fill what is left
    if top:
        found.paste(inner.crop((0, 0, width, 1)).resize((width, height)), (0, 0))
        last = inner.crop((0, inner.height - 1, width, inner.height))
        found.paste(last.resize((width, height)), (0, top + inner.height - 1))
    elif left:
        found.paste(inner.crop((0, 0, 1, height)).resize((width, height)), (0, 0))
        last = inner.crop((inner.width - 1, 0, inner.width, height))
        found.paste(last.resize((width, height)), (left + inner.width - 1, 0))
    found.paste(inner, (left, top))
    return found


def _controls(scripts: dict[str, Any]) -> list[dict[str, Any]]:
    """The units of ControlNet that are enabled, as a request's controls. Raises `UsageError`."""
    script = next((scripts[name] for name in scripts if name.lower() == "controlnet"), None)
    units = script.get("args") if isinstance(script, dict) else None
    controls = []
    for index, unit in enumerate(units if isinstance(units, list) else []):
        if not isinstance(unit, dict) or not unit.get("enabled", True):
            continue
        where = f"alwayson_scripts.controlnet.args[{index}]"
        image = unit.get("image") or unit.get("input_image")
        image = image.get("image") if isinstance(image, dict) else image
        model = str(unit.get("model") or "None")
        if not isinstance(image, str) or not image:
            raise UsageError(f"{where} has no image, in base64")
        if model == "None":
            raise UsageError(f"{where} has no model; `controlnet/model_list` lists them")
        module = str(unit.get("module") or "none").lower()
        if module not in MODULES:
            raise UsageError(f"{where}: unknown module {module!r}; {nearest(module, MODULES)}")
        control = {"model": model, "image": decoded(image, where), "preprocessor": MODULES[module]}
        for name, own in (("weight", "weight"), ("guidance_start", "start"), ("guidance_end", "end")):
            if unit.get(name) is not None:
                control[own] = unit[name]
        controls.append(control)
    return controls
