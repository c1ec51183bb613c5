"""The zip archives that torch writes, and nothing else that may call itself zip.

torch stores every entry as it is, so that tensors can be mapped. An archive is taken only if its directory
(APPNOTE 4.3, with zip64) describes the file without gaps of trust: nothing compressed or encrypted, no name
twice, no path that leads out, no link, every local header like its directory entry, no two entries on the
same bytes, and nothing behind the end.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from workers.tasks.standins import Malformed

SIGNATURE = b"PK\x03\x04"
MAX_ENTRIES = 200_000
_END, _END64, _LOCATOR64, _ENTRY = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07", b"PK\x01\x02"
_END_SIZE, _END64_SIZE, _LOCATOR64_SIZE, _ENTRY_SIZE, _LOCAL_SIZE = 22, 56, 20, 46, 30
_ALL, _ALL_SHORT = 0xFFFFFFFF, 0xFFFF
_NAME = re.compile(r"[A-Za-z0-9_.@+ ()\[\]{}&,;!#$%'=~^-]+(/[A-Za-z0-9_.@+ ()\[\]{}&,;!#$%'=~^-]+)*\Z")
_LINK, _TYPE = 0o120000, 0o170000


@dataclass(frozen=True)
class Entry:
    """Where the bytes of an entry lie in the file."""

    name: str
    start: int
    end: int


def entries(data: memoryview) -> dict[str, Entry]:
    """The entries of the archive that `data` is, by name. Raises Malformed."""
    place, size, count = _directory(data)
    found: dict[str, Entry] = {}
    end = place + size
    for _ in range(count):
        entry, place = _entry(data, place, end)
        if entry.name in found:
            raise Malformed(f"it holds the entry {entry.name[:80]!r} twice")
        found[entry.name] = entry
    if place != end:
        raise Malformed("its directory is longer than its entries")
    _check_apart(found, end - size)
    return found


def _directory(data: memoryview) -> tuple[int, int, int]:
    """(start, bytes, entries) of the directory, which must end where the end records begin."""
    end = len(data) - _END_SIZE
    if end < 0 or data[end : end + 4] != _END:
        raise Malformed("it is cut off, or something follows its end")
    disk, first, here, count, size, start, comment = struct.unpack_from("<4H2IH", data, end + 4)
    if disk not in (0, _ALL_SHORT) or first not in (0, _ALL_SHORT) or comment:
        raise Malformed("it is one of several volumes, or has a comment")
    if end >= _LOCATOR64_SIZE and data[end - _LOCATOR64_SIZE : end - 16] == _LOCATOR64:
        (record,) = struct.unpack_from("<Q", data, end - _LOCATOR64_SIZE + 8)
        if record > end - _LOCATOR64_SIZE - _END64_SIZE or data[record : record + 4] != _END64:
            raise Malformed("its directory is not where it should be")
        here, count, size, start = struct.unpack_from("<4Q", data, record + 24)
        end = record
    if here != count or count > MAX_ENTRIES or start + size != end:
        raise Malformed("its directory is not where it should be")
    return start, size, count


def _entry(data: memoryview, place: int, end: int) -> tuple[Entry, int]:
    if place + _ENTRY_SIZE > end or data[place : place + 4] != _ENTRY:
        raise Malformed("its directory is damaged")
    flags, method = struct.unpack_from("<2H", data, place + 8)
    packed, size, name_size, extra_size, comment_size = struct.unpack_from("<2I3H", data, place + 20)
    attributes, local = struct.unpack_from("<2I", data, place + 38)
    name_end = place + _ENTRY_SIZE + name_size
    after = name_end + extra_size + comment_size
    if after > end:
        raise Malformed("its directory is damaged")
    raw = bytes(data[place + _ENTRY_SIZE : name_end])
    name = _checked_name(raw, attributes >> 16)
    if flags & 0x41 or method != 0:
        raise Malformed(f"its entry {name[:80]!r} is compressed or encrypted, which torch never does")
    size, packed, local = _large(bytes(data[name_end : name_end + extra_size]), size, packed, local)
    if size != packed:
        raise Malformed(f"its entry {name[:80]!r} contradicts itself")
    return _located(data, name, raw, local, size), after


def _checked_name(raw: bytes, mode: int) -> str:
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed("an entry of it has a name that is no text") from error
    plain = _NAME.match(name) and not any(part in (".", "..") for part in name.split("/"))
    if not plain or mode & _TYPE == _LINK:
        raise Malformed(f"its entry {name[:80]!r} leads elsewhere")
    return name


def _large(extra: bytes, size: int, packed: int, local: int) -> tuple[int, int, int]:
    """Sizes and place with those of the zip64 field where the short ones are full."""
    place = 0
    while place + 4 <= len(extra):
        kind, count = struct.unpack_from("<2H", extra, place)
        if kind == 1:
            values = list(
                struct.unpack_from(f"<{min(count, len(extra) - place - 4) // 8}Q", extra, place + 4)
            )
            wide = [values.pop(0) if each == _ALL and values else each for each in (size, packed, local)]
            return wide[0], wide[1], wide[2]
        place += 4 + count
    return size, packed, local


def _located(data: memoryview, name: str, raw: bytes, local: int, size: int) -> Entry:
    """The entry's bytes, behind its local header, which must agree."""
    if local + _LOCAL_SIZE > len(data) or data[local : local + 4] != SIGNATURE:
        raise Malformed(f"its entry {name[:80]!r} is not where the directory says")
    name_size, extra_size = struct.unpack_from("<2H", data, local + 26)
    start = local + _LOCAL_SIZE + name_size + extra_size
    if data[local + _LOCAL_SIZE : local + _LOCAL_SIZE + name_size] != raw:
        raise Malformed(f"its entry {name[:80]!r} has another name where it lies")
    if start + size > len(data):
        raise Malformed(f"its entry {name[:80]!r} reaches beyond the end; it may be cut off")
    return Entry(name, start, start + size)


def _check_apart(found: dict[str, Entry], end: int) -> None:
    before = 0
    for entry in sorted(found.values(), key=lambda each: (each.start, each.end)):
        if entry.start < before + _LOCAL_SIZE or entry.end > end:
            raise Malformed(f"its entry {entry.name[:80]!r} lies on other bytes of the file")
        before = entry.end
