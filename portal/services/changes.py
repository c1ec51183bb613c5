"""Wakes whoever waits for something to change, within one process. A lost wake-up costs one polling
interval, never correctness.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

WORK = "work"
"""Topic: parts to dispatch, or room for them."""


class Changes:
    """Calls listeners of a topic at once. Topics are job ids and WORK."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: dict[str, list[Callable[[], None]]] = {}

    def notify(self, *topics: str) -> None:
        """Something changed about each of `topics`."""
        with self._lock:
            called = [
                listener for topic in dict.fromkeys(topics) for listener in self._listeners.get(topic, ())
            ]
        for listener in called:
            listener()

    @contextmanager
    def listening(self, topic: str, listener: Callable[[], None]) -> Iterator[None]:
        """While inside, `listener` is called, from any thread, at every change of `topic`. It must return
        at once.
        """
        with self._lock:
            self._listeners.setdefault(topic, []).append(listener)
        try:
            yield
        finally:
            with self._lock:
                remaining = self._listeners[topic]
                remaining.remove(listener)
                if not remaining:
                    del self._listeners[topic]
