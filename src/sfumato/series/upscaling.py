"""What makes a picture larger: drawing it over at its new size, with a low strength and in windows."""

from typing import Any, Unpack

from sfumato.image import Image
from sfumato.inputs import InputImage, PictureSource
from sfumato.request import Request, RequestFields

SCALE = 4.0
KEPT = {
    *("prompt", "negative", "dialect", "adapters", "embeddings", "allow_partial", "clip_skip", "seamless"),
    *("steps", "guidance", "guidance_interval", "guidance_rescale", "sampler", "spacing", "seed", "fast"),
    *("model", "vae", "tiny", "base", "prediction", "zero_terminal_snr", "decoder"),
}
"""Fields that a picture's own request has in common with that for its enlargement."""


def upscaling(
    picture: Image | PictureSource, scale: float = SCALE, **fields: Unpack[RequestFields]
) -> Request:
    """The request for `picture` made `scale` times larger, with `fields` in place of its own.

    An `Image` is refined under its own prompt and settings, any other picture under an empty prompt unless
    one is given. `image`: its file, if the record is to name it. Width and height are rounded.
    """
    given: dict[str, Any] = {**fields}
    image = InputImage.of(given.pop("image", picture))
    if isinstance(picture, Image):
        own = picture.request
        base = own.model_dump(include=KEPT)
        base |= {"templates": "off"} if own.templates == "off" else {}
    else:
        base = {"prompt": ""} if given.get("prompt") else {"prompt": "", "guidance": 1}
    height, width = image.rgba.shape[:2]
    size = {"width": round(width * scale), "height": round(height * scale)}
    return Request.build(**{**base, "image": image, "upscale": 1, **size, **given})


def enlargement(request: Request, factor: int, upscaler: str) -> Request:
    """`request` for the enlargement of a picture, with sides that are multiples of `factor`, by `upscaler`
    unless it names one.
    """
    width, height = (max(round(side / factor), 1) * factor for side in request.size)
    return request.changed(width=width, height=height, upscaler=request.upscaler or upscaler)
