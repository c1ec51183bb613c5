"""The texts of a PNG file, read from its chunks without a look at its pixels."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from atelier.contract.errors import InvalidRequest

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_TEXT_BYTES = 4 * 2**20
"""Of all texts of a file together, unpacked."""
_MAX_CHUNKS = 100_000


@dataclass(frozen=True)
class PngTexts:
    """Size in pixels, the texts by their keywords (of two with one keyword the later), and the EXIF block."""

    width: int
    height: int
    texts: dict[str, str]
    exif: bytes


def read(data: bytes) -> PngTexts:
    """What the chunks of `data` say, those after the pixels too. Raises InvalidRequest for a damaged file and
    for texts beyond MAX_TEXT_BYTES.
    """
    size: tuple[int, int] | None = None
    texts: dict[str, str] = {}
    exif, room = b"", MAX_TEXT_BYTES
    for kind, body in _chunks(data):
        if kind == b"IHDR" and len(body) >= 8:
            size = struct.unpack_from(">II", body)
        elif kind == b"eXIf":
            exif = bytes(body)
        elif kind in _READERS:
            keyword, text = _READERS[kind](bytes(body), room)
            room -= len(keyword) + len(text)
            texts[keyword.decode("latin-1")] = text.decode(
                "utf-8" if kind == b"iTXt" else "latin-1", "replace"
            )
    if size is None:
        raise InvalidRequest("This PNG file says no size: it is damaged.")
    return PngTexts(*size, texts, exif)


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    view, place = memoryview(data), len(SIGNATURE)
    for _ in range(_MAX_CHUNKS):
        if place + 12 > len(data):
            raise InvalidRequest("This PNG file is cut off. Save or send it again.")
        (length,) = struct.unpack_from(">I", data, place)
        kind, end = data[place + 4 : place + 8], place + 12 + length
        if end > len(data):
            raise InvalidRequest("This PNG file is cut off. Save or send it again.")
        if kind == b"IEND":
            return
        yield kind, view[place + 8 : end - 4]
        place = end
    raise InvalidRequest(f"This PNG file has more than {_MAX_CHUNKS:,} chunks; no picture needs so many.")


def _plain(body: bytes, room: int) -> tuple[bytes, bytes]:
    keyword, _, text = body.partition(b"\0")
    return keyword, _within(text, room)


def _packed(body: bytes, room: int) -> tuple[bytes, bytes]:
    keyword, _, rest = body.partition(b"\0")
    return keyword, _inflated(rest[1:], room)


def _international(body: bytes, room: int) -> tuple[bytes, bytes]:
    keyword, _, rest = body.partition(b"\0")
    packed = rest[:1] == b"\1"
    text = b"".join(rest[2:].split(b"\0", 2)[2:])
    return keyword, _inflated(text, room) if packed else _within(text, room)


_READERS = {b"tEXt": _plain, b"zTXt": _packed, b"iTXt": _international}


def _inflated(packed: bytes, room: int) -> bytes:
    try:
        return _within(zlib.decompressobj().decompress(packed, room + 1), room)
    except zlib.error as error:
        raise InvalidRequest("A packed text of this PNG file is damaged.") from error


def _within(text: bytes, room: int) -> bytes:
    if len(text) > room:
        raise InvalidRequest(f"The texts in this picture are larger than {MAX_TEXT_BYTES / 2**20:g} MiB.")
    return text
