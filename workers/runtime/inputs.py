"""Input pictures on a worker: those of jobs lie in the store, those of direct calls in memory."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict

from atelier import inputs
from atelier.contract import keys
from atelier.contract.errors import InvalidRequest, NotFound
from atelier.storage.base import BlobStore

_OWNER = "direct"
_MOST_BYTES = 256 * 2**20
"""Of pictures of direct calls, the latest."""


class Inputs:
    """Gives pictures by their ids. Safe to use from several threads."""

    def __init__(self, store: BlobStore, most_bytes: int = _MOST_BYTES) -> None:
        self._store, self._most = store, most_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, bytes] = OrderedDict()

    def keep(self, text: str) -> str:
        """The id of a picture that a direct call gives as base64 or as a data URL. Raises ValueError."""
        data = inputs.decoded(text)
        name = f"{_OWNER}-{hashlib.sha256(data).hexdigest()}"
        with self._lock:
            self._kept[name] = data
            self._kept.move_to_end(name)
            while len(self._kept) > 1 and sum(map(len, self._kept.values())) > self._most:
                self._kept.popitem(last=False)
        return name

    def open(self, name: str) -> bytes:
        """The bytes of an input. Raises InvalidRequest where it is gone."""
        with self._lock:
            data = self._kept.get(name)
        if data is not None:
            return data
        try:
            return self._store.get(keys.asset(name))
        except (NotFound, ValueError) as error:
            raise InvalidRequest(
                "An input picture of this job is not in the store any more. Upload it and send the job again."
            ) from error
