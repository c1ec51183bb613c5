"""Pickles put together by hand, instruction by instruction, and the two forms of file that hold them."""

from __future__ import annotations

import io
import struct
import zipfile

LEGACY_HEAD = (
    b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}X\x0d\x00\x00\x00little_endian\x88s."
)
"""Magic number, protocol and the writer's machine, as torch wrote them before 1.6."""


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def call(module: str, attribute: str, *arguments: bytes) -> bytes:
    """REDUCE of a global with these pickled arguments."""
    return name(module, attribute) + b"(" + b"".join(arguments) + b"tR"


def program(*parts: bytes, protocol: int = 2) -> bytes:
    return b"\x80" + bytes([protocol]) + b"".join(parts) + b"."


def storage(key: str, count: int, kind: str = "FloatStorage") -> bytes:
    """A persistent id of a storage."""
    return b"(" + text("storage") + name("torch", kind) + text(key) + text("cpu") + number(count) + b"tQ"


def number(value: int) -> bytes:
    return b"\x8a\x08" + value.to_bytes(8, "little", signed=True)


def tensor(key: str, count: int, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0) -> bytes:
    sides = b"(" + b"".join(map(number, shape)) + b"t"
    steps = b"(" + b"".join(map(number, strides)) + b"t"
    hooks = call("collections", "OrderedDict")
    return call(
        "torch._utils",
        "_rebuild_tensor_v2",
        storage(key, count),
        number(offset),
        sides,
        steps,
        b"\x89",
        hooks,
    )


def legacy(pickle: bytes, storages: dict[str, bytes] | None = None, width: int = 4) -> bytes:
    """A file of the old form around a pickle."""
    found = storages or {}
    keys = program(b"]", *(text(key) + b"a" for key in found))
    rows = [struct.pack("<Q", len(data) // width) + data for data in found.values()]
    return LEGACY_HEAD + pickle + keys + b"".join(rows)


def zipped(
    pickle: bytes, storages: dict[str, bytes] | None = None, base: str = "archive", order: str = "little"
) -> bytes:
    """A file of the new form around a pickle."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as out:
        out.writestr(f"{base}/data.pkl", pickle)
        out.writestr(f"{base}/byteorder", order)
        for key, data in (storages or {}).items():
            out.writestr(f"{base}/data/{key}", data)
        out.writestr(f"{base}/version", "3\n")
    return made.getvalue()
