"""A model file or folder on its way in: its identity, and the safetensors file that will be stored for it.

The portal opens safetensors headers and nothing else. Pickles, pictures and folders are made into
safetensors by CPU tasks; the model keeps the hashes of the file as it was given.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from atelier.contract import keys
from atelier.contract.errors import ModelUnusable, NotFound, StorageFailed, WorkerUnavailable, from_body
from atelier.contract.imports import ImportOutcome
from atelier.contract.models import ModelKind
from atelier.modelfile import MAX_HEADER_BYTES, Hashes, hashes
from atelier.storage.base import BlobStore
from portal.services.ports import TaskAction, Tasks, TaskSpec, TaskState

SAFETENSORS = ".safetensors"
PICTURES = (".png", ".webp")
"""Of pictures that may carry a textual inversion."""
PICKLES = (".ckpt", ".pt", ".pth", ".bin")
FOLDER_INDEX = "model_index.json"
"""What a model folder of the diffusers library has."""
LONGEST_TASK = 1800.0
"""Seconds after which a conversion is given up by the portal."""
_WAIT = 5.0


@dataclass
class Arriving:
    """A model on its way in. `hashes` and `size` are of the file as it was given; a folder's are those of the
    one file it means.
    """

    filename: str
    hashes: Hashes
    size: int
    _given: Path
    _kind: ModelKind
    _intake: Intake
    _open: ExitStack
    _stored: Path | None = field(default=None)
    blob: str = ""
    """sha256 of what lies in the store already; "" where it is still to be stored."""
    addnet_hash: str | None = None
    """Of a network that lies there: kohya's hash."""

    @property
    def blob_sha256(self) -> str:
        """Of what is, or will be, stored."""
        return self.blob or (hashes(self.stored()).sha256 if self.converted else self.hashes.sha256)

    @property
    def converted(self) -> bool:
        """Whether what is stored is another file than the one that was given."""
        return self._stored is not None and self._stored != self._given

    def stored(self) -> Path:
        """The safetensors file to be stored: the file itself, or its conversion. Raises ModelUnusable, naming
        the file.
        """
        if self._stored is None:
            suffix = self._given.suffix.lower()
            if suffix == SAFETENSORS:
                self._stored = self._given
            elif suffix in PICKLES or (suffix in PICTURES and self._kind is ModelKind.EMBEDDING):
                self._stored = self._intake.made(TaskAction.CONVERT, self._given, self._kind, self._open)
            else:
                raise ModelUnusable(
                    f"{self.filename} is no model file: its name should end in {SAFETENSORS}, "
                    f"{', '.join(PICKLES)}, or, for a textual inversion, in {' or '.join(PICTURES)}."
                )
        return self._stored


class Intake:
    """Opens what comes in. `tasks` convert what is not safetensors."""

    def __init__(self, store: BlobStore, tasks: Tasks) -> None:
        self._store = store
        self._tasks = tasks

    @contextmanager
    def arriving(self, given: Path, kind: ModelKind) -> Iterator[Arriving]:
        """The file or folder `given`, until the block ends; what was made for it is removed then. Raises
        NotFound, ModelUnusable.
        """
        with ExitStack() as opened:
            if given.is_dir():
                yield self._folder(given, kind, opened)
                return
            if not given.is_file():
                raise NotFound(f"There is no file {given}.")
            try:
                found, size = hashes(given), given.stat().st_size
            except OSError as error:
                raise ModelUnusable(f"{given.name} cannot be read: {error.strerror}.") from error
            yield Arriving(given.name, found, size, given, kind, self, opened)

    @contextmanager
    def landed(self, outcome: ImportOutcome, kind: ModelKind) -> Iterator[tuple[Path, Arriving]]:
        """(a file that stands for it, the model) of what an import has put into the store, until the block
        ends. Of a model that may lie far away only the header is read: the file has that, and its length.
        Raises StorageFailed where it is gone again.
        """
        key = keys.model(outcome.blob_sha256)
        with ExitStack() as opened:
            there = self._store.stat(key)
            if there is None:
                raise StorageFailed(f"{outcome.filename} is gone from the store again. Import it again.")
            path = Path(opened.enter_context(tempfile.TemporaryDirectory())) / outcome.filename
            try:
                with self._store.open(key) as source, path.open("wb") as out:
                    length = source.read(8)
                    out.write(length)
                    out.write(source.read(min(int.from_bytes(length, "little"), MAX_HEADER_BYTES)))
                    out.truncate(there.size)
            except OSError as error:
                raise StorageFailed(
                    f"{outcome.filename} could not be looked at: {error.strerror}."
                ) from error
            known = Hashes(outcome.sha256, outcome.short_hash, outcome.legacy_hash)
            arriving = Arriving(outcome.filename, known, outcome.size, path, kind, self, opened, path)
            arriving.blob, arriving.addnet_hash = outcome.blob_sha256, outcome.addnet_hash
            yield path, arriving

    def _folder(self, given: Path, kind: ModelKind, opened: ExitStack) -> Arriving:
        if not (given / FOLDER_INDEX).is_file() or kind is not ModelKind.CHECKPOINT:
            raise ModelUnusable(f"The folder {given.name} is no checkpoint: it has no {FOLDER_INDEX}.")
        made = self.made(TaskAction.FOLDER, given, kind, opened)
        size, filename = made.stat().st_size, given.name + SAFETENSORS
        return Arriving(filename, hashes(made), size, made, kind, self, opened, made)

    def made(self, action: TaskAction, given: Path, kind: ModelKind, opened: ExitStack) -> Path:
        """The file that a task makes of `given`; it goes when `opened` is left."""
        ticket = self._tasks.start(TaskSpec(action, given.resolve().as_uri(), given.name, kind.value))
        opened.callback(self._tasks.stop, ticket)
        waited = 0.0
        status = self._tasks.describe(ticket, wait=_WAIT)
        while status.state is TaskState.RUNNING:
            waited += _WAIT
            if waited > LONGEST_TASK:
                raise WorkerUnavailable(
                    f"{given.name} was not converted within {LONGEST_TASK / 60:.0f} minutes. Try again when "
                    "the machine is less busy."
                )
            status = self._tasks.describe(ticket, wait=_WAIT)
        if status.error is not None:
            raise from_body(status.error)
        if status.state is not TaskState.SUCCEEDED:
            raise WorkerUnavailable(f"The task that converts {given.name} was lost. Try again.")
        return self._fetched(keys.task_output(ticket), opened)

    def _fetched(self, key: str, opened: ExitStack) -> Path:
        here = self._store.local_path(key)
        if here is not None:
            return here
        path = Path(opened.enter_context(tempfile.TemporaryDirectory())) / "output"
        with self._store.open(key) as source, path.open("wb") as out:
            shutil.copyfileobj(source, out, 8 * 2**20)
        return path
