"""Recorded forwards, on real narrow UNets: the recorder here notes the operations with the very tensors they
ran on, so that like a CUDA graph it repeats them without the Python around them, at fixed addresses.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from tests.unit.engine.test_conditions import NARROW, TOLD, filled, prompt, row, weights
from workers.engine import attention, cuda_graphs, forward
from workers.engine.graphs import Captured, Forward, GraphRunner, Inputs, padded
from workers.engine.loader.architecture import UNetShape
from workers.engine.networks.hypernetwork import Hypernetwork, Layer
from workers.engine.networks.merging import Use, merged
from workers.engine.networks_at_work import NetworksAtWork
from workers.engine.rows import Row
from workers.engine.slots import Slot

ROOMY = 1 << 30


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


class Tape(TorchDispatchMode):
    """The operations that ran while it was entered."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self._calls.append((func, args, kwargs or {}, out))
        return out

    def play(self, wanted: torch.Tensor) -> torch.Tensor:
        """Run the operations again; what then stands in the place of `wanted`."""
        made: dict[int, Any] = {}

        def now(value: Any) -> Any:
            return made.get(id(value), value)

        for func, args, kwargs, before in self._calls:
            out = func(*tree_map(now, args), **tree_map(now, kwargs))
            for old, new in zip(tree_leaves(before), tree_leaves(out), strict=True):
                made[id(old)] = new
        found = made[id(wanted)]
        assert isinstance(found, torch.Tensor) and found is not wanted
        return found


@dataclass
class Recorder:
    """Repeats what it recorded. `work`: what each recording is said to need; `spoil` changes its answers."""

    work: int = 1000
    fails: bool = False
    spoil: float = 0.0
    captured: list[int] = field(default_factory=list)
    renewed: int = 0
    settled: int = 0

    def capture(self, forward: Forward, inputs: Inputs) -> Captured:
        self.captured.append(len(inputs[0]))
        if self.fails:
            raise RuntimeError("operation not permitted when stream is capturing")
        with Tape() as tape:
            output = forward(*inputs)

        def replay() -> None:
            output.copy_(tape.play(output) + self.spoil)

        return Captured(output, replay, self.work)

    def settle(self) -> None:
        self.settled += 1

    def renew(self) -> None:
        self.renewed += 1


@dataclass
class Pretender:
    """Records nothing and answers with what stands there: for what is decided about recordings alone."""

    work: int = 0
    seconds: float = 0.0
    now: float = 0.0
    captured: list[int] = field(default_factory=list)
    renewed: int = 0

    def capture(self, forward: Forward, inputs: Inputs) -> Captured:
        self.captured.append(len(inputs[0]))
        self.now += self.seconds
        return Captured(forward(*inputs), lambda: None, self.work)

    def settle(self) -> None: ...

    def renew(self) -> None:
        self.renewed += 1

    def clock(self) -> float:
        return self.now


def rows(shape: UNetShape, count: int, side: int = 8, seed: int = 0) -> list[Row]:
    return [row(shape, 100.0 + 50.0 * n, prompt(shape, n), seed + n, side) for n in range(count)]


def idle() -> bool:
    return False


def busy() -> bool:
    return True


def serve(graphs: GraphRunner, slot: Slot, asked: list[Row], times: int) -> None:
    for _ in range(times):
        forward.predict(slot, asked, graphs)


def recorded(graphs: GraphRunner, slot: Slot, asked: list[Row]) -> Callable[[list[Row]], list[torch.Tensor]]:
    """Make the kind of batch hot and its recording trusted."""
    serve(graphs, slot, asked, 10)
    graphs.improve(idle)
    serve(graphs, slot, asked, 1)
    assert graphs.keys and graphs.replays == 1
    return lambda asked: forward.predict(slot, asked, graphs)


def equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("shape", [NARROW, TOLD], ids=["SD1", "SDXL"])
def test_a_recording_gives_exactly_what_the_network_gives(shape: UNetShape) -> None:
    graphs, slot = GraphRunner(Recorder(), most=4, most_bytes=ROOMY), filled(shape)
    predict = recorded(graphs, slot, rows(shape, 2))
    first, second = rows(shape, 2, seed=20), rows(shape, 2, seed=40)
    assert equal(predict(first), forward.predict(slot, first))
    kept = predict(first)
    assert equal(predict(second), forward.predict(slot, second))
    assert equal(kept, forward.predict(slot, first)), "an answer is not overwritten by the next"
    assert graphs.replays == 4


