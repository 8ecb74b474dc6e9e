"""What may be asked over HTTP: a valid request, of a model that is served, with no path of this machine."""

import secrets
from collections.abc import Mapping
from typing import Any

from sfumato import expansion
from sfumato.errors import UsageError, nearest
from sfumato.inputs import bytes_only
from sfumato.names import UPSCALERS
from sfumato.request import Request
from sfumato.server.settings import ServerSettings

SERVER_SIDE = ("vae", "tiny", "base")
"""Fields that name files of the server, which its settings choose."""


def served_model(name: Any, settings: ServerSettings) -> str:
    """The model of that name, or the default. Raises `UsageError` for one that is not served."""
    if name and name not in settings.models:
        raise UsageError(f"model {name!r} is not served; {nearest(str(name), settings.models)}")
    return name or settings.models[0]


def admitted(fields: Mapping[str, Any], settings: ServerSettings) -> tuple[Request, int]:
    """The request that `fields` make, with a seed of its own, and how many pictures it is for.

    Raises `UsageError`.
    """
    return checked(requested(fields, settings), settings)


def requested(fields: Mapping[str, Any], settings: ServerSettings) -> Request:
    """The request that `fields` make, of a model that is served. Raises `UsageError`."""
    model = served_model(fields.get("model"), settings)
    with bytes_only():
        return Request.build(**{**fields, "model": model})


def checked(request: Request, settings: ServerSettings) -> tuple[Request, int]:
    """A request that may be asked for, with a seed of its own, and how many pictures it is for.

    Raises `UsageError`.
    """
    served_model(request.model, settings)
    for name in SERVER_SIDE:
        if getattr(request, name) is not None:
            raise UsageError(f"{name} cannot be chosen over HTTP: the server's models have their own")
    if request.upscaler is not None and request.upscaler not in UPSCALERS:
        raise UsageError(f"upscaler is {request.upscaler!r}: here it is one of {', '.join(UPSCALERS)}")
    for name, picture in request.inputs.items():
        if picture.data is None:
            raise UsageError(
                f"{name} has no data: a picture comes with its bytes, as base64, or with the sha256 of one "
                "that was sent here before and is still kept"
            )
    count = expansion.pictures(request)
    if count > settings.max_pictures:
        raise UsageError(f"the request is for {count} pictures: at most {settings.max_pictures} at once")
    width, height, steps = request.width or 0, request.height or 0, request.steps or 0
    if width * height > settings.max_pixels:
        raise UsageError(f"{width} × {height} are too many pixels: at most {settings.max_pixels:,}")
    if (frames := request.clip_frames) > settings.max_frames:
        told = f", with those of interpolate {frames}" if request.interpolate else ""
        raise UsageError(f"frames is {request.frames}{told}: at most {settings.max_frames} here")
    if steps > settings.max_steps:
        raise UsageError(f"steps is {steps}: at most {settings.max_steps} here")
    if request.seed is None:
        # here, so that a job that is drawn again after a crash is the same
        request = request.filled(seed=secrets.randbelow(2**32))
    return request, count
