"""The engine with real networks: batching, equality, slots, actions, refusals. Forwards are counted in the
network itself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from atelier.contract.errors import AtelierError, ModelUnusable, OutOfMemory, UnknownName, WorkerUnavailable
from atelier.contract.parts import Action, EngineSettings
from tests.engine_parts import part, reference
from tests.integration.worker_process import tiny_checkpoint
from tests.waiting import eventually
from workers.engine import Engine, EngineProgress, ModelFile, PartHandle, device

PATIENCE = 120.0


class Count:
    """Forwards of any UNet, and the rows of each."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def __call__(self, module: torch.nn.Module, arguments: tuple[Any, ...]) -> None:
        if type(module).__name__ == "UNet":
            self.rows.append(int(arguments[0].shape[0]))


@pytest.fixture
def count() -> Iterator[Count]:
    counter = Count()
    hook = torch.nn.modules.module.register_module_forward_pre_hook(counter)
    yield counter
    hook.remove()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("models")
    return {
        name: tiny_checkpoint(place / f"{name}.safetensors", seed) for name, seed in (("one", 1), ("two", 2))
    }


Make = Callable[..., Engine]


@pytest.fixture
def make(files: dict[str, Path]) -> Iterator[Make]:
    engines: list[Engine] = []

    def build(**options: Any) -> Engine:
        engines.append(Engine(lambda ref: ModelFile(files[ref.name], None), **options))
        engines[-1].start()
        return engines[-1]

    yield build
    for engine in engines:
        engine.close(30.0)


def pixels(handle: PartHandle) -> list[np.ndarray]:
    return [picture.pixels for picture in handle.result(PATIENCE).pictures]


MIXED = [
    {"sampler": "Euler", "cfg_scale": 7.0, "seeds": (1,)},
    {"sampler": "Euler a", "cfg_scale": 3.0, "seeds": (2,)},
    {"sampler": "DPM++ 2M", "scheduler": "Karras", "cfg_scale": 5.0, "seeds": (3,)},
    {"sampler": "Euler", "cfg_scale": 12.0, "seeds": (4,), "negative_prompt": "blue"},
    {"sampler": "DPM++ 2M", "scheduler": "Uniform", "cfg_scale": 2.0, "seeds": (5,)},
    {"sampler": "Euler a", "cfg_scale": 9.0, "seeds": (6,), "prompt": "a (green:1.3) star"},
    {"sampler": "Euler", "scheduler": "Karras", "cfg_scale": 4.0, "seeds": (7,)},
    {"sampler": "Euler a", "scheduler": "Karras", "cfg_scale": 6.0, "seeds": (8,)},
]


def test_eight_mixed_requests_of_twenty_steps_cost_at_most_thirty_forwards(make: Make, count: Count) -> None:
    engine = make()
    engine.submit(part(steps=1)).result(PATIENCE)
    count.rows.clear()
    handles = [engine.submit(part(steps=20, **each)) for each in MIXED]
    for handle in handles:
        assert len(handle.result(PATIENCE).pictures) == 1
    assert len(count.rows) <= 30
    assert max(count.rows) == 16
    assert sum(count.rows) == 8 * 2 * 20


def test_a_batch_member_equals_the_single_picture(make: Make) -> None:
    engine = make()
    alone = [pixels(engine.submit(part(**each)))[0] for each in MIXED]
    together = [engine.submit(part(**each)) for each in MIXED]
    for single, handle in zip(alone, together, strict=True):
        difference = np.abs(single.astype(int) - pixels(handle)[0].astype(int))
        assert difference.max() <= 1


def test_a_batch_of_three_seeds_is_the_three_single_pictures(make: Make) -> None:
    engine = make()
    batch = pixels(engine.submit(part(seeds=(5, 6, 7), subseeds=(0, 0, 0))))
    for seed, member in zip((5, 6, 7), batch, strict=True):
        single = pixels(engine.submit(part(seeds=(seed,))))[0]
        assert np.abs(single.astype(int) - member.astype(int)).max() <= 1
    assert not np.array_equal(batch[0], batch[1])


def test_the_same_part_gives_the_same_pixels_again(make: Make) -> None:
    engine = make()
    assert np.array_equal(pixels(engine.submit(part()))[0], pixels(engine.submit(part()))[0])


def test_at_cfg_1_the_negative_prompt_is_not_evaluated(make: Make, count: Count) -> None:
    engine = make()
    engine.submit(part(cfg_scale=1.0)).result(PATIENCE)
    assert set(count.rows) == {1}


def test_two_checkpoints_asked_for_by_turns_change_weights_at_most_six_times_in_a_hundred_steps(
    make: Make,
) -> None:
    engine = make(slots=1)
    handles = [
        engine.submit(part(name, steps=10, seeds=(seed,))) for seed in range(5) for name in ("one", "two")
    ]
    found = [pixels(handle)[0] for handle in handles]
    assert engine.status().weight_changes <= 6
    assert not np.array_equal(found[0], found[1])
    again = pixels(engine.submit(part("one", steps=10, seeds=(0,))))[0]
    assert np.abs(again.astype(int) - found[0].astype(int)).max() <= 1


