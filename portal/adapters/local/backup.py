"""A studio of one machine as one file, and back: the database, the blobs, the secrets, and a list of hashes
that says whether all of it is there.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sqlite3
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from atelier.contract.errors import Conflict, InvalidRequest, StorageFailed

DATABASE, BLOBS, SECRETS, MANIFEST = "atelier.db", "store/blobs", "secrets", "manifest.json"
FORMAT = 1


@dataclass(frozen=True)
class Backup:
    """What a backup holds: files, and their bytes altogether."""

    files: int
    size: int


def back_up(data_dir: Path, target: Path) -> Backup:
    """Write the data directory's studio to the tar archive `target`, which only its owner may read: it has
    the secrets. A running studio goes on.

    The database is copied first, as of one moment (SQLite's backup API); blobs never change once written, so
    whatever that copy names is there, and what came later is harmless. Linked model files stay where they
    are: the links are kept. Raises Conflict where `target` exists, InvalidRequest without a database.
    """
    database = data_dir / DATABASE
    if not database.is_file():
        raise InvalidRequest(f"There is no studio in {data_dir}: it has no {DATABASE}.")
    if target.exists():
        raise Conflict(f"{target} is there already. Choose another name.")
    partial = target.with_name(f".{target.name}.part")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
            made = _written(data_dir, database, out)
        partial.rename(target)
    except OSError as error:
        raise StorageFailed(f"The backup could not be written: {error.strerror or error}.") from error
    finally:
        partial.unlink(missing_ok=True)
    return made


def restore(archive: Path, data_dir: Path) -> Backup:
    """Bring the studio in `archive` back into the directory `data_dir`, which must be empty or not exist.
    Raises Conflict for one that is not, InvalidRequest for a file that is no backup, StorageFailed for one
    that is damaged: then nothing stays.
    """
    if data_dir.exists() and any(data_dir.iterdir()):
        raise Conflict(f"{data_dir} is not empty. Restore into a directory of its own.")
    data_dir.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=data_dir.parent, prefix=".restore-") as folder:
        place = Path(folder) / "data"
        try:
            with tarfile.open(archive) as source:
                source.extractall(place, filter="data")
            manifest = json.loads((place / MANIFEST).read_bytes())
            wanted: dict[str, str] = manifest["sha256"]
        except (tarfile.TarError, EOFError, ValueError, KeyError, TypeError, OSError) as error:
            raise InvalidRequest(f"{archive} is no whole backup of a studio: {error}.") from error
        if manifest.get("format") != FORMAT:
            raise InvalidRequest(f"{archive} is a backup of another version of Atelier.")
        size = _verified(place, wanted)
        (place / MANIFEST).unlink()
        for private in (place, place / SECRETS):
            if private.is_dir():
                private.chmod(0o700)
        if data_dir.exists():
            data_dir.rmdir()
        place.rename(data_dir)
    return Backup(len(wanted), size)


def _written(data_dir: Path, database: Path, out: IO[bytes]) -> Backup:
    hashes: dict[str, str] = {}
    size = 0
    with tempfile.TemporaryDirectory(dir=data_dir, prefix=".backup-") as folder:
        copy = Path(folder) / DATABASE
        with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(copy)) as into:
            source.backup(into)
        with tarfile.open(fileobj=out, mode="w") as archive:
            for name, path in [(DATABASE, copy), *_files(data_dir)]:
                try:
                    hashes[name], length = _added(archive, name, path)
                    size += length
                except FileNotFoundError:
                    continue  # deleted meanwhile
            manifest = json.dumps({"format": FORMAT, "sha256": hashes}).encode()
            member = tarfile.TarInfo(MANIFEST)
            member.size, member.mode = len(manifest), 0o600
            archive.addfile(member, io.BytesIO(manifest))
    return Backup(len(hashes), size)


def _files(data_dir: Path) -> Iterator[tuple[str, Path]]:
    for top in (SECRETS, BLOBS):
        for path in sorted((data_dir / top).rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                yield path.relative_to(data_dir).as_posix(), path


def _added(archive: tarfile.TarFile, name: str, path: Path) -> tuple[str, int]:
    """Put a file into the archive; its sha256 and its length."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        member = tarfile.TarInfo(name)
        status = os.fstat(file.fileno())
        member.size, member.mode, member.mtime = status.st_size, 0o600, int(status.st_mtime)
        archive.addfile(member, _Hashing(file, digest.update))
    return digest.hexdigest(), member.size


class _Hashing:
    """A file that shows what is read of it."""

    def __init__(self, file: IO[bytes], show: Callable[[bytes], object]) -> None:
        self._file = file
        self._show = show

    def read(self, size: int = -1) -> bytes:
        """As of a file."""
        data = self._file.read(size)
        self._show(data)
        return data


def _verified(place: Path, wanted: dict[str, str]) -> int:
    """Bytes of all files that the manifest names. Raises StorageFailed for one that is missing or differs."""
    size = 0
    for name, sha256 in wanted.items():
        try:
            with (place / name).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
                size += file.tell()
        except OSError as error:
            raise StorageFailed(f"The backup is damaged: {name} is missing.") from error
        if found != sha256:
            raise StorageFailed(f"The backup is damaged: {name} is not what was written.")
    return size
