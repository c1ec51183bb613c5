"""The blob store's port: keys are `/`-separated, values are bytes, writes are whole or not at all."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, runtime_checkable

_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@=+-]*\Z")


@dataclass(frozen=True)
class BlobStat:
    """What is known of a blob without reading it. `modified` is unix seconds; equal `etag` means equal
    content.
    """

    key: str
    size: int
    etag: str
    modified: float


@runtime_checkable
class BlobStore(Protocol):
    """Whole-object storage. Every method raises StorageFailed when the store does not answer, ValueError for
    a bad key.
    """

    def put(self, key: str, data: bytes | Path, *, content_type: str | None = None) -> BlobStat:
        """Store bytes or a file's content under `key`, replacing what is there in one step."""
        ...

    def get(self, key: str) -> bytes:
        """The whole value. Raises NotFound."""
        ...

    def get_if_changed(self, key: str, etag: str | None) -> tuple[bytes, str] | None:
        """(value, etag) if there is a value and its etag is another than `etag`; else None."""
        ...

    def open(self, key: str) -> BinaryIO:
        """The value as a readable binary stream. Raises NotFound."""
        ...

    def stat(self, key: str) -> BlobStat | None:
        """None where there is no such key."""
        ...

    def delete(self, key: str) -> None:
        """Remove a key; nothing happens where there is none."""
        ...

    def list(self, prefix: str) -> Iterator[BlobStat]:
        """All blobs whose key begins with `prefix`, in key order."""
        ...

    def local_path(self, key: str) -> Path | None:
        """A readable file with the value, if the store has one on this machine; it must not be written to."""
        ...

    def location(self, key: str) -> str:
        """The URI that names the value for good, and opens nothing: file:///..., s3://bucket/key."""
        ...

    def url(self, key: str, *, expires: float) -> str | None:
        """A URL that reads the value for `expires` seconds, or None where the store has none."""
        ...


def checked_key(key: str) -> str:
    """`key`, if it is a relative path of plain segments. Raises ValueError: keys are made by us, never by
    users.
    """
    if not key or len(key) > 900 or not all(_SEGMENT.match(segment) for segment in key.split("/")):
        raise ValueError(f"{key[:120]!r} is no blob key")
    return key
