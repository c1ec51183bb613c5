"""Model files on their way in over HTTP: written to disk as they arrive, hashed on the way, registered."""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from atelier.contract.errors import Conflict, InvalidRequest, PayloadTooLarge, StorageFailed
from atelier.contract.models import ModelKind, ModelRef
from portal.db.base import Database
from portal.db.work import Model
from portal.services import audit
from portal.services.intake import PICTURES
from portal.services.model_folders import SUFFIXES
from portal.services.models import ModelFile, Models, named_so

SPARE = 256 * 2**20
"""Bytes that stay free on the disk."""
_LONGEST_NAME = 250
"""Bytes; file systems take 255."""
_FILE_NAME = re.compile(r"[^\x00-\x1f/\\:*?\"<>|]{1,250}\Z")
_FOLDER = re.compile(r"(?:[^\x00-\x1f/\\:*?\"<>|.][^\x00-\x1f/\\:*?\"<>|]{0,99}/){0,7}\Z")


@dataclass(frozen=True)
class Announced:
    """What a sender says of the file to come. `size` in bytes, None where it does not say; `sha256` is
    checked where it is given.
    """

    filename: str
    kind: ModelKind
    name: str = ""
    folder: str = ""
    size: int | None = None
    sha256: str = ""
    owner_id: str | None = None
    """Whose model it is to be; None: the studio's."""


@dataclass
class Arriving:
    """A file that is being written."""

    path: Path
    _out: BinaryIO
    _digest: hashlib._Hash = field(default_factory=hashlib.sha256)
    size: int = 0

    def write(self, chunk: bytes) -> None:
        """Take in the next bytes. Raises StorageFailed."""
        try:
            self._out.write(chunk)
        except OSError as error:
            raise StorageFailed(
                f"The file could not be written here ({error.strerror}). Check the disk's space."
            ) from error
        self._digest.update(chunk)
        self.size += len(chunk)

    def check(self, announced: Announced) -> None:
        """Raise InvalidRequest unless the bytes are the announced ones."""
        self._out.flush()
        if announced.size is not None and self.size != announced.size:
            raise InvalidRequest(
                f"{announced.filename} arrived with {self.size:,} bytes instead of {announced.size:,}. "
                "Send it again."
            )
        if announced.sha256 and self._digest.hexdigest() != announced.sha256.strip().lower():
            raise InvalidRequest(
                f"{announced.filename} arrived changed: its sha256 is another. Send it again."
            )


class Uploads:
    """Takes model files in. `limit` is the largest, in bytes; `stored_here`: the store is on this machine."""

    def __init__(
        self, database: Database, models: Models, folder: Path, limit: int, *, stored_here: bool = True
    ) -> None:
        self._database = database
        self._models = models
        self._folder = folder
        self.limit = limit
        self._copies = 2 if stored_here else 1

    def expect(self, announced: Announced) -> None:
        """Refuse a file before it is sent: raises InvalidRequest for its name or type, PayloadTooLarge,
        Conflict where the name is taken, StorageFailed where the disk is full.
        """
        filename, name = announced.filename, announced.name or announced.filename.rsplit(".", 1)[0]
        long = len(filename.encode()) > _LONGEST_NAME
        if long or not _FILE_NAME.match(filename) or filename.startswith("."):
            raise InvalidRequest(
                f"A model's file name has up to {_LONGEST_NAME} bytes (of UTF-8) and no path in it."
            )
        allowed = SUFFIXES + (PICTURES if announced.kind is ModelKind.EMBEDDING else ())
        if not filename.lower().endswith(allowed):
            raise InvalidRequest(f"{filename} is no model file: its name should end in {', '.join(allowed)}.")
        check_folder(announced.folder)
        if announced.size is not None and announced.size > self.limit:
            raise PayloadTooLarge(
                f"{filename} has {announced.size / 2**30:.1f} GiB; at most {self.limit / 2**30:.1f} GiB are "
                "taken (ATELIER_MAX_MODEL_BYTES)."
            )
        self._check_room(announced)
        taken = named_so(announced.kind, announced.owner_id, name).with_only_columns(Model.sha256)
        with self._database.reading() as session:
            found = session.scalar(taken)
        if found is not None and found != announced.sha256.strip().lower():
            raise Conflict(
                f"Another {announced.kind.value} is already named {name!r}. Give this one another name."
            )

    def _check_room(self, announced: Announced) -> None:
        """The file as it arrives, and once more where the store is on this machine too."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        free = shutil.disk_usage(self._folder).free
        if free - self._copies * (announced.size or 0) < SPARE:
            raise StorageFailed(
                f"There is no room for {announced.filename}: {free / 2**30:.1f} GiB are free on the disk."
            )

    @contextmanager
    def arriving(self, announced: Announced) -> Iterator[Arriving]:
        """A file to write to; whatever becomes of it, it is gone from the folder afterwards."""
        with tempfile.TemporaryDirectory(dir=self._folder) as place:
            path = Path(place) / announced.filename
            with path.open("wb") as out:
                yield Arriving(path, out)

    def unfinished(self) -> Iterator[Path]:
        """Folders of files that are arriving, or whose portal died meanwhile."""
        yield from self._folder.glob("*")

    def register(self, actor: audit.Actor, announced: Announced, arrived: Arriving) -> ModelRef:
        """Make a model of a file that has arrived whole. Raises what Models.register raises."""
        arrived.check(announced)
        file = ModelFile(
            arrived.path,
            announced.kind,
            announced.name or None,
            folder=announced.folder.strip("/"),
            owner_id=announced.owner_id,
        )
        return self._models.register(actor, file)


def check_folder(folder: str) -> None:
    """Raise InvalidRequest for what can be no folder of models."""
    if folder and not _FOLDER.match(folder.rstrip("/") + "/"):
        raise InvalidRequest("A folder is a name, or several with / between them, without dots in front.")
