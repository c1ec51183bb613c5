"""Finished pictures as files: the stored bytes, exactly, for their owner and whom they are shared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

from atelier.contract.errors import NotFound
from atelier.picturefile import MEDIA_TYPES
from atelier.storage.base import BlobStore
from portal.db.base import Database
from portal.db.work import MAPS_FROM, Job, Picture
from portal.services.callers import Caller
from portal.services.sharing import sees

LARGE = 32 * 2**20
"""Bytes above which an original is fetched from the store itself where it can be."""
URL_SECONDS = 300.0
"""How long such a URL begins to be followed; what has begun by then goes on."""


@dataclass(frozen=True)
class StoredFile:
    """A file to be sent. `etag` is the sha256 of its bytes, `name` how a browser saves it; `own`: it is the
    caller's, and nobody can take it from them.
    """

    size: int
    etag: str
    name: str
    media_type: str
    own: bool = True


class Files:
    """Looks pictures up by id for those who see their job."""

    def __init__(self, database: Database, store: BlobStore) -> None:
        self._database = database
        self._store = store

    def describe(self, caller: Caller, picture_id: str) -> tuple[StoredFile, str]:
        """The file and its key in the store. Raises NotFound, also for what is somebody else's."""
        with self._database.reading() as session:
            row = session.get(Picture, picture_id)
            if row is None or not sees(session, caller.user_id, session.get_one(Job, row.job_id)):
                raise NotFound("There is no such picture.")
            extension = row.key.rsplit(".", 1)[-1]
            name = f"{_stem(row)}.{extension}"
            media = MEDIA_TYPES.get(extension, "application/octet-stream")
            own = row.owner_id == caller.user_id
            return StoredFile(row.size, row.sha256, name, media, own), row.key

    def elsewhere(self, key: str, file: StoredFile) -> str | None:
        """A URL from which a large original is saved without passing through the portal; None for what is
        not large, and where the store has none.
        """
        if file.size <= LARGE:
            return None
        return self._store.url(key, expires=URL_SECONDS, filename=file.name, content_type=file.media_type)

    def open(self, key: str) -> BinaryIO:
        """The stored bytes of a key that `describe` gave."""
        return self._store.open(key)


def _stem(row: Picture) -> str:
    if row.index >= MAPS_FROM:
        return f"control-map-{row.index - MAPS_FROM:04d}"
    return f"{row.index:05d}-{row.seed}" if row.index >= 0 else _grid_name(row.key)


def _grid_name(key: str) -> str:
    """`grid-0000` for the grid in front, by its key (see atelier.contract.keys.grid)."""
    number = key.rsplit("grid-", 1)[-1].split(".")[0]
    return f"grid-{int(number):04d}"
