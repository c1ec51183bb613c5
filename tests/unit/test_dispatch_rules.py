"""Who is served next, how many parts an endpoint may have, and when a failure is tried again."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from portal.domain import retry
from portal.domain.fairness import Waiting, pick_order, room


def test_users_with_few_parts_finish_while_one_with_hundreds_waits() -> None:
    queues = {"many": 500, "few": 5, "some": 5}
    served: list[str] = []
    last: dict[str, float] = {}
    for turn in range(30):
        heads = [Waiting(f"{owner}-{queues[owner]}", owner, since=0.0) for owner in queues if queues[owner]]
        first = pick_order(heads, {}, last)[0]
        queues[first.owner] -= 1
        last[first.owner] = float(turn + 1)
        served.append(first.owner)
    assert Counter(served[:15]) == {"many": 5, "few": 5, "some": 5}
    assert set(served[15:]) == {"many"}


def test_who_has_fewer_parts_in_flight_comes_first() -> None:
    order = pick_order(
        [Waiting("a", "ann", 1.0), Waiting("b", "bob", 2.0)], {"ann": 3, "bob": 1}, {"bob": 99.0}
    )
    assert [each.owner for each in order] == ["bob", "ann"]


def test_among_equals_the_longest_waiting_comes_first() -> None:
    order = pick_order([Waiting("a", "ann", 2.0), Waiting("b", "bob", 1.0)], {}, {})
    assert [each.owner for each in order] == ["bob", "ann"]


def test_an_endpoint_at_zero_may_have_an_instances_worth_of_parts_so_that_one_wakes_it() -> None:
    assert room(slots=4, instances=0, in_flight=0) == 4
    assert room(slots=4, instances=0, in_flight=4) == 0
    assert room(slots=4, instances=3, in_flight=5) == 7
    assert room(slots=4, instances=1, in_flight=9) == 0


@given(st.integers(1, 20), st.floats(0, 1, exclude_max=True))
def test_pauses_grow_and_stay_within_a_minute_and_a_half(attempt: int, spread: float) -> None:
    assert 1.0 <= retry.delay(attempt, spread=spread) <= 90.0
    assert retry.delay(attempt + 1, spread=spread) >= retry.delay(attempt, spread=spread)


def test_only_what_may_pass_is_tried_again_and_three_times_at_most() -> None:
    assert [retry.again(attempt, retryable=True) for attempt in (1, 2, 3)] == [True, True, False]
    assert not retry.again(1, retryable=False)