def test_weights_replaced_in_place_are_the_recordings_weights() -> None:
    recorder, slot = Recorder(), filled(NARROW, 0)
    graphs = GraphRunner(recorder, most=4, most_bytes=ROOMY)
    asked = rows(NARROW, 1)
    predict = recorded(graphs, slot, asked)
    before = predict(asked)
    slot.fill(weights(NARROW, 1))
    changed = predict(asked)
    assert graphs.replays == 3 and recorder.captured == [1]
    assert equal(changed, forward.predict(slot, asked)) and not equal(changed, before)


def test_weights_that_have_moved_end_the_slots_recordings() -> None:
    recorder, slot = Recorder(), filled(NARROW)
    graphs = GraphRunner(recorder, most=4, most_bytes=ROOMY)
    asked = rows(NARROW, 1)
    predict = recorded(graphs, slot, asked)
    slot.unet.conv_in.weight = torch.nn.Parameter(slot.unet.conv_in.weight * 2, requires_grad=False)
    slot.fill(weights(NARROW, 2))
    assert equal(predict(asked), forward.predict(slot, asked))
    assert not graphs.keys and graphs.replays == 1 and recorder.settled == recorder.renewed == 1


def test_a_batch_is_filled_up_with_its_last_row_and_the_answer_cut() -> None:
    graphs, slot = GraphRunner(Recorder(), most=4, most_bytes=ROOMY), filled(NARROW)
    predict = recorded(graphs, slot, rows(NARROW, 3))
    asked = rows(NARROW, 3, seed=9)
    answers = predict(asked)
    assert len(answers) == 3 and [key.rows for key in graphs.keys] == [4]
    assert equal(answers, forward.predict(slot, [*asked, asked[-1]])[:3])
    assert equal(predict(rows(NARROW, 4)), forward.predict(slot, rows(NARROW, 4))), "four share it"


@pytest.mark.parametrize(
    ("count", "size"), [(1, 1), (3, 4), (5, None), (6, 8), (9, None), (11, 16), (16, 16), (17, None)]
)
def test_a_batch_is_filled_up_by_a_third_at_most(count: int, size: int | None) -> None:
    assert padded(count) == size


def test_what_cannot_be_recorded_is_served_as_before_and_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    recorder, slot, asked = Recorder(fails=True), filled(NARROW), rows(NARROW, 2)
    graphs = GraphRunner(recorder, most=4, most_bytes=ROOMY)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            serve(graphs, slot, asked, 10)
            graphs.improve(idle)
    assert recorder.captured == [2] and not graphs.keys
    assert len(caplog.messages) == 1 and "stream is capturing" in caplog.messages[0]
    assert equal(forward.predict(slot, asked, graphs), forward.predict(slot, asked))


def test_a_recording_whose_first_answer_is_wrong_is_never_used(caplog: pytest.LogCaptureFixture) -> None:
    slot, asked = filled(NARROW), rows(NARROW, 1)
    graphs = GraphRunner(Recorder(spoil=5.0), most=4, most_bytes=ROOMY)
    wanted = forward.predict(slot, asked)
    serve(graphs, slot, asked, 10)
    graphs.improve(idle)
    for _ in range(2):
        assert equal(forward.predict(slot, asked, graphs), wanted)
    assert graphs.replays == 1 and not graphs.keys and "network's own" in caplog.text


def test_a_replay_that_fails_is_answered_by_the_network() -> None:
    class Breaking(Pretender):
        def capture(self, forward: Forward, inputs: Inputs) -> Captured:
            def replay() -> None:
                raise RuntimeError("CUDA error: launch failure")

            return Captured(forward(*inputs), replay, 0)

    slot, asked = filled(NARROW), rows(NARROW, 1)
    graphs = GraphRunner(Breaking(), most=4, most_bytes=ROOMY)
    serve(graphs, slot, asked, 10)
    graphs.improve(idle)
    assert equal(forward.predict(slot, asked, graphs), forward.predict(slot, asked)) and not graphs.keys


def hypernetwork() -> Hypernetwork:
    torch.manual_seed(7)
    chains = {width: (Layer(torch.randn(width, width), torch.randn(width)),) for width in NARROW.widths}
    return Hypernetwork(
        "a hypernetwork", "a", "a.pt", {width: (each, each) for width, each in chains.items()}
    )


def test_a_slot_with_a_hypernetwork_is_neither_recorded_nor_replayed() -> None:
    recorder, slot, asked = Recorder(), filled(NARROW), rows(NARROW, 1)
    graphs = GraphRunner(recorder, most=4, most_bytes=ROOMY)
    plain = weights(NARROW, 0)
    changed = merged(plain, [Use(hypernetwork(), 0.5)])
    slot.fill(changed)
    serve(graphs, slot, asked, 20)
    graphs.improve(idle)
    assert slot.hooked and not recorder.captured
    slot.fill(plain)
    predict = recorded(graphs, slot, asked)
    before = predict(asked)
    slot.fill(changed)
    hooked = predict(asked)
    assert graphs.replays == 2 and not equal(hooked, before)
    assert equal(hooked, forward.predict(slot, asked))
    slot.fill(plain)
    assert equal(predict(asked), before) and graphs.replays == 3


