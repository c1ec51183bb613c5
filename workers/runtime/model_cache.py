"""Model files on this machine's disk: in place where the store has them here, else fetched once and kept by
last use. Those of checkpoints go from the store into memory as they come, and onto the disk on the way.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from atelier.contract import keys
from atelier.contract.errors import ModelUnusable, NotFound, StorageFailed
from atelier.contract.models import ModelRef
from atelier.storage.base import BlobStat, BlobStore, ReadsRanges
from workers.runtime.clock import Clock, SystemClock
from workers.runtime.download import Parts, fetch

_CHUNK = 8 * 2**20
_GRACE_SECONDS = 120.0
"""A path that was just given out is not evicted before its taker had time to open it."""
_HEAD = 2**20
"""Bytes that are fetched where a header is asked for: most headers have fewer."""
_PARTIAL = "partial-"

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
    """Model files by the hash of their bytes. Threads may ask for the same model at once: it is fetched once.

    A file's sha256 is checked once per identity (path, size, time of writing); the note of it outlives the
    process. The folder holds at most `capacity_bytes`, of files that are there and of those that arrive; the
    least recently used go first, those of parts in work (`hold`) never. Files in `baked` are named by their
    sha256, which was taken when the image was built: they are used as they are.
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
        self._room = threading.Lock()
        """Held by the one who makes room. Who takes both takes this one first."""
        self._flights: dict[str, threading.Lock] = {}
        self._given: dict[str, float] = {}
        self._held: Counter[str] = Counter()
        self._arriving: dict[str, int] = {}

    def path(self, model: ModelRef) -> Path:
        """A readable file with the stored bytes of `model`, checked.

        Raises ModelUnusable, naming the model, where the store lacks it or has other bytes; StorageFailed.
        """
        came_along = self._came_along(model.blob_sha256)
        if came_along is not None:
            return came_along
        with self._flight(model.blob_sha256):
            self._give_out(model)
            local = self._store.local_path(keys.model(model.blob_sha256))
            return self._checked_in_place(model, local) if local is not None else self._fetched(model)

    def distant(self, model: ModelRef) -> DistantFile | None:
        """The bytes of `model` where they lie, to be read into memory as they come: what is not on this
        machine, in a store that gives any piece. Else None: take `path`.
        """
        store = self._store
        if not isinstance(store, ReadsRanges) or self._came_along(model.blob_sha256) is not None:
            return None
        with self._flight(model.blob_sha256):
            key = keys.model(model.blob_sha256)
            if store.local_path(key) is not None or self._kept(model) is not None:
                return None
            stat = self._store.stat(key)
        if stat is None:
            raise _not_in_the_store(model)
        return DistantFile(self, store, stat, model)

    def place(self, model: ModelRef) -> Path:
        """Where the model's file lies, or would."""
        return self._folder / "files" / model.blob_sha256

    def hold(self, models: Iterable[ModelRef]) -> Callable[[], None]:
        """Keep the files of `models`, those that are still to come as well, until what this returns is
        called.
        """
        held = [each.blob_sha256 for each in models]
        with self._lock:
            self._held.update(held)

        def release() -> None:
            with self._lock:
                self._held.subtract(held)
                self._held += Counter()

        return release

    def read_into(self, store: ReadsRanges, stat: BlobStat, model: ModelRef, parts: Parts) -> None:
        """All of the model's bytes, checked, those that are asked for into `parts`; kept on the disk as well
        where there is room. Raises ModelUnusable, StorageFailed.
        """
        with self._flight(model.blob_sha256):
            self._give_out(model)
            if self._make_room(model):
                self._arrive(model, lambda out: fetch(store, stat, parts, copy=out.fileno()))
                return
            log.info("%s is read without being kept: there is no room in the cache", model.filename)
            try:
                self._compare(model, fetch(store, stat, parts))
            except NotFound as error:
                raise _not_in_the_store(model) from error

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

    def _give_out(self, model: ModelRef) -> None:
        with self._lock:
            self._given[model.blob_sha256] = self._clock.monotonic()

    def _kept(self, model: ModelRef) -> Path | None:
        """The checked file on the disk, if it is there."""
        target = self.place(model)
        with contextlib.suppress(FileNotFoundError):
            if self._is_noted(model.blob_sha256, _Identity.of(target)):
                return target
        return None

    def _fetched(self, model: ModelRef) -> Path:
        target = self._kept(model)
        if target is None:
            target = self.place(model)
            target.unlink(missing_ok=True)
            if not self._make_room(model, must=True):
                log.warning("the model cache holds more than it should: %s must lie on the disk", model.name)
            self._arrive(model, lambda out: _copied(self._store, keys.model(model.blob_sha256), out))
        self._touch(target)
        return target

    def _touch(self, file: Path) -> None:
        """Set the time of the last use, which is the time of access; that of writing belongs to the
        identity.
        """
        os.utime(file, ns=(int(self._clock.time() * 1e9), file.stat().st_mtime_ns))

    def _arrive(self, model: ModelRef, write: Callable[[BinaryIO], str]) -> None:
        """Make the model's file with what `write` writes, whose hex sha256 it returns; in the room that was
        made for it.
        """
        log.info("fetching %s (%d bytes)", model.filename, model.size)
        target = self.place(model)
        name = ""
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=target.parent, prefix=_PARTIAL)
            with os.fdopen(handle, "wb") as out:
                self._compare(model, write(out))
            os.replace(name, target)
        except NotFound as error:
            raise _not_in_the_store(model) from error
        except OSError as error:
            raise StorageFailed(f"Could not fetch {model.filename!r}: {error.strerror}.") from error
        finally:
            with self._lock:
                del self._arriving[model.blob_sha256]
            if name:
                Path(name).unlink(missing_ok=True)
        self._note(model.blob_sha256, _Identity.of(target))
        self._touch(target)

    def _compare(self, model: ModelRef, found: str) -> None:
        if found != model.blob_sha256:
            raise ModelUnusable(
                f"The file of {model.filename!r} is not the one that was registered: import it again.",
                detail={"model": model.name, "expected": model.blob_sha256, "found": found},
            )

    def _make_room(self, model: ModelRef, *, must: bool = False) -> bool:
        """Remove files by last use until the model fits, leaving those of parts in work and what was given
        out moments ago. Returns whether it fits. Then, or where it `must` come all the same, the room is the
        model's until it has arrived.
        """
        with self._room:
            with self._lock:
                wanted = model.size + sum(self._arriving.values())
            kept = sorted(self._there())
            held = sum(size for _, size, _ in kept)
            for _, size, file in kept:
                if held + wanted <= self._capacity:
                    break
                if self._evicted(file):
                    held -= size
            fits = held + wanted <= self._capacity
            if fits or must:
                with self._lock:
                    self._arriving[model.blob_sha256] = model.size
            return fits

    def _there(self) -> Iterator[tuple[int, int, Path]]:
        """(last use in ns, bytes, file) of what lies in the folder; a file may go at any moment."""
        for file in (self._folder / "files").glob("[0-9a-f]*"):
            with contextlib.suppress(FileNotFoundError):
                status = file.stat()
                yield status.st_atime_ns, status.st_size, file

    def _evicted(self, file: Path) -> bool:
        """Remove a file unless it is needed, and say whether that was done. It is not given out meanwhile."""
        with self._lock:
            given = self._given.get(file.name)
            recent = given is not None and self._clock.monotonic() - given <= _GRACE_SECONDS
            if recent or self._held[file.name] > 0:
                return False
            file.unlink(missing_ok=True)
        self._note_path(file.name).unlink(missing_ok=True)
        log.info("removed %s from the model cache", file.name)
        return True

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


