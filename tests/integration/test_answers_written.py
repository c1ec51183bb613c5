"""Answers to /inference as the leader writes them: none keeps others waiting, and each is written once."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from atelier.contract import keys
from atelier.contract.errors import StorageFailed
from portal.services import answers
from tests.integration.test_inference import Desk, send


@pytest.fixture
def there(studio_url: str, tmp_path: Path) -> Iterator[Desk]:
    made = Desk(studio_url, tmp_path)
    yield made
    made.studio.close()


def due(desk: Desk, count: int) -> list[str]:
    """Jobs that are done and whose answers are not written, the oldest first."""
    studio, client = desk.studio, desk.program()
    jobs = sorted(send(client).json()["job"] for _ in range(count))
    loop = studio.work.loop
    loop._chores = [each for each in loop._chores if each != studio.work.answers.deliver]
    for sent in studio.turn():
        studio.fleet.succeed(sent)
    studio.turn()
    assert written(desk, jobs) == [False] * count
    return jobs


def written(desk: Desk, jobs: list[str]) -> list[bool]:
    return [desk.studio.store.stat(keys.job_answer(each)) is not None for each in jobs]


@pytest.mark.parametrize("error", [StorageFailed("It did not answer."), OSError(errno.ENOSPC, "full")])
def test_an_answer_that_cannot_be_written_keeps_no_other_waiting(
    there: Desk, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    jobs, store = due(there, 3), there.studio.store
    put = store.put

    def failing(key: str, *rest: Any, **more: Any) -> Any:
        if key == keys.job_answer(jobs[0]):
            raise error
        return put(key, *rest, **more)

    deliver = there.studio.work.answers.deliver
    with monkeypatch.context() as patched:
        patched.setattr(store, "put", failing)
        assert [deliver(), deliver()] == [0, 2]
        assert written(there, jobs) == [False, True, True]
        assert deliver() == 0
    assert [deliver() + deliver(), deliver()] == [1, 0]
    assert written(there, jobs) == [True] * 3


def test_a_round_ends_with_a_large_answer(there: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs, deliver = due(there, 3), there.studio.work.answers.deliver
    monkeypatch.setattr(answers, "ROUND_BYTES", 1)
    assert deliver() == 1 and written(there, jobs) == [True, False, False]
    assert [deliver(), deliver(), deliver()] == [1, 1, 0] and written(there, jobs) == [True] * 3


def test_who_asks_at_the_same_time_waits_for_the_one_that_writes(
    there: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    [job], store = due(there, 1), there.studio.store
    owner = next(each for each in there.studio.services.identity.users() if each.username == there.newest)
    caller = answers._owner(owner.id)
    put, begun, second, puts = store.put, threading.Event(), threading.Event(), []

    def slow(key: str, *rest: Any, **more: Any) -> Any:
        puts.append(key)
        if begun.is_set():
            second.set()
        begun.set()
        second.wait(0.3)  # a second one would come meanwhile
        return put(key, *rest, **more)

    def read() -> bytes:
        with there.studio.work.answers.read(caller, job) as found:  # type: ignore[union-attr]
            return found.read()

    monkeypatch.setattr(store, "put", slow)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(read)
        assert begun.wait(60)
        again = pool.submit(read)
        assert first.result(60) == again.result(60)
    assert puts == [keys.job_answer(job)]
