"""The blob store's port: keys are `/`-separated, values are bytes, writes are whole or not at all."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
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

    def url(
        self, key: str, *, expires: float, filename: str | None = None, content_type: str | None = None
    ) -> str | None:
        """A URL that reads the value for `expires` seconds, or None where the store has none. A browser saves
        it as `filename` where one is given; `content_type` is what it is told to be.
        """
        ...


@dataclass(frozen=True)
class DirectUpload:
    """Where somebody puts a value without passing it through the portal: one HTTP PUT to each of `urls`, in
    order, with `part_size` bytes of it (the last has the rest). The header ETag of each answer is what
    completes it.
    """

    upload_id: str
    part_size: int
    urls: tuple[str, ...]


@runtime_checkable
class TakesUploads(Protocol):
    """A store that others may write one given value to, by URLs that die. What they sent is a value only
    once it is completed, and cannot be sent again after that: what was checked then stays what it is.
    """

    def offer_upload(
        self, key: str, size: int, *, expires: float, content_type: str | None = None
    ) -> DirectUpload:
        """Begin an upload of exactly `size` bytes; its URLs are good for `expires` seconds."""
        ...

    def complete_upload(self, key: str, upload_id: str, etags: Sequence[str], size: int) -> BlobStat:
        """Make the value of its parts. Raises InvalidRequest where they are not what was announced; the
        upload is gone then.
        """
        ...

    def abandon_upload(self, key: str, upload_id: str) -> None:
        """Drop what came of an upload; nothing happens where it has ended already."""
        ...


@runtime_checkable
class ReadsRanges(Protocol):
    """A store that gives any piece of a value, so that several are read at once."""

    def read_into(self, key: str, start: int, buffers: Sequence[memoryview], etag: str) -> None:
        """Fill the buffers, one after the other, with the bytes from `start` on. Raises NotFound,
        StorageFailed also where the value has another etag by now or ends before the buffers.
        """
        ...


def checked_key(key: str) -> str:
    """`key`, if it is a relative path of plain segments. Raises ValueError: keys are made by us, never by
    users.
    """
    if not key or len(key) > 900 or not all(_SEGMENT.match(segment) for segment in key.split("/")):
        raise ValueError(f"{key[:120]!r} is no blob key")
    return key
