"""The studio: the one object a user meets. It holds a loaded model and draws requests with it."""

from sfumato.studio.drawing import Step, Studio
from sfumato.studio.loading import load, open_studio

__all__ = ["Step", "Studio", "load", "open_studio"]
