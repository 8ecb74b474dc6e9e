"""The layers of scenes in a folder: what has not changed is not drawn again."""

from dataclasses import dataclass
from pathlib import Path

from sfumato.errors import PictureError
from sfumato.files import make_folder
from sfumato.image import Image
from sfumato.request import Request


@dataclass(frozen=True)
class LayerFolder:
    """A folder with a picture NAME.png for each layer, which carries its own request."""

    folder: Path

    def find(self, name: str, request: Request, fingerprint: str) -> Image | None:
        """The layer `name`, if just this resolved `request` drew it, with the model of this `fingerprint`."""
        path = self.folder / f"{name}.png"
        if not path.exists():
            return None
        try:
            image = Image.open(path)
        except PictureError:
            return None
        same = image.request == request and image.record.fingerprint == fingerprint
        return image if same else None

    def keep(self, name: str, image: Image) -> None:
        """Save a layer. Raises `OutputError`."""
        make_folder(self.folder)
        image.save(self.folder / f"{name}.png")
