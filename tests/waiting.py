"""Waiting for something to become true, with a deadline and without sleeping."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


def eventually(
    look: Callable[[], Value], *, within: float = 60.0, every: float = 0.02, about: str = "it never came true"
) -> Value:
    """The first true value of `look()`, asked `every` so many seconds; fails with `about` after `within`
    seconds.

    For what has no event to wait on, above all other processes. An exception of `look` counts as "not yet";
    the last one is shown when time runs out.
    """
    deadline = time.monotonic() + within
    pause = threading.Event()
    failure: Exception | None = None
    while True:
        try:
            value = look()
            if value:
                return value
            failure = None
        except Exception as error:  # noqa: BLE001  # whatever is not ready yet raises what it likes
            failure = error
        if time.monotonic() >= deadline:
            raise AssertionError(f"{about} (waited {within:g} s; last: {failure!r})") from failure
        pause.wait(every)
