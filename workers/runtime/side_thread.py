"""One thread beside the work: progress and previews out, control in, and the worker's own state every 15 s.

The engine never touches the store while it computes; a click reaches it as a flag.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from atelier import logs
from atelier.contract import keys
from atelier.contract.errors import AtelierError
from atelier.contract.parts import Action, EndpointControl, InstanceState, JobStamp, ProgressState
from atelier.storage.base import BlobStore
from workers.runtime import store as documents
from workers.runtime.clock import Clock, SystemClock

LOOK_SECONDS = 0.1
"""How often running work is asked whether it got further."""
WRITE_SECONDS = 0.5
"""A write to a part's progress takes this much of its time: at most two a second."""
HEARTBEAT_SECONDS = 5.0
"""Progress is written at least so often: its growing `seq` shows that the part is alive."""
CONTROL_SECONDS = 1.0
STATE_SECONDS = 15.0
RETRY_SECONDS = 5.0
"""Pause after the store refused."""
SILENT_SECONDS = 3 * STATE_SECONDS
"""Without a state written for so long, the worker is not ready."""

log = logging.getLogger(__name__)


class Progress(Protocol):
    """How far work is; `version` differs whenever something else does."""

    @property
    def phase(self) -> str: ...
    @property
    def step(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def pictures_done(self) -> int: ...
    @property
    def pictures(self) -> int: ...
    @property
    def version(self) -> object: ...


class Watched(Protocol):
    """Running work as the side thread sees it; nothing here may wait for the work."""

    def progress(self) -> Progress:
        """Where it stands."""
        ...

    def preview_jpeg(self) -> bytes | None:
        """A small picture of what is being made, if there is one to show."""
        ...

    def act(self, action: Action, *, superseded: bool = False) -> None:
        """Ask for `action`; `superseded` when a newer attempt counts instead of this one."""
        ...


@dataclass(eq=False)
class Watch:
    """A running attempt and what was already told about it."""

    stamp: JobStamp
    work: Watched
    lock: threading.Lock = field(default_factory=threading.Lock)
    released: bool = False
    asked: set[Action] = field(default_factory=set)
    seq: int = 0
    version: object = None
    phase: str = ""
    looked_next: float = 0.0
    written: float = float("-inf")
    spacing: float = 0.0
    previews: list[int] = field(default_factory=list)

    def key(self, name: Callable[[str, str, int], str]) -> str:
        """The blob key that `name` (of atelier.contract.keys) gives for this attempt."""
        return name(self.stamp.job, self.stamp.part, self.stamp.attempt)


class SideThread:
    """Watches running attempts. All deadlines are read off `clock`; `tick()` does what is due and says when
    to come again.
    """

    def __init__(
        self,
        store: BlobStore,
        endpoint: str,
        describe: Callable[[], InstanceState],
        *,
        clock: Clock | None = None,
    ) -> None:
        self._store, self._endpoint, self._describe = store, endpoint, describe
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._watches: list[Watch] = []
        self._control = EndpointControl()
        self._control_etag: str | None = None
        self._control_next = float("-inf")
        self._state_next = float("-inf")
        self._state_written = float("-inf")
        self._thread = threading.Thread(target=self._run, name="side", daemon=True)

    def faults(self) -> list[str]:
        """What keeps it from telling anybody, in words: its thread has ended, or the store has not taken the
        worker's state for long.
        """
        silent = self._clock.monotonic() - self._state_written
        if not self._thread.is_alive():
            return ["The thread that tells of progress and hears of clicks has ended."]
        if silent > SILENT_SECONDS:
            return ["The worker cannot write its state to the blob store."]
        return []

    def start(self) -> None:
        """Begin; the first thing written is the worker's state."""
        self._state_written = self._clock.monotonic()
        self._thread.start()

    def stop(self) -> None:
        """End the thread and write the worker's last state."""
        self._stopping.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._write_state(self._clock.monotonic())

    def announce(self) -> None:
        """Write the worker's state at once: it changed in a way others should know."""
        self._state_next = float("-inf")
        self._wake.set()

    def watch(self, stamp: JobStamp, work: Watched) -> Watch:
        """Tell of `work` and pass it what is asked of its attempt, until `release`."""
        watch = Watch(stamp, work)
        with self._lock:
            self._watches.append(watch)
        self._wake.set()
        return watch

    def release(self, watch: Watch) -> None:
        """Say nothing more about an attempt; when this returns no write is under way. Its previews are
        removed.
        """
        with self._lock:
            self._watches.remove(watch)
        with watch.lock:
            watch.released = True
            previews, watch.previews = watch.previews, []
        try:
            for seq in previews:
                self._store.delete(self._preview_key(watch, seq))
        except AtelierError as error:
            log.warning("previews stay behind: %s", error.message, extra=_ids(watch.stamp))

    def tick(self) -> float:
        """Do what is due; returns the monotonic time at which something is due next."""
        now = self._clock.monotonic()
        with self._lock:
            watches = list(self._watches)
        if watches and now >= self._control_next:
            self._read_control(now)
        for watch in watches:
            self._apply(watch)
            if now >= watch.looked_next:
                self._tell(watch, now)
        if now >= self._state_next:
            self._write_state(now)
        due = [self._state_next, *(watch.looked_next for watch in watches)]
        return min([*due, self._control_next] if watches else due)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                due = self.tick()
            except Exception:  # every part's progress and control hang on this thread: it outlives defects
                log.exception("the side thread met a defect")
                due = self._clock.monotonic() + LOOK_SECONDS
            self._wake.wait(max(0.0, due - self._clock.monotonic()))

    def _read_control(self, now: float) -> None:
        self._control_next = now + CONTROL_SECONDS
        try:
            key = keys.endpoint_control(self._endpoint)
            found = documents.read_if_changed(self._store, key, EndpointControl, self._control_etag)
        except AtelierError as error:
            log.warning("control was not read: %s", error.message)
            return
        if found is not None:
            self._control, self._control_etag = found

    def _apply(self, watch: Watch) -> None:
        """Pass on what is asked of the attempt, each action once."""
        control = self._control.parts.get(watch.stamp.part)
        if control is None or control.attempt < watch.stamp.attempt:
            return
        superseded = control.attempt > watch.stamp.attempt
        action = Action.CANCEL if superseded else control.action
        if action is not None and action not in watch.asked:
            watch.asked.add(action)
            with logs.bound(**_ids(watch.stamp)):
                watch.work.act(action, superseded=superseded)

    def _tell(self, watch: Watch, now: float) -> None:
        """Write the attempt's progress if there is something new to say and its last write is long enough
        ago.
        """
        watch.looked_next = now + LOOK_SECONDS
        progress = watch.work.progress()
        changed = progress.version != watch.version
        # The preview and the progress that names it are two writes, so that they need a whole second for
        # themselves.
        pictured = changed and progress.phase == watch.phase == "steps"
        spacing = max(watch.spacing, 2 * WRITE_SECONDS if pictured else WRITE_SECONDS)
        if now < watch.written + (spacing if changed else HEARTBEAT_SECONDS):
            return
        jpeg = watch.work.preview_jpeg() if pictured else None
        try:
            with watch.lock:
                if not watch.released:
                    self._write(watch, progress, jpeg)
        except AtelierError as error:
            log.warning("progress was not written: %s", error.message, extra=_ids(watch.stamp))
            watch.looked_next = now + RETRY_SECONDS
            return
        watch.version, watch.phase, watch.written = progress.version, progress.phase, now
        watch.spacing = 2 * WRITE_SECONDS if jpeg else WRITE_SECONDS

    def _write(self, watch: Watch, progress: Progress, jpeg: bytes | None) -> None:
        watch.seq += 1
        if jpeg is not None:
            self._store.put(self._preview_key(watch, watch.seq), jpeg, content_type="image/jpeg")
            watch.previews.append(watch.seq)
        state = ProgressState(
            seq=watch.seq,
            phase=progress.phase,
            step=progress.step,
            steps=progress.steps,
            pictures_done=progress.pictures_done,
            pictures=progress.pictures,
            preview=watch.previews[-1] if watch.previews else None,
            at=self._clock.time(),
        )
        documents.write(self._store, watch.key(keys.progress), state)
        # The one before the newest stays: a browser may be about to ask for it.
        while len(watch.previews) > 2:
            self._store.delete(self._preview_key(watch, watch.previews.pop(0)))

    def _preview_key(self, watch: Watch, seq: int) -> str:
        return keys.preview(watch.stamp.job, watch.stamp.part, watch.stamp.attempt, seq)

    def _write_state(self, now: float) -> None:
        self._state_next = now + STATE_SECONDS
        try:
            state = self._describe()
            documents.write(self._store, keys.instance(self._endpoint, state.instance), state)
            self._state_written = now
        except AtelierError as error:
            self._state_next = now + RETRY_SECONDS
            log.warning("the worker's state was not written: %s", error.message)


def _ids(stamp: JobStamp) -> dict[str, str | int]:
    """An attempt as the log names it."""
    return {"job_id": stamp.job, "part_id": stamp.part, "attempt": stamp.attempt}
