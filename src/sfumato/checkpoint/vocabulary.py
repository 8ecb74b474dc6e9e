"""CLIP's own vocabulary, which single files leave out because every program that reads them has it."""

import gzip
from functools import cache
from importlib import resources

from sfumato.prompt.tokenizer import Tokenizer

PIECES = 49_408
"""256 bytes, the same at a word's end, 48,894 merges, and the two that begin and end a text."""

_BEGIN, _END = "<|startoftext|>", "<|endoftext|>"
_WORD_END = "</w>"


@cache
def clip_tokenizer(pad: str = _END) -> Tokenizer:
    """CLIP's tokenizer; `pad` is the piece that fills a window: Stable Diffusion 2's is "!".

    The same one at every call.
    """
    packed = resources.files("sfumato").joinpath("models", "clip", "merges.txt.gz").read_bytes()
    lines = gzip.decompress(packed).decode("utf-8").splitlines()
    merges = [(left, right) for left, _, right in (line.partition(" ") for line in lines)]
    letters = _letters()
    pieces = [
        *letters,
        *(letter + _WORD_END for letter in letters),
        *(left + right for left, right in merges),
    ]
    vocab = {piece: number for number, piece in enumerate([*pieces, _BEGIN, _END])}
    return Tokenizer(vocab, merges, bos=_BEGIN, eos=_END, pad=pad)


def _letters() -> list[str]:
    """A letter for each of the 256 bytes: itself where it prints, else one from beyond Latin-1."""
    prints = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [*map(chr, prints), *(chr(256 + number) for number in range(256 - len(prints)))]
