"""Model files in host memory: read once, kept while there is room, the least recently used forgotten
first.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol, TypeVar


class Sized(Protocol):
    """Anything with a size in bytes."""

    @property
    def size(self) -> int:
        """Bytes it occupies."""
        ...


Kept = TypeVar("Kept", bound=Sized)


class _Turn:
    """Whose turn it is to read one key; it lasts as long as somebody wants the key."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


class HostCache:
    """A least-recently-used cache bounded by bytes; one entry may exceed the bound, alone. Safe to use from
    several threads.

    An entry that is dropped while somebody still works with it is found again without reading, and counts.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Sized] = OrderedDict()
        self._alive: weakref.WeakValueDictionary[str, Sized] = weakref.WeakValueDictionary()
        self._reading: weakref.WeakValueDictionary[str, _Turn] = weakref.WeakValueDictionary()

    def get(self, key: str, read: Callable[[], Kept]) -> Kept:
        """What is kept under `key`, else what `read` gives; its errors pass through, and nothing is kept
        then.

        Threads that want the same key wait for one reading.
        """
        with self._lock:
            reading = self._reading.setdefault(key, _Turn())
        with reading.lock:
            found = self._find(key)
            if found is None:
                found = read()
                self._add(key, found)
            return found  # type: ignore[return-value]  # a key is always used with the same type

    def _find(self, key: str) -> Sized | None:
        with self._lock:
            found = self._alive.get(key)
            if found is not None:
                self._keep(key, found)
            return found

    def _add(self, key: str, fresh: Sized) -> None:
        with self._lock:
            self._alive[key] = fresh
            self._keep(key, fresh)

    def _keep(self, key: str, entry: Sized) -> None:
        """As the most recently used; the others make room."""
        self._kept[key] = entry
        self._kept.move_to_end(key)
        while len(self._kept) > 1 and sum(each.size for each in self._kept.values()) > self._most:
            self._kept.popitem(last=False)

    @property
    def size(self) -> int:
        """Bytes in memory now, kept or in use."""
        with self._lock:
            return sum(entry.size for entry in list(self._alive.values()))

    @property
    def keys(self) -> list[str]:
        """What is kept, the least recently used first."""
        with self._lock:
            return list(self._kept)
