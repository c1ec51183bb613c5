"""Simulated time: events in order, and a hand that stands still while a worker computes."""

from __future__ import annotations

import heapq
import itertools
import math
import threading
import time
from collections.abc import Callable

TICK_SECONDS = 0.05
"""Real seconds between two moves of a clock that goes by itself."""


class SimulatedClock:
    """A clock with an agenda. Everything happens under `lock`, in the thread that moves the clock.

    It is a Clock of the portal's, too: `now` and `monotonic` give simulated seconds.
    """

    def __init__(self, start: float) -> None:
        self.lock = threading.RLock()
        self._start = start
        self._now = start
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._holding = 0

    def now(self) -> float:
        """Unix seconds of simulated time."""
        return self._now

    def monotonic(self) -> float:
        """Simulated seconds since the clock was made."""
        return self._now - self._start

    @property
    def held(self) -> bool:
        """Whether a worker computes or starts at this moment."""
        return self._holding > 0

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Do `action` once so many simulated seconds have gone by."""
        self._at(self._now + max(0.0, seconds), action)

    def every(self, seconds: float, action: Callable[[], None]) -> None:
        """Do `action` at every multiple of `seconds` of simulated unix time."""

        def again() -> None:
            action()
            self._at(_next_multiple(self._now, seconds), again)

        self._at(_next_multiple(self._now, seconds), again)

    def hold(self) -> None:
        """A worker begins to compute: from now on the clock does not go by itself."""
        with self.lock:
            self._holding += 1

    def release(self) -> None:
        """That worker is done."""
        with self.lock:
            self._holding -= 1

    def advance(self, seconds: float) -> None:
        """Let time go by, with everything that is due meanwhile in its order."""
        with self.lock:
            end = self._now + seconds
            while self._agenda and self._agenda[0][0] <= end:
                when, _, action = heapq.heappop(self._agenda)
                self._now = max(self._now, when)
                action()
            self._now = max(self._now, end)

    def _at(self, when: float, action: Callable[[], None]) -> None:
        with self.lock:
            heapq.heappush(self._agenda, (when, next(self._numbers), action))


def _next_multiple(now: float, seconds: float) -> float:
    return (math.floor(now / seconds + 1e-6) + 1) * seconds


class Pacemaker:
    """Moves a clock by itself, `speed` simulated seconds for each real one, unless a worker computes.

    `each` is called before every move.
    """

    def __init__(self, clock: SimulatedClock, speed: float, each: Callable[[], None]) -> None:
        self._clock = clock
        self._speed = speed
        self._each = each
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rehearsal-clock", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """The clock stands from now on."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        before = time.monotonic()
        while not self._stopping.wait(TICK_SECONDS):
            now = time.monotonic()
            with self._clock.lock:
                if not self._clock.held:
                    self._each()
                    self._clock.advance((now - before) * self._speed)
            before = now
