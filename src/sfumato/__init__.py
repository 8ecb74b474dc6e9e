"""Text-to-image diffusion as one small, whole system.

    import sfumato
    sfumato.load().generate("a red apple, 3d render", seed=7).save("apple.png")

What is named here is imported when it is first asked for: the command answers a wrong option without torch.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from sfumato.version import __version__

# Threads of torch wait for one another by spinning, which on a busy machine takes several times as long as
# the work. It reads this when it is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

if TYPE_CHECKING:
    from sfumato.client import RemoteStudio as RemoteStudio
    from sfumato.client import connect as connect
    from sfumato.diffusion.samplers import register_sampler as register_sampler
    from sfumato.errors import SfumatoError as SfumatoError
    from sfumato.errors import SfumatoWarning as SfumatoWarning
    from sfumato.image import Image as Image
    from sfumato.request import Request as Request
    from sfumato.scene import Scene as Scene
    from sfumato.space.shape import Shape as Shape
    from sfumato.studio import ShapeModel as ShapeModel
    from sfumato.studio import Step as Step
    from sfumato.studio import Studio as Studio
    from sfumato.studio import load as load
    from sfumato.train.teach import teach as teach
    from sfumato.video import Video as Video

_HOMES = {
    "Image": "image",
    "RemoteStudio": "client",
    "Request": "request",
    "Scene": "scene",
    "SfumatoError": "errors",
    "SfumatoWarning": "errors",
    "Shape": "space.shape",
    "ShapeModel": "studio",
    "Step": "studio",
    "Studio": "studio",
    "Video": "video",
    "connect": "client",
    "load": "studio",
    "register_sampler": "diffusion.samplers",
    "teach": "train.teach",
}

__all__ = [
    "Image",
    "RemoteStudio",
    "Request",
    "Scene",
    "SfumatoError",
    "SfumatoWarning",
    "Shape",
    "ShapeModel",
    "Step",
    "Studio",
    "Video",
    "__version__",
    "connect",
    "load",
    "register_sampler",
    "teach",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sfumato' has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"sfumato.{_HOMES[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
