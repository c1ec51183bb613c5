"""Model files on this machine's disk: in place where the store has them here, else fetched once and kept by
last use.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from atelier.contract import keys
from atelier.contract.errors import ModelUnusable, NotFound, StorageFailed
from atelier.contract.models import ModelRef
from atelier.storage.base import BlobStore
from workers.runtime.clock import Clock, SystemClock

_CHUNK = 8 * 2**20
_GRACE_SECONDS = 120.0
"""A path that was just given out is not evicted before its taker had time to open it."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Identity:
    """What tells that a file is the one that was hashed: place, length and time of writing."""

    path: str
    size: int
    modified_ns: int

    @classmethod
    def of(cls, path: Path) -> _Identity:
        status = path.stat()
        return cls(str(path), status.st_size, status.st_mtime_ns)


class ModelCache:
    """Paths of model files by the hash of their bytes. Threads may ask for the same model at once: it is
    fetched once.

    A file's sha256 is checked once per identity (path, size, time of writing); the note of it outlives the
    process. Files in `baked` are named by their sha256, which was taken when the image was built: they are
    used as they are.
    """

    def __init__(
        self,
        store: BlobStore,
        folder: Path,
        capacity_bytes: int,
        *,
        baked: Path | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._store, self._folder, self._capacity = store, folder, capacity_bytes
        self._baked, self._clock = baked, clock or SystemClock()
        self._lock = threading.Lock()
        self._flights: dict[str, threading.Lock] = {}
        self._given: dict[str, float] = {}

    def path(self, model: ModelRef) -> Path:
        """A readable file with the stored bytes of `model`, checked.

        Raises ModelUnusable, naming the model, where the store lacks it or has other bytes; StorageFailed.
        """
        blob = model.blob_sha256
        came_along = self._came_along(blob)
        if came_along is not None:
            return came_along
        with self._flight(blob):
            with self._lock:
                self._given[blob] = self._clock.monotonic()
            local = self._store.local_path(keys.model(blob))
            return self._checked_in_place(model, local) if local is not None else self._fetched(model)

    def config(self, model: ModelRef) -> str | None:
        """The text of the configuration that came beside the model's file, if any."""
        if model.config_sha256 is None:
            return None
        came_along = self._came_along(model.config_sha256)
        try:
            data = came_along.read_bytes() if came_along else self._store.get(keys.model(model.config_sha256))
        except NotFound as error:
            raise ModelUnusable(f"The configuration of {model.filename!r} is not in the store.") from error
        if hashlib.sha256(data).hexdigest() != model.config_sha256:
            raise ModelUnusable(f"The stored configuration of {model.filename!r} is damaged.")
        return data.decode("utf-8", errors="replace")

    def _came_along(self, blob: str) -> Path | None:
        """The file of the image with these bytes, None where it has none."""
        path = self._baked / blob if self._baked else None
        return path if path and path.is_file() else None

    @contextlib.contextmanager
    def _flight(self, blob: str) -> Iterator[None]:
        with self._lock:
            flight = self._flights.setdefault(blob, threading.Lock())
        with flight:
            yield

    def _checked_in_place(self, model: ModelRef, path: Path) -> Path:
        try:
            identity = _Identity.of(path)
            if not self._is_noted(model.blob_sha256, identity):
                log.info("checking %s (%d bytes) in place", model.filename, identity.size)
                with path.open("rb") as source:
                    self._compare(model, _digest(source))
                self._note(model.blob_sha256, identity)
        except OSError as error:
            raise ModelUnusable(
                f"The file of {model.filename!r} cannot be read: {error.strerror}."
            ) from error
        return path

    def _fetched(self, model: ModelRef) -> Path:
        target = self._folder / "files" / model.blob_sha256
        if target.is_file() and self._is_noted(model.blob_sha256, _Identity.of(target)):
            self._touch(target)
            return target
        target.unlink(missing_ok=True)
        self._make_room(model.size)
        self._fetch(model, target)
        self._note(model.blob_sha256, _Identity.of(target))
        self._touch(target)
        return target

    def _touch(self, file: Path) -> None:
        """Set the time of the last use, which is the time of access; that of writing belongs to the
        identity.
        """
        os.utime(file, ns=(int(self._clock.time() * 1e9), file.stat().st_mtime_ns))

    def _fetch(self, model: ModelRef, target: Path) -> None:
        log.info("fetching %s (%d bytes)", model.filename, model.size)
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix="partial-")
        try:
            with os.fdopen(handle, "wb") as out, self._store.open(keys.model(model.blob_sha256)) as source:
                self._compare(model, _digest(source, copy=out))
            os.replace(name, target)
        except NotFound as error:
            raise ModelUnusable(f"The file of {model.filename!r} is not in the store.") from error
        except OSError as error:
            raise StorageFailed(f"Could not fetch {model.filename!r}: {error.strerror}.") from error
        finally:
            Path(name).unlink(missing_ok=True)

    def _compare(self, model: ModelRef, found: str) -> None:
        if found != model.blob_sha256:
            raise ModelUnusable(
                f"The file of {model.filename!r} is not the one that was registered: import it again.",
                detail={"model": model.name, "expected": model.blob_sha256, "found": found},
            )

    def _make_room(self, wanted: int) -> None:
        """Remove files by last use until `wanted` bytes fit, leaving what was given out moments ago."""
        kept = sorted((self._folder / "files").glob("[0-9a-f]*"), key=lambda file: file.stat().st_atime_ns)
        held = sum(file.stat().st_size for file in kept)
        for file in kept:
            if held + wanted <= self._capacity:
                return
            with self._lock:
                given = self._given.get(file.name)
            if given is None or self._clock.monotonic() - given > _GRACE_SECONDS:
                held -= file.stat().st_size
                file.unlink(missing_ok=True)
                self._note_path(file.name).unlink(missing_ok=True)
                log.info("removed %s from the model cache", file.name)

    def _note_path(self, blob: str) -> Path:
        return self._folder / "checked" / f"{blob}.json"

    def _is_noted(self, blob: str, identity: _Identity) -> bool:
        try:
            return _Identity(**json.loads(self._note_path(blob).read_text())) == identity
        except (OSError, ValueError, TypeError):
            return False

    def _note(self, blob: str, identity: _Identity) -> None:
        """Remember that a file was checked; where that cannot be written, it is checked again some day."""
        note = self._note_path(blob)
        partial = note.with_name(f"{blob}.{threading.get_ident()}")
        try:
            note.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps(vars(identity)))
            os.replace(partial, note)
        except OSError as error:
            log.warning("it is not noted that %s was checked: %s", blob, error.strerror)
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)


def _digest(source: BinaryIO, *, copy: BinaryIO | None = None) -> str:
    """Hex sha256 of what is left of `source`, which is written to `copy` on the way."""
    digest = hashlib.sha256()
    while chunk := source.read(_CHUNK):
        digest.update(chunk)
        if copy is not None:
            copy.write(chunk)
    return digest.hexdigest()
