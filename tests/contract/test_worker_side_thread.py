"""Progress out, control in, and the worker's own state: what the side thread does, on a clock that is set."""

from __future__ import annotations

from pathlib import Path

import pytest

from atelier.contract import keys
from atelier.contract.errors import StorageFailed
from atelier.contract.parts import Action, EndpointControl, InstanceState, PartControl, ProgressState
from tests.contract.worker_doubles import (
    ENDPOINT,
    CountingStore,
    ScriptedHandle,
    SetClock,
    a_part,
    a_stamp,
    a_state,
)
from tests.waiting import eventually
from workers.runtime.side_thread import SILENT_SECONDS, Progress, SideThread

CONTROL = keys.endpoint_control(ENDPOINT)


class Work:
    """Running work as the side thread sees it, around a scripted handle."""

    def __init__(self) -> None:
        self.handle = ScriptedHandle(a_part())
        self.asked: list[tuple[Action, bool]] = []
        self.jpeg: bytes | None = None

    def progress(self) -> Progress:
        return self.handle.progress()

    def preview_jpeg(self) -> bytes | None:
        return self.jpeg

    def act(self, action: Action, *, superseded: bool = False) -> None:
        self.asked.append((action, superseded))


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def store(tmp_path: Path, clock: SetClock) -> CountingStore:
    return CountingStore(tmp_path, clock)


@pytest.fixture
def side(store: CountingStore, clock: SetClock) -> SideThread:
    return SideThread(store, ENDPOINT, a_state, clock=clock)


def run(side: SideThread, clock: SetClock, seconds: float) -> None:
    """Let `seconds` pass, with a tick whenever the side thread wants one."""
    end = clock.now + seconds
    while True:
        due = side.tick()
        if due > end:
            break
        clock.now = max(due, clock.now + 1e-3)
    clock.now = end


def progress_of(store: CountingStore) -> ProgressState:
    return ProgressState.model_validate_json(store.get(keys.progress("j1", "p1", 1)))


def ask(store: CountingStore, action: Action | None, attempt: int = 1) -> None:
    control = EndpointControl(parts={"p1": PartControl(attempt=attempt, action=action)})
    store.put(CONTROL, control.model_dump_json().encode())


def test_progress_is_written_at_most_twice_a_second_with_a_growing_seq(
    side: SideThread, store: CountingStore, clock: SetClock
) -> None:
    work = Work()
    side.watch(a_stamp(), work)
    seen: list[int] = []
    for step in range(200):
        work.handle.further(phase="steps", step=step, steps=200)
        work.jpeg = b"jpeg" if step % 3 else None
        run(side, clock, 0.05)
        seen.append(progress_of(store).seq)
    times = [at for at, key in store.writes if key.startswith("jobs/j1/p1/1/")]
    most = max(sum(at <= other < at + 1.0 - 1e-6 for other in times) for at in times)
    assert most == 2
    assert seen == sorted(seen)
    assert seen[-1] >= 8
    assert progress_of(store).step >= 170


def test_a_part_that_stands_still_keeps_its_heartbeat(
    side: SideThread, store: CountingStore, clock: SetClock
) -> None:
    side.watch(a_stamp(), Work())
    run(side, clock, 60.0)
    assert 10 <= progress_of(store).seq <= 15


def test_previews_are_named_by_the_progress_and_only_two_are_kept(
    side: SideThread, store: CountingStore, clock: SetClock
) -> None:
    work = Work()
    watch = side.watch(a_stamp(), work)
    for step in range(60):
        work.jpeg = b"jpeg %d" % step
        work.handle.further(phase="steps", step=step)
        run(side, clock, 0.1)
        named = progress_of(store).preview
        assert named is None or store.get(keys.preview("j1", "p1", 1, named)).startswith(b"jpeg")
    kept = [each.key for each in store.list("jobs/j1/p1/1/preview-")]
    assert len(kept) == 2
    side.release(watch)
    assert not list(store.list("jobs/j1/p1/1/preview-"))


def test_nothing_is_written_for_a_part_after_its_release(
    side: SideThread, store: CountingStore, clock: SetClock
) -> None:
    work = Work()
    watch = side.watch(a_stamp(), work)
    run(side, clock, 1.0)
    side.release(watch)
    before = len(store.writes)
    work.handle.further(phase="steps", step=7)
    run(side, clock, 10.0)
    assert [key for _, key in store.writes[before:] if key.startswith("jobs/")] == []


