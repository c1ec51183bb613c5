"""Which blobs no row accounts for, worked out anew from the rows alone: what a sweep must leave none of."""

from __future__ import annotations

from sqlalchemy import select

from atelier.contract import keys
from atelier.storage.base import BlobStore
from portal.db.base import Database
from portal.db.work import Attempt, Picture


def unaccounted(database: Database, store: BlobStore) -> list[str]:
    """Keys below jobs/ that are neither a picture that is shown, nor the result it came with. For studios in
    which nothing is at work.
    """
    shown = ("succeeded", "stopped")
    with database.reading() as session:
        pictures = set(session.scalars(select(Picture.key)))
        rows = session.scalars(select(Attempt).where(Attempt.outcome.in_(shown))).all()
        results = {keys.result(row.job_id, row.part_id, row.number) for row in rows}
    return sorted(blob.key for blob in store.list("jobs/") if blob.key not in pictures | results)
