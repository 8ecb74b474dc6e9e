"""The adapters and learned embeddings of a studio, by the names that requests and prompts call them by."""

from collections.abc import Sequence
from pathlib import Path

from sfumato import folders
from sfumato.adapt.adapters import Adapters
from sfumato.adapt.embedding import Embedding, embeddings_in
from sfumato.adapt.embedding import read as read_embedding
from sfumato.checkpoint import Model
from sfumato.errors import warn
from sfumato.expansion import FAST_LORA, Prepared
from sfumato.prompt.chunks import mentioned
from sfumato.prompt.meaning import AdapterWeight


class Library:
    """What has been read for one model, and what the user's folders hold besides."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.adapters = Adapters(model.networks)
        self.embeddings: dict[str, Embedding] = {}
        self.names_only = False
        """Whether requests may name only what the user's folders hold, and no paths."""
        self._files: dict[str, Embedding] = {}
        """The embeddings that requests bring, by their files."""

    def load_adapter(self, path: str | Path, name: str | None, *, allow_partial: bool) -> str:
        """Read an adapter's file or folder, or that of this name in the user's folder, and what it is called.

        Raises `CheckpointError`, and `UsageError` if an adapter of that name is in the weights.
        """
        own = self.model.fast is not None and path == self.model.fast
        file = folders.pick("adapters", str(path), names_only=self.names_only and not own)
        adapter = self.adapters.load(file, name, allow_partial=allow_partial)
        if not adapter.report.whole:
            found = "; ".join(adapter.report.lines(most=3))
            warn(f"{file} fits in part: {found}")
        return adapter.name

    def load_embedding(self, path: str | Path, name: str | None) -> str:
        """Read an embedding's file, or the one of that name in the user's folder, and what it is called.

        Raises `CheckpointError`.
        """
        embedding = self._read(str(path))
        name = name or embedding.name
        self.embeddings[name] = embedding
        return name

    def fetch(self, wanted: Sequence[AdapterWeight], *, allow_partial: bool) -> None:
        """Have these adapters ready, read from the user's folder if need be."""
        for each in wanted:
            if each.name not in self.adapters.names:
                file = self.model.fast if each.name == FAST_LORA else None
                self.load_adapter(file or each.name, each.name, allow_partial=allow_partial)

    def named(self, picture: Prepared) -> dict[str, Embedding]:
        """The learned embeddings that the picture's texts name.

        They are its own, its adapters', the studio's, or in the folder.
        """
        for file in picture.request.embeddings:
            if file not in self._files:
                self._files[file] = self._read(file)
        own = [self._files[file] for file in picture.request.embeddings]
        known = dict(self.embeddings)
        for use in picture.adapters:
            if use.weight or use.text_weight:
                known |= self.adapters[use.name].embeddings
        known |= {embedding.name: embedding for embedding in own}
        found = embeddings_in("\n".join(picture.texts), known, self._widths)
        self.embeddings |= found
        known |= found
        return {name: known[name] for text in picture.texts for name in mentioned(text, known)}

    def share(self, other: "Library") -> None:
        """Let `other`, of the same model, know all that is known here."""
        for name in self.adapters.names:
            if name not in other.adapters.names:
                other.adapters.add(self.adapters[name])
        other.embeddings |= self.embeddings
        other._files |= self._files

    @property
    def _widths(self) -> list[int]:
        return [encoder.config.hidden_size for encoder in self.model.text_encoders]

    def _read(self, path: str) -> Embedding:
        embedding = read_embedding(folders.pick("embeddings", path, names_only=self.names_only))
        embedding.check_fits(self._widths)
        return embedding