class DistantFile:
    """A model's file in the store, read into memory without passing over the disk first."""

    def __init__(self, cache: ModelCache, store: ReadsRanges, stat: BlobStat, model: ModelRef) -> None:
        self._cache, self._store, self._stat, self._model = cache, store, stat, model
        self._start = b""

    @property
    def name(self) -> str:
        """What people call the file."""
        return self._model.filename

    @property
    def size(self) -> int:
        """All its bytes."""
        return self._stat.size

    def read(self, start: int, count: int) -> bytes:
        """Some of its bytes: a header's, which are fetched once."""
        missing = min(start + count, self.size) - len(self._start)
        if missing > 0:
            more = bytearray(min(max(missing, _HEAD), self.size - len(self._start)))
            self._store.read_into(self._stat.key, len(self._start), [memoryview(more)], self._stat.etag)
            self._start += more
        return self._start[start : start + count]

    def fill(self, parts: Parts) -> None:
        """Fill each buffer with the bytes from its place on. Raises ModelUnusable where the file is not the
        one that was registered, StorageFailed.
        """
        self._cache.read_into(self._store, self._stat, self._model, parts)


def _not_in_the_store(model: ModelRef) -> ModelUnusable:
    return ModelUnusable(f"The file of {model.filename!r} is not in the store.")


def _copied(store: BlobStore, key: str, out: BinaryIO) -> str:
    """Hex sha256 of a blob that is written to `out`; pieces of it come at once where the store gives them."""
    if isinstance(store, ReadsRanges):
        stat = store.stat(key)
        if stat is None:
            raise NotFound(f"There is nothing stored under {key}.")
        return fetch(store, stat, (), copy=out.fileno())
    with store.open(key) as source:
        return _digest(source, copy=out)


def _digest(source: BinaryIO, *, copy: BinaryIO | None = None) -> str:
    """Hex sha256 of what is left of `source`, which is written to `copy` on the way."""
    digest = hashlib.sha256()
    while chunk := source.read(_CHUNK):
        digest.update(chunk)
        if copy is not None:
            copy.write(chunk)
    return digest.hexdigest()
