"""Pictures and features on disk, so that an interrupted evaluation resumes and a second one is quick."""

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngImageFile, PngInfo
from torch import Tensor

from sfumato.errors import DataError
from sfumato.files import make_folder, replace_atomically, write_json

FeatureFn = Callable[[Tensor], Tensor]
"""Pictures (B, 3, H, W) in [−1, 1] to (B, D)."""


@dataclass(frozen=True)
class Sample:
    """One picture to draw: a prompt and the seed of its noise."""

    prompt: str
    seed: int


class PictureCache:
    """The pictures of one model under one choice of settings, each in a file, whole or not there."""

    def __init__(self, cache: Path, identity: Mapping[str, Any]) -> None:
        """`identity` is all that pictures depend on besides prompt and seed. Raises `OutputError`."""
        text = json.dumps(identity, sort_keys=True)
        self.folder = cache / "pictures" / digest(text.encode())
        make_folder(self.folder)
        if not (self.folder / "identity.json").is_file():
            write_json(self.folder / "identity.json", dict(identity))

    def path(self, sample: Sample) -> Path:
        """Where the picture is, or will be."""
        return self.folder / f"{digest(f'{sample.seed} {sample.prompt}'.encode())}.png"

    def keep(self, sample: Sample, pixels: NDArray[np.uint8], seconds: float) -> None:
        """Write a picture (H, W, 3) and how long it took to draw. Raises `OutputError`."""
        text, encoded = PngInfo(), io.BytesIO()
        text.add_text("seconds", f"{seconds:.6f}")
        Image.fromarray(pixels).save(encoded, "PNG", pnginfo=text)
        with replace_atomically(self.path(sample)) as file:
            file.write(encoded.getvalue())

    def pixels(self, sample: Sample) -> NDArray[np.uint8]:
        """The picture (H, W, 3). Raises `DataError`."""
        with self._opened(sample) as picture:
            return np.asarray(picture.convert("RGB"))

    def seconds(self, sample: Sample) -> float:
        """How long it took to draw the picture. Raises `DataError`."""
        with self._opened(sample) as picture:
            return float(picture.info["seconds"])

    @contextmanager
    def _opened(self, sample: Sample) -> Iterator[PngImageFile]:
        path = self.path(sample)
        try:
            with PngImageFile(path) as picture:
                yield picture
        except (OSError, SyntaxError, ValueError, KeyError) as error:
            raise DataError(f"{path} cannot be read ({error}): delete it and it is drawn again") from error


def cached_features(cache: Path, kind: str, vectors: FeatureFn, device: torch.device) -> FeatureFn:
    """`vectors` computed on `device` and returned on the CPU, cached under `kind` by the pictures' digest."""

    def found(pictures: Tensor) -> Tensor:
        path = cache / kind / f"{digest(pictures.cpu().contiguous().numpy().tobytes())}.npy"
        if path.is_file():
            try:
                return torch.from_numpy(np.load(path))
            except (OSError, ValueError) as error:
                raise DataError(f"{path} cannot be read ({error}): delete it") from error
        made = vectors(pictures.to(device)).float().cpu()
        make_folder(path.parent, path)
        with replace_atomically(path) as file:
            np.save(file, made.numpy())
        return made

    return found


def digest(content: bytes) -> str:
    """A short hash of `content`."""
    return hashlib.blake2b(content, digest_size=10).hexdigest()
