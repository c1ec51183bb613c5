"""The sealed order of an import, and telling how far it is."""

from __future__ import annotations

import contextlib
import time

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import ValidationError

from atelier.contract import keys
from atelier.contract.errors import AtelierError, InvalidRequest
from atelier.contract.imports import ImportOrder, ImportProgress, Phase
from atelier.storage.base import BlobStore

NONCE = 12
EVERY = 1.0
"""Seconds between two tellings of the same phase."""


def opened(store: BlobStore, source: str) -> ImportOrder:
    """The order that `source` names as BLOB#HEX; it is gone from the store then. Raises NotFound,
    InvalidRequest for one that was sealed with another key.
    """
    blob, _, key = source.partition("#")
    sealed = store.get(blob)
    try:
        text = AESGCM(bytes.fromhex(key)).decrypt(sealed[:NONCE], sealed[NONCE:], blob.encode())
        order = ImportOrder.model_validate_json(text)
    except (ValueError, InvalidTag, ValidationError) as error:
        raise InvalidRequest("The order of this import cannot be opened. Import again.") from error
    with contextlib.suppress(AtelierError):  # it can be read once; the portal removes what is left
        store.delete(blob)
    return order


class Telling:
    """Writes the progress of a task where the portal reads it, every so many seconds at most."""

    def __init__(self, store: BlobStore, task: str, every: float = EVERY) -> None:
        self._store, self._key, self._every = store, keys.task_progress(task), every
        self._total: int | None = None
        self._phase: Phase = "looking"
        self._told = float("-inf")

    def phase(self, phase: Phase) -> None:
        """What begins now."""
        self._phase, self._told = phase, float("-inf")
        self(0, None)

    def __call__(self, done: int, total: int | None) -> None:
        """So many bytes of so many. That nobody hears it is no reason to stop."""
        now = time.monotonic()
        if now - self._told < self._every and total == self._total:
            return
        self._told, self._total = now, total
        said = ImportProgress(phase=self._phase, done=done, total=total)
        with contextlib.suppress(AtelierError):
            self._store.put(self._key, said.model_dump_json().encode())
