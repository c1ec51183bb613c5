"""The one EXIF field we write and read: UserComment, in which JPEG, WebP and AVIF files carry an infotext."""

from __future__ import annotations

import struct
from collections.abc import Iterator

_PREFIX = b"Exif\0\0"
_EXIF_FOLDER, _USER_COMMENT = 0x8769, 0x9286
_LONG, _UNDEFINED = 4, 7
_UNICODE, _ASCII, _JIS, _UNNAMED = b"UNICODE\0", b"ASCII\0\0\0", b"JIS\0\0\0\0\0", b"\0" * 8
_ENTRY = 12
_FIRST_FOLDER, _SECOND_FOLDER, _COMMENT = 8, 26, 44
"""Offsets of a block with one entry in each of its two folders."""


def block(text: str, *, ascii_only: bool = False) -> bytes:
    """An EXIF block whose UserComment is `text`: big-endian throughout, and UTF-16 under the charset name
    UNICODE, as the peer writes it; with `ascii_only` one byte a character. Raises UnicodeEncodeError where
    ASCII cannot say it.
    """
    comment = _ASCII + text.encode("ascii") if ascii_only else _UNICODE + text.encode("utf-16-be", "replace")
    return b"".join(
        (
            _PREFIX,
            b"MM\0*",
            struct.pack(">I", _FIRST_FOLDER),
            struct.pack(">HHHIII", 1, _EXIF_FOLDER, _LONG, 1, _SECOND_FOLDER, 0),
            struct.pack(">HHHIII", 1, _USER_COMMENT, _UNDEFINED, len(comment), _COMMENT, 0),
            comment,
        )
    )


def user_comment(data: bytes) -> str:
    """The UserComment of an EXIF block, "" where there is none or the block is damaged. Never raises."""
    tiff = data.removeprefix(_PREFIX)
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or len(tiff) < _FIRST_FOLDER:
        return ""
    (first,) = struct.unpack_from(order + "I", tiff, 4)
    for tag, _, second in _entries(tiff, order, first):
        if tag == _EXIF_FOLDER:
            for inner, length, place in _entries(tiff, order, second):
                if inner == _USER_COMMENT:
                    return decoded(tiff[place : place + length])
            break  # a block has one such folder; thousands that name the same would be read in squares
    return ""


def _entries(tiff: bytes, order: str, folder: int) -> Iterator[tuple[int, int, int]]:
    """(tag, count, value or offset) of each entry of a folder, as far as the bytes go."""
    if folder + 2 > len(tiff):
        return
    (count,) = struct.unpack_from(order + "H", tiff, folder)
    for number in range(count):
        place = folder + 2 + number * _ENTRY
        if place + _ENTRY > len(tiff):
            return
        tag, _, length, value = struct.unpack_from(order + "HHII", tiff, place)
        yield tag, length, value


def decoded(comment: bytes) -> str:
    """The text of a UserComment, whose first eight bytes name its character set; UTF-8 where they name none.
    Never raises.
    """
    charset, body = comment[:8], comment[8:]
    if charset == _UNICODE:
        text = _utf16(body)
    elif charset == _JIS:
        text = body.decode("shift_jis", "replace")
    elif charset in (_ASCII, _UNNAMED):
        text = body.decode("utf-8", "replace")
    else:
        text = comment.decode("utf-8", "replace")
    return text.rstrip("\0")


def _utf16(body: bytes) -> str:
    """UTF-16 of either byte order: writers do not agree whether it is the block's. Without a mark, that in
    which more of the text is Latin; every infotext has a Latin line.
    """
    body = body[: len(body) // 2 * 2]
    if body[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return body.decode("utf-16", "replace")
    big = body[0::2].count(0) >= body[1::2].count(0)
    return body.decode("utf-16-be" if big else "utf-16-le", "replace")
