"""How many rows a forward may have: what was measured bounds what is asked next."""

from __future__ import annotations

from workers.engine.pace import LONGEST, Pace
from workers.engine.rows import BatchKey


def key(side: int, *, alone: int = 0, weights: str = "one") -> BatchKey:
    """The key of rows of `side` x `side` pixels."""
    return BatchKey(weights, 4, side // 8, side // 8, 77, False, alone)


def test_forwards_stay_within_the_longest_and_never_lack_a_row() -> None:
    pace = Pace(16)
    pace.took(key(512), 2, 1.1)
    assert pace.rows(key(512)) == 1
    pace.took(key(128), 16, 0.16)
    assert pace.rows(key(128)) == 16
    pace.took(key(1024), 1, 60 * LONGEST)
    assert pace.rows(key(1024)) == 1


def test_an_untried_size_begins_small_and_then_by_what_others_took() -> None:
    pace = Pace(16)
    assert [pace.rows(key(side)) for side in (64, 128, 256, 512, 2048)] == [16, 16, 4, 1, 1]
    pace.took(key(128), 16, 0.16 * LONGEST)
    assert [pace.rows(key(side, weights="two")) for side in (64, 128, 256, 512)] == [16, 16, 16, 6]


def test_a_slow_moment_is_forgotten_again() -> None:
    pace = Pace(16)
    pace.took(key(256), 4, 40.0)
    assert pace.rows(key(256)) == 1
    for _ in range(12):
        pace.took(key(256), 1, 0.01)
    assert pace.rows(key(256)) == 16


def test_a_row_that_stands_alone_shares_the_pace_of_its_kind_and_memory_is_bounded() -> None:
    pace = Pace(16)
    pace.took(key(512, alone=7), 1, 0.5)
    assert pace.rows(key(512)) == 2
    for number in range(2000):
        pace.took(key(64, weights=str(number)), 1, 0.001)
    assert len(pace._seconds) <= 512
    assert pace.rows(key(64, weights="1999")) == 16
