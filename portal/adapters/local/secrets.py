"""Secrets as files that only their owner may read."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

from atelier.contract.errors import StorageFailed

_NAME = re.compile(r"[a-z][a-z0-9-]{0,63}\Z")
SIZE = 32
"""Bytes of a fresh secret."""


class FileSecrets:
    """Secrets in a directory (mode 0700), one file each (0600), made at first use and the same ever after."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def get(self, name: str) -> bytes:
        """The secret `name`. Raises StorageFailed where it cannot be read or others may read it."""
        if not _NAME.match(name):
            raise ValueError(f"{name!r} is no name of a secret")
        path = self._directory / name
        try:
            if not path.exists():
                self._make(path)
            return self._read(path)
        except OSError as error:
            raise StorageFailed(
                f"The secret {name!r} cannot be kept in {self._directory}: {error.strerror}."
            ) from error

    def _make(self, path: Path) -> None:
        """Write beside and link into place: of two processes that start together, one wins and both read the
        same.
        """
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._directory.chmod(0o700)
        fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_hex(SIZE))
                file.flush()
                os.fsync(file.fileno())
            os.link(fresh, path)
        except FileExistsError:
            pass
        finally:
            fresh.unlink()

    def _read(self, path: Path) -> bytes:
        if path.stat().st_mode & 0o077:
            raise StorageFailed(f"Others may read the secret {path}. Run: chmod 600 {path}")
        value = bytes.fromhex(path.read_text().strip())
        if len(value) < SIZE:
            raise StorageFailed(f"The secret {path} is too short to be one.")
        return value
