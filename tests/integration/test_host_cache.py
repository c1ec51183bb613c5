"""Model files in host memory: read once, bounded, never lost while somebody works with them, read ahead."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from atelier.contract.errors import ModelUnusable
from atelier.contract.models import ModelRef
from atelier.contract.parts import Action
from tests.engine_parts import part
from tests.narrow import twin
from tests.waiting import eventually
from workers.engine import Engine, ModelFile
from workers.engine.host_cache import HostCache

PATIENCE = 120.0


class File:
    """Something of a size."""

    def __init__(self, size: int) -> None:
        self.size = size


class Disk:
    """Reads, counted by key; a key in `broken` cannot be read."""

    def __init__(self) -> None:
        self.reads: list[str] = []
        self.broken: set[str] = set()

    def read(self, key: str, size: int = 10) -> File:
        self.reads.append(key)
        if key in self.broken:
            raise ModelUnusable(f"{key} cannot be read.")
        return File(size)


def test_the_least_recently_used_makes_room_and_one_alone_may_exceed_the_bound() -> None:
    cache, disk = HostCache(25), Disk()
    for key in ("a", "b", "a", "c"):
        cache.get(key, lambda key=key: disk.read(key))  # type: ignore[misc]
    assert cache.keys == ["a", "c"]
    assert cache.size == 20
    cache.get("large", lambda: disk.read("large", 100))
    assert cache.keys == ["large"]
    assert disk.reads == ["a", "b", "c", "large"]


def test_what_is_in_use_is_found_again_without_reading_after_it_had_to_make_room() -> None:
    cache, disk = HostCache(10), Disk()
    in_use = cache.get("a", lambda: disk.read("a"))
    cache.get("b", lambda: disk.read("b"))
    assert cache.keys == ["b"]
    assert cache.size == 20
    assert cache.get("a", lambda: disk.read("a")) is in_use
    del in_use
    cache.get("b", lambda: disk.read("b"))
    gc.collect()
    assert cache.size == 10
    cache.get("a", lambda: disk.read("a"))
    assert disk.reads == ["a", "b", "b", "a"]


def test_a_failed_reading_leaves_nothing_behind() -> None:
    cache, disk = HostCache(100), Disk()
    disk.broken.add("a")
    with pytest.raises(ModelUnusable):
        cache.get("a", lambda: disk.read("a"))
    assert cache.size == 0
    disk.broken.clear()
    assert cache.get("a", lambda: disk.read("a")).size == 10


def test_who_wants_the_same_key_waits_for_one_reading_and_others_do_not() -> None:
    cache, disk, go = HostCache(100), Disk(), threading.Event()

    def slowly() -> File:
        assert go.wait(PATIENCE)
        return disk.read("a")

    with ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(cache.get, "a", slowly) for _ in range(4)]
        assert cache.get("b", lambda: disk.read("b")).size == 10
        go.set()
        assert len({id(each.result(PATIENCE)) for each in waiting}) == 1
    assert sorted(disk.reads) == ["a", "b"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("checkpoints")
    made = {"one": twin("sd1", seed=1), "two": twin("sd1", seed=3)}
    return {name: each.save(place / f"{name}.safetensors") for name, each in made.items()}


def test_a_queued_parts_checkpoint_is_read_while_another_part_runs(files: dict[str, Path]) -> None:
    opened: list[str] = []

    def open_model(ref: ModelRef) -> ModelFile:
        opened.append(ref.name)
        return ModelFile(files[ref.name])

    engine = Engine(open_model)
    engine.start()
    first = engine.submit(part("one", steps=150))
    eventually(lambda: first.progress().step >= 1)
    before = engine.status().memory_used
    second = engine.submit(part("two", width=128, height=128))
    eventually(lambda: engine.status().memory_used > before)
    assert opened == ["one", "two"]
    assert not first.done()
    first.act(Action.CANCEL)
    assert second.result(PATIENCE).pictures
    engine.close(30.0)
