"""Users are served by their weights, whatever the length of their queues and the size of their parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import count
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from atelier.contract.parts import HiresPass
from portal.domain.effort import effort
from portal.domain.fairness import CREDIT_PARTS, CREDIT_WORK, Turn, Turns, Waiting, pick_order
from tests.contract.worker_doubles import a_part

WEIGHTS = st.floats(0.25, 8)
WORKS = st.floats(0.05, 8)
USERS = ("ann", "bob", "cid", "dot")


class Studio:
    """Users whose queues never end, unless `parts` says how much is left of one's."""

    def __init__(self, weights: Mapping[str, float], works: Mapping[str, float]) -> None:
        self.weights, self.works = weights, works
        self.turns: dict[str, Turn] = {}
        self.last: dict[str, float] = {}
        self.parts = dict.fromkeys(works, 10**9)
        self._ticks = count(1)

    def serve(self, *waiting: str) -> str:
        """Send one part of those who wait; whose it was."""
        stand = Turns(self.turns, self.weights)
        heads = [Waiting(who, who, 0.0, self.works[who]) for who in waiting if self.parts[who]]
        owner = pick_order(heads, {}, self.last, stand)[0].owner
        self.turns[owner] = stand.served(owner, self.works[owner])
        self.last[owner] = float(next(self._ticks))
        self.parts[owner] -= 1
        return owner


@given(st.dictionaries(st.sampled_from(USERS), st.tuples(WEIGHTS, WORKS), min_size=2), st.integers(1, 150))
def test_those_who_always_wait_get_work_by_their_weights_within_a_part_each(
    users: dict[str, tuple[float, float]], rounds: int
) -> None:
    studio = Studio(
        {who: w for who, (w, _) in users.items()}, {who: work for who, (_, work) in users.items()}
    )
    done: Counter[str] = Counter()
    for _ in range(rounds):
        done[studio.serve(*users)] += 1
    got = {who: done[who] * work / weight for who, (weight, work) in users.items()}
    bound = {who: work / weight for who, (weight, work) in users.items()}
    for one in users:
        for other in users:
            assert got[one] - got[other] <= bound[one] + bound[other] + 1e-3


@given(st.dictionaries(st.sampled_from(USERS), st.tuples(WEIGHTS, WORKS), min_size=2), st.data())
def test_nobody_who_waits_is_left_out_however_others_come_and_go(
    users: dict[str, tuple[float, float]], data: st.DataObject
) -> None:
    studio = Studio(
        {who: w for who, (w, _) in users.items()}, {who: work for who, (_, work) in users.items()}
    )
    patient, *others = users
    weight, work = users[patient]
    before = studio.turns.get(patient, Turn()).finish
    # What the others may get meanwhile: up to the patient one's place, and each their credit and a part.
    bound = sum(
        (work / weight + CREDIT_WORK / w + 2 * own / w) * w / own + CREDIT_PARTS + 2
        for w, own in (users[who] for who in others)
    )
    served = 0
    while studio.serve(patient, *data.draw(st.sets(st.sampled_from(others)))) != patient:
        served += 1
        assert served <= bound
    assert studio.turns[patient].start >= before


def test_with_weights_of_three_and_one_three_of_four_parts_are_the_first_ones() -> None:
    studio = Studio({"ann": 3.0, "bob": 1.0}, {"ann": 1.0, "bob": 1.0})
    assert Counter(studio.serve("ann", "bob") for _ in range(40)) == {"ann": 30, "bob": 10}


def test_large_parts_count_for_as_much_as_they_are() -> None:
    studio = Studio({}, {"ann": 6.0, "bob": 1.0})
    served = Counter(studio.serve("ann", "bob") for _ in range(70))
    assert served == {"ann": 10, "bob": 60}


def test_who_comes_anew_is_let_in_first_and_then_shares() -> None:
    studio = Studio({}, {"ann": 0.1, "bob": 0.1})
    for _ in range(500):
        studio.serve("ann")
    order = [studio.serve("ann", "bob") for _ in range(108)]
    assert order[:8] == ["bob"] * 8
    assert 49 <= Counter(order[8:])["bob"] <= 51


def test_time_away_is_not_saved_up() -> None:
    studio = Studio({}, {"ann": 1.0, "bob": 1.0})
    for _ in range(10_000):
        studio.serve("ann")
    assert Counter(studio.serve("ann", "bob") for _ in range(100))["bob"] <= 50 + CREDIT_PARTS / 2


def test_work_counts_pictures_pixels_and_the_steps_of_both_passes() -> None:
    second = HiresPass(
        size=(1024, 1024),
        upscaled=(1024, 1024),
        upscaler="Latent",
        steps=10,
        denoising_strength=0.5,
        sampler="Euler",
        scheduler="Automatic",
        prompt="a red circle",
        negative_prompt="",
    )
    large: dict[str, Any] = {"width": 512, "height": 512, "seeds": (1,)}
    plain, hires = effort(a_part(**large)), effort(a_part(**large, hires=second))
    assert (plain.work, hires.work) == (1.0, 2.0)
    assert effort(a_part(width=1024, height=1024, steps=30, seeds=(1, 2))).work == 12.0
    others = effort(a_part(**large, steps=21)).shape, effort(a_part(**large | {"seeds": (1, 2)})).shape
    assert len({plain.shape, hires.shape, *others}) == 4
    assert effort(a_part(**large, prompt="a blue square")).shape == plain.shape
