"""How the workers of a local endpoint come and go: real child processes, and a clock that stands until a test
moves it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from portal.adapters.local import worker_process
from portal.adapters.memory.clock import ManualClock
from portal.domain.scaling import Peak, needed
from portal.services.ports import EndpointSpec, EndpointState, EndpointStatus
from tests.integration.test_fleet_local import Yard
from tests.waiting import eventually


class Held:
    """Requests that a worker keeps until they are let go."""

    def __init__(self, yard: Yard, folder: Path) -> None:
        self._yard, self._folder = yard, folder
        self._pipes: list[Path] = []

    def send(self) -> Path:
        pipe = self._folder / f"pipe{len(self._pipes)}"
        os.mkfifo(pipe)
        self._pipes.append(pipe)
        self._yard.send("wait", path=str(pipe))
        return pipe

    def let_go(self, pipe: Path) -> str:
        """Let a request end; the instance that had it."""
        with pipe.open("w"):  # waits for its reader
            pass
        assert self._yard.told().error is None
        return Path(f"{pipe}.by").read_text()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def yard(tmp_path: Path, repository: Path, clock: ManualClock) -> Iterator[Yard]:
    made = Yard(tmp_path, repository, clock.now)
    yield made
    made.fleet.close()


@pytest.fixture
def held(yard: Yard, tmp_path: Path) -> Held:
    return Held(yard, tmp_path)


def instances(yard: Yard, number: int, wanted: int) -> Callable[[], bool]:
    def look() -> bool:
        status = yard.fleet.describe("e")
        return (status.instances, status.wanted, status.leaving) == (number, wanted, 0)

    return look


def children() -> list[psutil.Process]:
    return [each for each in psutil.Process().children() if "worker.py" in " ".join(each.cmdline())]


def test_an_endpoint_goes_from_zero_to_two_and_back_to_zero_with_its_demand(
    yard: Yard, held: Held, clock: ManualClock
) -> None:
    yard.fleet.create(EndpointSpec("e", min_instances=0, max_instances=2, slots=2, idle_seconds=60))
    assert yard.fleet.describe("e") == EndpointStatus(EndpointState.ASLEEP)
    first = held.send()
    eventually(instances(yard, 1, 1), within=60)
    yard.fleet.demand("e", 2)
    assert yard.fleet.describe("e").wanted == 1, "two parts are what one instance has slots for"
    yard.fleet.demand("e", 3)
    eventually(instances(yard, 2, 2), within=60)
    second = held.send()
    yard.fleet.demand("e", 50)
    assert yard.fleet.describe("e").wanted == 2 and len(children()) == 2, "never more than its most"
    assert {held.let_go(first), held.let_go(second)} == {"e-0", "e-1"}, "the idle one gets the next part"
    yard.fleet.demand("e", 1)
    clock.advance(59)
    yard.fleet.demand("e", 1)
    assert instances(yard, 2, 2)(), "what was needed within the idle time stays"
    clock.advance(2)
    yard.fleet.demand("e", 1)
    eventually(instances(yard, 1, 1), within=60)
    yard.fleet.demand("e", 0)
    clock.advance(61)
    eventually(lambda: yard.fleet.describe("e").state is EndpointState.ASLEEP, within=60)
    eventually(lambda: not children(), within=60)


def test_a_worker_that_leaves_finishes_what_it_has_and_gets_nothing_more(
    yard: Yard, held: Held, clock: ManualClock
) -> None:
    yard.fleet.create(EndpointSpec("e", max_instances=2, slots=1, idle_seconds=60))
    yard.fleet.demand("e", 2)
    eventually(instances(yard, 2, 2), within=60)
    pipes = [held.send(), held.send()]
    yard.fleet.update(EndpointSpec("e", max_instances=1, slots=1, idle_seconds=60))
    status = yard.fleet.describe("e")
    assert (status.instances, status.wanted, status.leaving) == (1, 1, 1)
    assert len(children()) == 2
    third = held.send()
    had = [held.let_go(pipe) for pipe in (*pipes, third)]
    assert sorted(had[:2]) == ["e-0", "e-1"] and had[2] == "e-0"
    eventually(instances(yard, 1, 1), within=60)
    assert len(children()) == 1


def test_a_worker_that_dies_is_replaced_while_the_other_goes_on(
    yard: Yard, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_process, "FIRST_PAUSE", 0.05)
    yard.fleet.create(EndpointSpec("e", min_instances=2, max_instances=2))
    eventually(instances(yard, 2, 2), within=60)
    kept = held.send()
    yard.send("die")
    error = yard.told().error
    assert error is not None and error["retryable"]
    assert yard.fleet.describe("e").state is EndpointState.IN_SERVICE
    eventually(instances(yard, 2, 2), within=60)
    assert held.let_go(kept) in ("e-0", "e-1")


def test_an_endpoint_serves_with_the_workers_it_has_and_says_what_is_wrong_with_the_others(
    tmp_path: Path, repository: Path
) -> None:
    yard = Yard(tmp_path, repository, lame="e-1")
    yard.fleet.create(EndpointSpec("e", min_instances=2, max_instances=2))
    eventually(lambda: yard.fleet.describe("e").reason and yard.fleet.describe("e").instances, within=60)
    status = yard.fleet.describe("e")
    assert (status.state, status.instances, status.wanted) == (EndpointState.IN_SERVICE, 1, 2)
    assert "lame" in status.reason and "worker-e-1.log" in status.reason
    yard.send("work")
    assert yard.told().error is None
    yard.fleet.close()


def test_a_demand_nobody_tells_again_counts_as_none(yard: Yard, clock: ManualClock) -> None:
    yard.fleet.create(EndpointSpec("e", min_instances=0, idle_seconds=5))
    yard.fleet.demand("e", 1)
    eventually(instances(yard, 1, 1), within=60)
    [child] = children()
    clock.advance(31)
    eventually(lambda: yard.fleet.describe("e").wanted == 1, within=60)
    clock.advance(6)
    eventually(lambda: yard.fleet.describe("e").state is EndpointState.ASLEEP, within=60)
    assert eventually(lambda: not child.is_running(), within=60)


@pytest.mark.parametrize(
    ("demand", "expected"), [(0, 0), (1, 1), (8, 1), (9, 2), (16, 2), (17, 3), (1000, 3)]
)
def test_the_step_out_is_taken_where_demand_exceeds_target_times_instances(
    demand: int, expected: int
) -> None:
    assert needed(demand, 8, 0, 3) == expected
    assert needed(demand, 8, 1, 3) == max(1, expected)


def test_the_peak_is_what_was_noted_within_the_time_and_no_longer() -> None:
    peak = Peak()
    assert [peak.note(now, number, 10) for now, number in ((0, 1), (1, 3), (5, 2), (10, 0))] == [1, 3, 3, 3]
    assert [peak.note(now, 0, 10) for now in (11, 14, 15, 30)] == [2, 2, 0, 0]
