"""Grids of finished jobs: drawn once, from the stored pictures, before anybody sees the job final.

Whoever asks first draws. Two that draw at the same time write the same blob, and the row of the first one
counts.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import select

from atelier import gridfile
from atelier.contract import keys
from atelier.contract.errors import InvalidRequest, NotFound
from atelier.contract.grids import Arrangement
from atelier.contract.jobs import JobState
from atelier.contract.parts import ResolvedPart
from atelier.grid import opened
from atelier.gridfile import GridFile
from atelier.storage.base import BlobStore
from portal.db.base import Database, new_id
from portal.db.work import MAPS_FROM, Job, Part, Picture
from portal.services.changes import Changes
from portal.services.ports import Clock

log = logging.getLogger(__name__)
_LARGE = 20_000_000
"""Pixels of a grid that takes seconds to draw."""


@dataclass(frozen=True)
class _Due:
    """What a job's grids are drawn from."""

    arrangement: Arrangement
    parts: tuple[ResolvedPart, ...]
    part_ids: tuple[str, ...]
    """By picture."""
    pictures: dict[int, Picture]

    @property
    def pixels(self) -> int:
        """Of all pictures together."""
        return sum(row.width * row.height for row in self.pictures.values())


@dataclass(frozen=True)
class _Stored:
    """A grid in the store."""

    key: str
    number: int
    sha256: str
    size: int
    file: GridFile
    part_id: str


class Grids:
    """Draws what is due, on the caller's thread, which is never an event loop's. One large grid is drawn at a
    time, and beside it one small one: that bounds the memory to two canvases, and nobody waits for long.
    """

    def __init__(self, database: Database, store: BlobStore, clock: Clock, changes: Changes) -> None:
        self._database = database
        self._store = store
        self._clock = clock
        self._changes = changes
        self._large, self._small = threading.Lock(), threading.Lock()

    def ensure(self, job_id: str) -> None:
        """Draw the grids of a final job, if they are still due. What cannot be drawn is said in the job's
        warnings.
        """
        due = self._due(job_id)
        if due is None:
            return
        with self._large if due.pixels > _LARGE else self._small:
            due = self._due(job_id)
            if due is None:
                return  # somebody else has drawn them meanwhile
            stored: list[_Stored] = []
            warning = ""
            try:
                stored = self._drawn(job_id, due)
            except (InvalidRequest, NotFound) as error:
                # Too large, or a picture's file is gone or damaged: the others are still shown.
                log.warning("the grid of job %s is not drawn: %s", job_id, error.message)
                warning = f"The grid was not drawn. {error.message}"
            if self._recorded(job_id, stored, warning):
                self._changes.notify(job_id)

    def _due(self, job_id: str) -> _Due | None:
        with self._database.reading() as session:
            job = session.get(Job, job_id)
            if job is None or not job.grids_due or not JobState(job.state).final:
                return None
            parts = session.scalars(
                select(Part).where(Part.job_id == job_id).order_by(Part.first_index)
            ).all()
            alone = Picture.index.between(0, MAPS_FROM - 1)
            rows = session.scalars(select(Picture).where(Picture.job_id == job_id, alone)).all()
            return _Due(
                Arrangement.model_validate(job.arrangement),
                tuple(ResolvedPart.model_validate(part.resolved) for part in parts),
                tuple(part.id for part in parts for _ in part.resolved["seeds"]),
                {row.index: row for row in rows},
            )

    def _drawn(self, job_id: str, due: _Due) -> list[_Stored]:
        sizes = {index: (row.width, row.height) for index, row in due.pictures.items()}
        files = gridfile.files(
            due.arrangement, due.parts, sizes, lambda index: opened(self._store.get(due.pictures[index].key))
        )
        stored = []
        for number, file in enumerate(files):
            key = keys.grid(job_id, number, file.extension)
            self._store.put(key, file.data, content_type=file.media_type)
            digest = hashlib.sha256(file.data).hexdigest()
            # The bytes are in the store: only what describes them is kept until all grids are drawn.
            told = replace(file, data=b"")
            stored.append(_Stored(key, number, digest, len(file.data), told, due.part_ids[file.picture]))
        return stored

    def _recorded(self, job_id: str, stored: Sequence[_Stored], warning: str) -> bool:
        """Make the grids visible, all at once. Returns whether this was the call that did."""
        with self._database.session() as session:
            job = session.get(Job, job_id, with_for_update=True)
            if job is None or not job.grids_due:
                return False
            job.grids_due, job.version = False, job.version + 1
            if warning:
                told = job.info.get("atelier", {})
                both = list(dict.fromkeys([*told.get("warnings", []), warning]))
                job.info = {**job.info, "atelier": {**told, "warnings": both}}
            now, count = self._clock.now(), len(stored)
            session.add_all(_row(job, each, each.number - count, now) for each in stored)
        return True


def _row(job: Job, stored: _Stored, index: int, now: float) -> Picture:
    return Picture(
        id=new_id(),
        owner_id=job.owner_id,
        job_id=job.id,
        part_id=stored.part_id,
        index=index,
        key=stored.key,
        sha256=stored.sha256,
        size=stored.size,
        width=stored.file.width,
        height=stored.file.height,
        seed=str(stored.file.seed),
        subseed=str(stored.file.subseed),
        infotext=stored.file.infotext,
        recipe_hash=stored.file.recipe_hash,
        complete=stored.file.complete,
        created=now,
    )
