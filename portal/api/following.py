"""Following a job without holding a thread: woken at once by changes in this process, by a slow poll for
those made elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from anyio import to_thread

from atelier.contract.errors import NotAuthenticated, StillRunning
from atelier.contract.jobs import JobView
from portal.services.callers import Caller
from portal.services.container import Services
from portal.services.failures import failure
from portal.settings import Settings

Answer = TypeVar("Answer")

POLL_SECONDS = 1.0
QUIET_SECONDS = 10.0
"""After so long without a change, followers hear that they are still connected."""
CHECK_SECONDS = 5.0
"""How soon an ended session or a disabled account ends what it follows."""


async def follow(services: Services, caller: Caller, job_id: str) -> AsyncIterator[JobView | None]:
    """The job now and at each change until it is final; None where nothing happened for a while.

    Raises NotFound, and NotAuthenticated once the caller is no longer honoured.
    """
    loop, changed = asyncio.get_running_loop(), asyncio.Event()

    def wake() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is gone: nobody follows any more
            loop.call_soon_threadsafe(changed.set)

    last: JobView | None = None
    checked = told = loop.time()
    with services.work.changes.listening(job_id, wake):
        while True:
            changed.clear()
            view = await _unless_down(services.work.jobs.get, caller, job_id) or last
            now = loop.time()
            if view != last:
                last, told = view, now
                yield view
            elif now - told >= QUIET_SECONDS:
                told = now
                yield None
            if view is not None and view.state.final:
                return
            if now - checked >= CHECK_SECONDS:
                checked = now
                if await _unless_down(services.sessions.still_honoured, caller) is False:
                    raise NotAuthenticated("This login has ended. Log in again.")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), POLL_SECONDS)


async def _unless_down(ask: Callable[..., Answer], *about: object) -> Answer | None:
    """The answer; None while the database cannot be asked: who follows waits for it to come back."""
    try:
        return await to_thread.run_sync(ask, *about)
    except Exception as error:
        if failure(error) is None:
            raise
        return None


async def followed_to_the_end(
    services: Services, caller: Caller, job_id: str, within: float | None = None
) -> JobView:
    """The job once it is final. Raises StillRunning after `within` seconds: the job goes on."""
    final: JobView | None = None
    try:
        async with asyncio.timeout(within):
            async for view in follow(services, caller, job_id):
                final = view or final
    except TimeoutError:
        raise StillRunning(
            f"The job {job_id} was not done within {within:g} seconds, the longest that this call may "
            f"wait. It goes on: see /api/v1/jobs/{job_id}. Sending the request again would make another job.",
            detail={"job": job_id, "status_url": f"/api/v1/jobs/{job_id}"},
        ) from None
    if final is None:
        raise NotAuthenticated("This login has ended. Log in again.")
    return final


def patience(settings: Settings, prefer: str) -> float | None:
    """Seconds that a call may wait for its job: the setting's, or fewer where the caller prefers it by
    `Prefer: wait=N` (RFC 7240, 4.3). None for as long as it takes.
    """
    asked = [each.partition("=") for each in prefer.lower().replace(" ", "").split(",")]
    seconds = [int(value) for name, _, value in asked if name == "wait" and value.isdecimal()]
    known = [each for each in (settings.answer_seconds, *seconds) if each is not None]
    return min(known, default=None)
