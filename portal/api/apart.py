"""Calls that wait long for somebody else. They have few threads of their own, so that whatever they wait for,
everything else is answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread
from anyio.lowlevel import RunVar

from atelier.contract.errors import TooManyRequests, WorkerUnavailable

T = TypeVar("T")


class Apart:
    """Threads for one kind of calls; those of one event loop are no other's. `what` names their work."""

    def __init__(self, what: str, threads: int) -> None:
        self._what, self._threads = what, threads
        self._limiters: RunVar[CapacityLimiter] = RunVar(f"apart: {what}")

    async def run(self, call: Callable[[], T], within: float | None = None) -> T:
        """What `call` gives. Raises TooManyRequests at once where every thread is taken, WorkerUnavailable
        after `within` seconds: the thread stays taken until `call` ends.
        """
        limiter = self._limiter()
        if limiter.borrowed_tokens >= limiter.total_tokens:
            raise TooManyRequests(
                f"There are {self._threads} calls at {self._what} now, as many as may be. Try again in a "
                "moment.",
                detail={"retry_after": 5},
            )
        work = asyncio.ensure_future(to_thread.run_sync(call, limiter=limiter))
        work.add_done_callback(_noted)
        done, _ = await asyncio.wait((work,), timeout=within)
        if not done:
            raise WorkerUnavailable(
                f"There was no answer within {within:g} seconds, the longest that this call may wait for "
                f"{self._what}. Whether the work is done is not known: look before you send it again."
            )
        return work.result()

    def _limiter(self) -> CapacityLimiter:
        found = self._limiters.get(None)
        if found is None:
            found = CapacityLimiter(self._threads)
            self._limiters.set(found)
        return found


def _noted(work: asyncio.Future[Any]) -> None:
    """What became of a call that nobody waits for any more is nobody's error."""
    if not work.cancelled():
        work.exception()
