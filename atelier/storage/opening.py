"""From a URL in the settings to a blob store."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from atelier.contract.errors import InvalidRequest
from atelier.storage.base import BlobStore
from atelier.storage.filesystem import FilesystemBlobStore


def open_store(url: str) -> BlobStore:
    """The store at `url`: `file:///absolute/path`. Raises InvalidRequest for another scheme."""
    parts = urlsplit(url)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return FilesystemBlobStore(Path(unquote(parts.path)))
    raise InvalidRequest(f"{url!r} is no store this build can open. Give file:///path.")
