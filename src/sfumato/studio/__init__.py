"""The studio: the one object a user meets. It holds a loaded model and draws requests with it."""

from sfumato.studio.drawing import Studio
from sfumato.studio.like import fitted, with_model
from sfumato.studio.loading import load, open_studio
from sfumato.studio.shape_models import ShapeModel
from sfumato.studio.step import Step

__all__ = ["ShapeModel", "Step", "Studio", "fitted", "load", "open_studio", "with_model"]
