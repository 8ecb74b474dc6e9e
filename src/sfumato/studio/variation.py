"""What a variation of a picture is drawn by: its own request, or the picture with its own noise."""

from typing import Any

from sfumato.image import Image
from sfumato.inputs import PictureSource
from sfumato.request import Request