def test_tiling_and_another_attention_have_recordings_of_their_own() -> None:
    graphs, slot = GraphRunner(Recorder(), most=4, most_bytes=ROOMY), filled(NARROW)
    plain = rows(NARROW, 1)
    tiled = [Row(each.latent, each.timestep, each.context, tiling=True) for each in plain]
    serve(graphs, slot, tiled, 10)
    serve(graphs, slot, plain, 11)
    graphs.improve(idle)
    assert sorted(key.joined for key in graphs.keys) == [False, True]
    for asked in (plain, tiled, plain, tiled):
        assert equal(forward.predict(slot, asked, graphs), forward.predict(slot, asked))
    replays, choice = graphs.replays, attention.chosen()
    assert replays == 4
    attention.use(attention.choose("math", attention.Machine.of("cpu", torch.float32)))
    try:
        serve(graphs, slot, plain, 1)
    finally:
        attention.use(choice)
    assert graphs.replays == replays


def test_the_most_used_kinds_are_kept_and_one_that_went_cold_gives_way() -> None:
    pretender, slot = Pretender(), filled(NARROW)
    graphs = GraphRunner(pretender, most=2, most_bytes=ROOMY)
    one, two, four = (rows(NARROW, count, 2) for count in (1, 2, 4))
    serve(graphs, slot, one, 12)
    serve(graphs, slot, two, 14)
    serve(graphs, slot, four, 11)
    graphs.improve(idle)
    assert pretender.captured == [2, 1], "the hottest first, and no room for the third"
    serve(graphs, slot, four, 2)
    graphs.improve(idle)
    assert {key.rows for key in graphs.keys} == {2, 4}


def test_the_memory_of_all_recordings_stays_within_its_bound() -> None:
    slot = filled(NARROW)
    alone = GraphRunner(Pretender(), most=9, most_bytes=ROOMY)
    serve(alone, slot, rows(NARROW, 1, 2), 10)
    alone.improve(idle)
    own = alone.size
    pretender = Pretender(work=1000)
    graphs = GraphRunner(pretender, most=9, most_bytes=1000 + int(3.5 * own))
    for count, uses in ((1, 30), (2, 20), (4, 40)):
        serve(graphs, slot, rows(NARROW, count, 2), uses)
    graphs.improve(idle)
    assert sorted(key.rows for key in graphs.keys) == [1, 2] and graphs.size == 1000 + 3 * own
    attempts = len(pretender.captured)
    graphs.improve(idle)
    assert len(pretender.captured) == attempts, "what does not fit is not tried again"


def test_a_waiting_row_waits_for_one_recording_at_most_and_seldom() -> None:
    pretender, slot = Pretender(seconds=0.5), filled(NARROW)
    graphs = GraphRunner(pretender, most=9, most_bytes=ROOMY, clock=pretender.clock)
    for count in (1, 2, 4):
        serve(graphs, slot, rows(NARROW, count, 2), 20)
    graphs.improve(busy)
    assert not pretender.captured, "nothing is hot enough to let rows wait"
    for count in (1, 2, 4):
        serve(graphs, slot, rows(NARROW, count, 2), 20)
    graphs.improve(busy)
    graphs.improve(busy)
    assert len(pretender.captured) == 1
    pretender.now += 10.0
    graphs.improve(busy)
    graphs.improve(busy)
    assert len(pretender.captured) == 2
    graphs.improve(idle)
    assert len(pretender.captured) == 3, "nobody waits: at once"


def test_other_kinds_of_batches_are_served_meanwhile() -> None:
    graphs, slot = GraphRunner(Recorder(), most=1, most_bytes=ROOMY), filled(NARROW)
    predict = recorded(graphs, slot, rows(NARROW, 1))
    for asked in (rows(NARROW, 1, side=6), rows(NARROW, 2), rows(NARROW, 5)):
        assert equal(predict(asked), forward.predict(slot, asked))
    assert graphs.replays == 1


def test_there_are_no_recordings_on_the_cpu_or_when_none_are_wanted() -> None:
    assert cuda_graphs.runner("cpu", 8, ROOMY) is None
    assert cuda_graphs.runner("cuda", 0, ROOMY) is None
    networks = NetworksAtWork("cpu", torch.float32, 1)
    networks.improve(idle)
    slot, asked = filled(NARROW), rows(NARROW, 3)
    assert equal(networks.predict(slot, asked), forward.predict(slot, asked))
