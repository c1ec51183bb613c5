"""The blob store on plain files: what one machine uses."""

from __future__ import annotations

import errno
import hashlib
import heapq
import os
import shutil
import tempfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

from atelier.contract.errors import NotFound, StorageFailed, StorageFull
from atelier.storage.base import BlobStat, checked_key

_LINKS = "links"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says where a disk, somebody's share of it, or the largest file it takes is full."""


class FilesystemBlobStore:
    """Blobs as files below `root/blobs`; a large file may be linked in place through `root/links` instead of
    copied.

    A write goes to a temporary file in the same file system and is renamed: readers see the old value or the
    new one.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self._blobs = self.root / "blobs"
        self._partial = self.root / "partial"

    def put(self, key: str, data: bytes | Path, *, content_type: str | None = None) -> BlobStat:
        """See BlobStore. `content_type` is not kept by a file system."""
        target = self._path(key)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            self._partial.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self._partial)
            try:
                with os.fdopen(handle, "wb") as out:
                    if isinstance(data, Path):
                        with data.open("rb") as source:
                            shutil.copyfileobj(source, out, 8 * 2**20)
                    else:
                        out.write(data)
                Path(name).replace(target)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise _refusal(f"Could not write {key}", error) from error
        found = self.stat(key)
        if found is None:
            raise StorageFailed(f"{key} vanished while it was written.")
        return found

    def link(self, key: str, path: Path) -> BlobStat:
        """Let `key` be the file at `path`, in place. It must not change afterwards; a moved file reads as
        missing.
        """
        if not path.is_file():
            raise NotFound(f"There is no file {path}.")
        return self.put(f"{_LINKS}/{key}", str(path.resolve()).encode())

    def get(self, key: str) -> bytes:
        """See BlobStore."""
        with self.open(key) as source:
            return source.read()

    def get_if_changed(self, key: str, etag: str | None) -> tuple[bytes, str] | None:
        """See BlobStore. The etag is read before the value, so that a change in between is seen the next
        time.
        """
        found = self.stat(key)
        if found is None or found.etag == etag:
            return None
        try:
            return self.get(key), found.etag
        except NotFound:
            return None

    def open(self, key: str) -> BinaryIO:
        """See BlobStore."""
        path = self.local_path(key)
        if path is None:
            raise NotFound(f"There is nothing stored under {key}.")
        try:
            return path.open("rb")
        except FileNotFoundError as error:
            raise NotFound(f"There is nothing stored under {key}.") from error
        except OSError as error:
            raise StorageFailed(f"Could not read {key}: {error.strerror or error}.") from error

    def stat(self, key: str) -> BlobStat | None:
        """See BlobStore. The etag is of inode, size and modification time: a replaced file has another."""
        path = self.local_path(key)
        if path is None:
            return None
        try:
            status = path.stat()
        except FileNotFoundError:
            return None
        mark = f"{status.st_ino}-{status.st_size}-{status.st_mtime_ns}"
        return BlobStat(key, status.st_size, hashlib.sha256(mark.encode()).hexdigest()[:32], status.st_mtime)

    def delete(self, key: str) -> None:
        """See BlobStore. The file behind a link stays."""
        try:
            self._path(key).unlink(missing_ok=True)
            self._path(f"{_LINKS}/{key}").unlink(missing_ok=True)
        except OSError as error:
            raise StorageFailed(f"Could not delete {key}: {error.strerror or error}.") from error

    def list(self, prefix: str) -> Iterator[BlobStat]:
        """See BlobStore. Links are listed under the key they stand for. Folders are read as the listing comes
        to them.
        """
        folder = f"{prefix.rpartition('/')[0]}/".lstrip("/")
        both = heapq.merge(
            _keys_below(self._blobs, folder, prefix), _keys_below(self._blobs / _LINKS, folder, prefix)
        )
        for key, _ in groupby(both):
            found = None if key.startswith(f"{_LINKS}/") else self.stat(key)
            if found is not None:
                yield found

    def unfinished(self) -> Iterator[Path]:
        """Files of writes that have not ended, or never will."""
        yield from self._partial.glob("*")

    def local_path(self, key: str) -> Path | None:
        """See BlobStore."""
        path = self._path(key)
        if path.is_file():
            return path
        link = self._path(f"{_LINKS}/{key}")
        try:
            linked = Path(link.read_text())
        except (FileNotFoundError, NotADirectoryError):
            return None
        return linked if linked.is_file() else None

    def location(self, key: str) -> str:
        """See BlobStore."""
        return self._path(key).absolute().as_uri()

    def url(
        self, key: str, *, expires: float, filename: str | None = None, content_type: str | None = None
    ) -> str | None:
        """Plain files have no URL of their own."""
        return None

    def _path(self, key: str) -> Path:
        return self._blobs / checked_key(key)


def _refusal(what: str, error: OSError) -> StorageFailed:
    """What to raise where the system refuses a write."""
    if error.errno in NO_ROOM:
        return StorageFull(f"{what}: the disk of the store is full. Make room on it; then this goes on.")
    return StorageFailed(f"{what}: {error.strerror or error}. Check the disk's space and rights.")


def _keys_below(root: Path, folder: str, prefix: str) -> Iterator[str]:
    """Keys below `root`/`folder` that begin with `prefix`, in order: a folder stands where its name and a
    slash do.
    """
    try:
        with os.scandir(root / folder) as entries:
            names = sorted(f"{entry.name}/" if entry.is_dir() else entry.name for entry in entries)
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in names:
        key = folder + name
        if not name.endswith("/"):
            if key.startswith(prefix):
                yield key
        elif key.startswith(prefix) or prefix.startswith(key):
            yield from _keys_below(root, key, prefix)
