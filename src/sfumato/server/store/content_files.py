"""Files that are called by their content, so that equal ones are kept once."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from sfumato.files import make_folder, replace_atomically


class ContentFiles:
    """Files in `folder`, called by the SHA-256 of their bytes, and `suffix`."""

    suffix = ""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, digest: str) -> Path:
        """Where the file is."""
        return self.folder / digest[:2] / f"{digest}{self.suffix}"

    def add(self, content: bytes) -> str:
        """Keep a file; its SHA-256. Raises `OutputError`."""
        digest = hashlib.sha256(content).hexdigest()
        path = self.path(digest)
        if not path.exists():
            make_folder(path.parent)
            self.prepare(digest, content)
            with replace_atomically(path) as file:
                file.write(content)
        return digest

    def prepare(self, digest: str, content: bytes) -> None:
        """Write what belongs to a file, before the file itself: where that is, this is too."""

    def remove(self, digest: str) -> None:
        """Forget a file."""
        self.path(digest).unlink(missing_ok=True)

    def digests(self) -> Iterator[str]:
        """The SHA-256 of every file."""
        for path in self.folder.glob(f"??/*{self.suffix}"):
            yield path.name.removesuffix(self.suffix)
