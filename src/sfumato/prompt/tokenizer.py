"""CLIP's tokenizer: text to byte-pair tokens, as every text encoder here was trained with."""

import json
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, decoders, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Pieces
from tokenizers.models import BPE

from sfumato.errors import CheckpointError, UsageError
from sfumato.files import read_file, read_json, replace_atomically, write_json
from sfumato.prompt.meaning import MAX_CHARACTERS

_MAX_FILE_BYTES = 16 << 20
_MOST_MERGES = 1 << 19
_NO_LIMIT = 1 << 16

# Radford et al. 2021: what a word is, before it is cut into pieces.
_WORD = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_NORMALIZERS = ["NFC", "Replace", "Lowercase"]
_PRE_TOKENIZERS = ["Split", "ByteLevel"]
_ROLES = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}


class Tokenizer:
    """Lower-cased, byte-level byte-pair encoding with CLIP's rules, in windows of `limit` tokens.

    `bos`, `eos`, `pad`: the ids that begin a window, end its text, and fill the rest. The texts of these
    tokens are ordinary text when they stand in a prompt; a "!" in a prompt is a "!" also where it is the
    padding (Stable Diffusion 2), as it was in training.
    """

    def __init__(
        self,
        vocab: dict[str, int],
        merges: list[tuple[str, str]],
        *,
        bos: str = _ROLES["bos_token"],
        eos: str = _ROLES["eos_token"],
        pad: str = _ROLES["pad_token"],
        limit: int = 77,
        words: Sequence[str] = (),
    ) -> None:
        """`vocab`: the id of every piece; `merges`: pairs of pieces, in order.

        `words`: those that were learned later (textual inversion), found in a text before it is cut into
        pieces; they are in the vocabulary as well. Raises `ValueError`.
        """
        for name in (bos, eos, pad):
            if name not in vocab:
                raise ValueError(f"the vocabulary lacks the special token {name!r}")
        for word in words:
            if word not in vocab:
                raise ValueError(f"the vocabulary lacks the learned word {word!r}")
        if limit < 3:
            raise ValueError(f"a window of {limit} tokens has no room for text")
        self.vocab, self.merges, self.limit, self.words = vocab, merges, limit, tuple(words)
        self.special = {"bos_token": bos, "eos_token": eos, "pad_token": pad}
        self.bos, self.eos, self.pad = vocab[bos], vocab[eos], vocab[pad]
        rules = {"continuing_subword_prefix": "", "end_of_word_suffix": "</w>", "unk_token": eos}
        try:
            self._pieces = Pieces(BPE(vocab=vocab, merges=merges, **rules))
        except Exception as error:  # the Rust library raises no narrower class
            raise ValueError(f"vocabulary and merges do not fit together: {error}") from error
        self._bytes = decoders.ByteLevel()
        self._pieces.normalizer = normalizers.Sequence(
            [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
        )
        self._pieces.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(_WORD), behavior="removed", invert=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
        self._pieces.add_tokens([AddedToken(word, normalized=True) for word in self.words])

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        """The tokenizer in `folder`: `tokenizer.json`, else `vocab.json` and `merges.txt`.

        Raises `CheckpointError` where files are missing or damaged, or describe another kind of tokenizer.
        """
        special, limit = _settings(folder)
        if (folder / "tokenizer.json").exists():
            where = folder / "tokenizer.json"
            vocab, merges, added = _from_single(where)
        elif (folder / "vocab.json").exists():
            where = folder / "vocab.json"
            vocab = read_json(where, _MAX_FILE_BYTES)
            merges = _from_lines(folder / "merges.txt")
            later = folder / "added_tokens.json"
            added = read_json(later, _MAX_FILE_BYTES) if later.exists() else {}
        else:
            raise CheckpointError(f"{folder} has neither tokenizer.json nor vocab.json")
        vocab = {**vocab, **added}
        _check_ids(vocab, where)
        try:
            bos, eos, pad = (special[role] for role in _ROLES)
            words = [word for word in added if word not in special.values()]
            return cls(vocab, merges, bos=bos, eos=eos, pad=pad, limit=limit, words=words)
        except ValueError as error:
            raise CheckpointError(f"{where}: {error}") from error

    def within(self, limit: int) -> "Tokenizer":
        """The same tokenizer with windows of at most `limit` tokens."""
        shorter = copy(self)
        shorter.limit = min(self.limit, limit)
        return shorter

    def save(self, folder: Path) -> None:
        """Write `vocab.json`, `merges.txt` and the settings into `folder`. Raises `OutputError`."""
        with replace_atomically(folder / "vocab.json") as file:
            pieces = {piece: number for piece, number in self.vocab.items() if piece not in self.words}
            file.write(json.dumps(pieces, ensure_ascii=False).encode("utf-8"))
        if self.words:
            write_json(folder / "added_tokens.json", {word: self.vocab[word] for word in self.words})
        with replace_atomically(folder / "merges.txt") as file:
            lines = ["#version: 0.2", *(f"{left} {right}" for left, right in self.merges)]
            file.write(("\n".join(lines) + "\n").encode("utf-8"))
        special = {**self.special, "unk_token": self.special["eos_token"]}
        write_json(folder / "special_tokens_map.json", special)
        kind = {"model_max_length": self.limit, "tokenizer_class": "CLIPTokenizer"}
        write_json(folder / "tokenizer_config.json", special | kind)

    def encode(self, text: str) -> list[int]:
        """The tokens of `text`, without those that begin and end a window; empty for blank text.

        Raises `UsageError` for more than 100,000 characters and for text that is not Unicode.
        """
        if len(text) > MAX_CHARACTERS:
            raise UsageError(f"the prompt has {len(text):,} characters; at most {MAX_CHARACTERS:,} are read")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise UsageError(
                f"the prompt has half a character (a lone surrogate) at place {error.start}"
            ) from None
        ids: list[int] = self._pieces.encode(text).ids
        return ids

    def joined(self, pieces: Sequence[str]) -> str:
        """The text of several pieces, words parted by spaces."""
        text: str = self._bytes.decode(["".join(pieces).replace("</w>", "Ġ")])
        return text.strip()

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of several tokens."""
        return self.joined([self._pieces.id_to_token(token) or "" for token in tokens])

    def ends_word(self, token: int) -> bool:
        """Whether a token is the last one of a word."""
        return str(self._pieces.id_to_token(token)).endswith("</w>")

    def text(self, token: int) -> str:
        """One token as a person reads it; part of a character of another script is "�"."""
        piece = self._pieces.id_to_token(token)
        if piece is None:
            return f"token {token}"
        word: str = self._bytes.decode([piece.removesuffix("</w>")])
        return word


def _settings(folder: Path) -> tuple[dict[str, str], int]:
    """The special tokens by role, and the window's length, from the two optional settings files.

    Where they differ, as old ones do about the padding, that one counts which transformers goes by:
    `tokenizer_config.json` if it has the table of added tokens, which later versions write, else the other.
    """
    special, limit = dict(_ROLES), 77
    paths = [folder / "tokenizer_config.json", folder / "special_tokens_map.json"]
    found = [(path, read_json(path)) for path in paths if path.exists()]
    if any("added_tokens_decoder" in content for _, content in found):
        found.reverse()
    for path, content in found:
        for role in _ROLES:
            token = content.get(role)
            if isinstance(token, dict):
                token = token.get("content")
            if isinstance(token, str):
                special[role] = token
            elif token is not None:
                raise CheckpointError(f"{path}: {role} must be text")
        longest = content.get("model_max_length", limit)
        if type(longest) is not int or longest < 3:
            raise CheckpointError(f"{path}: model_max_length = {longest!r} must be a whole number, 3 or more")
        if longest < _NO_LIMIT:
            limit = longest
    return special, limit


def _from_single(path: Path) -> tuple[dict[str, int], list[tuple[str, str]], dict[str, Any]]:
    """Vocabulary, merges and added tokens of a `tokenizer.json`, which must say the same rules as CLIP's."""
    content = read_json(path, _MAX_FILE_BYTES)
    model = content.get("model")
    kind = model.get("type") if isinstance(model, dict) else None
    if not isinstance(model, dict) or kind != "BPE" or model.get("end_of_word_suffix") != "</w>":
        raise CheckpointError(
            f"{path} is not a CLIP tokenizer: its model is {kind!r}, not BPE with word ends"
        )
    for part, steps, key in (
        ("normalizer", _NORMALIZERS, "normalizers"),
        ("pre_tokenizer", _PRE_TOKENIZERS, "pretokenizers"),
    ):
        found = _kinds(content.get(part), key)
        if found != steps:
            raise CheckpointError(
                f"{path} is not a CLIP tokenizer: its {part} is {' + '.join(found) or 'absent'}, "
                f"not {' + '.join(steps)}"
            )
    vocab, merges = model.get("vocab"), model.get("merges")
    if not isinstance(vocab, dict) or not isinstance(merges, list):
        raise CheckpointError(f"{path} has no vocabulary or no merges")
    if len(merges) > _MOST_MERGES:
        raise CheckpointError(f"{path} has {len(merges):,} merges; at most {_MOST_MERGES:,} are read")
    pairs = [_pair(entry.split(" ") if isinstance(entry, str) else entry, path) for entry in merges]
    return vocab, pairs, _added(content.get("added_tokens"), path)


def _kinds(entry: Any, key: str) -> list[str]:
    steps = entry.get(key) if isinstance(entry, dict) else None
    steps = steps if isinstance(steps, list) else []
    return [str(step.get("type")) for step in steps if isinstance(step, dict)]


def _added(entry: Any, path: Path) -> dict[str, Any]:
    """Tokens that were added after training, by text."""
    if entry is None:
        return {}
    if not isinstance(entry, list) or not all(isinstance(token, dict) for token in entry):
        raise CheckpointError(f"{path}: added_tokens must be a list of objects")
    return {str(token.get("content")): token.get("id") for token in entry}


def _from_lines(path: Path) -> list[tuple[str, str]]:
    """The merges of a `merges.txt`: a pair on each line, after a first line with the format's version."""
    try:
        lines = read_file(path, _MAX_FILE_BYTES).decode("utf-8").split("\n")
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing") from None
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path} is not UTF-8 at byte {error.start}") from error
    if len(lines) > _MOST_MERGES:
        raise CheckpointError(f"{path} has {len(lines):,} merges; at most {_MOST_MERGES:,} are read")
    return [
        _pair(line.split(" "), path) for line in lines if line.strip() and not line.startswith("#version")
    ]


def _pair(entry: Any, path: Path) -> tuple[str, str]:
    match entry:
        case [str(left), str(right)] if left and right:
            return left, right
    raise CheckpointError(f"{path}: {str(entry)[:60]} is not a pair of pieces to merge")


def _check_ids(vocab: dict[str, Any], where: Path) -> None:
    ids = list(vocab.values())
    if not all(type(number) is int and 0 <= number < 1 << 20 for number in ids) or len(set(ids)) != len(ids):
        raise CheckpointError(f"{where}: the vocabulary must give every piece a whole number of its own")
