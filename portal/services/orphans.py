"""Blobs that nobody will ever see, and files of writes that never ended: found by walking the store piece by
piece, and deleted once they are old.

A blob is looked at before the database is asked about it, so whatever row it belongs to is there by then:
jobs and attempts are committed before anything is stored for them. What is stored before its row (a model, a
preview, an input) is protected by its age, and models by the transaction that names them as well.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Protocol, runtime_checkable

from atelier.contract import keys
from atelier.contract.errors import NotFound
from atelier.storage.base import BlobStat, BlobStore
from portal.db.audit import AuditEntry
from portal.db.base import Database
from portal.services import audit
from portal.services.model_desk import ModelDesk
from portal.services.orphan_rules import KEPT, MODELS, RULES
from portal.services.ports import Clock

log = logging.getLogger(__name__)

AGE_SECONDS = 2 * 3600.0
"""What is younger is left alone: it may be about to be named."""
BATCH = 200
"""Blobs looked at in one round of the leader."""
PAUSE_SECONDS = 600.0
"""From the end of one walk through the store to the next."""
_CLOCKS_APART = 300.0
"""Seconds by which the clocks of the store and the database may differ."""


@runtime_checkable
class LeavesFiles(Protocol):
    """What writes to files beside their places, and may die meanwhile."""

    def unfinished(self) -> Iterator[Path]:
        """Files and folders of writes that have not ended, or never will."""
        ...


@dataclass
class Swept:
    """What a walk has found: blobs or files by kind (the first word of their keys), and their bytes."""

    found: Counter[str] = field(default_factory=Counter)
    size: int = 0
    refused: str = ""
    """Why nothing was looked at, if so."""

    @property
    def blobs(self) -> int:
        """All of them."""
        return self.found.total()

    def add(self, kind: str, size: int) -> None:
        """One more."""
        self.found[kind] += 1
        self.size += size


class Orphans:
    """Sweeps the store: a piece at each `round` of the leader, or all of it at once by `sweep`. Two at the
    same time do no harm.
    """

    def __init__(
        self, database: Database, store: BlobStore, clock: Clock, desk: ModelDesk, folders: Iterable[object]
    ) -> None:
        self._database = database
        self._store = store
        self._clock = clock
        self._desk = desk
        self._folders = [each for each in (store, *folders) if isinstance(each, LeavesFiles)]
        self._walk: Iterator[None] | None = None
        self._swept = Swept()
        self._rest_until = 0.0
        self.removed = 0
        """Blobs and files this process has removed since it started."""

    def round(self) -> None:
        """The next piece of a walk; a walk begins every ten minutes."""
        if self._walk is None:
            if self._clock.now() < self._rest_until:
                return
            self._swept = Swept()
            self._walk = self._steps(self._swept, AGE_SECONDS, dry_run=False)
        try:
            if next(self._walk, self) is not self:
                return
        except BaseException:
            self._rest()
            raise
        self._rest()
        self._tell(audit.SYSTEM, self._swept)

    def sweep(self, actor: audit.Actor, *, age: float = AGE_SECONDS, dry_run: bool = False) -> Swept:
        """Walk through all of the store now; what is younger than `age` seconds stays. With `dry_run` nothing
        is removed.
        """
        swept = Swept()
        for _ in self._steps(swept, age, dry_run=dry_run):
            pass
        if not dry_run:
            self._tell(actor, swept)
        return swept

    def _rest(self) -> None:
        self._walk, self._rest_until = None, self._clock.now() + PAUSE_SECONDS

    def _tell(self, actor: audit.Actor, swept: Swept) -> None:
        if swept.refused:
            log.warning("the store is not swept: %s", swept.refused)
        if not swept.blobs:
            return
        log.info("swept %d blobs of %d bytes: %s", swept.blobs, swept.size, dict(swept.found))
        told = {"bytes": swept.size, **swept.found}
        with self._database.session() as session:
            audit.record(session, actor, "store.sweep", "store", details=told)

    def _steps(self, swept: Swept, age: float, *, dry_run: bool) -> Iterator[None]:
        """A walk; it stops after each piece."""
        swept.refused = self._not_ours()
        if swept.refused:
            return
        before = self._clock.now() - age
        for prefix, rule in RULES.items():
            blobs = self._store.list(prefix)
            while batch := list(islice(blobs, BATCH)):
                old = [blob for blob in batch if blob.modified < before - KEPT.get(prefix, 0.0)]
                with self._database.reading() as session:
                    orphans = rule(session, old) if old else []
                self._remove(prefix, orphans, swept, dry_run)
                yield
        if not dry_run:
            self._desk.sweep()
        self._remove_files(before, swept, dry_run)

    def _remove(self, prefix: str, orphans: Iterable[BlobStat], swept: Swept, dry_run: bool) -> None:
        gone = [blob for blob in orphans if dry_run or self._unchanged(blob)]
        if not dry_run:
            if prefix == MODELS:
                self._desk.retire([blob.key.removeprefix(MODELS) for blob in gone])
            else:
                for blob in gone:
                    self._store.delete(blob.key)
            self.removed += len(gone)
        for blob in gone:
            swept.add(prefix.rstrip("/"), blob.size)

    def _unchanged(self, blob: BlobStat) -> bool:
        """Whether a blob was not written anew since it was listed."""
        now = self._store.stat(blob.key)
        return now is not None and now.etag == blob.etag

    def _remove_files(self, before: float, swept: Swept, dry_run: bool) -> None:
        for path in [each for maker in self._folders for each in maker.unfinished()]:
            try:
                files = [path, *path.rglob("*")] if path.is_dir() else [path]
                status = [file.stat() for file in files]
            except FileNotFoundError:
                continue  # it has ended meanwhile
            if max(each.st_mtime for each in status) >= before:
                continue
            swept.add("unfinished", sum(each.st_size for each in status))
            if not dry_run:
                self.removed += 1
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)

    def _not_ours(self) -> str:
        """Why the store's blobs are not for this database to judge, empty where they are.

        The store bears the mark of the database that looks after it: another one, or a new one made beside an
        old store, knows none of its jobs, and must not take that for a reason to delete them.
        """
        with self._database.reading() as session:
            first = session.get(AuditEntry, 1)
        if first is None:
            return "nothing has happened in this studio yet"
        mine = hashlib.sha256(f"{first.at!r} {first.hash}".encode()).hexdigest().encode()
        try:
            marked = self._store.get(keys.owner())
        except NotFound:
            oldest = next(iter(self._store.list("jobs/")), None)
            if oldest is not None and oldest.modified < first.at - _CLOCKS_APART:
                return "its pictures are older than this database, so they are another studio's"
            self._store.put(keys.owner(), mine)
            return ""
        return "" if marked == mine else "it is looked after by another database"
