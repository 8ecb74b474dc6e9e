"""The texts of a PNG, read within limits wherever they stand: before the pixels or behind them.

Pillow reads those before the pixels only, takes every tEXt for Latin-1, and refuses the whole picture for a
long compressed text. So a picture is decoded without its texts, and they are read here.
"""

import io
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_TEXT = 16 << 20
"""The most that the texts of one picture may take, in bytes; a longer one is passed over."""
MOST_CHUNKS = 1 << 17
"""That are looked at; pixels come in some thousands at most."""
XMP = "XML:com.adobe.xmp"
"""The keyword of a text that is an XMP packet."""
_KINDS = (b"tEXt", b"zTXt", b"iTXt")


def split(file: BinaryIO) -> tuple[BinaryIO, dict[str, str]]:
    """`file` without its texts, and these by their keywords; other files, as they are, have none."""
    found = [chunk for chunk in chunks(file) if chunk[0] in _KINDS]
    texts: dict[str, str] = {}
    size, left = file.seek(0, io.SEEK_END), MAX_TEXT
    for kind, start, length in found:
        if length <= left and start + length <= size:
            file.seek(start)
            keyword, raw = _text(kind, file.read(length), left)
            left -= max(length, len(raw))
            texts[keyword] = _decoded(raw)
    file.seek(0)
    if not found:
        return file, texts
    edges = [
        0,
        *(edge for _, start, length in found for edge in (start - 8, min(start + length + 4, size))),
        size,
    ]
    pieces: Any = _Pieces(file, list(zip(edges[::2], edges[1::2], strict=True)))
    return io.BufferedReader(pieces), texts


def chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Kind, place and length of the content of every chunk of a PNG, up to where it ends or is damaged."""
    size, place = file.seek(0, io.SEEK_END), len(SIGNATURE)
    file.seek(0)
    if file.read(len(SIGNATURE)) != SIGNATURE:
        file.seek(0)
        return
    for _ in range(MOST_CHUNKS):
        file.seek(place)
        head = file.read(8)
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if not kind.isalpha() or len(kind) < 4:
            break
        yield kind, place + 8, length
        if place + 8 + length > size:
            break
        place += 12 + length
    file.seek(0)


def _text(kind: bytes, content: bytes, most: int) -> tuple[str, bytes]:
    """Keyword and encoded text of a chunk; the text is empty where it is damaged or longer than `most`."""
    keyword, _, rest = content.partition(b"\0")
    packed = kind == b"zTXt"
    if kind == b"iTXt":
        packed = rest[:1] == b"\1"
        rest = rest[2:].split(b"\0", 2)[-1]
    elif packed:
        rest = rest[1:]
    name = keyword.decode("latin-1")
    if not packed:
        return name, rest
    try:
        text = zlib.decompressobj().decompress(rest, most + 1)
    except zlib.error:
        return name, b""
    return name, text if len(text) <= most else b""


def _decoded(raw: bytes) -> str:
    """UTF-8, which many programs write into chunks that ought to be Latin-1, else that."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


class _Pieces(io.RawIOBase):
    """The pieces (start, end) of a file as a file of its own."""

    def __init__(self, file: BinaryIO, pieces: list[tuple[int, int]]) -> None:
        self._file, self._pieces, self._place = file, pieces, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        size = sum(end - start for start, end in self._pieces)
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: size}[whence]
        return self._place

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        skipped = self._place
        for start, end in self._pieces:
            if skipped < end - start:
                self._file.seek(start + skipped)
                content = self._file.read(min(len(buffer), end - start - skipped))
                buffer[: len(content)] = content
                self._place += len(content)
                return len(content)
            skipped -= end - start
        return 0