def test_the_status_names_the_weights_that_are_hot(make: Make) -> None:
    engine = make()
    engine.submit(part("two")).result(PATIENCE)
    status = engine.status()
    assert status.hot == [reference("two").blob_sha256]
    assert status.forwards >= 4
    assert status.memory_used > 0


def test_large_rows_come_few_at_a_time_on_a_processor_and_those_of_a_picture_together(
    make: Make, count: Count, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert device.Device().rows_together(64, 64) == 2, (
        "a click waits for two rows of 512 x 512 pixels at most"
    )
    monkeypatch.setattr(device, "_MOST_ELEMENTS", 8 * 8 * 8)
    engine = make()
    asked = [part(seeds=(seed,), steps=12) for seed in range(6)]
    together = [handle.result(PATIENCE).pictures[0].pixels for handle in [engine.submit(a) for a in asked]]
    assert max(count.rows) == 8 and sum(count.rows) == 144
    count.rows.clear()
    engine.submit(part(width=256, height=256, steps=1)).result(PATIENCE)
    assert count.rows == [2], "a picture made alone is always made in the same way"
    alone = engine.submit(asked[5]).result(PATIENCE).pictures[0].pixels
    assert np.abs(alone.astype(int) - together[5].astype(int)).max() <= 1


def begun(handle: PartHandle) -> EngineProgress:
    return eventually(lambda: handle.progress() if handle.progress().step >= 1 else None, within=60)


def test_stop_now_keeps_the_current_picture_as_it_stands(make: Make) -> None:
    engine = make()
    handle = engine.submit(part(steps=150, seeds=(1, 2), subseeds=(0, 0)))
    begun(handle)
    handle.act(Action.STOP_NOW)
    result = handle.result(PATIENCE)
    assert result.stopped
    assert result.pictures
    assert not any(picture.complete for picture in result.pictures)


def test_cancel_discards(make: Make) -> None:
    engine = make()
    handle = engine.submit(part(steps=150))
    begun(handle)
    handle.act(Action.CANCEL)
    assert handle.result(PATIENCE).pictures == []


def test_finish_current_lets_the_running_pictures_end(make: Make) -> None:
    engine = make()
    handle = engine.submit(part(steps=30))
    begun(handle)
    handle.act(Action.FINISH_CURRENT)
    assert [picture.complete for picture in handle.result(PATIENCE).pictures] == [True]


def test_progress_counts_steps_and_gives_a_preview(make: Make) -> None:
    engine = make()
    handle = engine.submit(part(steps=150))
    progress = begun(handle)
    seen = eventually(lambda: [handle.preview()] if handle.preview() is not None else [], within=60)
    preview = seen[0]
    assert preview is not None
    assert (progress.steps, progress.pictures) == (150, 1)
    assert preview.dtype == np.uint8
    assert preview.shape[2] == 3
    handle.act(Action.CANCEL)
    handle.result(PATIENCE)


def test_clip_skip_changes_the_picture(make: Make) -> None:
    engine = make()
    skipped = part(settings=EngineSettings(randn_source="CPU", clip_skip=2))
    assert not np.array_equal(pixels(engine.submit(part()))[0], pixels(engine.submit(skipped))[0])


@pytest.mark.parametrize("size", [(64, 128), (72, 104), (70, 90)])
def test_other_sizes_come_out_in_whole_latent_pixels(make: Make, size: tuple[int, int]) -> None:
    width, height = size
    (picture,) = pixels(make().submit(part(width=width, height=height)))
    assert picture.shape == (height // 8 * 8, width // 8 * 8, 3)


def test_a_picture_that_does_not_fit_is_refused_with_what_would(make: Make) -> None:
    engine = make(memory_bytes=300 * 2**20)
    with pytest.raises(OutOfMemory) as caught:
        engine.submit(part(width=2048, height=2048)).result(PATIENCE)
    assert "x" in caught.value.message
    assert len(pixels(engine.submit(part()))) == 1


def test_an_unknown_sampler_is_refused_by_name(make: Make) -> None:
    with pytest.raises(UnknownName, match="nope"):
        make().submit(part(sampler="nope"))


def test_a_damaged_file_fails_its_own_part_alone_and_is_named(files: dict[str, Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(files["one"].read_bytes()[:100_000])
    places = {"broken": broken, "one": files["one"]}
    engine = Engine(lambda ref: ModelFile(places[ref.name], None))
    engine.start()
    try:
        good, bad = engine.submit(part()), engine.submit(part("broken"))
        with pytest.raises(ModelUnusable, match=r"broken\.safetensors"):
            bad.result(PATIENCE)
        assert len(pixels(good)) == 1
    finally:
        engine.close(30.0)


def test_closing_finishes_what_was_taken_and_takes_nothing_more(make: Make) -> None:
    engine = make()
    handle = engine.submit(part(steps=8))
    closer = threading.Thread(target=engine.close, args=(60.0,))
    closer.start()
    assert len(pixels(handle)) == 1
    closer.join(60)
    with pytest.raises(AtelierError) as caught:
        engine.submit(part())
    assert isinstance(caught.value, WorkerUnavailable)
    assert caught.value.retryable