def test_an_action_reaches_the_work_within_a_second_and_only_once(
    side: SideThread, store: CountingStore, clock: SetClock
) -> None:
    work = Work()
    side.watch(a_stamp(), work)
    run(side, clock, 5.0)
    ask(store, Action.STOP_NOW)
    run(side, clock, 1.0)
    assert work.asked == [(Action.STOP_NOW, False)]
    run(side, clock, 5.0)
    assert work.asked == [(Action.STOP_NOW, False)]


def test_control_is_read_conditionally_once_a_second_and_not_at_all_without_work(
    side: SideThread, store: CountingStore, clock: SetClock
) -> None:
    run(side, clock, 20.0)
    assert store.conditional_reads == []
    watches = [side.watch(a_stamp(part=f"p{number}"), Work()) for number in range(3)]
    run(side, clock, 10.0)
    assert 10 <= len(store.conditional_reads) <= 11
    for watch in watches:
        side.release(watch)
    run(side, clock, 5.0)
    assert len(store.conditional_reads) <= 11


def test_an_action_that_was_already_there_reaches_a_part_that_begins_later(
    side: SideThread, store: CountingStore, clock: SetClock
) -> None:
    side.watch(a_stamp(part="p0"), Work())
    ask(store, Action.CANCEL)
    run(side, clock, 3.0)
    work = Work()
    side.watch(a_stamp(), work)
    side.tick()
    assert work.asked == [(Action.CANCEL, False)]


def test_a_newer_attempt_ends_an_older_one_and_an_older_action_is_not_for_a_newer_attempt(
    side: SideThread, store: CountingStore, clock: SetClock
) -> None:
    older, newer = Work(), Work()
    side.watch(a_stamp(attempt=1), older)
    side.watch(a_stamp(attempt=3), newer)
    ask(store, Action.SKIP, attempt=2)
    run(side, clock, 1.1)
    assert older.asked == [(Action.CANCEL, True)]
    assert newer.asked == []


def test_the_worker_says_how_it_is_every_fifteen_seconds(
    side: SideThread, store: CountingStore, clock: SetClock
) -> None:
    run(side, clock, 60.0)
    times = [at - 1000.0 for at, key in store.writes if key == keys.instance(ENDPOINT, "w1")]
    assert times == pytest.approx([0, 15, 30, 45, 60], abs=0.1)
    assert InstanceState.model_validate_json(store.get(keys.instance(ENDPOINT, "w1"))).status == "ready"


def test_a_store_that_refuses_ends_nothing(side: SideThread, store: CountingStore, clock: SetClock) -> None:
    work = Work()
    side.watch(a_stamp(), work)
    store.broken = StorageFailed("the disk is full")
    run(side, clock, 12.0)
    store.broken = None
    ask(store, Action.STOP_NOW)
    run(side, clock, 6.0)
    assert progress_of(store).seq >= 1
    assert work.asked == [(Action.STOP_NOW, False)]


def test_the_thread_writes_its_state_at_the_start_when_announced_and_at_the_end(tmp_path: Path) -> None:
    clock = SetClock()
    store = CountingStore(tmp_path, clock)
    status = ["starting"]
    side = SideThread(store, ENDPOINT, lambda: a_state(status=status[0]))

    def told() -> str:
        return InstanceState.model_validate_json(store.get(keys.instance(ENDPOINT, "w1"))).status

    side.start()
    eventually(lambda: told() == "starting")
    status[0] = "ready"
    side.announce()
    eventually(lambda: told() == "ready")
    status[0] = "stopped"
    side.stop()
    assert told() == "stopped"


def test_it_says_itself_when_the_store_takes_nothing_or_its_thread_has_ended(
    side: SideThread, store: CountingStore, clock: SetClock
) -> None:
    side.start()
    try:
        assert side.faults() == []
        store.broken = StorageFailed("the disk is full")
        clock.advance(SILENT_SECONDS + 1)
        assert side.faults() == ["The worker cannot write its state to the blob store."]
        store.broken = None
        side.announce()
        eventually(lambda: side.faults() == [], within=60)
    finally:
        side.stop()
    assert side.faults() == ["The thread that tells of progress and hears of clicks has ended."]
