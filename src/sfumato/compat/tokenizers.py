"""CLIP's tokenizer under its name in transformers."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch

from sfumato.compat.models import PartConfig
from sfumato.compat.sources import no_others, part_folder
from sfumato.errors import CheckpointError, UsageError
from sfumato.files import make_folder
from sfumato.prompt.tokenizer import Tokenizer


class CLIPTokenizer:
    """CLIP's tokenizer under transformers' names. `tokenizer` is Sfumato's own."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    @classmethod
    def from_pretrained(cls, source: str | Path, *, subfolder: str | None = None, **others: Any) -> Self:
        """Load the tokenizer in a folder, or in `subfolder` of a model. Raises `CheckpointError`."""
        no_others("CLIPTokenizer.from_pretrained", others)
        folder = part_folder(source, subfolder, config="vocab.json")
        if not folder.is_dir():
            raise CheckpointError(f"{folder} is missing")
        if not (folder / "merges.txt").is_file() and not (folder / "tokenizer.json").is_file():
            part_folder(source, subfolder, config="merges.txt")
        return cls(Tokenizer.load(folder))

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write its files into a folder. Raises `OutputError`."""
        make_folder(Path(save_directory))
        self.tokenizer.save(Path(save_directory))

    @property
    def model_max_length(self) -> int:
        return self.tokenizer.limit

    @property
    def bos_token_id(self) -> int:
        return self.tokenizer.bos

    @property
    def eos_token_id(self) -> int:
        return self.tokenizer.eos

    @property
    def pad_token_id(self) -> int:
        return self.tokenizer.pad

    @property
    def vocab_size(self) -> int:
        return len(self.tokenizer.vocab)

    def __len__(self) -> int:
        return len(self.tokenizer.vocab)

    def get_vocab(self) -> dict[str, int]:
        return dict(self.tokenizer.vocab)

    def tokenize(self, text: str) -> list[str]:
        """The pieces of a text."""
        pieces: list[str] = self.convert_ids_to_tokens(self.tokenizer.encode(text))
        return pieces

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """The ids of a text, with those that begin and end it."""
        ids = self.tokenizer.encode(text)
        return [self.tokenizer.bos, *ids, self.tokenizer.eos] if add_special_tokens else ids

    def convert_tokens_to_ids(self, tokens: str | Sequence[str]) -> Any:
        unknown, vocab = self.tokenizer.eos, self.tokenizer.vocab
        return (
            vocab.get(tokens, unknown) if isinstance(tokens, str) else [vocab.get(t, unknown) for t in tokens]
        )

    def convert_ids_to_tokens(self, ids: Any) -> Any:
        pieces = {number: piece for piece, number in self.tokenizer.vocab.items()}
        return pieces[int(ids)] if isinstance(ids, int) else [pieces[int(each)] for each in ids]

    def decode(self, ids: Any, skip_special_tokens: bool = False) -> str:
        """The text of ids, in small letters."""
        marks = {*self.tokenizer.special.values()} if skip_special_tokens else set()
        pieces = [piece for piece in self.convert_ids_to_tokens(list(ids)) if piece not in marks]
        return self.tokenizer.joined(pieces)

    def batch_decode(self, rows: Any, skip_special_tokens: bool = False) -> list[str]:
        return [self.decode(row, skip_special_tokens) for row in rows]

    def __call__(
        self,
        text: str | Sequence[str],
        padding: bool | str = False,
        max_length: int | None = None,
        truncation: bool | str = False,
        return_tensors: str | None = None,
        **others: Any,
    ) -> "Tokens":
        """Ids and attention mask of one text or several, as lists, or with "pt" as tensors (B, T)."""
        no_others("CLIPTokenizer", others, ignored=("return_attention_mask", "add_special_tokens"))
        limit = max_length or self.model_max_length
        rows = [self.encode(each) for each in ([text] if isinstance(text, str) else text)]
        if truncation:
            rows = [row if len(row) <= limit else [*row[: limit - 1], self.eos_token_id] for row in rows]
        longest = {"max_length": limit, True: 0, "longest": 0}.get(padding)
        mask = [[1] * len(row) for row in rows]
        if longest is not None:
            longest = longest or max(map(len, rows))
            mask = [[*each, *[0] * (longest - len(each))] for each in mask]
            rows = [[*row, *[self.pad_token_id] * (longest - len(row))] for row in rows]
        if return_tensors == "pt":
            return Tokens(input_ids=torch.tensor(rows), attention_mask=torch.tensor(mask))
        one = isinstance(text, str)
        return Tokens(input_ids=rows[0] if one else rows, attention_mask=mask[0] if one else mask)


class Tokens(PartConfig):
    """`input_ids` and `attention_mask`, as items or attributes."""

    def to(self, device: torch.device | str) -> "Tokens":
        return Tokens({name: each.to(device) for name, each in self.items()})


def as_tokenizer(value: Any) -> CLIPTokenizer:
    """A tokenizer of these, or one of transformers, as it would be saved. Raises `UsageError`."""
    if isinstance(value, CLIPTokenizer):
        return value
    if isinstance(value, Tokenizer):
        return CLIPTokenizer(value)
    if not hasattr(value, "save_pretrained"):
        raise UsageError(f"a tokenizer must be a CLIPTokenizer, not {type(value).__name__}")
    with tempfile.TemporaryDirectory() as folder:
        value.save_pretrained(folder)
        return CLIPTokenizer(Tokenizer.load(Path(folder)))
